//! How a link is proven: the area that peers probe, and the steps of a proof.
//!
//! First the nonce is read and compared: the memory behind the address is that of the process which announced
//! it, not of another that came to its pid. Only then is anything written there: a small and a large trial put
//! and get. Nobody progresses the worker they are aimed at, so they complete only where they are native.
#![allow(unsafe_code)]

use once_cell::sync::OnceCell;

use super::NAME;
use super::engine::RemoteKey;
use super::memory::Scratch;
use super::transfer::Piece;
use super::wire::{Address, NONCE_BYTES};
use crate::desc::{Span, TransferOp};
use crate::error::{FabricError, FabricErrorKind};

/// The area's size: nonce, then room for trial puts.
const AREA_BYTES: usize = 64 * 1024;

/// Where peers' trial puts land, behind the nonce.
const TRIAL_OFFSET: usize = 64;

/// The trials: versions that emulate anything emulate the small one, versions before 1.14 the large one too.
const TRIAL_BYTES: [usize; 2] = [8, AREA_BYTES - TRIAL_OFFSET];

/// The memory of this process that peers probe. One for the whole process and never freed: a peer that comes
/// late, with the address of a fabric that is closed, must not write into what the memory has become since.
pub(super) struct ProbeArea {
    area: Scratch,
    nonce: [u8; NONCE_BYTES],
}

// SAFETY: only its address is ever read after it is made; its bytes are other processes' to change.
unsafe impl Sync for ProbeArea {}

impl ProbeArea {
    /// The area, made the first time.
    pub fn of_process() -> Result<&'static Self, FabricError> {
        static AREA: OnceCell<ProbeArea> = OnceCell::new();
        AREA.get_or_try_init(|| {
            let area = scratch()?;
            let mut nonce = [0; NONCE_BYTES];
            getrandom::fill(&mut nonce)
                .map_err(|error| probe_error("getrandom", FabricErrorKind::Internal, &error.to_string()))?;
            area.write(&nonce);
            Ok(Self { area, nonce })
        })
    }

    pub fn span(&self) -> Span {
        self.area.span()
    }

    pub fn nonce(&self) -> [u8; NONCE_BYTES] {
        self.nonce
    }
}

/// A proof under way.
pub(super) struct Proof {
    trial: Scratch,
    remote: u64,
    nonce: [u8; NONCE_BYTES],
    key: RemoteKey,
    nonce_seen: bool,
}

impl Proof {
    /// A proof against the area that the peer announced and the key to it.
    pub fn new(address: &Address, key: RemoteKey) -> Result<Self, (FabricError, RemoteKey)> {
        if address.probe_addr.checked_add(AREA_BYTES as u64).is_none() {
            let error = probe_error("connect", FabricErrorKind::Unreachable, "the peer's probe area wraps");
            return Err((error, key));
        }
        match scratch() {
            Ok(trial) => {
                Ok(Self { trial, remote: address.probe_addr, nonce: address.nonce, key, nonce_seen: false })
            }
            Err(error) => Err((error, key)),
        }
    }

    /// The copies of the step that is due.
    pub fn pieces(&self) -> Vec<Piece> {
        let piece = |op, offset: usize, len: usize| {
            let local = self.trial.vouch(offset, len)?;
            Some(Piece { op, local, remote: self.remote + offset as u64, region: None })
        };
        if !self.nonce_seen {
            return piece(TransferOp::Read, 0, NONCE_BYTES).into_iter().collect();
        }
        let both = [TransferOp::Write, TransferOp::Read];
        let trials = TRIAL_BYTES.into_iter().flat_map(|len| both.map(|op| piece(op, TRIAL_OFFSET, len)));
        trials.flatten().collect()
    }

    /// Judges the step whose copies have arrived: whether another is due.
    pub fn advance(&mut self) -> Result<bool, FabricError> {
        if self.nonce_seen {
            return Ok(false);
        }
        if self.trial.read() != self.nonce {
            let detail = "the memory behind the peer's address is not the peer's: its process has ended, or the \
                          address is another's";
            return Err(probe_error("connect", FabricErrorKind::Unreachable, detail));
        }
        self.nonce_seen = true;
        Ok(true)
    }

    pub fn key(&self) -> &RemoteKey {
        &self.key
    }

    pub fn into_key(self) -> RemoteKey {
        self.key
    }
}

fn scratch() -> Result<Scratch, FabricError> {
    Scratch::new(AREA_BYTES)
        .ok_or_else(|| probe_error("connect", FabricErrorKind::NoResource, "no memory to probe with"))
}

fn probe_error(call: &'static str, kind: FabricErrorKind, detail: &str) -> FabricError {
    FabricError::new(NAME, call, kind, 0, detail)
}
