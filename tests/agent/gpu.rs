//! GPU memory through agents: registered, written and read over the stream, in every combination with host memory.

use std::sync::Arc;

use baton::agent::{Agent, AgentConfig, DescriptorList, RegisterError, TransferRequest, TransferState};
use baton::config::{EngineSettings, LaneChoice};
use baton::desc::{Descriptor, MemoryKind, Segment, Span, TransferOp};
use baton::device::{Cuda, Device, DeviceConfig, Urgency};

use fake_cuda::in_a_process;

use crate::card;
use crate::pair::{Lane, Pool, WATCHDOG, agent, eventually, settings, unique};

#[allow(dead_code)] // what a host does with CUDA; here it makes chunks
#[path = "../device/raw.rs"]
mod raw;

fn device() -> Arc<Device> {
    let cuda =
        Cuda::open(&DeviceConfig { library: Some(fake_cuda::driver()) }).expect("a driver for the tests");
    cuda.device(0).expect("the first device")
}

/// Memory that outlives every registration of it.
enum Memory {
    Host(Pool, usize),
    /// Of the first device; never freed.
    Gpu(Span),
}

impl Memory {
    fn new(kind: MemoryKind, len: usize) -> Self {
        if kind == MemoryKind::Dram {
            return Self::Host(Pool::new(len, 0), len);
        }
        let buffer = device().alloc(len).expect("device memory");
        let span = buffer.span();
        std::mem::forget(buffer);
        Self::Gpu(span)
    }

    /// GPU memory of several chunks side by side.
    fn chunks(count: usize) -> (Self, u64) {
        let device = device();
        raw::make_current(&device);
        let chunks = raw::Chunks::new(&vec![&*device; count], raw::Handles::Fd);
        (Self::Gpu(chunks.span()), chunks.chunk)
    }

    fn len(&self) -> usize {
        match self {
            Self::Host(_, len) => *len,
            Self::Gpu(span) => span.len as usize,
        }
    }

    fn piece(&self, offset: usize, len: usize) -> Descriptor {
        match self {
            Self::Host(pool, _) => pool.desc(offset, len),
            Self::Gpu(span) => Descriptor { addr: span.addr + offset as u64, len: len as u64, device: 0 },
        }
    }

    fn list(&self, pieces: Vec<Descriptor>) -> DescriptorList<'static> {
        let kind = if matches!(self, Self::Host(..)) { MemoryKind::Dram } else { MemoryKind::Vram };
        DescriptorList { kind, descs: pieces.into() }
    }

    fn register(&self, agent: &Agent) {
        // SAFETY: it is never freed, and only ever copied in and out of.
        unsafe { agent.register(&self.list(vec![self.piece(0, self.len())])) }.expect("memory registers");
    }

    fn fill(&self, byte: impl Fn(usize) -> u8) {
        match self {
            Self::Host(pool, _) => pool.fill(byte),
            Self::Gpu(span) => {
                let mut staged = device().pinned(self.len()).expect("page-locked memory");
                staged.as_mut_slice().iter_mut().enumerate().for_each(|(at, slot)| *slot = byte(at));
                copy(Segment { src: staged.device_addr(), dst: span.addr, len: span.len });
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Host(pool, _) => pool.bytes(),
            Self::Gpu(span) => {
                let staged = device().pinned(self.len()).expect("page-locked memory");
                copy(Segment { src: span.addr, dst: staged.device_addr(), len: span.len });
                staged.as_slice().to_vec()
            }
        }
    }
}

/// Copies between page-locked memory and a device's, and waits for the end.
fn copy(segment: Segment) {
    let mut queue = device().queue(Arc::new(|| ()), Urgency::Normal).expect("a queue");
    // SAFETY: both ends belong to the caller, who waits; no transfer is under way that uses them.
    unsafe { queue.start(1, [segment].into_iter()) }.expect("an idle device takes a copy");
    eventually("the copy", || queue.ended()).1.expect("it is copied");
}

/// Two agents with memory, the context's and the generation's.
struct Ends {
    agents: [Agent; 2],
    memory: [Memory; 2],
}

impl Ends {
    fn new(lane: Lane, memory: [Memory; 2]) -> Self {
        Self::of(["ctx", "gen"].map(|stem| agent(stem, lane)), memory)
    }

