//! Which memory the ranks of a run have, and on which GPU.

use clap::ValueEnum;
use std::fmt;

use super::host::Phase;

/// Where KV pools and staging slots lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MemoryOption {
    /// Memory of the host
    Dram,
    /// A GPU's, by one allocation; needs the CUDA driver, or what BATON_CUDA_LIBRARY names
    Vram,
    /// A GPU's, by chunks mapped side by side, which other processes can be given
    Vmm,
    /// The same with chunks that no other process can be given
    VmmPrivate,
}

/// What the ranks of both phases have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memories {
    /// The context ranks.
    pub context: MemoryOption,
    /// The generation ranks.
    pub generation: MemoryOption,
    /// GPUs that the ranks are spread over.
    pub devices: u32,
}

impl Memories {
    /// Whether any rank needs a GPU.
    pub fn need_gpu(&self) -> bool {
        [self.context, self.generation] != [MemoryOption::Dram; 2]
    }

    /// Whether the receiver can copy all of it from GPU to GPU: what it is to read has to be memory that another process
    /// can be given.
    pub fn go_from_gpu_to_gpu(&self) -> bool {
        matches!(self.context, MemoryOption::Vram | MemoryOption::Vmm)
            && self.generation != MemoryOption::Dram
    }

    /// The word of the library's line about a peer that says which lane carries this.
    pub fn lane_word(&self) -> &'static str {
        match self.need_gpu() {
            false => "lane=",
            true if self.go_from_gpu_to_gpu() => "vram=",
            // A source that no other process can be given goes where host memory does.
            true => "mixed=",
        }
    }

    /// The flags that tell a rank, the `index`-th of all ranks of a run, its memory. None for DRAM, which is what
    /// hosts have by themselves.
    pub fn flags(&self, phase: Phase, index: u32) -> Vec<String> {
        let memory = match phase {
            Phase::Context => self.context,
            Phase::Generation => self.generation,
        };
        let device = (index % self.devices).to_string();
        let vram = ["--memory", "vram", "--device", &device];
        let chunks = CHUNK_BYTES.to_string();
        let flags: Vec<&str> = match memory {
            MemoryOption::Dram => Vec::new(),
            MemoryOption::Vram => vram.into(),
            MemoryOption::Vmm => [&vram[..], &["--vmm", &chunks]].concat(),
            MemoryOption::VmmPrivate => [&vram[..], &["--vmm", &chunks, "--vmm-private", "1"]].concat(),
        };
        flags.into_iter().map(str::to_owned).collect()
    }
}

impl fmt::Display for Memories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}", self.context, self.generation)
    }
}

impl fmt::Display for MemoryOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MemoryOption::Dram => "dram",
            MemoryOption::Vram => "vram",
            MemoryOption::Vmm => "vmm",
            MemoryOption::VmmPrivate => "vmm-private",
        })
    }
}

/// The length of a chunk: a few of them in every pool, and far fewer than blocks.
const CHUNK_BYTES: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lane_is_that_of_the_memory_that_is_moved() {
        use MemoryOption::{Dram, Vmm, VmmPrivate, Vram};
        let word = |context, generation| Memories { context, generation, devices: 1 }.lane_word();
        assert_eq!(word(Dram, Dram), "lane=");
        for pair in [(Vram, Vram), (Vmm, Vram), (Vram, VmmPrivate), (Vmm, VmmPrivate)] {
            assert_eq!(word(pair.0, pair.1), "vram=", "{pair:?}");
        }
        for pair in [(Dram, Vram), (Vram, Dram), (Vmm, Dram), (VmmPrivate, Vram), (VmmPrivate, VmmPrivate)] {
            assert_eq!(word(pair.0, pair.1), "mixed=", "{pair:?}");
        }
    }

    #[test]
    fn each_rank_is_told_its_memory_and_its_gpu() {
        let (context, generation) = (MemoryOption::Dram, MemoryOption::VmmPrivate);
        let memories = Memories { context, generation, devices: 2 };
        assert!(memories.need_gpu());
        assert!(memories.flags(Phase::Context, 1).is_empty());
        let told = memories.flags(Phase::Generation, 3).join(" ");
        assert_eq!(told, "--memory vram --device 1 --vmm 33554432 --vmm-private 1");
        assert_eq!(memories.to_string(), "dram->vmm-private");
        assert!(!Memories { generation: MemoryOption::Dram, ..memories }.need_gpu());
    }
}
