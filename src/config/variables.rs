//! Every environment variable that has a meaning around Baton, and who reads it.
//!
//! One table, so that the engine's warnings, `baton config explain` and the docs cannot disagree. The
//! meanings of the `TRTLLM_*` rows are TensorRT-LLM's own (1.2 to 1.4.0rc1).

use super::environment::{Environment, PROFILER};
use super::nearest::did_you_mean;

/// One environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What holds when it is not set.
    pub default: &'static str,
    /// Who reads it.
    pub reader: Reader,
    /// What it does.
    pub meaning: &'static str,
}

/// Who reads a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Baton does.
    Baton,
    /// TensorRT-LLM does, above Baton; nothing changes with Baton below it.
    Host,
    /// The launcher of the ranks sets it; Baton reads it where it must know its rank and nobody told it.
    Launcher,
    /// Nobody does when Baton is loaded; setting it earns one warning, which ends with this text.
    Nobody(&'static str),
}

/// The row of a variable, if it has one.
pub fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

/// One warning per variable that is set and has no effect, and per unknown `BATON_*` name.
pub fn warnings(environment: &Environment) -> Vec<String> {
    environment.names().filter_map(warning).collect()
}

fn warning(name: &str) -> Option<String> {
    match find(name).map(|variable| variable.reader) {
        Some(Reader::Nobody(why)) => Some(format!("{name} is set but has no effect: {why}")),
        None if name.starts_with("BATON_") => {
            let known: Vec<&str> = VARIABLES
                .iter()
                .map(|variable| variable.name)
                .filter(|known| known.starts_with("BATON_"))
                .collect();
            Some(format!("{name} is not a variable of Baton and has no effect{}", did_you_mean(name, &known)))
        }
        _ => None,
    }
}

const fn baton(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, reader: Reader::Baton, meaning }
}

const fn host(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, reader: Reader::Host, meaning }
}

const fn launcher(name: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default: "", reader: Reader::Launcher, meaning }
}

const fn nobody(name: &'static str, why: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default: "", reader: Reader::Nobody(why), meaning }
}

const BOUNCE: &str = "the bounce buffer belongs to the stock NIXL agent, which Baton replaces";
const STOCK_THREADS: &str = "it tunes the stock NIXL agent's UCX threads, which Baton replaces";
const REMOVED: &str = "TensorRT-LLM 1.2 and later no longer read it";

