//! Which lanes may and can carry data on this machine, and what forbids the others: a pure decision over what was tried.
//!
//! The trying itself is the engine's: its fabrics, its choice of an address. Here their answers are put beside the
//! machine's facts, so that one cause is named where the engine can only list all of them.

use baton::config::LaneChoice;
use baton::config::backend::Backend;
use baton::config::engine::{EngineSettings, interface_variable};
use baton::desc::MemoryKind;
use baton::error::FabricError;
use serde::Serialize;

use super::gpus::Gpus;
use super::machine::Machine;
use super::neighbour::Tried;
use super::report::Severity;

/// One lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaneReport {
    /// Its name, as in `BATON_LANES`.
    pub lane: &'static str,
    /// Whether `BATON_LANES` lets it carry data.
    pub allowed: bool,
    /// Whether it works here.
    pub usable: bool,
    /// How it works, or what forbids it.
    pub why: String,
    /// What to do, where it does not work.
    pub advice: Option<String>,
    /// What it costs that it does not.
    pub severity: Option<Severity>,
}

/// What was tried.
#[derive(Clone, Debug, Default)]
pub struct LaneFacts {
    /// The machine.
    pub machine: Machine,
    /// The CUDA driver and its devices.
    pub gpus: Gpus,
    /// `local`, between two processes.
    pub local: Tried,
    /// `ucx`, between two processes.
    pub ucx: Tried,
    /// `cuda`, between two processes.
    pub cuda: Tried,
    /// `stream-unix`, opened.
    pub stream_unix: Tried,
    /// `stream-tcp`, opened.
    pub stream_tcp: Tried,
    /// The address that peers are told and why, or why there is none.
    pub address: Option<Result<Address, String>>,
}

/// The address that peers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As text.
    pub ip: String,
    /// Why this one.
    pub reason: String,
    /// Only peers of this host can connect to it.
    pub is_loopback: bool,
}

/// The verdict on every lane, for workers that serve as `backend`.
pub fn judge(facts: &LaneFacts, settings: &EngineSettings, backend: Backend) -> Vec<LaneReport> {
    let lanes = &settings.lanes;
    vec![
        local(facts, lanes),
        ucx(facts, settings),
        cuda(facts, lanes),
        stream(
            "stream-unix",
            lanes.stream_unix,
            &facts.stream_unix,
            "a Unix socket in the abstract namespace".into(),
        ),
        stream_tcp(facts, settings, backend),
        unbuilt("libfabric"),
        unbuilt("mpi"),
    ]
}

/// What the machine's limits will cost once RDMA is used: what was found, and what to do.
pub fn rdma_limit(machine: &Machine) -> Option<(String, String)> {
    let bytes = machine.memlock_bytes.filter(|_| !machine.rdma.is_empty())?;
    let text = format!(
        "there are RDMA devices, and {} KiB of memory may be locked: registering KV pools with them takes more",
        bytes >> 10
    );
    Some((
        text,
        "docker run --ulimit memlock=-1, or LimitMEMLOCK=infinity; Baton does not use RDMA yet".into(),
    ))
}

fn local(facts: &LaneFacts, lanes: &LaneChoice) -> LaneReport {
    let machine = &facts.machine;
    let Some(error) = &facts.local.error else {
        let mut why = format!(
            "process_vm_readv works between two processes of uid {}; peers of another are refused",
            machine.uid
        );
        if machine.yama_scope == Some(1) {
            why.push_str("; Yama's scope is 1, so workers give each other leave (PR_SET_PTRACER)");
        }
        if machine.machine_pid_namespace == Some(false) {
            why.push_str("; this is a container: workers in others need its pid namespace too (--pid)");
        }
        return works("local", lanes.local, why);
    };
    let (why, advice) = cause_of_refusal(error, machine);
    LaneReport {
        lane: "local",
        allowed: lanes.local,
        usable: false,
        why,
        advice: Some(advice),
        severity: lanes.local.then_some(Severity::Warning),
    }
}

