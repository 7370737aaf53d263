//! What the program asks of its other processes, and what they answer: one line of JSON each.

use baton::config::LaneChoice;
use serde::{Deserialize, Serialize};

use crate::layout::Layout;

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Host memory.
    Dram,
    /// `cuMemAlloc`, as `cudaMalloc` gives it.
    Alloc,
    /// Virtual memory management, chunks that can be shared by file descriptor.
    VmmFd,
    /// Virtual memory management, chunks that cannot be shared.
    VmmPrivate,
}

impl Place {
    /// Whether it is memory of a GPU.
    pub fn is_vram(self) -> bool {
        self != Self::Dram
    }

    /// For names of cases.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dram => "dram",
            Self::Alloc => "vram",
            Self::VmmFd => "vmm-fd",
            Self::VmmPrivate => "vmm-private",
        }
    }
}

/// Which lanes an agent may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lanes {
    /// CUDA IPC for GPU memory, nothing else; host memory by `local`.
    Cuda,
    /// Baton's stream over a Unix socket, for everything.
    StreamUnix,
    /// Baton's stream over TCP, for everything.
    StreamTcp,
    /// What an agent has by default, without UCX.
    All,
}

impl Lanes {
    /// For names of cases.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::StreamUnix => "stream-unix",
            Self::StreamTcp => "stream-tcp",
            Self::All => "all",
        }
    }

    /// As an agent's settings have it.
    pub fn choice(self) -> LaneChoice {
        LaneChoice {
            local: matches!(self, Self::Cuda | Self::All),
            ucx: false,
            cuda: matches!(self, Self::Cuda | Self::All),
            stream_unix: matches!(self, Self::StreamUnix | Self::All),
            stream_tcp: matches!(self, Self::StreamTcp | Self::All),
            explicit: true,
        }
    }
}

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Says what machine this is: [`Machine`].
    Describe,
    /// Loads both versions of the kernels: what came of each, by name.
    LoadKernels,
    /// Copies random segments within a GPU, and compares: the number of segments.
    Copies {
        /// Device.
        device: u32,
        /// Decides everything.
        seed: u64,
        /// Bytes of each buffer.
        len: u64,
        /// The longest segment.
        len_max: u64,
        /// Flips a byte before the comparison.
        corrupt: bool,
    },
    /// Copies blocks between layouts, and compares: a text that says which layouts.
    Transforms {
        /// Device.
        device: u32,
        /// Decides everything.
        seed: u64,
        /// Flips a byte before the comparison.
        corrupt: bool,
    },
    /// Opens an agent: its connection info.
    Open {
        /// Its name.
        name: String,
        /// What it may use.
        lanes: Lanes,
        /// The silence after which a peer is lost.
        peer_timeout_ms: u64,
    },
    /// Makes a buffer, fills and registers it: [`Held`].
    Hold {
        /// Where.
        place: Place,
        /// Device, for GPU memory.
        device: u32,
        /// Length of what is registered.
        len: u64,
        /// Seed of the pattern that fills it.
        fill: u64,
    },
    /// Deregisters a buffer and frees it.
    Release {
        /// Which.
        buffer: usize,
    },
    /// Fills a buffer with another pattern.
    Fill {
        /// Which.
        buffer: usize,
        /// Seed of the pattern.
        fill: u64,
    },
    /// Flips a byte of a buffer, in the middle of what is registered.
    Corrupt {
        /// Which.
        buffer: usize,
    },
    /// Loads a peer.
    Load {
        /// Where it listens.
        info: String,
    },
    /// Moves a layout, and waits: [`Moved`].
    Move(Moving),
    /// Moves a layout again and again, until a transfer fails. Answers once the first one has succeeded.
    Storm(Moving),
    /// Waits for the end of the storm: [`Ended`].
    Ended {
        /// At most so long.
        within_ms: u64,
    },
    /// Compares a buffer with what it has to hold: [`Checked`].
    Check(Checking),
    /// How many transfers of this agent are not over.
    InFlight,
    /// Waits for notifications in a thread from now on, as a host does that expects some, or no longer.
    Attend {
        /// Whether.
        on: bool,
    },
    /// Measures a layout: [`Measured`].
    Measure {
        /// What is moved.
        moving: Moving,
        /// Moves before those that count.
        warm_up: u32,
        /// Moves that count, at most.
        repeats: u32,
        /// No further move is begun after so long.
        for_ms: u64,
    },
    /// When copies were launched since the last such order, by the clock of all processes.
    Launches,
    /// What a device reaches by itself, for so many bytes: [`Limit`].
    CopyLimit {
        /// Device.
        device: u32,
        /// Bytes of a copy.
        bytes: u64,
        /// Copies of which the best counts.
        repeats: u32,
    },
    /// What a layout costs on the CPU: [`Cost`].
    Cost {
        /// Device.
        device: u32,
        /// What is planned.
        layout: Layout,
        /// Times of which the median counts.
        repeats: u32,
    },
}

