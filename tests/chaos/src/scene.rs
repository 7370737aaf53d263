//! A request of two hosts, step by step, up to where a blow cuts it off.
//!
//! ```text
//!   receiver                                sender
//!   make, offer, card                       make, offer, card
//!   connect(sender), introduce  -------->   hear, forget, load(receiver)
//!   receive, from then on  <============    send, wait, confirm
//! ```
//!
//! Every step waits for its answers within a bound. A stopped victim is let go on once it has stood still for long
//! enough and nothing of the survivor is under way any more: before that, the survivor has to end by itself.

use crate::clock::now_ns;
use crate::outcome::Findings;
use crate::points::{Break, Scene, Side};
use crate::row::{Kind, Seam};
use crate::stage::{BrokenOff, Stage, sent};
use crate::strike::{Blow, Strike};
use std::thread;
use std::time::{Duration, Instant};

/// The times of a run.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// `BATON_PEER_TIMEOUT_MS` of the hosts.
    pub peer_timeout: Duration,
    /// How long a stopped victim stands still at least.
    pub hold: Duration,
}

impl Times {
    /// When whatever the survivor has under way must be over, from the blow on.
    pub fn bound(self) -> Duration {
        self.peer_timeout + GRACE
    }
}

/// The story went no further: somebody is gone, failed or late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOff;

/// A request under way.
#[derive(Debug)]
pub struct Act<'s, 'a> {
    /// The hosts.
    pub stage: &'s mut Stage<'a>,
    /// What may cut it off.
    pub strike: Option<&'s Strike>,
    /// Its times.
    pub times: Times,
    /// What was found wrong.
    pub findings: &'s mut Findings,
}

impl Act<'_, '_> {
    /// The whole of a scene.
    pub fn play(&mut self, scene: Scene) -> Result<(), CutOff> {
        let played = self.request(scene);
        self.await_strike();
        played
    }

    fn request(&mut self, scene: Scene) -> Result<(), CutOff> {
        self.prepare()?;
        self.meet(0, 1)?;
        match scene {
            // Who waits for a transfer keeps its status alive.
            Scene::Interrupted(_, Break::Drop) => self.submit(0, 1)?,
            _ => self.begin_transfer(0, 1)?,
        }
        match scene {
            Scene::Transfer => self.end_transfer(1)?,
            Scene::Farewell => {
                self.end_transfer(1)?;
                self.part()?;
            }
            Scene::Interrupted(side, what) => self.interrupt(side, what)?,
        }
        Ok(())
    }

    /// Both have agents, memory on offer, and cards.
    pub fn prepare(&mut self) -> Result<(), CutOff> {
        let names = Side::BOTH.map(|side| (side, self.stage.party(side).name.clone()));
        self.step(&names.map(|(side, name)| (side, format!("make {name}"))))?;
        for slot in 0..crate::stage::SLOTS {
            self.step(&Side::BOTH.map(|side| (side, format!("offer {slot}"))))?;
        }
        self.step(&Side::BOTH.map(|side| (side, "card".to_owned())))
    }

    /// The first contact, as TensorRT-LLM has it at each seam. The receiver waits for a slot from then on.
    pub fn meet(&mut self, slot: usize, id: u64) -> Result<(), CutOff> {
        let (sender, receiver) = (self.stage.sender.name.clone(), self.stage.receiver.name.clone());
        let their_card = self.stage.sender.card.clone().ok_or(CutOff)?;
        self.stage.tell(Side::Sender, &format!("hear {receiver}"));
        self.step(&[(Side::Receiver, format!("connect {sender} {their_card}"))])?;
        self.step(&[(Side::Receiver, format!("introduce {sender}"))])?;
        self.stage.tell(Side::Receiver, &format!("receive {id} {sender} {slot}"));
        self.until(&[(Side::Sender, "hear")])?;
        if self.stage.seam() == Seam::S3 {
            return Ok(());
        }
        let our_card = self.stage.receiver.card.clone().ok_or(CutOff)?;
        self.step(&[(Side::Sender, format!("forget {receiver}"))])?;
        self.step(&[(Side::Sender, format!("load {receiver} {our_card}"))])
    }

    /// A slot is on its way, and nobody waits for it.
    fn submit(&mut self, slot: usize, id: u64) -> Result<(), CutOff> {
        let receiver = self.stage.receiver.name.clone();
        let base = self.stage.receiver.bases[slot].ok_or(CutOff)?;
        self.step(&[(Side::Sender, format!("send {id} {receiver} {slot} {base}"))])
    }

    /// A slot is on its way.
    pub fn begin_transfer(&mut self, slot: usize, id: u64) -> Result<(), CutOff> {
        self.submit(slot, id)?;
        self.stage.tell(Side::Sender, &format!("wait {id}"));
        Ok(())
    }

    /// And has arrived, and both know.
    pub fn end_transfer(&mut self, id: u64) -> Result<(), CutOff> {
        let receiver = self.stage.receiver.name.clone();
        self.until(&[(Side::Sender, "wait")])?;
        self.stage.tell(Side::Sender, &format!("confirm {id} {receiver}"));
        self.until(&[(Side::Sender, "confirm"), (Side::Receiver, "receive")])
    }