/// The one cause, of those that the error lists, that this machine shows.
fn cause_of_refusal(error: &FabricError, machine: &Machine) -> (String, String) {
    let stream = "or leave it: a stream serves, more slowly";
    match (error.code, machine.yama_scope, machine.seccomp) {
        (EPERM, Some(scope @ 2..), _) => (
            format!("kernel.yama.ptrace_scope is {scope}: no process may read another's memory"),
            match scope {
                2 => format!("sysctl kernel.yama.ptrace_scope=1, or give the workers CAP_SYS_PTRACE, {stream}"),
                _ => format!("kernel.yama.ptrace_scope=1 at boot (3 cannot be taken back), {stream}"),
            },
        ),
        (EPERM | ENOSYS, _, Some(1 | 2)) => (
            "a seccomp filter forbids process_vm_readv (docker's default profile does, without CAP_SYS_PTRACE)".into(),
            format!("docker run --cap-add SYS_PTRACE, or in Kubernetes securityContext.capabilities.add, {stream}"),
        ),
        (EPERM, _, _) => (
            reason(error),
            format!("run both workers as one user, with no setuid and no dropped dumpability, {stream}"),
        ),
        (ENOSYS, _, _) => ("this kernel has no process_vm_readv".into(), format!("a kernel that has it, {stream}")),
        _ => (reason(error), format!("see the error, {stream}")),
    }
}

fn ucx(facts: &LaneFacts, settings: &EngineSettings) -> LaneReport {
    let allowed = settings.lanes.ucx;
    match (&facts.ucx.error, &facts.ucx.library) {
        (None, library) => {
            let library = library.as_deref().unwrap_or("UCX");
            let memory = match facts.ucx.kinds.contains(&MemoryKind::Vram) {
                true => "host and GPU memory",
                false => "host memory alone",
            };
            works(
                "ucx",
                allowed,
                format!("{library}: its puts are native between two processes, of {memory}"),
            )
        }
        (Some(error), library) => {
            let severity = match (allowed, settings.ucx_required, settings.lanes.explicit) {
                (false, ..) => None,
                (_, true, _) => Some(Severity::Error),
                (_, _, true) => Some(Severity::Warning),
                // Between processes of one host it carries no more than `local` does.
                (_, false, false) => Some(Severity::Note),
            };
            let opened = library.as_ref().map_or(String::new(), |library| format!("{library}: "));
            let mut advice =
                "install UCX 1.16 or newer, or point BATON_UCX_LIBRARY at its libucp.so.0".to_owned();
            if settings.ucx_required {
                advice.push_str(", or unset TRTLLM_NIXL_KVCACHE_BACKEND: then another lane serves");
            }
            let why = format!("{opened}{}", reason(error));
            LaneReport { lane: "ucx", allowed, usable: false, why, advice: Some(advice), severity }
        }
    }
}

fn cuda(facts: &LaneFacts, lanes: &LaneChoice) -> LaneReport {
    let (lane, allowed, gpus) = ("cuda", lanes.cuda, &facts.gpus);
    let refused = |why: String, advice: &str, severity: Option<Severity>| LaneReport {
        lane,
        allowed,
        usable: false,
        why,
        advice: Some(advice.to_owned()),
        // By a driver of its own somebody wants GPU memory, whichever lane carries it.
        severity: severity.filter(|_| allowed || gpus.library_is_named),
    };
    match (&gpus.error, &facts.cuda.error) {
        // A machine without a GPU has no memory for this lane: nothing is amiss, unless somebody asks for it.
        (Some(error), _) => {
            let is_missed = lanes.explicit || gpus.has_kernel_driver || gpus.library_is_named;
            let advice = match gpus.library_is_named && gpus.does_not_load {
                true => {
                    "have BATON_CUDA_LIBRARY name the driver's libcuda.so.1 by its absolute path, or unset it"
                }
                false => {
                    "let the workers see the driver (docker run --gpus all) and a GPU, or do without GPU memory"
                }
            };
            refused(error.clone(), advice, is_missed.then_some(Severity::Warning))
        }
        (None, Some(error)) => {
            let advice = "see the error; GPU memory goes through a stream meanwhile, far more slowly";
            refused(reason(error), advice, Some(Severity::Warning))
        }
        (None, None) => {
            let why = "GPU memory between processes of this host: CUDA starts in two of them, and they see the same GPUs";
            works(lane, allowed, why.to_owned())
        }
    }
}

fn stream(lane: &'static str, allowed: bool, tried: &Tried, how: String) -> LaneReport {
    match &tried.error {
        None => works(lane, allowed, how),
        Some(error) => LaneReport {
            lane,
            allowed,
            usable: false,
            why: reason(error),
            advice: Some("see the error: a stream needs a socket and nothing else".into()),
            severity: allowed.then_some(Severity::Warning),
        },
    }
}

