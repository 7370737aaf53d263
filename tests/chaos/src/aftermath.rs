//! After the blow: what the survivor has under way ends, memory goes back to its owner and is written anew, the next
//! request is served, and every byte is held against what it may be.

use crate::answers::Answer;
use crate::arena::Content;
use crate::host::Host;
use crate::judge::kept_memory;
use crate::outcome::Findings;
use crate::points::Side;
use crate::row::{Kind, Lane};
use crate::scene::{Act, Times};
use crate::stage::{SLOTS, Stage, before, reclaimed, reused, sent};
use crate::strike::{Blow, Strike};
use std::thread;
use std::time::{Duration, Instant};

/// What is known of the memory of the transfer that was struck.
#[derive(Debug, Default)]
struct Ownership {
    /// The destination held all bytes when its owner took it back.
    was_complete: bool,
    /// The destination has been taken back and written anew.
    is_reclaimed: bool,
    /// So has the source.
    is_reused: bool,
}

/// What follows a scene.
#[derive(Debug)]
pub struct Aftermath<'s, 'a> {
    /// The hosts.
    pub stage: &'s mut Stage<'a>,
    /// What fell.
    pub strike: Option<&'s Strike>,
    /// The run's times.
    pub times: Times,
    /// What is found wrong.
    pub findings: &'s mut Findings,
    ownership: Ownership,
    was_served: bool,
}

impl<'s, 'a> Aftermath<'s, 'a> {
    /// Follows a scene.
    pub fn new(
        stage: &'s mut Stage<'a>,
        strike: Option<&'s Strike>,
        times: Times,
        findings: &'s mut Findings,
    ) -> Self {
        Aftermath { stage, strike, times, findings, ownership: Ownership::default(), was_served: false }
    }

    /// The next request is served, by a restarted peer under its name or under a new one; then both end.
    pub fn go_on(&mut self, next_name_is_new: bool) {
        self.serve_and_check(next_name_is_new);
        self.part_well();
    }

    /// The next request is served, and no byte is what it may not be.
    pub fn serve_and_check(&mut self, next_name_is_new: bool) {
        self.hold_bytes_against_words();
        match self.serve_next(next_name_is_new) {
            Ok(()) => self.was_served = true,
            Err(why) => self.findings.add(Kind::Broken, format!("the next request: {why}")),
        }
        self.check_memory();
    }

    /// First the survivor ends what it has under way and takes its memory back; only then does a stopped victim go on.
    pub fn settle(&mut self) {
        let Some(strike) = self.strike else {
            Side::BOTH.iter().for_each(|side| self.conclude(*side, Instant::now() + self.times.bound()));
            return;
        };
        let bound = self.times.bound().saturating_sub(strike.age().unwrap_or_default());
        self.conclude(strike.victim.other(), Instant::now() + bound);
        match strike.blow {
            Blow::Kill | Blow::Exit => self.bury(strike),
            Blow::Stop | Blow::Pause => {
                while strike.is_held() && strike.age().is_some_and(|age| age < self.times.hold) {
                    thread::sleep(BETWEEN_LOOKS);
                }
                self.act().resume();
                self.conclude(strike.victim, Instant::now() + self.times.bound());
            }
        }
    }

    /// Whether this side has its memory of the struck transfer back, and has written it anew.
    pub fn is_returned(&self, side: Side) -> bool {
        match side {
            Side::Sender => self.ownership.is_reused,
            Side::Receiver => self.ownership.is_reclaimed,
        }
    }

    /// Waits for what this side has under way, then takes back what it has lent.
    fn conclude(&mut self, side: Side, deadline: Instant) {
        // A peer that lives and has called its transfer off is no reason for a wait of the host's own to end.
        let bounded = if self.strike.is_some() { LIBRARY_ENDS } else { &LIBRARY_ENDS[1..] };
        while self.stage.is_open(side, bounded) && Instant::now() < deadline {
            self.stage.listen();
            thread::sleep(BETWEEN_LOOKS);
        }
        self.stage.listen();
        let late: Vec<_> = self.open_verbs(side, bounded);
        if !late.is_empty() {
            let text = format!("the {}'s {} did not end in time", side.word(), late.join(", "));
            self.findings.add(Kind::Hung, text);
        }
        if self.stage.is_open(side, &["hear", "receive"]) {
            self.demand(side, "abandon");
        }
        if side == Side::Sender {
            self.release();
        }
        self.stage.listen();
        match side {
            Side::Sender => self.reuse_source(),
            Side::Receiver => self.reclaim_destination(),
        }
    }

    fn open_verbs(&self, side: Side, verbs: &[&str]) -> Vec<String> {
        let open = self.stage.open.iter();
        let open = open.filter(|open| open.side == side && verbs.contains(&open.verb.as_str()));
        open.map(|open| open.verb.clone()).collect()
    }

