//! The suite on `ucx`, within one process: cma reaches its own process as it reaches another.
//!
//! What only a second process can show (its death, its being stopped) is in `tests/ucx.rs`.

use baton::config::Environment;
use baton::fabric::ucx::{UcxConfig, UcxFabric};
use baton::fabric::{Fabric, Link};
use ucx_sys::{Library, Version};

use crate::harness::{Harness, Skip};

/// The oldest UCX that puts natively between processes of one host.
const OLDEST_NATIVE: Version = Version { major: 1, minor: 16, release: 0 };

struct Ucx(UcxConfig);

impl Harness for Ucx {
    /// The kernel copies into the peer's *process*: with the fabric dropped, the memory that it had registered is
    /// still there, and a put arrives in it (measured; deregistering does not revoke either). So what a put can
    /// notice is the end of the process, which `tests/ucx.rs` shows; that an agent closes inside a living process
    /// is told by its control stream.
    const NOTICES_DROPPED_PEERS: bool = false;

    /// Skips by what is seen of the machine without the fabric, so that a fabric that wrongly refuses a good UCX
    /// fails the suite.
    fn set_up() -> Result<Self, Skip> {
        let library =
            Environment::from_process().setting("BATON_UCX_LIBRARY").expect("UTF-8").map(Into::into);
        let config = UcxConfig { library, user_tls: None };
        let found = Library::open(config.library.as_deref()).map_err(|error| Skip(error.to_string()))?;
        if found.version() < OLDEST_NATIVE {
            let hint = "scripts/install-ucx.sh finds or fetches one, BATON_UCX_LIBRARY names it";
            return Err(Skip(format!("{found:?} is older than {OLDEST_NATIVE}; {hint}")));
        }
        match forbidden() {
            Some(error) => Err(Skip(format!("this machine forbids process_vm_writev: {error}"))),
            None => Ok(Self(config)),
        }
    }

    fn open(&self) -> Box<dyn Fabric> {
        Box::new(UcxFabric::open(self.0.clone()).expect("a UCX that is new enough opens"))
    }

    fn bad_links(&self, good: &Link) -> Vec<(&'static str, Link)> {
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut link = good.clone();
            change(&mut link.address);
            link
        };
        vec![
            ("an empty address", with(&Vec::clear)),
            ("half an address", with(&|address| address.truncate(address.len() / 2))),
            ("an address with a byte too many", with(&|address| address.push(0))),
            ("an address of another version", with(&|address| address[4] ^= 1)),
            ("a damaged address", with(&|address| *address.last_mut().expect("not empty") ^= 1)),
            ("noise instead of an address", with(&|address| address.fill(0xA5))),
        ]
    }
}

/// Why this process may not even write to itself, if so.
fn forbidden() -> Option<std::io::Error> {
    let (mut from, mut to) = (7_u8, 0_u8);
    let iovec = |byte: &mut u8| libc::iovec { iov_base: std::ptr::from_mut(byte).cast(), iov_len: 1 };
    let (local, remote) = (iovec(&mut from), iovec(&mut to));
    // SAFETY: both vectors have one entry, for a byte that lives through the call; the target is this process.
    let written = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
    if written == 1 { None } else { Some(std::io::Error::last_os_error()) }
}

conformance!(in_process, Ucx);