fn stream_tcp(facts: &LaneFacts, settings: &EngineSettings, backend: Backend) -> LaneReport {
    let variable = interface_variable(backend);
    let (lane, allowed) = ("stream-tcp", settings.lanes.stream_tcp);
    match &facts.address {
        // An agent listens there whatever the lanes are, and does not start without it.
        Some(Err(why)) => LaneReport {
            lane,
            allowed,
            usable: false,
            why: why.clone(),
            advice: Some(format!("set {variable} to an interface that has an address, or unset it")),
            severity: Some(Severity::Error),
        },
        None => stream(lane, allowed, &facts.stream_tcp, "TCP".into()),
        Some(Ok(address)) => {
            let how = format!("peers are told {}: {}", address.ip, address.reason);
            let mut report = stream(lane, allowed, &facts.stream_tcp, how);
            if address.is_loopback && report.usable {
                report.why.push_str("; peers on other hosts cannot connect");
                report.advice = Some(format!("set {variable} to the interface that leads to them"));
                report.severity = Some(Severity::Note);
            }
            report
        }
    }
}

/// An error without the name of its lane, which stands beside it.
fn reason(error: &FabricError) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", error.fabric)).map_or_else(|| text.clone(), str::to_owned)
}

fn works(lane: &'static str, allowed: bool, why: String) -> LaneReport {
    LaneReport { lane, allowed, usable: true, why, advice: None, severity: None }
}

fn unbuilt(lane: &'static str) -> LaneReport {
    let why = "this version of Baton does not have it yet".into();
    LaneReport { lane, allowed: false, usable: false, why, advice: None, severity: None }
}

/// `EPERM` and `ENOSYS` of Linux on x86-64.
const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

#[cfg(test)]
mod tests {
    use super::*;
    use baton::error::FabricErrorKind;

    fn refused(code: i32) -> Tried {
        let error =
            FabricError::new("local", "process_vm_readv", FabricErrorKind::Unsupported, code, "all causes");
        Tried { error: Some(error), ..Tried::default() }
    }

    fn local_with(code: i32, yama_scope: Option<u32>, seccomp: u32) -> LaneReport {
        let machine = Machine { yama_scope, seccomp: Some(seccomp), ..Machine::default() };
        let facts = LaneFacts { machine, local: refused(code), ..LaneFacts::default() };
        judge(&facts, &EngineSettings::default(), Backend::Nixl).remove(0)
    }

    #[test]
    fn the_cause_is_the_one_the_machine_shows() {
        for (code, yama, seccomp, why, advice) in [
            (EPERM, Some(2), 0, "kernel.yama.ptrace_scope is 2", "sysctl kernel.yama.ptrace_scope=1"),
            (EPERM, Some(3), 2, "kernel.yama.ptrace_scope is 3", "at boot"),
            (EPERM, Some(1), 2, "a seccomp filter forbids", "--cap-add SYS_PTRACE"),
            (ENOSYS, None, 2, "a seccomp filter forbids", "--cap-add SYS_PTRACE"),
            (EPERM, None, 0, "all causes", "as one user"),
            (ENOSYS, None, 0, "this kernel has no process_vm_readv", "a stream serves"),
            (14, None, 0, "all causes", "a stream serves"),
        ] {
            let report = local_with(code, yama, seccomp);
            assert!(report.why.contains(why), "{code} {yama:?}: {}", report.why);
            assert!(report.advice.as_deref().unwrap_or_default().contains(advice), "{:?}", report.advice);
            assert_eq!((report.usable, report.severity), (false, Some(Severity::Warning)));
        }
    }

    #[test]
    fn ucx_counts_as_much_as_it_was_asked_for() {
        let settings = |allowed, ucx_required, explicit| {
            let lanes = LaneChoice { ucx: allowed, explicit, ..LaneChoice::default() };
            EngineSettings { lanes, ucx_required, ..EngineSettings::default() }
        };
        let facts = LaneFacts { ucx: refused(0), ..LaneFacts::default() };
        for (allowed, required, explicit, severity) in [
            (true, false, false, Some(Severity::Note)),
            (true, false, true, Some(Severity::Warning)),
            (true, true, false, Some(Severity::Error)),
            (false, false, true, None),
        ] {
            let report = judge(&facts, &settings(allowed, required, explicit), Backend::Nixl).remove(1);
            assert_eq!(
                (report.usable, report.severity),
                (false, severity),
                "{allowed} {required} {explicit}"
            );
            assert!(!report.why.starts_with("local: "), "{}", report.why);
        }
    }