/// A transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moving {
    /// Whether it reads from the peer; it writes to it otherwise.
    pub read: bool,
    /// Our buffer.
    pub buffer: usize,
    /// The peer's name.
    pub peer: String,
    /// The peer's buffer.
    pub theirs: Held,
    /// What is moved.
    pub layout: Layout,
    /// It is given up after so long.
    pub within_ms: u64,
}

/// A comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checking {
    /// Which buffer.
    pub buffer: usize,
    /// What it was filled with.
    pub fill: u64,
    /// What has landed in it since: the layout, and what the source was filled with.
    pub landed: Option<(Layout, u64)>,
    /// Whether bytes of the layout may be as they were before, too: the transfer was broken off.
    pub either: bool,
}

/// A buffer, as the peer has to know it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Held {
    /// Its number in its process.
    pub buffer: usize,
    /// First byte of what is registered.
    pub addr: u64,
    /// Where it lies.
    pub place: Place,
    /// Device; 0 for host memory.
    pub device: u32,
    /// Length of the chunks that back it; 0 where it has none.
    pub chunk: u64,
    /// Bytes between the begin of a chunk, or of the buffer, and what is registered.
    pub guard: u64,
}

/// What came of a transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moved {
    /// Nothing, if it succeeded.
    pub error: Option<String>,
    /// Descriptors.
    pub pieces: usize,
    /// Bytes.
    pub bytes: u64,
}

/// What came of a storm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// Transfers that succeeded.
    pub succeeded: u64,
    /// The first error.
    pub error: String,
    /// When it was seen.
    pub at_ns: u64,
}

/// What came of a comparison.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// Bytes that are wrong.
    pub wrong: u64,
    /// The first of them, as an offset in what is registered; negative ahead of it.
    pub first: Option<i64>,
    /// Bytes compared.
    pub bytes: u64,
}

/// One move of a measurement, by the clock of all processes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Lap {
    /// Before it was submitted.
    pub begin_ns: u64,
    /// When the submission returned.
    pub submitted_ns: u64,
    /// When it had succeeded.
    pub end_ns: u64,
}

/// A measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The moves that count.
    pub laps: Vec<Lap>,
}

/// What a device reaches by itself, in 10^9 bytes a second.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limit {
    /// One copy of the driver's.
    pub driver_gbps: f64,
    /// Our kernel over contiguous memory, with its launch.
    pub kernel_gbps: f64,
}

/// Nanoseconds for each descriptor, on one thread.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Planning.
    pub plan_ns: f64,
    /// Writing the list that the kernel reads.
    pub list_ns: f64,
    /// All of starting a batch: list, launch, event.
    pub start_ns: f64,
}

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Version and file of the driver.
    pub driver: String,
    /// Version of the kernel module, where the system tells.
    pub module: Option<String>,
    /// The kernel of the system.
    pub system: String,
    /// Its processor.
    pub processor: String,
    /// Its GPUs.
    pub gpus: Vec<Gpu>,
    /// Lanes of this build that carry GPU memory here.
    pub vram_lanes: Vec<String>,
}

/// One GPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Gpu {
    /// Name.
    pub name: String,
    /// What it is known by in every process.
    pub uuid: String,
    /// Its place on the bus.
    pub pci: String,
    /// Compute capability.
    pub capability: String,
    /// Bytes.
    pub memory: u64,
    /// Those that are free.
    pub free: u64,
    /// GPUs whose memory its copies reach, itself left out.
    pub reaches: Vec<u32>,
}

/// An answer as it is written.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It was done.
    Done(serde_json::Value),
    /// It was not, and why.
    Failed(String),
}
