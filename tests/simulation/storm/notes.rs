//! The oracle of notifications: each comes once, in order, and is lost only with its stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::chance::Chance;
use crate::net::NAMES;

/// Notifications on the way, by (from, to), in order.
#[derive(Debug, Default)]
pub struct Notes {
    coming: BTreeMap<(usize, usize), VecDeque<Note>>,
    written: u64,
}

#[derive(Debug)]
struct Note {
    /// The stream that it was sent on.
    wire: usize,
    message: Vec<u8>,
}

impl Notes {
    /// A new message; most are short, a few fill the stream.
    pub fn write(&mut self, chance: &mut Chance) -> Vec<u8> {
        self.written += 1;
        let len = if chance.percent(3) { chance.within(0..20_000) } else { chance.within(0..60) };
        let mut note = [b"n", &self.written.to_le_bytes()[..]].concat();
        note.resize(note.len() + len, self.written as u8);
        note
    }

    /// It has been sent.
    pub fn sent(&mut self, from: usize, to: usize, wire: usize, message: Vec<u8>) {
        self.coming.entry((from, to)).or_default().push_back(Note { wire, message });
    }

    /// One has come: it must be the next, but for those that were lost with their streams.
    pub fn take(
        &mut self,
        from: usize,
        to: usize,
        message: &[u8],
        gone: &BTreeSet<(usize, usize)>,
    ) -> Result<(), String> {
        let coming = self.coming.entry((from, to)).or_default();
        while let Some(next) = coming.pop_front() {
            if next.message == message {
                return Ok(());
            }
            if !is_lost(&next, from, to, gone) {
                return Err(format!(
                    "{} got note {:02x?} of {} where {:02x?} was the next",
                    NAMES[to],
                    head(message),
                    NAMES[from],
                    head(&next.message)
                ));
            }
        }
        Err(format!(
            "{} got note {:02x?} of {}, which was not on the way",
            NAMES[to],
            head(message),
            NAMES[from]
        ))
    }

    /// The first that should have come and did not.
    pub fn missing(&self, gone: &BTreeSet<(usize, usize)>) -> Option<String> {
        self.coming.iter().find_map(|((from, to), notes)| {
            let note = notes.iter().find(|note| !is_lost(note, *from, *to, gone))?;
            let (from, to, message) = (NAMES[*from], NAMES[*to], head(&note.message));
            Some(format!("{from}'s note {message:02x?} never came to {to}, and its stream was whole"))
        })
    }
}

fn is_lost(note: &Note, from: usize, to: usize, gone: &BTreeSet<(usize, usize)>) -> bool {
    gone.contains(&(note.wire, from)) || gone.contains(&(note.wire, to))
}

/// What tells one note from another.
fn head(message: &[u8]) -> &[u8] {
    &message[..message.len().min(9)]
}