    /// Both take their memory back and destroy their agents.
    pub fn part(&mut self) -> Result<(), CutOff> {
        for command in ["withdraw 0", "withdraw 1", "destroy"] {
            self.step(&Side::BOTH.map(|side| (side, command.to_owned())))?;
        }
        Ok(())
    }

    /// One of them breaks the transfer off, once bytes have begun to arrive.
    fn interrupt(&mut self, side: Side, what: Break) -> Result<(), CutOff> {
        self.await_first_bytes();
        let sixteenths = self.stage.host(Side::Receiver).arena.sixteenths(0, sent(0));
        self.stage.broken_off = Some(BrokenOff { at_ns: now_ns(), sixteenths });
        let peer = self.stage.party(side.other()).name.clone();
        let command = match what {
            Break::Cancel => "cancel 1".to_owned(),
            Break::Drop => "drop 1".to_owned(),
            Break::Withdraw => "withdraw 0".to_owned(),
            Break::Leave => format!("leave {peer}"),
            Break::Destroy => "destroy".to_owned(),
        };
        self.step(&[(side, command)])?;
        self.until(&[(Side::Sender, "wait")])
    }

    fn await_first_bytes(&mut self) {
        let deadline = Instant::now() + FIRST_BYTES;
        let arena = &self.stage.host(Side::Receiver).arena;
        while arena.sixteenths(0, sent(0)) == 0 && Instant::now() < deadline {
            thread::yield_now();
        }
    }

    /// Gives commands, and waits until all are followed.
    pub fn step(&mut self, commands: &[(Side, String)]) -> Result<(), CutOff> {
        commands.iter().for_each(|(side, command)| self.stage.tell(*side, command));
        let verbs: Vec<_> = commands
            .iter()
            .map(|(side, command)| (*side, command.split(' ').next().unwrap_or(command)))
            .collect();
        self.until(&verbs)
    }

    /// Waits until none of these is open.
    pub fn until(&mut self, awaited: &[(Side, &str)]) -> Result<(), CutOff> {
        let deadline = Instant::now() + self.times.hold + STEP_LIMIT;
        loop {
            let known = self.stage.said.len();
            self.stage.listen();
            if self.stage.said[known..].iter().any(|said| !said.answer.is_done()) {
                return Err(CutOff);
            }
            if !awaited.iter().any(|(side, verb)| self.stage.is_open(*side, &[verb])) {
                return Ok(());
            }
            self.tend_the_stopped();
            if Instant::now() > deadline {
                let what: Vec<_> =
                    awaited.iter().map(|(side, verb)| format!("{} {verb}", side.word())).collect();
                self.findings.add(Kind::Hung, format!("no answer to: {}", what.join(", ")));
                return Err(CutOff);
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Lets a stopped victim go on, if it has stood still for long enough and the survivor waits for nothing that
    /// the library has to end.
    fn tend_the_stopped(&mut self) {
        let Some(strike) = self.strike.filter(|strike| strike.is_held()) else { return };
        let is_due = strike.age().is_some_and(|age| age >= self.times.hold);
        let survivor = strike.victim.other();
        let busy = self.stage.open.iter().filter(|open| open.side == survivor && open.verb != "hear");
        let busy: Vec<_> = busy.map(|open| open.verb.clone()).collect();
        let is_overdue = strike.age().is_some_and(|age| age >= self.times.hold + self.times.bound());
        let is_short = strike.blow == Blow::Pause;
        if is_due && !busy.is_empty() && is_overdue && !is_short {
            let (survivor, victim, verbs) = (survivor.word(), strike.victim.word(), busy.join(", "));
            let text = format!("the {survivor}'s {verbs} did not end while the {victim} stood still");
            self.findings.add(Kind::Hung, text);
        }
        if is_due && (busy.is_empty() || is_overdue || is_short) {
            self.resume();
        }
    }

    /// Lets a stopped victim go on.
    pub fn resume(&mut self) {
        let Some(strike) = self.strike.filter(|strike| strike.is_held()) else { return };
        self.stage.note("the victim goes on");
        if let Err(error) = strike.resume() {
            self.findings.add(Kind::Crashed, format!("the stopped victim is gone: {error}"));
        }
    }

    /// A point may lie behind the last step, or be known a moment after its blow is felt.
    fn await_strike(&mut self) {
        let deadline = Instant::now() + STRIKE_LIMIT;
        while self.strike.is_some_and(|strike| strike.struck_ns().is_none()) && Instant::now() < deadline {
            thread::sleep(BETWEEN_LOOKS);
        }
    }
}

/// What a drain may add to the peer timeout, and a loaded machine to any bound.
const GRACE: Duration = Duration::from_millis(2500);
/// A step that lasts longer hangs.
const STEP_LIMIT: Duration = Duration::from_secs(12);
/// Bytes of a transfer that is to be interrupted begin to arrive by then, or it is interrupted before.
const FIRST_BYTES: Duration = Duration::from_secs(2);
const STRIKE_LIMIT: Duration = Duration::from_secs(2);
const BETWEEN_LOOKS: Duration = Duration::from_micros(100);
