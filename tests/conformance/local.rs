//! The suite on `local`: within one process, which `process_vm_readv` allows everywhere.

use baton::fabric::local::{LocalConfig, LocalFabric};
use baton::fabric::{Credentials, Fabric, Link};

use crate::harness::{Harness, Skip, own_credentials};

mod processes;

struct Local;

impl Harness for Local {
    fn set_up() -> Result<Self, Skip> {
        Ok(Self)
    }

    fn open(&self) -> Box<dyn Fabric> {
        Box::new(LocalFabric::open(LocalConfig::default()).expect("needs nothing"))
    }

    fn bad_links(&self, good: &Link) -> Vec<(&'static str, Link)> {
        let with = |change: &dyn Fn(&mut Link)| {
            let mut link = good.clone();
            change(&mut link);
            link
        };
        let own = own_credentials();
        vec![
            ("an empty address", with(&|link| link.address.clear())),
            ("half an address", with(&|link| link.address.truncate(20))),
            ("an address with a byte too many", with(&|link| link.address.push(0))),
            ("another nonce", with(&|link| link.address[39] ^= 1)),
            ("a nonce elsewhere", with(&|link| link.address[0] ^= 8)),
            ("a nonce where no memory is", with(&|link| link.address[..8].fill(0))),
            ("no credentials", with(&|link| link.credentials = None)),
            ("an invisible process", with(&|link| link.credentials = Some(Credentials { pid: 0, ..own }))),
            ("a negative pid", with(&|link| link.credentials = Some(Credentials { pid: -1, ..own }))),
            ("no such process", with(&|link| link.credentials = Some(Credentials { pid: i32::MAX, ..own }))),
            ("another user", with(&|link| link.credentials = Some(Credentials { uid: own.uid + 1, ..own }))),
            ("another process", with(&|link| link.credentials = Some(Credentials { pid: 1, ..own }))),
        ]
    }
}

conformance!(in_process, Local);
