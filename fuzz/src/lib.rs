//! Fuzzing Baton: `make fuzz`, or `cargo fuzz run <target>` where cargo-fuzz is installed.

pub mod targets;
