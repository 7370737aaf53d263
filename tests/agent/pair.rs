//! Two agents, their memory, and a watchdog.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use baton::agent::{Agent, AgentConfig, DescriptorList, Transfer, TransferRequest, TransferState};
use baton::config::{EngineSettings, Environment, LaneChoice};
use baton::desc::{Descriptor, MemoryKind, TransferOp};

/// What a pair is allowed to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Local,
    StreamUnix,
    StreamTcp,
    Ucx,
}

/// Longest any wait of a test may take.
pub const WATCHDOG: Duration = Duration::from_secs(20);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name nobody else has.
pub fn unique(stem: &str) -> String {
    format!("{stem}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn settings(lane: Lane) -> EngineSettings {
    let lanes = match lane {
        Lane::Local => LaneChoice { local: true, ..LaneChoice::NONE },
        Lane::StreamUnix => LaneChoice { stream_unix: true, ..LaneChoice::NONE },
        Lane::StreamTcp => LaneChoice { stream_tcp: true, ..LaneChoice::NONE },
        Lane::Ucx => LaneChoice { ucx: true, ..LaneChoice::NONE },
    };
    let ucx_library =
        Environment::from_process().setting("BATON_UCX_LIBRARY").expect("UTF-8").map(Into::into);
    let cuda_library = Some(fake_cuda::driver());
    EngineSettings {
        lanes,
        ucx_library,
        cuda_library,
        interface: Some("lo".into()),
        ..EngineSettings::default()
    }
}

/// Whether there is a UCX here that serves. If not, says why `test` is skipped.
pub fn ucx_serves(test: &str) -> bool {
    let opened = Agent::new(AgentConfig { name: unique("probe"), settings: settings(Lane::Ucx) });
    match opened.map_err(|error| error.to_string()) {
        Err(text) if text.contains("ucx: not available here") => {
            println!("skipped: ucx::{test}: {text}");
            false
        }
        outcome => outcome.map(|_| true).expect("an agent opens"),
    }
}

pub fn agent(stem: &str, lane: Lane) -> Agent {
    named_agent(unique(stem), lane)
}

pub fn named_agent(name: String, lane: Lane) -> Agent {
    Agent::new(AgentConfig { name, settings: settings(lane) }).expect("an agent opens")
}

/// Memory that outlives every registration of it: leaked, so that no test can break the promise.
pub struct Pool {
    start: *mut u8,
    len: usize,
}

impl Pool {
    #[inline(never)] // lsan.supp names it
    pub fn new(len: usize, fill: u8) -> Self {
        let start = Box::leak(vec![fill; len].into_boxed_slice()).as_mut_ptr();
        Self { start, len }
    }

    pub fn desc(&self, offset: usize, len: usize) -> Descriptor {
        Descriptor { addr: self.start as u64 + offset as u64, len: len as u64, device: 0 }
    }

    pub fn all(&self) -> DescriptorList<'static> {
        dram(vec![self.desc(0, self.len)])
    }

    /// A copy of what is in it. Callers read only what no transfer is writing.
    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: the allocation is leaked, `len` bytes long and initialised.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }.to_vec()
    }

    pub fn fill(&self, byte: impl Fn(usize) -> u8) {
        // SAFETY: as above; no other reference exists, and no transfer touches it while a test fills it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start, self.len) };
        bytes.iter_mut().enumerate().for_each(|(at, slot)| *slot = byte(at));
    }

    pub fn register(&self, agent: &Agent) {
        // SAFETY: the memory is leaked, so it stays mapped; `bytes` and `fill` copy through raw pointers.
        unsafe { agent.register(&self.all()) }.expect("memory registers");
    }
}

// SAFETY: a pool is an address; what may be read and written when is the tests' own order.
unsafe impl Sync for Pool {}
// SAFETY: as above.
unsafe impl Send for Pool {}

pub fn dram(descs: impl Into<Cow<'static, [Descriptor]>>) -> DescriptorList<'static> {
    DescriptorList { kind: MemoryKind::Dram, descs: descs.into() }
}

/// An agent with a registered pool on each side; the context has loaded the generation.
pub struct Pair {
    pub ctx: Agent,
    pub gene: Agent,
    pub ctx_pool: Pool,
    pub gen_pool: Pool,
}

impl Pair {
    pub fn new(lane: Lane, len: usize) -> Self {
        Self::of((agent("ctx", lane), agent("gen", lane)), len)
    }

    /// The same of two agents that are there already.
    pub fn of((ctx, gene): (Agent, Agent), len: usize) -> Self {
        let (ctx_pool, gen_pool) = (Pool::new(len, 0), Pool::new(len, 0xee));
        ctx_pool.fill(|at| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]);
        ctx_pool.register(&ctx);
        gen_pool.register(&gene);
        ctx.load_blob(gene.name(), &gene.local_blob()).expect("the generation loads");
        Self { ctx, gene, ctx_pool, gen_pool }
    }

    pub fn request(
        &self,
        op: TransferOp,
        local: impl Into<Cow<'static, [Descriptor]>>,
        remote: impl Into<Cow<'static, [Descriptor]>>,
    ) -> TransferRequest<'static> {
        let peer = self.gene.name().to_owned();
        TransferRequest { op, local: dram(local), remote: dram(remote), peer, sync_message: None }
    }

    pub fn run(&self, request: &TransferRequest<'_>) -> Transfer {
        let transfer = self.ctx.submit(request).expect("the transfer is taken");
        let state = transfer.wait(Some(WATCHDOG));
        assert_eq!(state, TransferState::Success, "{}", transfer.error_text());
        transfer
    }
}

/// Polls until `found` gives something.
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WATCHDOG;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {WATCHDOG:?}");
        std::thread::yield_now();
    }
}

/// The next `count` notifications of one peer.
pub fn notifications(agent: &Agent, from: &str, count: usize) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    eventually("a notification", || {
        for (peer, messages) in agent.take_notifications() {
            assert_eq!(peer, from);
            seen.extend(messages);
        }
        (seen.len() >= count).then(|| std::mem::take(&mut seen))
    })
}
