//! Loading a peer: fetch its blob if need be, dial it, wait for the handshake. Runs on the caller's thread.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::desc::{MemoryKind, PeerKey, SessionId};
use crate::proto::blob::Blob;
use crate::proto::endpoint::{CROSSED, KEY_WANTED, PEERS_MAX, Standing};
use crate::proto::section::{Endpoint, Section};
use crate::trust::{Secret, TrustError};

use super::address::parse_connection_info;
use super::control::ControlStream;
use super::core::Core;
use super::foreign::Told;
use super::open::{random, uses_unix};
use super::seal::{open_blob, shake_hands};
use super::sockets::{FetchError, dial, fetch_blob};
use super::{Agent, LoadError};

/// How long a load waits for the peer's stream before it dials again.
const GIVE_WAY: Duration = Duration::from_millis(50);

/// Names that are being loaded, so that two threads never dial the same peer at once.
#[derive(Debug, Default)]
pub(super) struct Loading {
    names: Mutex<HashSet<String>>,
    freed: Condvar,
    /// Sides without Baton that the log knows of.
    told: Mutex<Told>,
}

struct Turn<'a> {
    loading: &'a Loading,
    name: &'a str,
}

impl Agent {
    /// Loads a peer from its blob: connects, shakes hands, agrees on a lane. Returns once transfers can
    /// flow. Loading a peer that is loaded already costs nothing; a blob of a newer agent of the same name
    /// fences the older one off.
    pub fn load_blob(&self, peer: &str, blob: &[u8]) -> Result<(), LoadError> {
        self.check_running()?;
        let _span = tracing::info_span!("load", agent = self.name(), peer).entered();
        let name = || peer.to_owned();
        let (blob, verdict) = open_blob(blob, self.secret())
            .map_err(|source| self.loading.logged(self.name(), LoadError::Blob { peer: name(), source }))?;
        if blob.name != peer {
            return Err(LoadError::OtherName { peer: name(), found: blob.name });
        }
        verdict.map_err(|source| LoadError::Trust { peer: name(), source })?;
        if peer == self.name() {
            return Err(LoadError::Oneself { peer: name() });
        }
        let deadline = Instant::now() + self.shared.settings.connect_timeout;
        let _turn = self.loading.take_turn(peer, deadline).ok_or_else(|| self.load_timeout(peer))?;
        loop {
            let standing = {
                let mut core = self.engine_core()?;
                let standing = core.endpoint.standing_of(peer, blob.section.session);
                core.drive(Instant::now());
                standing
            };
            let key = match standing {
                // What was up may have been given up by the peer before now: then it is dialed anew.
                Standing::Up(key) if self.finish_load(peer, key)? => return Ok(()),
                Standing::Up(key) | Standing::Connecting(key) => key,
                Standing::Absent => self.dial_peer(peer, &blob.section, deadline)?,
            };
            let session = blob.section.session;
            match self.await_up(peer, session, key, deadline)? {
                Some(reason) if reason == KEY_WANTED => {
                    return Err(LoadError::Trust { peer: name(), source: TrustError::KeyWanted });
                }
                Some(reason) if reason != CROSSED => {
                    return Err(LoadError::Refused { peer: name(), reason });
                }
                _ if Instant::now() >= deadline => return Err(self.load_timeout(peer)),
                _ => self.give_way(peer, session, deadline),
            }
        }
    }

    /// Our stream gave way to one that the peer knows of: waits a moment for that one. It may also be one that
    /// the peer has yet to find dead, and dialing on and on would not make it do so sooner.
    fn give_way(&self, peer: &str, session: SessionId, deadline: Instant) {
        let deadline = deadline.min(Instant::now() + GIVE_WAY);
        self.shared.wait_for(deadline, |core| core.endpoint.standing_of(peer, session) != Standing::Absent);
    }

