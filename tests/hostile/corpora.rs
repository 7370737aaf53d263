//! The fuzz targets without libFuzzer: on any machine, with the compiler that everything else is built with.

use std::fs;
use std::path::PathBuf;

use crate::memory::peak_of;
use crate::mutation::{Chance, mutated};
use crate::puppet::beside;
use crate::seeds;
use crate::targets::{TARGETS, Target};

/// Mutations of each target's corpus: as many as take a second or two.
const MUTATIONS: usize = 1000;
const SEED: u64 = 0xBA70;
/// What a target may have allocated at once: a stream's read buffer, a parser's tables, and so many times its input.
const MEMORY_MAX_BYTES: usize = 4 << 20;
const MEMORY_PER_BYTE: usize = 64;

#[test]
fn every_corpus_is_survived_and_partly_understood() {
    let _beside = beside();
    for target in TARGETS {
        let corpus = corpus(target);
        let taken = corpus.iter().filter(|(name, bytes)| run(target, name, bytes)).count();
        assert!(taken > 0, "{}: none of {} inputs is well-formed any more", target.name, corpus.len());
    }
}

#[test]
fn mutations_of_every_corpus_are_survived() {
    let _beside = beside();
    for target in TARGETS {
        let corpus = corpus(target);
        let mut chance = Chance::new(SEED);
        for turn in 0..MUTATIONS {
            let [one, other] = [(); 2].map(|()| &corpus[chance.below(corpus.len())]);
            let bytes = mutated(&mut chance, &one.1, &other.1);
            run(target, &format!("mutation {turn} of {}, seed {SEED:#x}", one.0), &bytes);
        }
    }
}

/// Writes the seeds to where they are committed; what fuzzing has found stays.
#[test]
#[ignore = "changes the tree: make fuzz-seeds"]
fn write_the_seeds() {
    for (target, name, bytes) in seeds::all() {
        let folder = folder(target);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), bytes).expect("a file");
    }
}

/// Runs one input; a failure names it and shows its bytes.
fn run(target: &Target, name: &str, bytes: &[u8]) -> bool {
    let on_failure = Shown { target, name, bytes };
    let mut taken = false;
    let peak = peak_of(|| taken = (target.run)(bytes));
    let bound = MEMORY_MAX_BYTES + MEMORY_PER_BYTE * bytes.len();
    assert!(peak <= bound, "it allocated {peak} bytes for {} of input, more than {bound}", bytes.len());
    std::mem::forget(on_failure);
    taken
}

struct Shown<'a> {
    target: &'a Target,
    name: &'a str,
    bytes: &'a [u8],
}

/// Only a panic drops it.
impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let hex: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("target {}, input {}: {hex}", self.target.name, self.name);
    }
}

/// A target's committed inputs, by name.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = folder(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut corpus: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a readable folder").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, fs::read(path).expect("a readable file"))
        })
        .collect();
    corpus.sort();
    corpus
}

fn folder(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}