    /// Gives a command that has to be followed; whether it was.
    fn demand(&mut self, side: Side, command: &str) -> bool {
        let Err(why) = self.stage.ask(side, command, CALL_LIMIT) else { return true };
        let verb = command.split(' ').next().unwrap_or(command);
        let kind = match self.stage.answer(side, verb) {
            _ if self.stage.is_open(side, &[verb]) => Kind::Hung,
            Some(Answer::Gone) => Kind::Crashed,
            _ => Kind::Broken,
        };
        self.findings.add(kind, why);
        false
    }

    /// A careful host asks whether anything of a transfer that has not succeeded can still be under way.
    fn release(&mut self) {
        let said = |verb| self.stage.answer(Side::Sender, verb);
        let was_sent =
            said("send").is_some_and(Answer::is_done) && !said("wait").is_some_and(Answer::is_done);
        if was_sent && said("drop").is_none() && self.stage.sender.is_made {
            self.demand(Side::Sender, "cancel 1");
        }
    }

    /// The source is its owner's again once the library has said that nothing of the transfer is under way.
    fn reuse_source(&mut self) {
        let said = |verb| self.stage.answer(Side::Sender, verb);
        let was_sent = said("send").is_some_and(Answer::is_done);
        let is_quiet = matches!(said("cancel"), Some(Answer::Done { text, .. }) if text == "quiet");
        let is_done = said("wait").is_some_and(Answer::is_done);
        let is_gone =
            ["withdraw", "destroy", "drop"].iter().any(|verb| said(verb).is_some_and(Answer::is_done));
        let host = self.stage.host(Side::Sender);
        let is_free = !was_sent || is_quiet || is_done || is_gone;
        if is_free && !self.stage.is_open(Side::Sender, &["send", "wait"]) && kept_memory(&host).is_none() {
            host.arena.fill(0, reused(0));
            self.ownership.is_reused = true;
        }
    }

    /// The destination is its owner's again once it is deregistered (S3: once the receive has ended).
    fn reclaim_destination(&mut self) {
        let host = self.stage.host(Side::Receiver);
        let is_offered = self.stage.receiver.is_made && self.stage.receiver.bases[0].is_some();
        if is_offered && !self.demand(Side::Receiver, "withdraw 0") {
            return;
        }
        self.note_arrival(&host);
        // Over `local` the library of this very host fetches the bytes: memory is kept there from a peer that may still
        // read it, and nothing lands in it either way.
        let is_fetched = self.stage.spec.lane == Lane::Local;
        if (is_fetched || kept_memory(&host).is_none()) && !self.stage.is_open(Side::Receiver, &[]) {
            host.arena.fill(0, reclaimed(0));
            self.ownership.is_reclaimed = true;
        }
    }

    /// Holds the destination against what it may be, for the last time before it is written anew or left.
    fn note_arrival(&mut self, host: &Host) {
        let bytes =
            host.arena.check(0, &[before(0), sent(0)]).map_err(|foreign| format!("destination, {foreign}"));
        self.findings.check(Kind::Corrupt, bytes);
        self.ownership.was_complete = host.arena.check(0, &[sent(0)]).is_ok();
    }

    /// The victim is gone: it has to be, and a way out that it chose itself has to end well.
    fn bury(&mut self, strike: &Strike) {
        let host = self.stage.host(strike.victim);
        if strike.struck_ns().is_none() {
            return;
        }
        match (host.await_end(EXIT_LIMIT), strike.blow) {
            (Ok(None), _) => {
                self.findings.add(Kind::Hung, format!("the {} does not end by itself", strike.victim.word()));
            }
            (Ok(Some(status)), Blow::Exit) if !status.success() => {
                self.findings.add(Kind::Crashed, format!("the {}'s exit: {status}", strike.victim.word()));
            }
            (Err(error), _) => self.findings.add(Kind::Broken, error.to_string()),
            _ => {}
        }
        if strike.victim == Side::Receiver {
            self.note_arrival(&host);
        }
    }

    /// A success has to be true: all bytes were in place when it was said.
    fn hold_bytes_against_words(&mut self) {
        let host = self.stage.host(Side::Receiver);
        let is_complete = match self.ownership.is_reclaimed {
            true => self.ownership.was_complete,
            false => host.arena.check(0, &[sent(0)]).is_ok(),
        };
        for (side, verb) in [(Side::Sender, "wait"), (Side::Receiver, "receive")] {
            if self.stage.answer(side, verb).is_some_and(Answer::is_done) && !is_complete {
                self.findings.add(
                    Kind::Corrupt,
                    format!("the {} was told of a success that is not true", side.word()),
                );
            }
        }
    }

