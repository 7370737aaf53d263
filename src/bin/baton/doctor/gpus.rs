//! The GPUs that a worker would see here: the CUDA driver, opened as the engine opens it, and its devices. No context is made
//! on any, so nothing of their memory is taken.

use std::path::Path;

use baton::config::EngineSettings;
use baton::device::{Cuda, DeviceConfig};
use serde::Serialize;

/// The CUDA driver and its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gpus {
    /// Version and file of the driver, where it has started.
    pub driver: Option<String>,
    /// Why it has not.
    pub error: Option<String>,
    /// Whether the kernel has NVIDIA's driver, started or not: a GPU is there that nobody can use without libcuda.
    pub has_kernel_driver: bool,
    /// Whether BATON_CUDA_LIBRARY names the library.
    pub library_is_named: bool,
    /// Whether there is no such library, or it is none of CUDA's.
    pub does_not_load: bool,
    /// What it sees.
    pub devices: Vec<Gpu>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its number in a process with this environment.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// What every process knows it by.
    pub uuid: String,
    /// Its place on the PCI bus.
    pub pci_bus_id: String,
}

impl Gpus {
    /// Those of this machine, as far as this process sees them.
    pub fn gather(settings: &EngineSettings) -> Self {
        let has_kernel_driver = Path::new("/dev/nvidiactl").exists();
        let library_is_named = settings.cuda_library.is_some();
        match Cuda::open(&DeviceConfig { library: settings.cuda_library.clone() }) {
            Ok(cuda) => Self {
                driver: Some(cuda.library().to_owned()),
                error: None,
                has_kernel_driver,
                library_is_named,
                does_not_load: false,
                devices: (0..cuda.device_count()).filter_map(|ordinal| gpu(cuda, ordinal)).collect(),
            },
            Err(error) => Self {
                error: Some(error.to_string()),
                has_kernel_driver,
                library_is_named,
                does_not_load: matches!(error.call, "dlopen" | "dlsym"),
                ..Self::default()
            },
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        let Some(driver) = &self.driver else { return "GPUs none".to_owned() };
        let named: Vec<_> = self
            .devices
            .iter()
            .map(|gpu| format!("{} {} ({})", gpu.ordinal, gpu.name, gpu.pci_bus_id))
            .collect();
        format!("CUDA {driver}, GPUs {}", named.join(", "))
    }
}

fn gpu(cuda: &Cuda, ordinal: u32) -> Option<Gpu> {
    let uuid = cuda.uuid(ordinal)?.iter().map(|byte| format!("{byte:02x}")).collect();
    let (name, pci_bus_id) = (cuda.name(ordinal)?.to_owned(), cuda.pci_bus_id(ordinal)?.to_owned());
    Some(Gpu { ordinal, name, uuid, pci_bus_id })
}