    /// The same of two agents that are there already.
    fn of(agents: [Agent; 2], memory: [Memory; 2]) -> Self {
        memory.iter().zip(&agents).for_each(|(memory, agent)| memory.register(agent));
        agents[0].load_blob(agents[1].name(), &agents[1].local_blob()).expect("the generation loads");
        Self { agents, memory }
    }

    /// What has the context copy pieces, each `(offset here, offset there, length)`.
    fn request(&self, op: TransferOp, pieces: &[(usize, usize, usize)]) -> TransferRequest<'static> {
        let [local, remote] = &self.memory;
        TransferRequest {
            op,
            local: local.list(pieces.iter().map(|(here, _, len)| local.piece(*here, *len)).collect()),
            remote: remote.list(pieces.iter().map(|(_, there, len)| remote.piece(*there, *len)).collect()),
            peer: self.agents[1].name().to_owned(),
            sync_message: None,
        }
    }

    /// The context copies pieces between its memory and the generation's, each `(offset here, offset there, length)`.
    fn run(&self, op: TransferOp, pieces: &[(usize, usize, usize)]) {
        let request = self.request(op, pieces);
        let transfer = self.agents[0].submit(&request).expect("the transfer is taken");
        let state = transfer.wait(Some(WATCHDOG));
        assert_eq!(state, TransferState::Success, "{}", transfer.error_text());
    }

    /// Does so with fresh bytes, and looks at all there is at the destination.
    fn run_and_check(&self, op: TransferOp, pieces: &[(usize, usize, usize)]) {
        let [here, there] = &self.memory;
        here.fill(|at| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]);
        there.fill(|at| (at as u32).wrapping_mul(40_503).to_le_bytes()[1]);
        let (mut ours, mut theirs) = (here.bytes(), there.bytes());
        for &(at, to, len) in pieces {
            match op {
                TransferOp::Write => theirs[to..to + len].copy_from_slice(&ours[at..at + len]),
                TransferOp::Read => ours[at..at + len].copy_from_slice(&theirs[to..to + len]),
            }
        }
        self.run(op, pieces);
        assert!(here.bytes() == ours, "{op} of {} pieces: the context's memory", pieces.len());
        assert!(there.bytes() == theirs, "{op} of {} pieces: the generation's memory", pieces.len());
    }
}

/// `count` pieces of `len` bytes: here from the front, there from the back, with gaps.
fn scattered(count: usize, len: usize) -> Vec<(usize, usize, usize)> {
    (0..count).map(|at| (at * (len + 3), (count - 1 - at) * (len + 3) + 1, len)).collect()
}

fn bytes_arrive_in_all_combinations(lane: Lane) {
    use MemoryKind::{Dram, Vram};
    for kinds in [[Vram, Vram], [Vram, Dram], [Dram, Vram], [Dram, Dram]] {
        let ends = Ends::new(lane, kinds.map(|kind| Memory::new(kind, (5 << 20) + 13)));
        for op in [TransferOp::Write, TransferOp::Read] {
            ends.run_and_check(op, &[(0, 0, (5 << 20) + 13)]);
            ends.run_and_check(op, &scattered(4000, 1000));
            ends.run_and_check(op, &scattered(1, 1));
        }
    }
}

#[test]
fn bytes_arrive_in_all_combinations_over_unix() {
    bytes_arrive_in_all_combinations(Lane::StreamUnix);
}

#[test]
fn bytes_arrive_in_all_combinations_over_tcp() {
    bytes_arrive_in_all_combinations(Lane::StreamTcp);
}

/// What is registered as one is a region for each chunk; descriptors that cross their edges arrive all the same.
#[test]
fn descriptors_cross_the_edges_of_chunks() {
    let ((from, chunk), (to, _)) = (Memory::chunks(3), Memory::chunks(3));
    let (ends, chunk) = (Ends::new(Lane::StreamUnix, [from, to]), chunk as usize);
    let pieces = [
        (chunk - 5000, 100, 10_000),               // over an edge here
        (10_000, 2 * chunk - 7, 9_000),            // over one there
        (2 * chunk - 100, chunk - 300, 4_000),     // over one on both sides, at different bytes
        (2 * chunk + 4_000, 2 * chunk + 9_000, 1), // over none
    ];
    for op in [TransferOp::Write, TransferOp::Read] {
        ends.run_and_check(op, &pieces);
        ends.run_and_check(op, &[(0, 0, 3 * chunk)]);
    }
}

