//! Plays one drill: the hosts meet, a fault strikes the network, and what both sides then say, and when, is held against
//! what was promised. Afterwards the network is healed, and the same two agents have to work together again.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::drill::{Drill, Fault, Planted, Point};
use super::network::address;
use super::pair::{PATIENCE, Pair, RECEIVER, SENDER, SHAPE, ask, at_ns};
use super::promise::{GRACE_MS, RESET_MS, UNDECIDED_MS};
use super::storm::{End, Reach, Storm};
use super::verdict::Verdict;
use super::weather::Weather;
use crate::answers::Answer;
use crate::clock::{millis_between, now_ns};
use crate::row::Kind;
use crate::stranger::{address_of, await_closed};

/// What an error says when the peer's data connection was closed.
const CLOSED: &str = "closed its data connection";

/// Plays a drill on a pair that has not met yet.
pub fn play(pair: &mut Pair, drill: &Drill) -> Verdict {
    let mut run = Run { pair, drill, verdict: Verdict::default() };
    run.all();
    run.verdict
}

/// A drill being played.
pub(super) struct Run<'a> {
    pub(super) pair: &'a mut Pair,
    pub(super) drill: &'a Drill,
    pub(super) verdict: Verdict,
}

impl Run<'_> {
    fn all(&mut self) {
        match (self.drill.fault, self.drill.point) {
            (Fault::ClosedPort | Fault::Mute, _) => self.wrong_listener(),
            (Fault::HostName, _) => self.host_name(),
            (Fault::HalfOpen, _) => self.half_open(),
            (Fault::Rough | Fault::Slow | Fault::Flips, _) => self.weather(),
            (Fault::Forgery, _) => self.forgery(),
            (_, Point::Start | Point::Hello | Point::Welcome) => self.first_contact(),
            (_, Point::Idle) => self.idle(),
            (_, Point::Mid | Point::Commit | Point::Ack) => self.transfer(),
            (_, Point::Cancel) => self.cancel(),
            (_, Point::Goodbye) => self.goodbye(),
        }
        self.end();
    }

    /// The receiver dials where no agent is.
    fn wrong_listener(&mut self) {
        let listen = || TcpListener::bind((address(End::A), 0));
        let made = self.pair.network.within(End::A, listen).and_then(|made| made);
        let Some((listener, port)) = self.verdict.hold(
            made.and_then(|made| made.local_addr().map(|at| (made, at.port())))
                .map_err(|error| error.to_string()),
            "a listener at the sender's end",
        ) else {
            return;
        };
        let is_mute = self.drill.fault == Fault::Mute;
        let listener = is_mute.then_some(listener); // else it is closed now
        let begun = now_ns();
        let limit_ms = if is_mute { self.drill.timeouts.connect.as_millis() as f64 } else { 0.0 };
        let reply = self.pair.connect_to(&format!("{}:{port}", address(End::A)));
        self.has_to_fail("connect", reply, begun, limit_ms, "10.77.0.1");
        drop(listener);
        self.next_request(false);
    }

    /// The receiver dials a name: nothing is looked up, and the error says so.
    fn host_name(&mut self) {
        let reply = self.pair.connect_to("node7.example:5555");
        self.has_to_fail("connect", reply, now_ns(), 0.0, "names are not resolved");
        self.next_request(false);
    }

    /// A stranger says one byte and stays, while others are served.
    fn half_open(&mut self) {
        let Some(card) = self.verdict.hold(ask(&self.pair.sender, "card"), "card") else { return };
        let Some(address) = address_of(&card) else {
            return self.verdict.broken(format!("no address in {card}"));
        };
        let dial = || -> std::io::Result<TcpStream> {
            let mut stranger = TcpStream::connect(&address)?;
            std::io::Write::write_all(&mut stranger, b"\x20")?;
            Ok(stranger)
        };
        let dialed = self.pair.network.within(End::B, dial).and_then(|dialed| dialed);
        let begun = now_ns();
        let Some(mut stranger) = self.verdict.hold(dialed.map_err(|error| error.to_string()), "a stranger")
        else {
            return;
        };
        self.next_request(false);
        let closed = await_closed(&mut stranger, PATIENCE);
        let after_ms = millis_between(begun, now_ns());
        let said = format!("the stranger was let go after {after_ms:.0} ms");
        match closed {
            Err(why) => self.verdict.broken(why),
            Ok(()) if after_ms > UNDECIDED_MS + GRACE_MS => self.verdict.broken(said),
            Ok(()) => self.verdict.failed(said, after_ms),
        }
    }

    /// Everything only takes longer.
    fn weather(&mut self) {
        let weather = match self.drill.fault {
            Fault::Rough => Weather::ROUGH,
            Fault::Slow => Weather::SLOW,
            _ => Weather::FLIPPING,
        };
        self.pair.network.relay().storm(Storm { reach: Reach::Both, weather, lasts: None });
        let met = self.pair.meet();
        if self.verdict.hold(met, "first contact").is_none() {
            return;
        }
        self.check_lane();
        for id in 1..=2 {
            self.whole_transfer(id, Duration::from_secs(30));
        }
        let tally = self.pair.network.relay().tally(End::A);
        let struck = match self.drill.fault {
            Fault::Rough => tally.lost > 0 && tally.duplicated > 0,
            Fault::Flips => tally.flipped > 0,
            _ => true,
        };
        if !struck {
            self.verdict.broken(format!("the weather was fair: {tally:?}"));
        }
    }

    /// Forged bits arrive where TCP sees nothing wrong: no byte of them comes into memory.
    fn forgery(&mut self) {
        if !self.meet() {
            return;
        }
        let storm = Storm { reach: Reach::Both, weather: Weather::FORGING, lasts: None };
        self.pair.network.relay().storm(storm);
        let struck = now_ns();
        let (peer, latest) = (self.pair.peer_of(End::A), RESET_MS + GRACE_MS);
        match self.pair.send(1, 0) {
            // Even signs of life are forged: the connection may be gone before.
            Err(text) => {
                self.judge_error("send", &text, millis_between(struck, now_ns()), 0.0, latest, &peer)
            }
            Ok(mut ongoing) => {
                let answer = ongoing.sent.within(PATIENCE);
                match self.verdict.came("wait", answer) {
                    Some(Answer::Failed { text, at_ns }) => {
                        self.judge_error("wait", &text, millis_between(struck, at_ns), 0.0, latest, &peer);
                    }
                    Some(_) => self.verdict.broken("a transfer came to an end over forged bits"),
                    None => {}
                }
                let answer = ongoing.received.within(PATIENCE);
                self.verdict.came("receive", answer);
                self.check_truth(&mut [("wait", &mut ongoing.sent), ("receive", &mut ongoing.received)]);
            }
        }
        self.take_back();
        self.next_request(true);
    }

    /// The fault is there before both know each other.
    fn first_contact(&mut self) {
        let begun = now_ns();
        self.arm();
        let mut reply = self.pair.connect();
        let struck = self.struck().unwrap_or(begun);
        let connect_ms = self.drill.timeouts.connect.as_millis() as f64;
        if self.drill.fault.is_silence() {
            self.has_to_fail("connect", reply, begun, connect_ms, SENDER);
            return self.next_request(true);
        }
        let answer = reply.within(PATIENCE);
        let Some(answer) = self.verdict.came("connect", answer) else { return };
        match (answer, self.drill.fault) {
            (Answer::Done { .. }, _) => return self.go_on(),
            (Answer::Failed { text, at_ns }, Fault::Reset) => {
                self.judge_error("connect", &text, millis_between(struck, at_ns), 0.0, RESET_MS, "");
            }
            (answer, _) => {
                self.verdict.broken(format!("connect did not outlive a fault that passes: {answer:?}"));
            }
        }
        self.next_request(true);
    }

    /// First contact has outlived the fault.
    fn go_on(&mut self) {
        self.await_fair();
        let welcomed = self.pair.welcome();
        if self.verdict.hold(welcomed, "first contact").is_some() {
            self.whole_transfer(1, PATIENCE);
        }
    }

    /// Nothing is under way but heartbeats.
    fn idle(&mut self) {
        if !self.meet() {
            return;
        }
        if self.drill.fault.passes() {
            self.arm();
            return self.whole_transfer(1, PATIENCE);
        }
        let mut received = self.pair.receiver.tell(&format!("receive 9 {SENDER} 0"));
        self.arm();
        let Some(struck) = self.struck() else { return };
        if self.drill.fault.is_silence() {
            self.check_reports(struck);
        }
        self.check_end("receive", &mut received, struck, End::B);
        self.check_lost(struck);
        // The sender learns it from its next call, which must not hang either.
        let begun = now_ns();
        let submitted = self.pair.send(1, 0);
        match submitted.map(|mut ongoing| ongoing.sent.within(PATIENCE)) {
            Err(error) => {
                let peer = self.pair.peer_of(End::A);
                self.judge_error("send", &error, millis_between(begun, now_ns()), 0.0, RESET_MS, &peer);
            }
            Ok(answer) => match self.verdict.came("wait", answer) {
                Some(Answer::Failed { text, .. }) => {
                    let late = self.drill.timeouts.peer.as_millis() as f64;
                    let peer = self.pair.peer_of(End::A);
                    self.judge_error("wait", &text, millis_between(begun, now_ns()), 0.0, late, &peer);
                }
                Some(_) => self.verdict.add(Kind::Corrupt, "a transfer succeeded over a dead network"),
                None => {}
            },
        }
        self.take_back();
        self.next_request(true);
    }

    /// In the middle of a transfer, or at its end.
    fn transfer(&mut self) {
        if !self.meet() {
            return;
        }
        if self.drill.planted == Some(Planted::Lie) {
            let told = ask(&self.pair.sender, &format!("message 1 {RECEIVER}"));
            self.verdict.hold(told, "a lie");
        }
        self.arm();
        let sending = self.pair.send(1, 0);
        let Some(mut ongoing) = self.verdict.hold(sending, "send") else { return };
        let Some(struck) = self.struck() else { return };
        if self.drill.fault.passes() {
            return self.has_to_succeed(1, 0, &mut ongoing.sent, &mut ongoing.received);
        }
        if self.drill.fault.is_silence() {
            self.check_reports(struck);
        }
        self.check_end("wait", &mut ongoing.sent, struck, End::A);
        self.check_end("receive", &mut ongoing.received, struck, End::B);
        self.check_truth(&mut [("wait", &mut ongoing.sent), ("receive", &mut ongoing.received)]);
        self.check_lost(struck);
        self.take_back();
        self.next_request(true);
    }

    /// The sender gives a transfer up, and its word does not arrive.
    fn cancel(&mut self) {
        if !self.meet() {
            return;
        }
        let relay = self.pair.network.relay();
        relay.storm(Storm { reach: Reach::From(End::A), weather: Weather::SLOW, lasts: None });
        let before = relay.tally(End::A).payload_bytes;
        let sending = self.pair.send(1, 0);
        let Some(mut ongoing) = self.verdict.hold(sending, "send") else { return };
        self.arm();
        let third = before + SHAPE.moved_bytes() as u64 / 3;
        self.await_that(|run| run.pair.network.relay().tally(End::A).payload_bytes >= third);
        let mut cancelled = self.pair.sender.tell("cancel 1");
        let Some(struck) = self.struck() else { return };
        if self.drill.fault.is_silence() {
            self.check_reports(struck);
        }
        self.check_cancel(&mut cancelled, struck);
        if self.drill.fault.passes() {
            let abandoned = ask(&self.pair.receiver, "abandon").map(drop);
            self.verdict.hold(abandoned, "abandon");
        } else {
            self.check_end("receive", &mut ongoing.received, struck, End::B);
            self.check_lost(struck);
        }
        // What follows uses the other slot, and this one is looked at in the end.
        for (what, reply) in [("wait", &mut ongoing.sent), ("receive", &mut ongoing.received)] {
            let answer = reply.within(PATIENCE);
            self.verdict.came(what, answer);
        }
        if self.drill.fault.passes() {
            return self.whole_transfer(3, PATIENCE);
        }
        self.take_back();
        self.next_request(true);
    }

    /// The sender's agent ends, and its last word does not arrive.
    fn goodbye(&mut self) {
        if !self.meet() {
            return;
        }
        self.whole_transfer(1, PATIENCE);
        let mut received = self.pair.receiver.tell(&format!("receive 9 {SENDER} 0"));
        self.arm();
        let begun = now_ns();
        let mut destroyed = self.pair.sender.tell("destroy");
        let Some(struck) = self.struck() else { return };
        let answer = destroyed.within(PATIENCE);
        if let Some(at) = self.verdict.came("destroy", answer).as_ref().and_then(at_ns) {
            let (after_ms, limit) = (millis_between(begun, at), self.drill.timeouts.peer.as_millis() as f64);
            if after_ms > limit + GRACE_MS {
                self.verdict.broken(format!("the agent took {after_ms:.0} ms to end"));
            }
        }
        let answer = received.within(self.drill.timeouts.peer + PATIENCE);
        match (self.drill.fault, self.verdict.came("receive", answer)) {
            (_, Some(Answer::Done { .. })) => {
                self.verdict.add(Kind::Corrupt, "a message came that nobody sent")
            }
            (_, None) => {}
            (Fault::Drop(Reach::From(End::B)), _) => {} // its last word does arrive
            // A data connection is closed ahead of the last word, and its end did arrive.
            (fault, Some(Answer::Failed { text, .. })) if fault.is_silence() && !text.contains(CLOSED) => {
                self.check_report(End::B, struck);
                self.check_end("receive", &mut received, struck, End::B);
            }
            (_, Some(Answer::Failed { text, at_ns })) => {
                let latest = self.drill.timeouts.peer.as_millis() as f64 + GRACE_MS;
                self.judge_error("receive", &text, millis_between(struck, at_ns), 0.0, latest, SENDER);
            }
            (_, Some(Answer::Gone | Answer::Late)) => {}
        }
        self.heal();
        let remade = self.pair.remake_sender();
        if self.verdict.hold(remade, "the sender's next agent").is_some() {
            self.next_request(true);
        }
    }
}
