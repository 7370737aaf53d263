//! The GPU of the suite: the first one of the driver that `BATON_CUDA_LIBRARY` names, a real one on a machine that has
//! one; else the stand-in of `tests/fake_cuda`.

use std::path::PathBuf;

use baton::config::Environment;
use baton::device::{Cuda, DeviceBuffer, DeviceConfig};

use crate::harness::Skip;

fn named_driver() -> Option<PathBuf> {
    let environment = Environment::from_process();
    environment.setting("BATON_CUDA_LIBRARY").expect("UTF-8").map(Into::into)
}

/// Whether it is the stand-in, which has settings.
pub fn is_fake() -> bool {
    named_driver().is_none()
}

/// The driver; all of this process have one.
pub fn cuda() -> Result<&'static Cuda, Skip> {
    let library = named_driver().unwrap_or_else(fake_cuda::library);
    Cuda::open(&DeviceConfig { library: Some(library) })
        .map_err(|error| Skip(format!("no GPU memory: {error}")))
}

/// `len` bytes of the first device.
pub fn memory(len: usize) -> DeviceBuffer {
    let Ok(cuda) = cuda() else { panic!("the set-up has seen that there is a driver") };
    cuda.device(0).and_then(|device| device.alloc(len)).expect("device memory")
}
