//! What the host has registered, so that the same list can be deregistered.

use std::collections::HashMap;

use crate::desc::{Descriptor, MemoryKind, RegionKey};

/// Registered descriptors and the keys they got. The same descriptor may be registered more than once.
#[derive(Debug, Default)]
pub(super) struct Registered {
    keys: HashMap<(MemoryKind, Descriptor), Vec<RegionKey>>,
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

    /// Remembers a descriptor under its key.
    pub fn insert(&mut self, kind: MemoryKind, descriptor: Descriptor, key: RegionKey) {
        self.keys.entry((kind, descriptor)).or_default().push(key);
    }

    /// The descriptors of a kind, each once, with the keys of the regions that one registration of it made.
    pub fn of_kind(&self, kind: MemoryKind) -> impl Iterator<Item = (Descriptor, &[RegionKey])> {
        let of_kind = self.keys.iter().filter(move |((of, _), _)| *of == kind);
        of_kind.filter_map(|((_, memory), keys)| Some((*memory, std::slice::from_ref(keys.last()?))))
    }

    /// Forgets one registration of a descriptor and returns its key.
    pub fn remove(&mut self, kind: MemoryKind, descriptor: Descriptor) -> Option<RegionKey> {
        let keys = self.keys.get_mut(&(kind, descriptor))?;
        let key = keys.pop();
        if keys.is_empty() {
            self.keys.remove(&(kind, descriptor));
        }
        key
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
            let key = registered.next_key();
            registered.insert(MemoryKind::Dram, descriptor, key);
        }
        assert_eq!(registered.len(), 2);
        let once: Vec<_> = registered.of_kind(MemoryKind::Dram).collect();
        assert_eq!(once, [(descriptor, &[RegionKey(2)][..])]);
        assert_eq!(registered.of_kind(MemoryKind::Vram).count(), 0);
        assert_eq!(registered.remove(MemoryKind::Dram, descriptor), Some(RegionKey(2)));
        assert_eq!(registered.remove(MemoryKind::Vram, descriptor), None);
        assert_eq!(registered.remove(MemoryKind::Dram, descriptor), Some(RegionKey(1)));
        assert_eq!(registered.remove(MemoryKind::Dram, descriptor), None);
    }
}