    /// Loads a peer from `ip:port`: fetches its blob from its listener, then as [`Agent::load_blob`].
    pub fn load_from(&self, peer: &str, connection_info: &str) -> Result<(), LoadError> {
        self.check_running()?;
        let address = parse_connection_info(connection_info)
            .map_err(|source| LoadError::Address { peer: peer.into(), source })?;
        let deadline = Instant::now() + self.shared.settings.connect_timeout;
        let blob = self.fetch(peer, address, deadline)?;
        self.load_blob(peer, &blob)
    }

    /// Loads whoever listens at `ip:port`, as [`Agent::load_from`], and returns its name.
    pub fn load_at(&self, connection_info: &str) -> Result<String, LoadError> {
        self.check_running()?;
        let address = parse_connection_info(connection_info)
            .map_err(|source| LoadError::Address { peer: connection_info.into(), source })?;
        let deadline = Instant::now() + self.shared.settings.connect_timeout;
        let bytes = self.fetch(connection_info, address, deadline)?;
        let decoded = Blob::decode(&bytes); // whether it is to be trusted is for load_blob to say
        let failed = |source| LoadError::Blob { peer: connection_info.into(), source };
        let name = decoded.map_err(|source| self.loading.logged(self.name(), failed(source)))?.name;
        self.load_blob(&name, &bytes).map(|()| name)
    }

    fn fetch(&self, peer: &str, address: SocketAddr, deadline: Instant) -> Result<Vec<u8>, LoadError> {
        let peer = || peer.to_owned();
        fetch_blob(address, self.name(), self.secret(), deadline).map_err(|error| match error {
            FetchError::Foreign(foreign) => {
                self.loading.logged(self.name(), LoadError::Foreign { peer: peer(), address, foreign })
            }
            FetchError::Trust(source) => LoadError::Trust { peer: peer(), source },
            FetchError::Io(error) => LoadError::Fetch { peer: peer(), address, reason: error.to_string() },
        })
    }

    /// Tries the peer's endpoints in order, and hands the first socket to the engine.
    fn dial_peer(&self, peer: &str, section: &Section, deadline: Instant) -> Result<PeerKey, LoadError> {
        let system = |what| move |source| LoadError::System { peer: peer.into(), what, source };
        let has_room = |core: &Core| match core.endpoint.peers().count() < PEERS_MAX {
            true => Ok(()),
            false => Err(LoadError::TooMany { peer: peer.into() }),
        };
        has_room(&*self.running_core()?)?;
        let stream = self.dial_endpoints(peer, section, deadline)?;
        let random = random().map_err(system("random bytes"))?;
        let mut core = self.running_core()?;
        has_room(&core)?; // others may have come while nobody held the lock
        let now = Instant::now();
        let key = core.endpoint.open_dialed(peer, section.session, random, now);
        core.adopt(key, stream).map_err(system("watching its socket"))?;
        core.farewells.insert(key, None);
        core.drive(now);
        drop(core);
        self.shared.wake();
        Ok(key)
    }

    /// The first endpoint that answers; with a key, one that has shown it. A side that has another one is not asked
    /// again by another way.
    fn dial_endpoints(
        &self,
        peer: &str,
        section: &Section,
        deadline: Instant,
    ) -> Result<ControlStream, LoadError> {
        let host = self.engine_core()?.endpoint.identity().section.host;
        let same_host = section.host == host && uses_unix(&self.shared.settings);
        let mut attempts = Vec::new();
        for endpoint in &section.endpoints {
            if matches!(endpoint, Endpoint::UnixAbstract(_)) && !same_host {
                continue;
            }
            match self.dial_endpoint(endpoint, deadline) {
                Ok(stream) => return Ok(stream),
                Err(FetchError::Trust(source)) => return Err(LoadError::Trust { peer: peer.into(), source }),
                Err(error) => attempts.push(format!("{endpoint}: {error}")),
            }
        }
        let attempts = if attempts.is_empty() { "it names no endpoint".into() } else { attempts.join("; ") };
        Err(LoadError::Unreachable { peer: peer.into(), attempts })
    }

