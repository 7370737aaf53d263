//! Commands that a host has been given and its answers: lines with a number (`tests/chaos/host/main.cc`).

use crate::host::lock;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// What an answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The command was followed: its result.
    Done {
        /// In the host's words.
        text: String,
        /// When, on CLOCK_MONOTONIC.
        at_ns: u64,
    },
    /// The command failed.
    Failed {
        /// The library's words.
        text: String,
        /// When.
        at_ns: u64,
    },
    /// The host ended without an answer.
    Gone,
    /// No answer in time.
    Late,
}

impl Answer {
    /// Whether the command was followed.
    pub fn is_done(&self) -> bool {
        matches!(self, Answer::Done { .. })
    }

    /// The result of a command that was followed; else what was wrong, in words.
    pub fn text(&self) -> Result<&str, String> {
        match self {
            Answer::Done { text, .. } => Ok(text),
            Answer::Failed { text, .. } => Err(text.clone()),
            Answer::Gone => Err("the host ended".to_owned()),
            Answer::Late => Err("the host does not answer".to_owned()),
        }
    }
}

/// An answer to come.
#[derive(Debug)]
pub struct Reply {
    /// The command.
    pub command: String,
    coming: Receiver<Answer>,
    come: Option<Answer>,
}

impl Reply {
    /// The answer to a command, which comes this way.
    pub fn to(command: &str, coming: Receiver<Answer>) -> Reply {
        Reply { command: command.to_owned(), coming, come: None }
    }

    /// The answer, if it comes within this time. Asked again, it says the same.
    pub fn within(&mut self, limit: Duration) -> Answer {
        if self.come.is_none() {
            self.come = match self.coming.recv_timeout(limit) {
                Ok(answer) => Some(answer),
                Err(RecvTimeoutError::Disconnected) => Some(Answer::Gone),
                Err(RecvTimeoutError::Timeout) => None,
            };
        }
        self.come.clone().unwrap_or(Answer::Late)
    }

    /// The answer, if it has come.
    pub fn now(&mut self) -> Option<Answer> {
        self.within(Duration::ZERO);
        self.come.clone()
    }
}

/// Answers that are waited for.
#[derive(Debug, Default)]
pub struct Pending {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    is_gone: bool,
    answers: HashMap<u64, Sender<Answer>>,
}

impl Pending {
    /// One more, and its number.
    pub fn add(&self, answer: Sender<Answer>) -> u64 {
        let mut waiting = lock(&self.waiting);
        waiting.next += 1;
        let number = waiting.next;
        if !waiting.is_gone {
            waiting.answers.insert(number, answer);
        }
        number
    }

    /// Nobody answers this one any more, or does now.
    pub fn take(&self, number: u64) -> Option<Sender<Answer>> {
        lock(&self.waiting).answers.remove(&number)
    }

    /// Whoever waits learns that no answer comes: its sender is gone.
    fn end(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.is_gone = true;
        waiting.answers.clear();
    }
}

/// Hands answers to whoever waits for them, until there are no more.
pub fn read_answers(stdout: impl Read, pending: &Pending) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Some((number, answer)) = parse_answer(&line)
            && let Some(waiting) = pending.take(number)
        {
            let _ = waiting.send(answer); // who no longer waits need not hear
        }
    }
    pending.end();
}

/// `NUMBER + TIME TEXT` or `NUMBER - TIME TEXT`.
fn parse_answer(line: &str) -> Option<(u64, Answer)> {
    let mut words = line.splitn(4, ' ');
    let number = words.next()?.parse().ok()?;
    let sign = words.next()?;
    let at_ns = words.next()?.parse().ok()?;
    let text = words.next().unwrap_or_default().to_owned();
    match sign {
        "+" => Some((number, Answer::Done { text, at_ns })),
        "-" => Some((number, Answer::Failed { text, at_ns })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let done = Answer::Done { text: "a b".to_owned(), at_ns: 5 };
        assert_eq!(parse_answer("7 + 5 a b"), Some((7, done)));
        assert_eq!(parse_answer("7 - 5 "), Some((7, Answer::Failed { text: String::new(), at_ns: 5 })));
        for garbage in ["", "7", "7 ? 5 x", "x + 5 y", "7 + x y"] {
            assert_eq!(parse_answer(garbage), None, "{garbage:?}");
        }
    }
}
