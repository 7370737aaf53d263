//! Opening the fabric, and the proof that UCX's puts are native here before anybody hears of it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use ucx_sys::{Found, Library};

use super::engine::Engine;
use super::kinds::Kinds;
use super::lanes::Choice;
use super::memory::Local;
use super::probe::ProbeArea;
use super::slab::Slab;
use super::{NAME, UcxConfig, UcxFabric, lanes, link, wire};
use crate::desc::{MemoryKind, PeerKey};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::trial::Verdict;
use crate::fabric::{Bell, Fabric, Link};

/// Descriptors that must be free: what UCX opens for two workers, and as much again.
const DESCRIPTORS: u64 = 48;
/// The key under which a fabric connects to itself when it is opened. No agent gives it.
const SELF: PeerKey = PeerKey(u32::MAX);

impl UcxFabric {
    /// Opens UCX and proves, against itself, that its puts are native here. `Unsupported` where there is no
    /// UCX, or none that can do it; the detail says what to install or set.
    pub fn open(config: UcxConfig) -> Result<Self, FabricError> {
        let choice = lanes::cut(config.user_tls.as_deref()).map_err(unsupported)?;
        let library = Library::open(config.library.as_deref()).map_err(|error| {
            unsupported(format!(
                "{error}; install UCX 1.16 or newer or point BATON_UCX_LIBRARY at its libucp.so.0"
            ))
        })?;
        let (version, path) = (library.version(), library.path().to_owned());
        require_descriptors()?;
        if let (Found::AlreadyLoaded, Some(wanted)) = (library.found(), &config.library) {
            tracing::debug!(wanted = %wanted.display(), "ucx: the process has a libucp loaded, which is used");
        }
        let mut fabric = Self::assemble(Engine::open(library, &choice.tls)?, &choice)?;
        fabric.prove_itself().map_err(|error| {
            let detail = format!("UCX {version} ({}): {}", path.display(), error.detail);
            FabricError { call: "open", detail, ..error }
        })?;
        tracing::info!(%version, path = %path.display(), tls = choice.tls, "ucx: opened");
        Ok(fabric)
    }

    /// The library that serves: its version and its file.
    pub fn library(&self) -> String {
        let library = self.engine.library();
        format!("UCX {} ({})", library.version(), library.path().display())
    }

    /// Why GPU memory does not go over it, if it does not.
    pub fn without_vram(&self) -> Option<&str> {
        self.kinds.without_vram()
    }

    fn assemble(engine: Engine, choice: &Choice) -> Result<Self, FabricError> {
        let types = engine.context().memory_types()?;
        let kinds = Kinds::of(engine.library().version(), &choice.tls, choice.kinds, types);
        let area = ProbeArea::of_process()?;
        let probe = engine.context().map(area.span(), MemoryKind::Dram)?;
        let address = wire::Address {
            worker: engine.address()?,
            probe_key: probe.pack()?,
            probe_addr: area.span().addr,
            nonce: area.nonce(),
        };
        let local = Local::new(Arc::clone(engine.context()), kinds.clone());
        Ok(Self {
            engine,
            kinds,
            address: address.encode(),
            _probe: probe,
            local,
            peers: HashMap::new(),
            operations: Slab::new(),
            outcomes: VecDeque::new(),
            events: Vec::new(),
            bell: Bell::new().map_err(no_bell)?,
        })
    }

    /// Connects to its own passive worker, which nobody progresses: what completes is native.
    fn prove_itself(&mut self) -> Result<(), FabricError> {
        self.start_link(
            SELF,
            Link { address: self.address.clone(), link_id: [0; 16], credentials: None, keys: None },
        );
        let mut verdict = Verdict(None);
        let (mut idle_since, mut idle_steps) = (Instant::now(), 0);
        while verdict.0.is_none() {
            if self.poll(u64::MAX, &mut verdict) {
                (idle_since, idle_steps) = (Instant::now(), 0);
                continue;
            }
            idle_steps += 1;
            if idle_steps > link::STUCK_AFTER.1 && idle_since.elapsed() > link::STUCK_AFTER.0 {
                // Let the emulation run out on our own probe area, so that nothing is left unfinished.
                for _ in 0..link::STUCK_AFTER.1 {
                    self.engine.progress_passive();
                    self.engine.progress();
                    self.absorb();
                }
                self.outcomes.clear();
                verdict.0 = Some(Err(link::not_native(self.lanes_to(SELF))));
            }
        }
        self.end_link(SELF);
        verdict.0.unwrap_or(Ok(()))
    }
}

/// UCX ends the process where it runs out of descriptors while it starts.
fn require_descriptors() -> Result<(), FabricError> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Without one for the look itself there is none.
    let used = std::fs::read_dir("/proc/self/fd").map_or(limit, |entries| entries.count() as u64);
    if limit.saturating_sub(used) >= DESCRIPTORS {
        return Ok(());
    }
    let detail =
        format!("{used} of {limit} descriptors are in use, and UCX wants {DESCRIPTORS}: raise `ulimit -n`");
    Err(FabricError::new(NAME, "open", FabricErrorKind::NoResource, 0, detail))
}