fn agents_with_cards() -> [Agent; 2] {
    let cuda =
        Cuda::open(&DeviceConfig { library: Some(fake_cuda::driver()) }).expect("a driver for the tests");
    let mut cards = card::pair(cuda, 64 << 10).into_iter();
    ["ctx", "gen"].map(|stem| {
        let config = AgentConfig { name: unique(stem), settings: settings(Lane::Ucx) };
        Agent::with_fabrics(config, cards.by_ref().take(1).collect()).expect("an agent opens")
    })
}

/// Nothing is acknowledged, and no read is over, before the GPU sees what a card has written to it.
#[test]
fn a_flush_that_fails_fails_what_it_was_for() {
    if fake_cuda::serves("a_flush_that_fails_fails_what_it_was_for") {
        in_a_process("gpu::a_failing_flush", &[("FAKE_CUDA_FAIL", "cuFlushGPUDirectRDMAWrites:1+:1")]);
    }
}

#[test]
#[ignore = "started by another test"]
fn a_failing_flush() {
    use MemoryKind::{Dram, Vram};
    let cases = [
        ([Dram, Vram], TransferOp::Write, 1),
        ([Dram, Vram], TransferOp::Write, 400),
        ([Vram, Dram], TransferOp::Read, 1),
    ];
    for (kinds, op, count) in cases {
        let ends = Ends::of(agents_with_cards(), kinds.map(|kind| Memory::new(kind, 1 << 20)));
        let request = TransferRequest {
            sync_message: Some(b"done".to_vec()),
            ..ends.request(op, &scattered(count, 1000))
        };
        let transfer = ends.agents[0].submit(&request).expect("the transfer is taken");
        assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Failure, "{kinds:?} {op} of {count}");
        let text = transfer.error_text();
        assert!(text.contains("cuFlushGPUDirectRDMAWrites on device 0"), "{text}");
        if op == TransferOp::Write {
            assert!(ends.agents[1].take_notifications().is_empty(), "nobody is told of what is not there");
        }
    }
}

/// What a network card would write piece by piece goes through slots in memory of either kind.
#[test]
fn small_pieces_are_gathered_in_all_combinations() {
    use MemoryKind::{Dram, Vram};
    for kinds in [[Vram, Vram], [Vram, Dram], [Dram, Vram], [Dram, Dram]] {
        let agents = agents_with_cards();
        // Both kinds on both sides: what is gathered in one may be scattered in the other.
        let both = [0, 1].map(|_| [Dram, Vram].map(|kind| Memory::new(kind, 4096)));
        both.iter()
            .zip(&agents)
            .for_each(|(both, agent)| both.iter().for_each(|memory| memory.register(agent)));
        let ends = Ends::of(agents, kinds.map(|kind| Memory::new(kind, (5 << 20) + 13)));
        let gathered = || ends.agents[0].gathered_chunks();
        eventually("slots are lent", || {
            ends.run(TransferOp::Write, &scattered(100, 1000));
            (gathered() > 0).then_some(())
        });
        for pieces in [scattered(4000, 1000), scattered(16, 1), scattered(60, 60_001)] {
            let before = gathered();
            ends.run_and_check(TransferOp::Write, &pieces);
            assert!(gathered() > before, "{kinds:?}: {} pieces", pieces.len());
        }
        let before = gathered();
        ends.run_and_check(TransferOp::Write, &[(0, 0, 5 << 20)]);
        ends.run_and_check(TransferOp::Read, &scattered(4000, 1000));
        assert_eq!(gathered(), before, "one piece, or a read, goes straight");
    }
}

#[test]
fn memory_is_given_back_and_taken_again() {
    let ends = Ends::new(Lane::StreamUnix, [MemoryKind::Vram; 2].map(|kind| Memory::new(kind, 1 << 20)));
    for _ in 0..3 {
        ends.run_and_check(TransferOp::Write, &scattered(200, 4096));
        for (memory, agent) in ends.memory.iter().zip(&ends.agents) {
            agent.deregister(&memory.list(vec![memory.piece(0, memory.len())]));
            memory.register(agent);
        }
    }
}

