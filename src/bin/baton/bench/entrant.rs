//! Who takes part: implementations, each with its programs and settings, by the path that the bytes take.

use clap::ValueEnum;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// What lies between the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// Two processes of one host, any way there is
    SameHost,
    /// TCP
    Tcp,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameHost => "same-host",
            Self::Tcp => "tcp",
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
            Path::Tcp => {
                all.extend(Self::nixl(places, Impl::NixlTcp, path, Some("tcp"), ""));
                all.extend(Self::mooncake(places));
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
        Some(Self {
            name,
            seam: None,
            path,
            ways: SERVED,
            notifies: true,
            models_only: false,
            program: python,
            arguments: vec![driver(places, "nixl_driver.py"), parameters.to_owned()],
            environment,
        })
    }

    fn mooncake(places: &Places) -> Option<Self> {
        let (python, package) = (places.python.clone()?, places.mooncake.as_ref()?);
        Some(Self {
            name: Impl::Mooncake,
            seam: None,
            path: Path::Tcp,
            ways: &[Way { name: "", mover: Mover::Initiator }],
            notifies: false,
            models_only: false,
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
            Path::Tcp => &[Way { name: "tcp", mover: Mover::InitiatorServed }],
        };
        Self {
            name: Impl::Limit,
            seam: None,
            path,
            ways,
            notifies: false,
            models_only: false,
            program: places.limit.clone(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
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
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// Loopback only; and lanes as the path has it, where the person has not chosen.
fn baton_environment(places: &Places, path: Path) -> Vec<(&'static str, String)> {
    let mut environment = vec![
        ("LD_LIBRARY_PATH", places.library.to_string_lossy().into_owned()),
        ("TRTLLM_NIXL_INTERFACE", "lo".to_owned()),
    ];
    if path == Path::Tcp {
        environment.push(("BATON_LANES", "stream-tcp".to_owned()));
    }
    environment
}

fn driver(places: &Places, file: &str) -> String {
    places.drivers.join("python").join(file).to_string_lossy().into_owned()
}

const SERVED: &[Way] = &[Way { name: "", mover: Mover::InitiatorServed }];
