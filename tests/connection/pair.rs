//! Two connected ranks, their memory, and a watchdog.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use baton::config::{EngineSettings, LaneChoice};
use baton::connection::{Buffer, ConnectionId, Connections, ConnectionsConfig, Tag};

/// What a pair is allowed to use.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    Local,
    StreamUnix,
    StreamTcp,
    /// That of GPU memory, and a stream for what else there is.
    GpuAndUnix,
}

/// Longest any step of a test may take.
const WATCHDOG: Duration = Duration::from_secs(90);

/// Tags that no test uses for itself.
const PROOF: Tag = Tag(1001);

/// Never cancels.
pub fn never() -> bool {
    false
}

/// Runs a step; ends the process if it takes too long, for a hung thread cannot be ended otherwise.
pub fn within<T>(what: &str, step: impl FnOnce() -> T) -> T {
    let (done, watched) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if watched.recv_timeout(WATCHDOG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{what} has not ended within {WATCHDOG:?}");
                std::process::abort();
            }
        });
        let outcome = step();
        drop(done);
        outcome
    })
}

/// Something that one thread says and another waits for.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    /// Says it. False, so that it can be a cancel flag that says that its operation waits.
    pub fn raise(&self) -> bool {
        self.0.store(true, Ordering::Release);
        false
    }

    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub fn wait(&self) {
        let deadline = Instant::now() + WATCHDOG;
        while !self.is_raised() {
            assert!(Instant::now() < deadline, "nobody has said it");
            std::thread::yield_now();
        }
    }
}

/// Memory that outlives every use of it: leaked, so that no test can break the promise.
#[derive(Clone, Copy)]
pub struct Memory {
    start: *mut u8,
    len: usize,
}

impl Memory {
    #[inline(never)] // lsan.supp names it
    pub fn filled(len: usize, fill: u8) -> Self {
        let start = Box::leak(vec![fill; len].into_boxed_slice()).as_mut_ptr();
        Self { start, len }
    }

    /// Bytes that depend on their place.
    #[inline(never)] // lsan.supp names it
    pub fn patterned(len: usize, seed: u8) -> Self {
        let bytes =
            (0..len).map(|at| (at as u8) ^ ((at >> 8) as u8).wrapping_mul(31) ^ ((at >> 16) as u8) ^ seed);
        let bytes: Vec<u8> = bytes.collect();
        Self { start: Box::leak(bytes.into_boxed_slice()).as_mut_ptr(), len }
    }

    pub fn buffer(&self) -> Buffer {
        // SAFETY: leaked, so it stays mapped; `bytes` copies through a raw pointer.
        unsafe { Buffer::new(self.start as u64, self.len as u64) }
    }

    /// Its first bytes, as memory of their own.
    pub fn part(&self, len: usize) -> Self {
        assert!(len <= self.len);
        Self { start: self.start, len }
    }

    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: leaked, `len` bytes long and initialised; tests look only when no message is under way.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }.to_vec()
    }
}

// SAFETY: an address; what may be read and written when is the tests' own order.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

/// One end has asked the other for a connection.
pub struct Pair {
    pub requester: Connections,
    pub acceptor: Connections,
    pub out: ConnectionId,
    pub back: ConnectionId,
}

impl Pair {
    pub fn new(lane: Lane) -> Self {
        let (requester, acceptor) = (open("req", lane, 0), open("acc", lane, 0));
        let (from, to) = (Memory::patterned(8, 0), Memory::filled(8, 0));
        let (out, back) = within("first contact", || {
            let out = requester.connect(acceptor.ranks()[0]).expect("connected");
            requester.send(out, PROOF, from.buffer(), &never).expect("sent");
            (out, acceptor.accept(PROOF, to.buffer(), &never).expect("accepted").expect("not cancelled"))
        });
        assert_eq!(from.bytes(), to.bytes());
        Self { requester, acceptor, out, back }
    }

    /// A short and a long message still get through with this tag.
    pub fn proves_itself(&self, tag: Tag) {
        for len in [24, 50_000] {
            let (from, to) = (Memory::patterned(len, 99), Memory::filled(len, 0));
            within("a message after it", || {
                std::thread::scope(|scope| {
                    let sending = scope.spawn(|| self.requester.send(self.out, tag, from.buffer(), &never));
                    self.acceptor.receive(self.back, tag, to.buffer(), &never).expect("received");
                    sending.join().expect("no panic").expect("sent");
                });
            });
            assert_eq!(from.bytes(), to.bytes());
        }
    }
}

/// The connections of a single rank.
pub fn open(stem: &str, lane: Lane, port: u16) -> Connections {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    open_as(&format!("{stem}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)), lane, port)
}

/// The same under a name.
pub fn open_as(name: &str, lane: Lane, port: u16) -> Connections {
    let name = name.to_owned();
    let lanes = match lane {
        Lane::Local => LaneChoice { local: true, ..LaneChoice::NONE },
        Lane::StreamUnix => LaneChoice { stream_unix: true, ..LaneChoice::NONE },
        Lane::StreamTcp => LaneChoice { stream_tcp: true, ..LaneChoice::NONE },
        Lane::GpuAndUnix => LaneChoice { cuda: true, stream_unix: true, ..LaneChoice::NONE },
    };
    let (interface, cuda_library) = (Some("lo".into()), Some(fake_cuda::driver()));
    let settings = EngineSettings { lanes, interface, port, cuda_library, ..EngineSettings::default() };
    Connections::open(ConnectionsConfig { name, settings, ..ConnectionsConfig::default() }).expect("it opens")
}
