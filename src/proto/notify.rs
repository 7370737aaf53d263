//! Numbering of notifications on one stream: each is delivered once, in order.

use thiserror::Error;

/// A notification came with a number that is not the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("notification {got} came where {expected} was due")]
pub struct OutOfSequence {
    /// The number that was due.
    pub expected: u64,
    /// The number that came.
    pub got: u64,
}

/// Counts what goes out and checks what comes in.
#[derive(Debug, Default)]
pub struct Sequencer {
    sent: u64,
    received: u64,
}

impl Sequencer {
    /// The number of the next notification to send.
    pub fn number(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Takes a notification in: true if it is new, false if it is a duplicate.
    pub fn accept(&mut self, sequence: u64) -> Result<bool, OutOfSequence> {
        let expected = self.received + 1;
        match sequence {
            got if got == expected => {
                self.received = got;
                Ok(true)
            }
            got if got < expected => Ok(false),
            got => Err(OutOfSequence { expected, got }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_dropped_and_gaps_are_errors() {
        let (mut out, mut into) = (Sequencer::default(), Sequencer::default());
        let first = out.number();
        assert_eq!(into.accept(first), Ok(true));
        assert_eq!(into.accept(first), Ok(false));
        let _skipped = out.number();
        let third = out.number();
        assert_eq!(into.accept(third), Err(OutOfSequence { expected: 2, got: 3 }));
    }
}
