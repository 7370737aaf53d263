//! `baton doctor` as a person runs it, on package folders that are made here: small ELF files with the loader's entries
//! and the symbols that matter, compiled with the system's C++ compiler. Where there is none, tests skip by name.

mod files;
mod host;
mod machine;
mod package;
mod settings;
