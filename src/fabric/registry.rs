//! The list of fabrics, in order of preference. The only place that names them all: a new fabric is added
//! here and nowhere else.

use super::Fabric;
use super::local::{LocalConfig, LocalFabric};
use super::stream::{StreamConfig, StreamFabric};
use super::ucx::{UcxConfig, UcxFabric};
use crate::error::FabricError;

/// Which fabrics to open, and how.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Same host: the destination's owner pulls.
    pub local: Option<LocalConfig>,
    /// UCX, where it has native lanes.
    pub ucx: Option<UcxConfig>,
    /// Sockets.
    pub stream: Option<StreamConfig>,
}

/// A fabric that was asked for, or why it is not to be had.
pub struct Opened {
    /// Its name.
    pub name: &'static str,
    /// The fabric.
    pub outcome: Result<Box<dyn Fabric>, FabricError>,
}

/// Opens what `config` asks for, best first. The order is the same in every agent, so that both sides of a
/// pair agree on a lane.
pub fn open(config: RegistryConfig) -> Vec<Opened> {
    let mut opened = Vec::new();
    if let Some(config) = config.local {
        opened.push(Opened { name: "local", outcome: LocalFabric::open(config).map(boxed) });
    }
    if let Some(config) = config.ucx {
        opened.push(Opened { name: "ucx", outcome: UcxFabric::open(config).map(boxed) });
    }
    if let Some(config) = config.stream {
        opened.push(Opened { name: "stream", outcome: StreamFabric::open(config).map(boxed) });
    }
    opened
}

fn boxed<F: Fabric + 'static>(fabric: F) -> Box<dyn Fabric> {
    Box::new(fabric)
}
