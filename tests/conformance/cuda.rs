//! The suite on `cuda`: within one process, where nothing has to be mapped. Between two: `cuda/processes.rs`.

use baton::desc::MemoryKind;
use baton::fabric::cuda::CudaFabric;
use baton::fabric::{Fabric, Link};

use crate::gpu;
use crate::harness::{Harness, Skip};

mod processes;

struct Cuda;

impl Harness for Cuda {
    const KINDS: [MemoryKind; 2] = [MemoryKind::Vram; 2];
    /// Memory of this process stays reachable whoever has registered it; a process that ends is noticed.
    const NOTICES_DROPPED_PEERS: bool = false;

    fn set_up() -> Result<Self, Skip> {
        gpu::cuda().map(|_| Self)
    }

    fn open(&self) -> Box<dyn Fabric> {
        let Ok(cuda) = gpu::cuda() else { panic!("the set-up has seen that there is a driver") };
        Box::new(CudaFabric::open(cuda).expect("a driver is all it needs"))
    }

    fn bad_links(&self, good: &Link) -> Vec<(&'static str, Link)> {
        let with = |change: &dyn Fn(&mut Link)| {
            let mut link = good.clone();
            change(&mut link);
            link
        };
        vec![
            ("an empty address", with(&|link| link.address.clear())),
            ("half an address", with(&|link| link.address.truncate(good.address.len() / 2))),
            ("another host's GPU", with(&|link| link.address[2..].fill(0xA5))),
            ("no process", with(&|link| link.credentials = None)),
            ("a process out of sight", with(&|link| link.credentials.iter_mut().for_each(|c| c.pid = 0))),
            (
                "a process that is gone",
                with(&|link| link.credentials.iter_mut().for_each(|c| c.pid = i32::MAX)),
            ),
            ("another user", with(&|link| link.credentials.iter_mut().for_each(|c| c.uid ^= 1 << 20))),
        ]
    }
}

conformance!(cuda, Cuda);
