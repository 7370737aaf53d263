//! The list of fabrics, in order of preference. The only place that names them all: a new fabric is added
//! here and nowhere else.

use super::Fabric;
use super::cuda::CudaFabric;
use super::local::{LocalConfig, LocalFabric};
use super::stream::{StreamConfig, StreamFabric};
use super::ucx::{UcxConfig, UcxFabric};
use crate::desc::MemoryKind;
use crate::device::Cuda;
use crate::error::{FabricError, FabricErrorKind};

pub use super::yama_scope;

/// Which fabrics to open, and how.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Same host: the destination's owner pulls.
    pub local: Option<LocalConfig>,
    /// UCX, where it has native lanes.
    pub ucx: Option<UcxConfig>,
    /// Same host, GPU memory, where there is a driver: the destination's owner maps it and copies.
    pub cuda: bool,
    /// Sockets.
    pub stream: Option<StreamConfig>,
    /// CUDA's driver, where there is one. By it sockets carry GPU memory as well.
    pub driver: Option<&'static Cuda>,
}

/// A fabric that was asked for, or why it is not to be had.
pub struct Opened {
    /// Its name.
    pub name: &'static str,
    /// The fabric.
    pub outcome: Result<Box<dyn Fabric>, FabricError>,
    /// The library that it opened at run time, with version and path, where it needs one.
    pub library: Option<String>,
}

impl Opened {
    fn without_library<F: Fabric + 'static>(name: &'static str, outcome: Result<F, FabricError>) -> Self {
        Self { name, outcome: outcome.map(boxed), library: None }
    }
}

/// Opens what `config` asks for, best first. The order is the same in every agent, so that both sides of a
/// pair agree on a lane.
pub fn open(config: RegistryConfig) -> Vec<Opened> {
    let mut opened = Vec::new();
    let driver = config.driver;
    if let Some(config) = config.local {
        opened.push(Opened::without_library("local", LocalFabric::open(config)));
    }
    if let Some(config) = config.ucx {
        let outcome = UcxFabric::open(config);
        let library = outcome.as_ref().ok().map(UcxFabric::library);
        let why = outcome.as_ref().ok().and_then(UcxFabric::without_vram);
        if let (Some(_), Some(why)) = (driver, why) {
            tracing::info!("ucx: GPU memory goes over other lanes. {why}");
        }
        opened.push(Opened { name: "ucx", outcome: outcome.map(boxed), library });
    }
    if let Some(cuda) = driver.filter(|_| config.cuda) {
        let mut cuda_fabric = Opened::without_library("cuda", CudaFabric::open(cuda));
        cuda_fabric.library = Some(cuda.library().to_owned());
        opened.push(cuda_fabric);
    }
    if let Some(config) = config.stream {
        opened.push(Opened::without_library("stream", StreamFabric::open(config, driver)));
    }
    opened
}

/// What copies memory of a kind within this process, linked to its own address: a lane of one host, by itself. So many
/// threads may copy host memory at a time.
pub fn open_copier(
    kind: MemoryKind,
    driver: Option<&'static Cuda>,
    copiers: usize,
) -> Result<Box<dyn Fabric>, FabricError> {
    match (kind, driver) {
        (MemoryKind::Vram, Some(cuda)) => CudaFabric::within(cuda).map(boxed),
        (MemoryKind::Dram, _) => {
            LocalFabric::within(LocalConfig { copiers, ..LocalConfig::default() }).map(boxed)
        }
        _ => {
            let detail = format!("nothing copies {kind} memory here");
            Err(FabricError::new("agent", "open", FabricErrorKind::Unsupported, 0, detail))
        }
    }
}

fn boxed<F: Fabric + 'static>(fabric: F) -> Box<dyn Fabric> {
    Box::new(fabric)
}
