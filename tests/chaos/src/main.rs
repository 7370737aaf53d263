//! `chaos`: strikes real processes that use the library, and holds what is left against what was promised.
#![deny(unsafe_code)]

mod bench;
mod net;
mod report;
mod row;

fn main() {
    let families = net::families();
    drop(families);
}