    /// A request between the survivor and whoever is there now, over the other slot.
    fn serve_next(&mut self, name_is_new: bool) -> Result<(), String> {
        if let Some(strike) =
            self.strike.filter(|strike| !strike.blow.stops() && strike.struck_ns().is_some())
        {
            let name = self.stage.party(strike.victim).name.clone() + if name_is_new { "b" } else { "" };
            self.check_left_behind(strike.victim);
            self.stage.replace(strike.victim, &name).map_err(|error| error.to_string())?;
            let arena = &self.stage.host(strike.victim).arena;
            for slot in 0..SLOTS {
                arena.fill(slot, if strike.victim == Side::Sender { sent(slot) } else { before(slot) });
            }
            match strike.victim {
                Side::Receiver => self.ownership.is_reclaimed = false,
                Side::Sender => self.ownership.is_reused = false,
            }
        }
        self.stage.open.clear();
        Side::BOTH.iter().try_for_each(|side| self.make_ready(*side))?;
        let known = self.stage.said.len();
        let mut act = self.act();
        act.strike = None;
        let began = Instant::now();
        let met = act.meet(1, 2);
        let took = began.elapsed();
        let done = met.and_then(|()| act.begin_transfer(1, 2)).and_then(|()| act.end_transfer(2));
        if took > MEET_LIMIT {
            self.findings.add(Kind::Broken, format!("the next first contact took {took:.1?}"));
        }
        done.map_err(|_| self.stage.first_error(known))
    }

    /// An agent, the other slot on offer, a card of now.
    fn make_ready(&mut self, side: Side) -> Result<(), String> {
        if !self.stage.party(side).is_made {
            let name = self.stage.party(side).name.clone();
            self.stage.ask(side, &format!("make {name}"), CALL_LIMIT)?;
        }
        if self.stage.party(side).bases[1].is_none() {
            self.stage.ask(side, "offer 1", CALL_LIMIT)?;
        }
        self.stage.ask(side, "card", CALL_LIMIT).map(|_| ())
    }

    /// The memory of a host that is gone.
    fn check_left_behind(&mut self, victim: Side) {
        let arena = &self.stage.host(victim).arena;
        let checks = match victim {
            Side::Sender => [arena.check(0, &[sent(0)]), arena.check(1, &[sent(1)])],
            Side::Receiver => [arena.check(0, &[before(0), sent(0)]), arena.check(1, &[before(1)])],
        };
        for check in checks {
            let check = check.map_err(|foreign| format!("left behind by the {}, {foreign}", victim.word()));
            self.findings.check(Kind::Corrupt, check);
        }
    }

    /// All bytes of both, at the end.
    fn check_memory(&mut self) {
        let source = if self.ownership.is_reused { vec![reused(0)] } else { vec![sent(0)] };
        let destination = match self.ownership.is_reclaimed {
            true => vec![reclaimed(0)],
            false => vec![before(0), sent(0)],
        };
        let arrived = if self.was_served { vec![sent(1)] } else { vec![before(1), sent(1)] };
        let all: [(Side, usize, Vec<Content>); 4] = [
            (Side::Sender, 0, source),
            (Side::Sender, 1, vec![sent(1)]),
            (Side::Receiver, 0, destination),
            (Side::Receiver, 1, arrived),
        ];
        for (side, slot, allowed) in all {
            let check = self.stage.host(side).arena.check(slot, &allowed);
            self.findings
                .check(Kind::Corrupt, check.map_err(|foreign| format!("{}, {foreign}", side.word())));
        }
    }

    /// No byte of either is any but the run's own, whatever was moved and given back.
    pub fn check_for_foreign_bytes(&mut self) {
        for slot in 0..SLOTS {
            let ours =
                [(Side::Sender, [sent(slot), reused(slot)]), (Side::Receiver, [before(slot), sent(slot)])];
            for (side, [one, other]) in ours {
                let check = self.stage.host(side).arena.check(slot, &[one, other, reclaimed(slot)]);
                self.findings
                    .check(Kind::Corrupt, check.map_err(|foreign| format!("{}, {foreign}", side.word())));
            }
        }
    }

    /// Both destroy their agents and end by themselves.
    pub fn part_well(&mut self) {
        for side in Side::BOTH {
            let host = self.stage.host(side);
            if let Ok(Some(status)) = host.ended() {
                self.findings.add(Kind::Crashed, format!("the {} ended: {status}", side.word()));
                continue;
            }
            self.demand(side, "destroy");
            match host.close(EXIT_LIMIT) {
                Ok(Some(status)) if status.success() => {}
                Ok(Some(status)) => {
                    self.findings.add(Kind::Crashed, format!("the {}'s end: {status}", side.word()));
                }
                Ok(None) => self.findings.add(Kind::Hung, format!("the {} does not end", side.word())),
                Err(error) => self.findings.add(Kind::Broken, error.to_string()),
            }
        }
    }

    fn act(&mut self) -> Act<'_, 'a> {
        Act { stage: self.stage, strike: self.strike, times: self.times, findings: self.findings }
    }
}

/// What the library ends by itself; `receive` too, for the host's signs of life tell it that a peer is gone.
const LIBRARY_ENDS: &[&str] = &[
    "receive",
    "make",
    "offer",
    "card",
    "connect",
    "introduce",
    "forget",
    "load",
    "leave",
    "send",
    "wait",
    "cancel",
    "drop",
    "confirm",
    "withdraw",
    "destroy",
];
/// Any one call that has nothing to wait for but a drain.
pub const CALL_LIMIT: Duration = Duration::from_secs(6);
/// Nothing that was left half done may hold the next first contact up for longer.
const MEET_LIMIT: Duration = Duration::from_secs(2);
/// A process that was told to end has ended by then.
const EXIT_LIMIT: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_micros(200);
