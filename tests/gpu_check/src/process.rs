//! Another process of this program, as the one that checks has it: started, asked within a deadline, struck.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use crate::orders::{Answer, Order};

/// See the [module](self). Killed when it is dropped.
pub struct Other {
    name: String,
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
    log: PathBuf,
}

impl Other {
    /// Starts `command` under this name; what it writes to standard error goes to a file in `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self, String> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).spawn();
        let mut child = started.map_err(|error| format!("{command:?}: {error}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("process '{name}' has no standard input and output"));
        };
        let (tell, answers) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.take_while(|line| tell.send(line.clone()).is_ok()).for_each(drop);
        });
        Ok(Self { name: name.to_owned(), child, stdin, answers, log })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has written to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Has an order done, within a limit. One that does not answer in time is killed.
    pub fn ask<T: DeserializeOwned>(&mut self, order: &Order, within: Duration) -> Result<T, String> {
        let line = serde_json::to_string(order).map_err(|error| error.to_string())?;
        let answer = self.ask_line(&line, within)?;
        match serde_json::from_str(&answer) {
            Ok(Answer::Done(value)) => serde_json::from_value(value).map_err(|error| error.to_string()),
            Ok(Answer::Failed(why)) => Err(format!("{}: {why}", self.name)),
            Err(error) => Err(format!("{}: {answer}: {error}", self.name)),
        }
    }

    /// The same for a line and an answer of any kind.
    pub fn ask_line(&mut self, line: &str, within: Duration) -> Result<String, String> {
        if writeln!(self.stdin, "{line}").is_err() {
            return Err(self.end());
        }
        match self.answers.recv_timeout(within) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Disconnected) => Err(self.end()),
            Err(RecvTimeoutError::Timeout) => {
                self.strike(Signal::KILL);
                Err(format!(
                    "hung: process '{}' has not answered within {within:?} and was killed; {}",
                    self.name,
                    self.last_words()
                ))
            }
        }
    }

    /// Sends it a signal.
    pub fn strike(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal); // ours, not waited for yet
    }

    /// Waits for its end, which has come: how it ended.
    fn end(&mut self) -> String {
        self.strike(Signal::KILL); // it has closed its standard output: what is left of it is not needed
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        format!("process '{}' has ended ({status}); {}", self.name, self.last_words())
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(LAST_LINES).collect();
        match lines.is_empty() {
            true => "it has said nothing".to_owned(),
            false => format!("its last words: {}", lines.into_iter().rev().collect::<Vec<_>>().join(" | ")),
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill(); // one that has ended needs none
        let _ = self.child.wait();
    }
}

/// Lines of a log that an error shows.
const LAST_LINES: usize = 4;
