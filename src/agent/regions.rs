//! What the host has registered, so that the same list can be deregistered.

use std::collections::HashMap;

use crate::desc::{Descriptor, MemoryKind, RegionKey};

/// Registered descriptors and the keys of their regions. The same descriptor may be registered more than once; one of GPU
/// memory has a region for each allocation or chunk that backs it.
#[derive(Debug, Default)]
pub(super) struct Registered {
    keys: HashMap<(MemoryKind, Descriptor), Vec<Vec<RegionKey>>>,
    next_key: u32,
}

impl Registered {
    /// A key that has never been used.
    pub fn next_key(&mut self) -> RegionKey {
        self.next_key += 1;
        RegionKey(self.next_key)
    }

    /// The key of the latest region.
    pub fn last_key(&self) -> RegionKey {
        RegionKey(self.next_key)
    }

    /// How many registrations there are.
    pub fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    /// Remembers a descriptor under the keys of its regions.
    pub fn insert(&mut self, kind: MemoryKind, descriptor: Descriptor, keys: Vec<RegionKey>) {
        self.keys.entry((kind, descriptor)).or_default().push(keys);
    }

    /// The descriptors of a kind, each once, with the keys of the regions that one registration of it made.
    pub fn of_kind(&self, kind: MemoryKind) -> impl Iterator<Item = (Descriptor, &[RegionKey])> {
        let of_kind = self.keys.iter().filter(move |((of, _), _)| *of == kind);
        of_kind.filter_map(|((_, memory), registrations)| Some((*memory, &**registrations.last()?)))
    }

    /// Forgets one registration of a descriptor and returns its keys; none where there was none.
    pub fn remove(&mut self, kind: MemoryKind, descriptor: Descriptor) -> Vec<RegionKey> {
        let Some(registrations) = self.keys.get_mut(&(kind, descriptor)) else { return Vec::new() };
        let keys = registrations.pop();
        if registrations.is_empty() {
            self.keys.remove(&(kind, descriptor));
        }
        keys.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_descriptor_may_come_twice_and_goes_twice() {
        let mut registered = Registered::default();
        let descriptor = Descriptor { addr: 4096, len: 64, device: 0 };
        for _ in 0..2 {
            let keys = vec![registered.next_key(), registered.next_key()];
            registered.insert(MemoryKind::Dram, descriptor, keys);
        }
        assert_eq!(registered.len(), 2);
        let once: Vec<_> = registered.of_kind(MemoryKind::Dram).collect();
        assert_eq!(once, [(descriptor, &[RegionKey(3), RegionKey(4)][..])]);
        assert_eq!(registered.of_kind(MemoryKind::Vram).count(), 0);
        assert_eq!(registered.remove(MemoryKind::Dram, descriptor), [RegionKey(3), RegionKey(4)]);
        assert_eq!(registered.remove(MemoryKind::Vram, descriptor), []);
        assert_eq!(registered.remove(MemoryKind::Dram, descriptor), [RegionKey(1), RegionKey(2)]);
        assert_eq!(registered.remove(MemoryKind::Dram, descriptor), []);
    }
}