/// The table.
pub const VARIABLES: &[Variable] = &[
    baton(
        "BATON_LANES",
        "local,ucx,cuda,stream",
        "lanes that may carry data: local, ucx, cuda, libfabric, mpi, stream (both of stream-unix, stream-tcp); a list without a stream has no fallback",
    ),
    baton(
        "BATON_TRTLLM_ABI",
        "detected",
        "age of the host's transfer-agent ABI: p0, p1, p2, p3 or p4; overrides detection",
    ),
    baton("BATON_LOG", "info", "log filter: a level, or target=level pairs with commas between"),
    baton(
        "BATON_SPIN_US",
        "50",
        "microseconds the progress thread spins after the last frame before it parks (0 to 10000)",
    ),
    baton(
        "BATON_COPY_THREADS",
        "the cores, at most 4",
        "threads that may copy at a time between processes of one host, those that wait included (1 to 64)",
    ),
    baton(
        "BATON_GATHER_BELOW",
        "the lane's own",
        "bytes: writes of smaller pieces on average are gathered on ucx; 0 for never (0 to 524288)",
    ),
    baton(
        "BATON_PEER_TIMEOUT_MS",
        "5000",
        "milliseconds of silence after which a peer counts as lost (100 to 600000)",
    ),
    baton(
        "BATON_STALL_TIMEOUT_MS",
        "30000",
        "milliseconds without progress after which a wait fails (100 to 600000)",
    ),
    baton("BATON_CONNECT_TIMEOUT_MS", "5000", "milliseconds a connection to a peer may take (100 to 600000)"),
    baton(
        "BATON_PSK_FILE",
        "",
        "file with the key (64 hex digits) that peers must have too: authenticates and encrypts all but RDMA payload",
    ),
    baton("BATON_CUDA_LIBRARY", "libcuda.so.1", "path of the libcuda to open instead of the driver's"),
    baton("BATON_UCX_LIBRARY", "libucp.so.0", "path of the libucp to open instead of the system's"),
    baton(
        PROFILER,
        "",
        "library of a profiler that draws transfers as NVTX ranges; profilers set it for the programs that they start",
    ),
    baton(
        "BATON_RENDEZVOUS",
        "",
        "host:port where rank 0 listens for the other ranks of its instance (backend UCX); without it the host's MPI or torch's store serves",
    ),
    baton(
        "BATON_RENDEZVOUS_TIMEOUT_MS",
        "60000",
        "milliseconds the ranks wait for each other (100 to 600000)",
    ),
    baton("BATON_RANK", "", "rank of this process within its instance; overrides the launcher's word"),
    baton("BATON_WORLD_SIZE", "", "number of ranks of the instance; goes with BATON_RANK"),
    baton(
        "TRTLLM_NIXL_KVCACHE_BACKEND",
        "UCX",
        "UCX or LIBFABRIC, exact upper case; UCX set explicitly makes a missing libucp an error",
    ),
    baton(
        "TRTLLM_NIXL_INTERFACE",
        "by route",
        "network interface whose address peers are told to connect to",
    ),
    baton("TRTLLM_UCX_INTERFACE", "by route", "the same for backend UCX"),
    baton("TRTLLM_NIXL_PORT", "0", "TCP port to listen on; 0 lets the system choose"),
    baton("UCX_TLS", "all", "transports UCX may use; Baton cuts its native set with it, tcp is never in"),
    host("TRTLLM_USE_NIXL_KVCACHE", "0", "1 selects NIXL where backend is DEFAULT"),
    host("TRTLLM_USE_UCX_KVCACHE", "0", "1 selects UCX where backend is DEFAULT"),
    host("TRTLLM_USE_MOONCAKE_KVCACHE", "0", "1 selects MOONCAKE where backend is DEFAULT"),
    host("TRTLLM_USE_MPI_KVCACHE", "0", "1 selects MPI (deprecated) where backend is DEFAULT"),
    host("TRTLLM_KV_TRANSFER_NUM_THREADS", "1", "sender threads of the Python runtime"),
    host(
        "TRTLLM_USE_PY_NIXL_KVCACHE",
        "0",
        "1 makes the Python runtime use the nixl package itself: Baton is then not loaded",
    ),
    host(
        "TRTLLM_DISABLE_KV_CACHE_TRANSFER_OVERLAP",
        "0",
        "1 makes the generation side wait for its KV cache synchronously",
    ),
    host(
        "TRTLLM_REQUEST_KV_CACHE_CONCURRENT",
        "0",
        "1 gives the generation side one receive worker per context process, and several receive slots",
    ),
    host(
        "TRTLLM_KVCACHE_RECV_BUFFER_COUNT",
        "2",
        "receive slots, only with TRTLLM_REQUEST_KV_CACHE_CONCURRENT=1 (else 1)",
    ),
    host("TRTLLM_KVCACHE_SEND_MAX_CONCURRENCY_NUM", "1", "send slots and asynchronous send threads"),
    host(
        "TRTLLM_ENABLE_KVCACHE_RECEIVE_PARALLEL",
        "0",
        "1 sends to and receives from several peers in parallel threads",
    ),
    host(
        "TRTLLM_TRY_ZCOPY_FOR_KVCACHE_TRANSFER",
        "0",
        "1 sends blocks without staging; UCX and MPI only: with NIXL the host stops at start",
    ),
    host(
        "TRTLLM_KVCACHE_TRANSFER_BUFFER_SIZE",
        "512MB",
        "staging bytes per slot where max_tokens_in_buffer is not set (B, KB, MB, GB, TB)",
    ),
    host("TRTLLM_KVCACHE_TRANSFER_USE_ASYNC_BUFFER", "0", "1 stages in cudaMallocAsync memory"),
    host("TRTLLM_KVCACHE_TRANSFER_USE_SYNC_BUFFER", "0", "1 stages in cudaMalloc memory"),
    host("TRTLLM_KVCACHE_TRANSFER_ALL_BLOCKS_FOR_WINDOW", "0", "1 sends all blocks of sliding-window layers"),
    host("TRTLLM_DISAGG_LAYERWISE", "0", "1 sends layer by layer (C++ runtime, single pool)"),
    host("TRTLLM_KVCACHE_TIME_OUTPUT_PATH", "", "folder for a CSV of transfer timings per request"),
    host("TRTLLM_KVCACHE_POOL_USE_FABRIC_MEMORY", "0", "1 puts the KV pool in fabric memory"),
    host("TRTLLM_DISAGG_BENCHMARK_GEN_ONLY", "0", "1 runs a generation-only benchmark"),
    host(
        "TRTLLM_DISAGG_ENABLE_INFLIGHT_CANCEL",
        "0",
        "1 lets the C++ runtime cancel transfers under way (NIXL with UCX, finite timeout)",
    ),
    host(
        "TRTLLM_DISAGG_WEDGE_TRACE_INTERVAL_MS",
        "5000",
        "milliseconds between the host's warnings from loops that wait (some builds only)",
    ),
    host("TRTLLM_KV_CACHE_BOUNCE_MIN_BLOCKS", "", "smallest block count for the Python runtime's bounce"),
    host("TRTLLM_KV_CACHE_BOUNCE_MIN_BYTES", "2MiB", "smallest payload for the Python runtime's bounce"),
    host("TRTLLM_DISAGG_ROLE", "", "role hint of the Python runtime: context or generation"),
    host("TRTLLM_DISAGG_NO_RETRY", "0", "1 turns off the Python runtime's retries"),
    host("TLLM_DISABLE_MPI", "0", "1 runs without MPI; Baton's ranks then do not meet over it either"),
    launcher("RANK", "rank of this process, by torch's launchers"),
    launcher("WORLD_SIZE", "number of ranks, by torch's launchers"),
    launcher("MASTER_ADDR", "host of torch's store"),
    launcher("MASTER_PORT", "port of torch's store"),
    launcher("TORCHELASTIC_RESTART_COUNT", "how often torchrun has started these ranks anew"),
    launcher("OMPI_COMM_WORLD_RANK", "rank of this process, by Open MPI's mpirun"),
    launcher("OMPI_COMM_WORLD_SIZE", "number of ranks, by Open MPI's mpirun"),
    launcher("PMI_RANK", "rank of this process, by MPICH's and Intel's launchers"),
    launcher("PMI_SIZE", "number of ranks, by MPICH's and Intel's launchers"),
    launcher("PMIX_RANK", "rank of this process, by launchers that speak PMIx"),
    launcher("SLURM_PROCID", "rank of this process, by srun; where no other launcher says one"),
    launcher("SLURM_NTASKS", "number of ranks, by srun; where no other launcher says one"),
    nobody(
        "TRTLLM_MOONCAKE_INTERFACE",
        "Baton advertises the address of TRTLLM_NIXL_INTERFACE under its Mooncake name too",
        "network interface of the stock Mooncake agent",
    ),
    nobody(
        "TRTLLM_NIXL_DISABLE_COALESCE",
        "Baton's planner always merges descriptors that are adjacent on both sides",
        "turns off the merging of adjacent descriptors in the stock agent",
    ),
    nobody(
        "TRTLLM_NIXL_ENABLE_COALESCE",
        "Baton's planner always merges descriptors that are adjacent on both sides",
        "turned on the merging of adjacent descriptors in older stock agents",
    ),
    nobody("TRTLLM_NIXL_NUM_THREADS", STOCK_THREADS, "post and progress threads of the stock agent"),
    nobody("TRTLLM_NIXL_SPLIT_BATCH_SIZE", STOCK_THREADS, "batch size above which those threads share"),
    nobody("TRTLLM_NIXL_NUM_WORKERS", STOCK_THREADS, "UCX workers of the stock agent"),
    nobody("TRTLLM_NIXL_BOUNCE_ENABLE", BOUNCE, "turned the bounce buffer on in older builds"),
    nobody("TRTLLM_NIXL_BOUNCE_ARENA_SIZE_BYTES", BOUNCE, "arena size in older builds"),
    nobody("TRTLLM_NIXL_BOUNCE_MAX_CHUNK_SIZE_BYTES", BOUNCE, "largest chunk (32 MiB)"),
    nobody("TRTLLM_NIXL_BOUNCE_ARENA_ALLOCATION_GRANULARITY_BYTES", BOUNCE, "allocation step (1 MiB)"),
    nobody("TRTLLM_NIXL_BOUNCE_MAX_AVERAGE_DESCRIPTOR_SIZE_BYTES", BOUNCE, "admission gate (16 KiB)"),
    nobody("TRTLLM_NIXL_BOUNCE_MAX_INFLIGHT_CHUNKS_PER_REQUEST", BOUNCE, "window per request (8)"),
    nobody("TRTLLM_NIXL_BOUNCE_COPY_STREAM_COUNT", BOUNCE, "CUDA streams (8)"),
    nobody("TRTLLM_NIXL_BOUNCE_SCATTER_WORKER_COUNT", BOUNCE, "scatter threads (4)"),
    nobody("TRTLLM_NIXL_BOUNCE_MIN_DESCRIPTOR_COUNT", BOUNCE, "admission gate (1024)"),
    nobody("TRTLLM_NIXL_BOUNCE_REQUEST_TIMEOUT_MS", BOUNCE, "timeout of a request (30000)"),
    nobody("TRTLLM_NIXL_BOUNCE_DISABLE_FABRIC_MEMORY", BOUNCE, "plain device memory for the arena"),
    nobody("TRTLLM_NIXL_BOUNCE_ENABLE_EAGER_GATHER", BOUNCE, "gather before the grant (on)"),
    nobody("TRTLLM_NIXL_BOUNCE_USE_ZERO_COPY_ARGUMENTS", BOUNCE, "kernel arguments without a copy (on)"),
    nobody("TRTLLM_PARALLEL_CACHE_SEND", REMOVED, "gate for several send slots in 1.1 and earlier"),
    nobody(
        "TRTLLM_DISABLE_SELECTIVE_CACHE_TRANSFER",
        REMOVED,
        "ignored block reuse when choosing blocks, in 1.1 and earlier",
    ),
    nobody(
        "TRTLLM_USE_UCX_KV_CACHE",
        "old documents misspell TRTLLM_USE_UCX_KVCACHE so; better set cache_transceiver_config.backend",
        "nothing: a misspelling",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_once() {
        let mut names: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// The rows of other readers are grouped there, so only Baton's own are looked for by name.
    #[test]
    fn the_document_names_every_variable_field_and_knob() {
        let document = include_str!("../../docs/configuration.md");
        let variables = VARIABLES
            .iter()
            .filter(|row| matches!(row.reader, Reader::Baton | Reader::Launcher))
            .map(|row| row.name);
        let fields = crate::config::transceiver::FIELDS.iter().map(|field| field.name);
        let knobs = crate::config::bounce::KNOBS.iter().map(|knob| knob.key);
        for name in variables.chain(fields).chain(knobs) {
            assert!(document.contains(&format!("`{name}`")), "docs/configuration.md lacks {name}");
        }
    }

    #[test]
    fn what_has_no_effect_earns_one_warning() {
        let environment = Environment::from_map([
            ("BATON_LANE", "local"),
            ("BATON_ZZZZZZZZZZZZZZZZZZ", "1"),
            ("BATON_LOG", "debug"),
            ("TRTLLM_NIXL_NUM_THREADS", "8"),
            ("TRTLLM_KV_TRANSFER_NUM_THREADS", "4"),
            ("TRTLLM_SOMETHING_ELSE", "1"),
        ]);
        assert_eq!(
            warnings(&environment),
            [
                "BATON_LANE is not a variable of Baton and has no effect (did you mean \"BATON_LANES\"?)",
                "BATON_ZZZZZZZZZZZZZZZZZZ is not a variable of Baton and has no effect",
                "TRTLLM_NIXL_NUM_THREADS is set but has no effect: it tunes the stock NIXL agent's UCX \
                 threads, which Baton replaces",
            ]
        );
    }
}
