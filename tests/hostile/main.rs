//! Bytes that no honest peer sends, and limits at n and n + 1.
//!
//! * [`corpora`] runs the fuzz targets (`fuzz/src/targets`) without libFuzzer: over every corpus, and over
//!   mutations of it that a seed makes;
//! * [`memory`] counts what a thread allocates, so that bounds on memory are bounds and not hopes.

mod corpora;
mod memory;
mod mutation;
mod seeds;
#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;
