//! Two hosts on the stage of a run, what they have been told, and what they said.
//!
//! A command is *open* until it is answered. The stage keeps who has what: whether there is an agent, which slots are
//! offered, so that what follows a fault knows what there is to clean up.

use crate::answers::{Answer, Reply};
use crate::arena::{Content, Shape};
use crate::bench::Bench;
use crate::clock::now_ns;
use crate::host::{Host, HostSpec};
use crate::points::Side;
use crate::row::{Case, Seam};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One of the two, and what is known of it.
#[derive(Debug)]
pub struct Party {
    /// Its process.
    pub host: Arc<Host>,
    /// The name of its agent.
    pub name: String,
    /// What a peer needs to reach it.
    pub card: Option<String>,
    /// Where each of its slots begins, if the slot is offered.
    pub bases: [Option<u64>; SLOTS],
    /// Whether it has an agent.
    pub is_made: bool,
}

impl Party {
    fn new(host: Host, name: &str) -> Party {
        Party {
            host: Arc::new(host),
            name: name.to_owned(),
            card: None,
            bases: [None; SLOTS],
            is_made: false,
        }
    }
}

/// A command that has been given.
#[derive(Debug)]
pub struct Open {
    /// To whom.
    pub side: Side,
    /// Its verb.
    pub verb: String,
    reply: Reply,
}

/// A command that has been answered.
#[derive(Clone, Debug)]
pub struct Said {
    /// By whom.
    pub side: Side,
    /// The command's verb.
    pub verb: String,
    /// The answer.
    pub answer: Answer,
}

/// The moment in which a host was told to break its transfer off.
#[derive(Clone, Copy, Debug)]
pub struct BrokenOff {
    /// On CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// How many sixteenths of the bytes were in place.
    pub sixteenths: u32,
}

/// Two hosts and their story.
#[derive(Debug)]
pub struct Stage<'a> {
    bench: &'a Bench,
    /// How hosts of this run are started.
    pub spec: HostSpec,
    /// How they are started where the two differ.
    pub receiver_spec: HostSpec,
    /// Where this run's logs are.
    pub folder: PathBuf,
    /// The context worker.
    pub sender: Party,
    /// The generation worker.
    pub receiver: Party,
    /// Commands without an answer yet.
    pub open: Vec<Open>,
    /// Answers, in the order in which they were seen.
    pub said: Vec<Said>,
    /// When one of them broke the transfer off itself, if it did.
    pub broken_off: Option<BrokenOff>,
    journal: File,
    began_ns: u64,
}

