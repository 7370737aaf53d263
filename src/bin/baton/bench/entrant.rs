//! Who takes part: implementations, each with its programs and settings, by the path that the bytes take.

use clap::ValueEnum;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use super::cells::Cell;
use super::network::DEVICE;

/// What lies between the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Path {
    /// Two processes of one host, any way there is
    SameHost,
    /// TCP over loopback
    Tcp,
    /// TCP between two network namespaces
    TcpNetns,
}

impl Path {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::SameHost, Self::Tcp, Self::TcpNetns];
}

/// As fields of what is measured: `path`, and `network` where TCP has another one than loopback.
impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_map(None)?;
        fields.serialize_entry("path", if *self == Self::SameHost { "same-host" } else { "tcp" })?;
        if *self == Self::TcpNetns {
            fields.serialize_entry("network", "namespaces")?;
        }
        fields.end()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameHost => "same-host",
            Self::Tcp => "tcp",
            Self::TcpNetns => "tcp-netns",
        })
    }
}

/// What is measured, as the report names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Impl {
    /// This library.
    Baton,
    /// NIXL as it comes.
    NixlDefault,
    /// NIXL told to use nothing but shared memory.
    NixlShm,
    /// NIXL told to use nothing but TCP.
    NixlTcp,
    /// Mooncake over TCP.
    Mooncake,
    /// The machine.
    Limit,
}

impl Impl {
    /// Whether it is somebody else's: where it fails it is left out.
    pub fn is_peer(self) -> bool {
        !matches!(self, Self::Baton | Self::Limit)
    }
}

impl fmt::Display for Impl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Baton => "baton",
            Self::NixlDefault => "nixl-default",
            Self::NixlShm => "nixl-shm",
            Self::NixlTcp => "nixl-tcp",
            Self::Mooncake => "mooncake",
            Self::Limit => "limit",
        })
    }
}

/// Where Baton is called from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seam {
    /// C++.
    S1,
    /// Python.
    S2,
}

/// Who moves the bytes of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// The initiator, while the target polls.
    InitiatorServed,
    /// The initiator, while the target sleeps.
    Initiator,
    /// The target, while the initiator sleeps.
    Target,
}

/// One way of moving a cell.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Its name in the driver; empty where there is but one.
    pub name: &'static str,
    /// Who does the work.
    pub mover: Mover,
}

/// One implementation on one path.
#[derive(Clone, Debug)]
pub struct Entrant {
    /// As the report names it.
    pub name: Impl,
    /// For Baton.
    pub seam: Option<Seam>,
    /// What its bytes take.
    pub path: Path,
    /// Its ways to move a cell: the best one counts.
    pub ways: &'static [Way],
    /// Whether it has notifications.
    pub notifies: bool,
    /// Takes part in models' cells alone.
    pub models_only: bool,
    /// With more descriptors it takes so long that it is left out.
    descriptors_max: u64,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub struct Places {
    /// `baton-bench-agent`.
    pub agent: PathBuf,
    /// `baton-bench-limit`.
    pub limit: PathBuf,
    /// The folder of the library.
    pub library: PathBuf,
    /// The folder of the Python drivers.
    pub drivers: PathBuf,
    /// A Python with numpy.
    pub python: Option<PathBuf>,
    /// The folder of the Python binding of Baton.
    pub binding: Option<PathBuf>,
    /// The folder of the package nixl_cu12.
    pub nixl: Option<PathBuf>,
    /// The folder of the package mooncake.
    pub mooncake: Option<PathBuf>,
}

impl Entrant {
    /// Everybody who can take part on a path, Baton first and the machine last.
    pub fn all(places: &Places, path: Path) -> Vec<Self> {
        let mut all = vec![Self::baton_s1(places, path)];
        all.extend(Self::baton_s2(places, path));
        match path {
            Path::SameHost => {
                all.extend(Self::nixl(places, Impl::NixlDefault, path, None, ""));
                let without_errors = "ucx_error_handling_mode=none";
                all.extend(Self::nixl(places, Impl::NixlShm, path, Some("shm,self"), without_errors));
            }
            Path::Tcp | Path::TcpNetns => {
                all.extend(Self::nixl(places, Impl::NixlTcp, path, Some("tcp"), ""));
                all.extend(Self::mooncake(places, path));
            }
        }
        all.push(Self::limit(places, path));
        all
    }

    fn baton_s1(places: &Places, path: Path) -> Self {
        let mut environment = baton_environment(places, path);
        environment.push(("BATON_TRTLLM_ABI", "p4".to_owned())); // the age of the header that the driver is built with
        Self {
            name: Impl::Baton,
            seam: Some(Seam::S1),
            path,
            ways: SERVED,
            notifies: true,
            models_only: false,
            descriptors_max: u64::MAX,
            program: places.agent.clone(),
            arguments: Vec::new(),
            environment,
        }
    }

