//! Rows in which a network is crossed, over a network of our own: namespaces, and a relay that loses, delays and cuts.

mod network;
mod packet;
mod relay;
mod space;
mod weather;

use crate::row::Family;

/// The families of this module.
pub fn families() -> Vec<Box<dyn Family>> {
    Vec::new()
}
