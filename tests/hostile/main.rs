//! Bytes that no honest peer sends, and limits at n and n + 1.
//!
//! * [`corpora`] runs the fuzz targets (`fuzz/src/targets`) without libFuzzer: over every corpus, and over
//!   mutations of it that a seed makes;
//! * [`frames`], [`crowds`], [`identity`] and [`places`] meet a real agent over real sockets: what is said, how many
//!   say it, who they say they are, and where they want to write;
//! * [`memory`] counts what a thread allocates, so that bounds on memory are bounds and not hopes; [`plans`] holds the
//!   planner to it.

mod corpora;
mod crowds;
mod frames;
mod identity;
mod memory;
mod mutation;
mod places;
mod plans;
mod puppet;
mod seeds;
#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;