    fn dial_endpoint(&self, endpoint: &Endpoint, deadline: Instant) -> Result<ControlStream, FetchError> {
        let secret = self.secret();
        let mut stream = ControlStream::new(dial(endpoint, secret.is_some(), deadline)?);
        if let Some(secret) = secret {
            shake_hands(&mut stream, &[], secret, deadline)?;
        }
        Ok(stream)
    }

    /// The key that peers must have, if any.
    fn secret(&self) -> Option<&Secret> {
        self.shared.settings.secret.as_deref()
    }

    /// Waits until this instance of the peer is up, or its stream is gone: then the reason is returned.
    fn await_up(
        &self,
        peer: &str,
        session: SessionId,
        key: PeerKey,
        deadline: Instant,
    ) -> Result<Option<String>, LoadError> {
        let is_gone = |core: &Core| core.endpoint.peer(key).is_none();
        let is_up = |core: &Core| matches!(core.endpoint.standing_of(peer, session), Standing::Up(_));
        self.shared.wait_for(deadline, |core| is_gone(core) || is_up(core));
        let mut core = self.engine_core()?;
        let dialed = core.farewells.remove(&key);
        match () {
            () if is_gone(&core) => Ok(Some(dialed.flatten().unwrap_or_else(|| CROSSED.into()))),
            () if is_up(&core) => Ok(None),
            () => {
                // Half a handshake may come to half a link once the network is whole again: the next load begins anew.
                if dialed.is_some() {
                    core.attempt(|core| core.let_go(key, "the load that dialed it waited no longer"));
                    core.drive(Instant::now());
                }
                Err(self.load_timeout(peer))
            }
        }
    }

    /// Takes a peer that is up for loaded; false where it has left again.
    fn finish_load(&self, name: &str, key: PeerKey) -> Result<bool, LoadError> {
        let mut core = self.engine_core()?;
        let Some(peer) = core.endpoint.peer(key) else { return Ok(false) };
        let reasons = peer.lanes().reasons(core.endpoint.lanes());
        let dram = core.carrier(key, [MemoryKind::Dram; 2]);
        let vram = core.carrier(key, [MemoryKind::Vram; 2]);
        let mixed = core.carrier(key, [MemoryKind::Dram, MemoryKind::Vram]);
        let Some(lane) = dram.or(vram) else {
            core.endpoint.invalidate(name);
            core.drive(Instant::now());
            // It would be in the way of the next load, which may find a lane.
            core.attempt(|core| core.let_go(key, "no lane in common"));
            let parts = [reasons, self.shared.unavailable.clone()];
            let reasons = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
            return Err(LoadError::NoLane { peer: name.into(), reasons });
        };
        let gathers_below = core.endpoint.gathers_below(key);
        let agent = self.name();
        tracing::info!(agent, peer = name, lane, vram, mixed, gathers_below, reason = reasons, "peer loaded");
        core.endpoint.mark_loaded(key);
        core.drive(Instant::now());
        drop(core);
        self.check_engine()?;
        Ok(true)
    }

    fn load_timeout(&self, peer: &str) -> LoadError {
        let limit_ms = self.shared.settings.connect_timeout.as_millis();
        LoadError::Timeout { peer: peer.into(), limit_ms }
    }
}

impl Loading {
    /// Waits until nobody else loads this name; `None` at the deadline.
    fn take_turn<'a>(&'a self, name: &'a str, deadline: Instant) -> Option<Turn<'a>> {
        let mut names = self.names.lock();
        while names.contains(name) {
            if self.freed.wait_until(&mut names, deadline).timed_out() {
                return None;
            }
        }
        names.insert(name.to_owned());
        Some(Turn { loading: self, name })
    }

    /// Logs an error that means a mixed pair, once for each text: the operator of one side may never see
    /// what its host does with it.
    fn logged(&self, agent: &str, error: LoadError) -> LoadError {
        if error.is_mixed_pair() && self.told.lock().first_time(error.to_string()) {
            tracing::error!(agent, "{error}");
        }
        error
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.loading.names.lock().remove(self.name);
        self.loading.freed.notify_all();
    }
}