    #[test]
    fn an_address_that_cannot_be_had_is_an_error_and_loopback_is_told() {
        let mut facts = LaneFacts {
            address: Some(Err("interface ib9 does not exist here".into())),
            ..LaneFacts::default()
        };
        let report = judge(&facts, &EngineSettings::default(), Backend::Nixl).remove(4);
        assert_eq!((report.usable, report.severity), (false, Some(Severity::Error)));
        for (backend, variable) in
            [(Backend::Nixl, "TRTLLM_NIXL_INTERFACE"), (Backend::Ucx, "TRTLLM_UCX_INTERFACE")]
        {
            let report = judge(&facts, &EngineSettings::default(), backend).remove(4);
            assert!(report.advice.unwrap().contains(variable));
        }
        facts.address = Some(Ok(Address {
            ip: "127.0.0.1".into(),
            reason: "lo was asked for".into(),
            is_loopback: true,
        }));
        let report = judge(&facts, &EngineSettings::default(), Backend::Nixl).remove(4);
        assert_eq!((report.usable, report.severity), (true, Some(Severity::Note)));
        assert!(report.why.contains("peers on other hosts cannot connect"), "{}", report.why);
    }

    #[test]
    fn gpus_are_missed_where_somebody_wants_them() {
        let explicit = LaneChoice { explicit: true, ..LaneChoice::default() };
        let cuda_of = |gpus: Gpus, tried, lanes: &LaneChoice| {
            cuda(&LaneFacts { gpus, cuda: tried, ..LaneFacts::default() }, lanes)
        };
        let none = || Gpus { error: Some("CUDA: dlopen".into()), ..Gpus::default() };
        assert_eq!(cuda_of(none(), Tried::default(), &LaneChoice::default()).severity, None);
        assert_eq!(cuda_of(none(), Tried::default(), &explicit).severity, Some(Severity::Warning));
        let hidden = Gpus { has_kernel_driver: true, ..none() };
        let report = cuda_of(hidden, Tried::default(), &LaneChoice::default());
        assert_eq!((report.usable, report.severity), (false, Some(Severity::Warning)));
        assert!(report.advice.unwrap().contains("--gpus all"));
        for (does_not_load, advice) in [(true, "BATON_CUDA_LIBRARY"), (false, "--gpus all")] {
            let named = Gpus { library_is_named: true, does_not_load, ..none() };
            let report =
                cuda_of(named, Tried::default(), &LaneChoice { cuda: false, ..LaneChoice::default() });
            assert_eq!((report.usable, report.severity), (false, Some(Severity::Warning)));
            assert!(report.advice.unwrap().contains(advice));
        }
        let some = || Gpus { driver: Some("12.8 (libcuda.so.1)".into()), ..Gpus::default() };
        let report = cuda_of(some(), refused(1), &LaneChoice { cuda: false, ..LaneChoice::default() });
        assert_eq!((report.usable, report.severity), (false, None), "nobody uses it");
        assert!(cuda_of(some(), Tried::default(), &LaneChoice::default()).usable);
    }

    #[test]
    fn a_memlock_limit_matters_where_there_is_rdma() {
        let port = crate::doctor::machine::RdmaPort {
            device: "mlx5_0".into(),
            port: "1".into(),
            state: "4: ACTIVE".into(),
            link_layer: "InfiniBand".into(),
        };
        let machine = |rdma, memlock_bytes| Machine { rdma, memlock_bytes, ..Machine::default() };
        let (text, advice) = rdma_limit(&machine(vec![port.clone()], Some(8 << 20))).unwrap();
        assert!(text.contains("8192 KiB") && advice.contains("memlock=-1"), "{text} {advice}");
        assert_eq!(rdma_limit(&machine(vec![port], None)), None);
        assert_eq!(rdma_limit(&machine(Vec::new(), Some(8 << 20))), None);
    }

    #[test]
    fn what_is_not_built_is_named_and_costs_nothing() {
        let reports = judge(&LaneFacts::default(), &EngineSettings::default(), Backend::Nixl);
        let names: Vec<_> = reports.iter().map(|report| report.lane).collect();
        assert_eq!(names, ["local", "ucx", "cuda", "stream-unix", "stream-tcp", "libfabric", "mpi"]);
        assert!(reports[5..].iter().all(|report| !report.usable && report.severity.is_none()));
    }
}