impl<'a> Stage<'a> {
    /// Starts both hosts, with their memory filled: the sender's with what is to arrive, the receiver's with what was
    /// there before.
    pub fn set(
        bench: &'a Bench,
        case: &Case,
        spec: HostSpec,
        receiver_spec: HostSpec,
    ) -> io::Result<Stage<'a>> {
        let folder = bench.folder(case)?;
        let sender = Party::new(Host::start(bench, &spec, "ctx0", &folder)?, "ctx0");
        let receiver = Party::new(Host::start(bench, &receiver_spec, "gen0", &folder)?, "gen0");
        let journal = File::create(folder.join("run.log"))?;
        let (open, said, broken_off) = (Vec::new(), Vec::new(), None);
        let began_ns = now_ns();
        let stage = Stage {
            bench,
            spec,
            receiver_spec,
            folder,
            sender,
            receiver,
            open,
            said,
            broken_off,
            journal,
            began_ns,
        };
        for slot in 0..SLOTS {
            stage.sender.host.arena.fill(slot, sent(slot));
            stage.receiver.host.arena.fill(slot, before(slot));
        }
        Ok(stage)
    }

    /// One of the two.
    pub fn party(&self, side: Side) -> &Party {
        match side {
            Side::Sender => &self.sender,
            Side::Receiver => &self.receiver,
        }
    }

    /// One of the two, to change.
    pub fn party_mut(&mut self, side: Side) -> &mut Party {
        match side {
            Side::Sender => &mut self.sender,
            Side::Receiver => &mut self.receiver,
        }
    }

    /// The process of one of the two.
    pub fn host(&self, side: Side) -> Arc<Host> {
        Arc::clone(&self.party(side).host)
    }

    /// Puts a new process in the place of one that is gone, under a name.
    pub fn replace(&mut self, side: Side, name: &str) -> io::Result<()> {
        let spec = if side == Side::Sender { &self.spec } else { &self.receiver_spec };
        let log_name = format!("{name}.next");
        let host = Host::start(self.bench, spec, &log_name, &self.folder)?;
        *self.party_mut(side) = Party::new(host, name);
        self.note(&format!("{} starts anew as {name}", side.word()));
        Ok(())
    }

    /// Gives a command.
    pub fn tell(&mut self, side: Side, command: &str) {
        self.note(&format!("{} < {}", side.word(), short(command)));
        let reply = self.party(side).host.tell(command);
        let verb = command.split(' ').next().unwrap_or_default().to_owned();
        self.open.push(Open { side, verb, reply });
    }

    /// Takes the answers that have come; says how many there are now in all.
    pub fn listen(&mut self) -> usize {
        let mut at = 0;
        while at < self.open.len() {
            match self.open[at].reply.now() {
                None => at += 1,
                Some(answer) => {
                    let open = self.open.remove(at);
                    self.learn(open, answer);
                }
            }
        }
        self.said.len()
    }

    /// Whether this side has an open command.
    pub fn is_open(&self, side: Side, verbs: &[&str]) -> bool {
        self.open
            .iter()
            .any(|open| open.side == side && (verbs.is_empty() || verbs.contains(&open.verb.as_str())))
    }

    /// The last answer to a command of this verb.
    pub fn answer(&self, side: Side, verb: &str) -> Option<&Answer> {
        self.said.iter().rev().find(|said| said.side == side && said.verb == verb).map(|said| &said.answer)
    }

    /// The first error among the answers from the `known`-th on: who, what, why.
    pub fn first_error(&self, known: usize) -> String {
        let failed = self.said[known..].iter().find_map(|said| match said.answer.text() {
            Err(why) => Some(format!("{} {}: {why}", said.side.word(), said.verb)),
            Ok(_) => None,
        });
        failed.unwrap_or_else(|| "it does not end".to_owned())
    }

    /// Gives a command and waits for its answer; an error says what was asked.
    pub fn ask(&mut self, side: Side, command: &str, limit: Duration) -> Result<String, String> {
        self.tell(side, command);
        let Some(mut open) = self.open.pop() else { return Err("no command".to_owned()) };
        let answer = open.reply.within(limit);
        let text = answer.text().map(str::to_owned);
        match answer {
            Answer::Late => self.open.push(open),
            answer => self.learn(open, answer),
        }
        text.map_err(|why| format!("{} {}: {why}", side.word(), short(command)))
    }

    /// Remembers what an answer changes.
    fn learn(&mut self, open: Open, answer: Answer) {
        let shown = match answer.text() {
            Ok(text) => short(text),
            Err(why) => format!("FAILED: {why}"),
        };
        self.note(&format!("{} > {}: {shown}", open.side.word(), short(&open.reply.command)));
        let slot = open.reply.command.split(' ').nth(1).and_then(|slot| slot.parse::<usize>().ok());
        let party = self.party_mut(open.side);
        if let Answer::Done { text, .. } = &answer {
            match (open.verb.as_str(), slot) {
                ("make", _) => party.is_made = true,
                ("destroy", _) => (party.is_made, party.bases, party.card) = (false, [None; SLOTS], None),
                ("offer", Some(slot)) if slot < SLOTS => party.bases[slot] = text.parse().ok(),
                ("withdraw", Some(slot)) if slot < SLOTS => party.bases[slot] = None,
                ("card", _) => party.card = Some(text.clone()),
                _ => {}
            }
        }
        self.said.push(Said { side: open.side, verb: open.verb, answer });
    }

    /// Writes a line to the run's journal.
    pub fn note(&mut self, text: &str) {
        let at = (now_ns() - self.began_ns) as f64 / 1e6;
        let mut line = String::new();
        let _ = write!(line, "{at:10.3} ms  {text}");
        let _ = writeln!(self.journal, "{line}"); // a full disk loses the journal, not the run
    }

    /// The seam of the run.
    pub fn seam(&self) -> Seam {
        self.spec.seam
    }
}

/// What a slot of the sender holds, to be sent.
pub fn sent(slot: usize) -> Content {
    Content(100 + slot as u64)
}

/// What a slot of the receiver holds before anything arrives.
pub fn before(slot: usize) -> Content {
    Content(200 + slot as u64)
}

/// What is written to a source that its owner has got back: never to be seen elsewhere.
pub fn reused(slot: usize) -> Content {
    Content(300 + slot as u64)
}

/// What is written to a destination that its owner has got back: nothing may land there any more.
pub fn reclaimed(slot: usize) -> Content {
    Content(400 + slot as u64)
}

/// Pieces of 64 in a slot of some MiB, and two slots: the one of the transfer that is struck, and that of the next
/// request.
pub fn shape(mebibytes: usize) -> Shape {
    Shape { piece_bytes: (mebibytes << 20) / PIECES, pieces: PIECES, slots: SLOTS }
}

/// A command for people: cards are long.
fn short(command: &str) -> String {
    match command.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &command[..at]),
        None => command.to_owned(),
    }
}

const PIECES: usize = 64;
/// Slots of a host.
pub const SLOTS: usize = 2;