fn unsupported(detail: String) -> FabricError {
    FabricError::new(NAME, "open", FabricErrorKind::Unsupported, 0, detail)
}

fn no_bell(errno: Errno) -> FabricError {
    FabricError::new(NAME, "eventfd", FabricErrorKind::NoResource, errno.raw_os_error(), errno.to_string())
}

#[cfg(test)]
mod tests {
    use ucx_sys::bindings::UCS_ERR_CANCELED;

    use super::super::engine::Started;
    use super::super::kinds;
    use super::super::memory::Scratch;
    use super::super::slab::Ticket;
    use super::*;
    use crate::desc::TransferOp;

    /// What a link to a peer behind other lanes than our own comes to: here both sides skip the proof against
    /// themselves, with a UCX that emulates (1.13 has no native lane at all, 1.14 and 1.15 do not use theirs).
    #[test]
    fn an_emulated_link_is_refused_and_leaves_a_fabric_that_drops() {
        let name = "an_emulated_link_is_refused_and_leaves_a_fabric_that_drops";
        let open = || {
            let library = Library::open(None).map_err(|error| unsupported(error.to_string()))?;
            let choice = lanes::cut(None).map_err(unsupported)?;
            UcxFabric::assemble(Engine::open(library, &choice.tls)?, &choice)
        };
        let (mut near, mut far) = match (open(), open()) {
            (Ok(near), Ok(far)) => (near, far),
            (Err(error), _) | (_, Err(error)) => return println!("skipped: {name} ({error})"),
        };
        if far.prove_itself().is_ok() {
            return println!("skipped: {name} (this UCX is native here)");
        }
        let peer = PeerKey(1);
        near.connect(peer, Link { address: far.address(), link_id: [0; 16], credentials: None, keys: None });
        let mut verdict = Verdict(None);
        let end = Instant::now() + std::time::Duration::from_secs(20);
        while verdict.0.is_none() {
            assert!(Instant::now() < end, "no outcome");
            near.poll(1 << 20, &mut verdict);
        }
        let error = verdict.0.and_then(Result::err).expect("refused");
        assert_eq!(error.kind, FabricErrorKind::Unsupported, "{error}");
        near.disconnect(peer);
        drop(near);
    }

    /// In a process of its own: a process has one UCX, and the test above wants the system's.
    #[test]
    fn ucx_itself_refuses_what_it_would_emulate() {
        let child = "fabric::ucx::open::tests::refusing_process";
        let out = std::process::Command::new("/proc/self/exe")
            .args(["--exact", child, "--ignored", "--nocapture"])
            .output()
            .expect("the same program starts again");
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
        said.lines().filter(|line| line.starts_with("skipped")).for_each(|line| println!("{line}"));
    }

    /// Not a test: the process of the test above.
    #[test]
    #[ignore = "the other process of the test above"]
    fn refusing_process() {
        let environment = crate::config::Environment::from_process();
        let named = environment.setting("BATON_UCX_LIBRARY").expect("UTF-8");
        let skipped = |why: String| println!("\nskipped: ucx_itself_refuses_what_it_would_emulate ({why})");
        let library = match Library::open(named.map(std::path::PathBuf::from).as_deref()) {
            Ok(library) => library,
            Err(error) => return skipped(error.to_string()),
        };
        if !kinds::can_refuse_emulation(library.version()) {
            return skipped(format!("{library:?} cannot"));
        }
        let choice = Choice { tls: "posix".to_owned(), kinds: kinds::HOST };
        let engine = Engine::open(library, &choice.tls).expect("posix needs nothing");
        let mut fabric = UcxFabric::assemble(engine, &choice).expect("it opens");
        let address = wire::Address::decode(&fabric.address).expect("our own");
        let endpoint = fabric.engine.connect(&address.worker, SELF).expect("our own worker");
        let (ours, theirs) = (Scratch::new(8192).expect("memory"), Scratch::new(8192).expect("memory"));
        theirs.write(&[7; 8]);
        let mapping = fabric.engine.context().map(theirs.span(), MemoryKind::Dram).expect("it maps");
        let key = fabric.engine.unpack(&endpoint, &mapping.pack().expect("it packs")).expect("our own key");
        for (op, len) in [(TransferOp::Write, 8), (TransferOp::Write, 8192), (TransferOp::Read, 8)] {
            let local = ours.vouch(0, len).expect("inside");
            let started = fabric.engine.copy(&endpoint, &key, op, local, theirs.span().addr, Ticket(0));
            assert_eq!(started, Started::Failed(UCS_ERR_CANCELED), "{op:?} of {len} bytes");
        }
        fabric.engine.destroy_key(key);
        assert!(fabric.engine.close(endpoint, 10_000));
        assert_eq!((theirs.read(), ours.read()), ([7; 8], [0; 8]), "nothing has landed");
    }
}