    fn baton_s2(places: &Places, path: Path) -> Option<Self> {
        let (python, binding) = (places.python.clone()?, places.binding.as_ref()?);
        let mut environment = baton_environment(places, path);
        environment.push(("PYTHONPATH", binding.to_string_lossy().into_owned()));
        let s1 = Self::baton_s1(places, path);
        Some(Self {
            seam: Some(Seam::S2),
            models_only: true,
            program: python,
            arguments: vec![driver(places, "agent_driver.py")],
            environment,
            ..s1
        })
    }

    fn nixl(places: &Places, name: Impl, path: Path, tls: Option<&str>, parameters: &str) -> Option<Self> {
        let (python, package) = (places.python.clone()?, places.nixl.as_ref()?);
        let mut environment = vec![("PYTHONPATH", package.to_string_lossy().into_owned())];
        environment.extend(tls.map(|tls| ("UCX_TLS", tls.to_owned())));
        if path == Path::TcpNetns {
            environment.push(("UCX_NET_DEVICES", DEVICE.to_owned()));
        }
        Some(Self {
            name,
            seam: None,
            path,
            ways: SERVED,
            notifies: true,
            models_only: false,
            descriptors_max: u64::MAX,
            program: python,
            arguments: vec![driver(places, "nixl_driver.py"), parameters.to_owned()],
            environment,
        })
    }

    fn mooncake(places: &Places, path: Path) -> Option<Self> {
        let (python, package) = (places.python.clone()?, places.mooncake.as_ref()?);
        Some(Self {
            name: Impl::Mooncake,
            seam: None,
            path,
            ways: &[Way { name: "", mover: Mover::Initiator }],
            notifies: false,
            models_only: false,
            descriptors_max: MOONCAKE_DESCRIPTORS_MAX,
            program: python,
            arguments: vec![driver(places, "mooncake_driver.py")],
            environment: vec![("PYTHONPATH", package.to_string_lossy().into_owned())],
        })
    }

    fn limit(places: &Places, path: Path) -> Self {
        let ways: &[Way] = match path {
            Path::SameHost => &[
                Way { name: "writev1", mover: Mover::Initiator },
                Way { name: "writev2", mover: Mover::Initiator },
                Way { name: "readv1", mover: Mover::Target },
                Way { name: "readv2", mover: Mover::Target },
            ],
            Path::Tcp | Path::TcpNetns => &[
                Way { name: "512k", mover: Mover::InitiatorServed },
                Way { name: "2048k", mover: Mover::InitiatorServed },
            ],
        };
        Self {
            name: Impl::Limit,
            seam: None,
            path,
            ways,
            notifies: false,
            models_only: false,
            descriptors_max: u64::MAX,
            program: places.limit.clone(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Whether it moves such a cell in this bench.
    pub fn takes(&self, cell: &Cell) -> bool {
        cell.count <= self.descriptors_max && (cell.is_model() || !self.models_only)
    }

    /// For people: `baton`, `baton (s2)`, `nixl-tcp`.
    pub fn label(&self) -> String {
        match self.seam {
            Some(Seam::S2) => format!("{} (s2)", self.name),
            _ => self.name.to_string(),
        }
    }

    /// What starts one of its drivers. Settings of the person who runs the bench reach Baton, and nobody else.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments.iter().filter(|argument| !argument.is_empty()));
        if self.name.is_peer() {
            OTHERS_SETTINGS.iter().for_each(|key| _ = command.env_remove(key));
        }
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// One interface only; and lanes as the path has it, where the person has not chosen.
fn baton_environment(places: &Places, path: Path) -> Vec<(&'static str, String)> {
    let mut environment = vec![
        ("LD_LIBRARY_PATH", places.library.to_string_lossy().into_owned()),
        ("TRTLLM_NIXL_INTERFACE", if path == Path::TcpNetns { DEVICE } else { "lo" }.to_owned()),
    ];
    if path != Path::SameHost {
        environment.push(("BATON_LANES", "stream-tcp".to_owned()));
    }
    environment
}

fn driver(places: &Places, file: &str) -> String {
    places.drivers.join("python").join(file).to_string_lossy().into_owned()
}

/// What people who run such hosts have set for them.
const OTHERS_SETTINGS: &[&str] = &[
    "UCX_TLS",
    "UCX_NET_DEVICES",
    "UCX_RNDV_SCHEME",
    "UCX_RNDV_THRESH",
    "UCX_ZCOPY_THRESH",
    "UCX_SOCKADDR_TLS_PRIORITY",
    "UCX_MEMTYPE_CACHE",
    "NIXL_PLUGIN_DIR",
    "NIXL_LOG_LEVEL",
    "MC_FORCE_TCP",
    "MC_TRANSFER_TIMEOUT",
];
const SERVED: &[Way] = &[Way { name: "", mover: Mover::InitiatorServed }];
/// A move of 262,144 takes it many seconds.
const MOONCAKE_DESCRIPTORS_MAX: u64 = 65_536;
