//! Operations in flight, by ticket: the only thing about them that crosses to UCX and comes back.
//!
//! A ticket holds a slot and the slot's generation, so that a completion which comes back late finds nothing
//! instead of the slot's next tenant. Plain data; no thread rule of its own.

/// Names an entry: generation in the upper half, slot in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ticket(pub u64);

struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

/// Entries that keep their place until they are removed.
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn insert(&mut self, entry: T) -> Ticket {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot { generation: 0, entry: None });
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.entry = Some(entry);
        Ticket(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// The entry, unless it has been removed.
    pub fn get_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        let slot = self.slots.get_mut(ticket.0 as u32 as usize)?;
        if u64::from(slot.generation) == ticket.0 >> 32 { slot.entry.as_mut() } else { None }
    }

    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.get_mut(ticket)?;
        let index = ticket.0 as u32;
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        slot.entry.take()
    }

    /// Takes out every entry that `chosen` says yes to.
    pub fn extract(&mut self, mut chosen: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.entry.as_ref().is_some_and(&mut chosen) {
                let ticket = Ticket(u64::from(slot.generation) << 32 | index as u64);
                out.extend(self.remove(ticket));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_ticket_finds_nothing() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(first.0 as u32, second.0 as u32, "the slot is used again");
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut "second"));
        assert_eq!(slab.get_mut(Ticket(99)), None);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn extract_takes_only_what_is_chosen() {
        let mut slab = Slab::new();
        let tickets: Vec<Ticket> = (0..6).map(|n| slab.insert(n)).collect();
        assert_eq!(slab.extract(|n| n % 2 == 0), [0, 2, 4]);
        assert_eq!(slab.len(), 3);
        assert_eq!(slab.get_mut(tickets[1]), Some(&mut 1));
        assert_eq!(slab.get_mut(tickets[2]), None);
    }
}
