//! What this machine and this process allow, read from /proc and /sys. What cannot be read is not known: never guessed.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, geteuid, getrlimit};
use serde::Serialize;

/// Facts that decide about lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Effective user id.
    pub uid: u32,
    /// `kernel.yama.ptrace_scope`; none where there is no Yama.
    pub yama_scope: Option<u32>,
    /// `Seccomp` of /proc/self/status: 0 off, 1 strict, 2 filter.
    pub seccomp: Option<u32>,
    /// Whether CAP_SYS_PTRACE is effective.
    pub may_ptrace: Option<bool>,
    /// The pid namespace.
    pub pid_namespace: Option<String>,
    /// Whether that is the machine's own, and not a container's.
    pub machine_pid_namespace: Option<bool>,
    /// Bytes of memory that may be locked; none is no limit.
    pub memlock_bytes: Option<u64>,
    /// Ports of RDMA devices.
    pub rdma: Vec<RdmaPort>,
}

/// A port of an RDMA device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RdmaPort {
    /// The device.
    pub device: String,
    /// The port's number.
    pub port: String,
    /// As the kernel says it: `4: ACTIVE`.
    pub state: String,
    /// `InfiniBand` or `Ethernet`.
    pub link_layer: String,
}

impl Machine {
    /// This one.
    pub fn gather() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let namespace = fs::read_link("/proc/self/ns/pid").ok().map(|link| link.display().to_string());
        Self {
            uid: geteuid().as_raw(),
            yama_scope: baton::fabric::registry::yama_scope(),
            seccomp: field(&status, "Seccomp").and_then(|text| text.parse().ok()),
            may_ptrace: field(&status, "CapEff")
                .and_then(|text| u64::from_str_radix(text, 16).ok())
                .map(|set| set & CAP_SYS_PTRACE != 0),
            machine_pid_namespace: namespace.as_deref().map(|name| name == MACHINE_PID_NAMESPACE),
            pid_namespace: namespace,
            memlock_bytes: getrlimit(Resource::Memlock).current,
            rdma: rdma_ports(Path::new("/sys/class/infiniband")),
        }
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// The ports below a folder like /sys/class/infiniband.
fn rdma_ports(folder: &Path) -> Vec<RdmaPort> {
    let mut found = Vec::new();
    for device in names(folder) {
        let ports = folder.join(&device).join("ports");
        for port in names(&ports) {
            let say = |file: &str| {
                fs::read_to_string(ports.join(&port).join(file))
                    .map_or_else(|_| "unknown".into(), |text| text.trim().into())
            };
            found.push(RdmaPort {
                device: device.clone(),
                state: say("state"),
                link_layer: say("link_layer"),
                port,
            });
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

const CAP_SYS_PTRACE: u64 = 1 << 19;
/// The number that the kernel gives the first pid namespace (`PROC_PID_INIT_INO`).
const MACHINE_PID_NAMESPACE: &str = "pid:[4026531836]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_from_their_neighbours() {
        let status = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\nCapEff:\t00000000a80425fb\n";
        assert_eq!(field(status, "Seccomp"), Some("2"));
        assert_eq!(field(status, "Secc"), None);
        assert!(Machine::gather().seccomp.is_some(), "this kernel says it");
    }

    #[test]
    fn ports_are_listed_with_their_state() {
        let root = std::env::temp_dir().join(format!("baton-doctor-rdma-{}", std::process::id()));
        let port = root.join("mlx5_0/ports/1");
        fs::create_dir_all(&port).unwrap();
        fs::write(port.join("state"), "4: ACTIVE\n").unwrap();
        let ports = rdma_ports(&root);
        fs::remove_dir_all(&root).unwrap();
        let [only] = ports.as_slice() else { panic!("{ports:?}") };
        assert_eq!(
            (only.device.as_str(), only.state.as_str(), only.link_layer.as_str()),
            ("mlx5_0", "4: ACTIVE", "unknown")
        );
        assert_eq!(rdma_ports(&root), []);
    }
}
