//! Rows in which a network is crossed: namespaces, drops, links that go down, a relay that loses and delays.

use crate::row::Family;

/// The families of this module.
pub fn families() -> Vec<Box<dyn Family>> {
    Vec::new()
}