fn refusal(agent: &Agent, list: &DescriptorList<'_>) -> RegisterError {
    // SAFETY: nothing is registered: that is what is shown.
    unsafe { agent.register(list) }.expect_err("memory that is not what it is said to be")
}

#[test]
fn what_is_not_gpu_memory_of_the_device_is_refused() {
    let agent = agent("ctx", Lane::StreamUnix);
    let host = Pool::new(4096, 0);
    let vram = |piece| DescriptorList { kind: MemoryKind::Vram, descs: vec![piece].into() };
    let error = refusal(&agent, &vram(host.desc(0, 4096)));
    assert!(matches!(error, RegisterError::Gpu { index: 0, .. }), "{error}");
    assert!(error.to_string().contains("is not device memory"), "{error}");
    let memory = Memory::new(MemoryKind::Vram, 4096);
    let elsewhere = Descriptor { device: 1, ..memory.piece(0, 4096) };
    let error = refusal(&agent, &vram(elsewhere));
    assert!(error.to_string().contains("lies on device 0, not on device 1"), "{error}");
    memory.register(&agent);
}

#[test]
fn without_cuda_gpu_memory_is_refused_and_host_memory_serves() {
    in_a_process("gpu::no_cuda", &[("BATON_CUDA_LIBRARY", "/no/such/libcuda.so")]);
}

#[test]
#[ignore = "started by another test"]
fn no_cuda() {
    let agent = agent("ctx", Lane::StreamUnix);
    let host = Pool::new(4096, 0);
    let list = DescriptorList { kind: MemoryKind::Vram, descs: vec![host.desc(0, 4096)].into() };
    let error = refusal(&agent, &list);
    assert!(error.to_string().contains("GPU memory needs CUDA"), "{error}");
    assert!(error.to_string().contains("/no/such/libcuda.so"), "{error}");
    host.register(&agent);
    let lanes = LaneChoice { cuda: true, ..LaneChoice::NONE };
    let settings = EngineSettings { lanes, ..settings(Lane::StreamUnix) };
    let error =
        Agent::new(AgentConfig { name: "gen".into(), settings }).expect_err("it has no lane").to_string();
    let said = "no lane can be had (cuda: not available here: CUDA: dlopen: cannot load /no/such/libcuda.so";
    assert!(error.contains(said), "{error}");
}

/// A device that fails in the midst of transfers: each ends, the error says which call on which device, and host memory
/// goes on being carried over the same links.
#[test]
fn a_device_that_fails_ends_its_transfers_alone() {
    if fake_cuda::serves("a_device_that_fails_ends_its_transfers_alone") {
        // The launches of the test's own copies come first.
        in_a_process("gpu::a_failing_device", &[("FAKE_CUDA_FAIL", "cuLaunchKernel:6+:719")]);
    }
}

#[test]
#[ignore = "started by another test"]
fn a_failing_device() {
    let ends = Ends::new(
        Lane::StreamUnix,
        [MemoryKind::Vram, MemoryKind::Dram].map(|kind| Memory::new(kind, 8 << 20)),
    );
    let host = Memory::new(MemoryKind::Dram, 8 << 20);
    host.register(&ends.agents[0]);
    let [local, remote] = &ends.memory;
    let request = |from: &Memory| TransferRequest {
        op: TransferOp::Write,
        local: from.list(vec![from.piece(0, from.len())]),
        remote: remote.list(vec![remote.piece(0, remote.len())]),
        peer: ends.agents[1].name().to_owned(),
        sync_message: None,
    };
    let transfer = ends.agents[0].submit(&request(local)).expect("the transfer is taken");
    assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Failure);
    let text = transfer.error_text();
    assert!(text.contains("cuLaunchKernel on device 0"), "{text}");
    host.fill(|at| at as u8);
    let transfer = ends.agents[0].submit(&request(&host)).expect("the transfer is taken");
    assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Success, "{}", transfer.error_text());
    assert!(remote.bytes() == host.bytes());
}
