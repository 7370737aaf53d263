//! The GPU of the suite: the first one of the driver that `BATON_CUDA_LIBRARY` names, a real one on a machine that has
//! one; else the stand-in of `tests/fake_cuda`.

use baton::device::{Cuda, DeviceBuffer, DeviceConfig};

use crate::harness::Skip;

/// The driver; all of this process have one.
pub fn cuda() -> Result<&'static Cuda, Skip> {
    Cuda::open(&DeviceConfig { library: Some(fake_cuda::driver()) })
        .map_err(|error| Skip(format!("no GPU memory: {error}")))
}

/// `len` bytes of the first device.
pub fn memory(len: usize) -> DeviceBuffer {
    let Ok(cuda) = cuda() else { panic!("the set-up has seen that there is a driver") };
    cuda.device(0).and_then(|device| device.alloc(len)).expect("device memory")
}
