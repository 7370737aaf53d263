//! What is said while nobody answers: a rank that is frozen or stuck must not look like a long transfer.
//!
//! It changes nothing: the bound on the wait is the fleet's.

use std::fs;
use std::time::{Duration, Instant};

/// When the next notice of one wait is due.
#[derive(Clone, Copy, Debug)]
pub struct Notices {
    due: Instant,
}

impl Notices {
    /// Those of a wait that starts now.
    pub fn since(started: Instant) -> Notices {
        Notices { due: started + FIRST }
    }

    /// When to say something if nothing has come by then.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Whether it is time; if so, the next is due later.
    pub fn take(&mut self, now: Instant) -> bool {
        let is_due = now >= self.due;
        if is_due {
            self.due = now + AGAIN;
        }
        is_due
    }
}

/// How long a rank has said nothing, and what its process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// The rank.
    pub label: String,
    /// Its process.
    pub process: u32,
    /// Since its last line.
    pub lasting: Duration,
    /// The letter that the system has for what the process does, where it has one.
    pub state: Option<char>,
}

/// The ranks that have said nothing for longest: those that a signal has stopped, if there are any; else all of them.
pub fn describe(mut quiet: Vec<Quiet>) -> String {
    if quiet.iter().any(Quiet::is_stopped) {
        quiet.retain(Quiet::is_stopped);
    }
    quiet.sort_by_key(|rank| std::cmp::Reverse(rank.lasting));
    let one = |rank: &Quiet| {
        let state = if rank.is_stopped() { ", stopped by a signal" } else { "" };
        format!("{} (process {}{state}) for {} s", rank.label, rank.process, rank.lasting.as_secs())
    };
    quiet.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl Quiet {
    fn is_stopped(&self) -> bool {
        matches!(self.state, Some('T' | 't'))
    }
}

/// The letter of a process of ours: R runs, S sleeps, T is stopped.
pub fn state_of(process: u32) -> Option<char> {
    state_in(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// It comes after the program's name, which stands in parentheses and may hold any character.
fn state_in(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The first notice comes after so long: longer than a healthy rank is busy with one request,
const FIRST: Duration = Duration::from_secs(10);
/// and the next ones after so long each.
const AGAIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_due_after_ten_seconds_and_every_thirty() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut notices = Notices::since(start);
        let said: Vec<u64> = (0..=75).filter(|second| notices.take(at(*second))).collect();
        assert_eq!(said, [10, 40, 70]);
        assert_eq!(notices.due(), at(100));
    }

    #[test]
    fn a_stopped_rank_is_the_one_that_is_named() {
        let rank = |label: &str, seconds, state| Quiet {
            label: label.to_owned(),
            process: 7,
            lasting: Duration::from_secs(seconds),
            state,
        };
        let both = |state| describe(vec![rank("context 0", 11, Some('S')), rank("generation 0", 12, state)]);
        assert_eq!(both(Some('S')), "generation 0 (process 7) for 12 s, context 0 (process 7) for 11 s");
        assert_eq!(both(Some('T')), "generation 0 (process 7, stopped by a signal) for 12 s");
    }

    #[test]
    fn the_state_is_found_behind_any_name() {
        assert_eq!(state_in("12 (a) T (b) S 1 2"), Some('S'));
        assert_eq!(state_in("12"), None);
        assert!(state_of(std::process::id()).is_some());
    }
}
