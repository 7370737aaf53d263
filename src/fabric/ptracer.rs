//! Leave for peers to read this process's memory where Yama asks for it.
//!
//! Under `kernel.yama.ptrace_scope = 1` (Ubuntu's default) a process may be read only by its ancestors and by the
//! one process it has named with `PR_SET_PTRACER`. The kernel keeps ONE such name per process, so:
//!
//! * with one peer, exactly its pid is named;
//! * with several, there is no narrower way than `PR_SET_PTRACER_ANY`: any process *of the same user* may then attach,
//!   which is what a machine without Yama allows anyway. It is logged, and narrowed again as peers go;
//! * with none, the name is withdrawn.
//!
//! A host that had named a tracer of its own (a crash reporter) is overruled: the kernel has no way to ask. Where
//! there is no Yama, or its scope is not 1, nothing is ever declared. The table is global because the kernel's slot is.

use std::collections::HashMap;
use std::sync::LazyLock;

use parking_lot::Mutex;
use rustix::process::{PTracer, Pid, set_ptracer};

/// Peers that may read this process, with how many links each has.
static ALLOWED: LazyLock<Mutex<HashMap<Pid, usize>>> = LazyLock::new(Mutex::default);

/// Yama's `ptrace_scope`; `None` where there is no Yama.
pub fn yama_scope() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?.trim().parse().ok()
}

/// Lets one peer read this process until dropped.
#[derive(Debug)]
pub(super) struct Allowance {
    pid: Pid,
}

impl Allowance {
    /// Names `pid` to Yama, or everyone where several are to be named.
    pub fn new(pid: Pid) -> Self {
        let mut allowed = ALLOWED.lock();
        *allowed.entry(pid).or_default() += 1;
        declare(&allowed);
        Self { pid }
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        let mut allowed = ALLOWED.lock();
        if let Some(links) = allowed.get_mut(&self.pid) {
            *links -= 1;
            if *links == 0 {
                allowed.remove(&self.pid);
            }
        }
        declare(&allowed);
    }
}

fn declare(allowed: &HashMap<Pid, usize>) {
    let tracer = match (allowed.len(), allowed.keys().next()) {
        (1, Some(pid)) => PTracer::ProcessID(*pid),
        (0, _) | (_, None) => PTracer::None,
        _ => PTracer::Any,
    };
    match set_ptracer(tracer) {
        Ok(()) => tracing::debug!(peers = allowed.len(), "told Yama who may read this process"),
        Err(error) => tracing::debug!(%error, "PR_SET_PTRACER was refused"),
    }
}
