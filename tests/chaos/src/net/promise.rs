//! What a drill holds the library to: who says what of whom, and within which time of the fault.

use super::drill::whose;
use super::pair::{PATIENCE, SHAPE, at_ns};
use super::play::Run;
use super::storm::End;
use super::strike::PASSING;
use crate::answers::{Answer, Reply};
use crate::arena::Content;
use crate::clock::{millis_between, now_ns};
use crate::judge::REPORTS;
use crate::row::{Kind, Lane};

/// Silence has to be reported by then.
const REPORTED_MS: f64 = 2000.0;
/// A connection that is reset is known at once, which the report shows; what comes later than this, never.
pub(super) const RESET_MS: f64 = 5000.0;
/// How much later than its deadline an error may come: heartbeats, ticks and a busy machine.
pub(super) const GRACE_MS: f64 = 1500.0;
/// How much sooner, counted from the fault: the last heartbeat was before it.
const HEARTBEAT_MS: f64 = 700.0;
/// What is written to a destination after a cancel that says quiet.
const QUIET: Content = Content(77);
/// How long whoever connects and says too little may stay.
pub(super) const UNDECIDED_MS: f64 = 5000.0;

impl Run<'_> {
    pub(super) fn meet(&mut self) -> bool {
        let met = self.pair.meet();
        let met = self.verdict.hold(met, "first contact").is_some();
        if met {
            self.check_lane();
        }
        met
    }

    /// Over a network of two hosts the stream carries the data, and where ucx was asked for that is said.
    pub(super) fn check_lane(&mut self) {
        let loaded = |run: &Self| run.pair.receiver.logged(0, &["peer loaded", "lane=stream-tcp"]);
        if !self.await_that(|run| loaded(run).is_some()) {
            self.verdict.broken("nothing says that the peer was loaded over stream-tcp");
        }
        let says_why = |line: &crate::host::LogLine| {
            line.text.contains("no UCX here, Baton's stream serves") || line.text.contains("ucx: ")
        };
        if self.drill.lane == Lane::Ucx && !self.pair.receiver.log().iter().any(says_why) {
            self.verdict.broken("nothing says why ucx does not serve");
        }
    }

    /// Both sides say in their logs that they hear nothing of each other, soon enough.
    pub(super) fn check_reports(&mut self, struck: u64) {
        self.check_report(End::A, struck);
        self.check_report(End::B, struck);
    }

    pub(super) fn check_report(&mut self, end: End, struck: u64) {
        let line_of = |run: &Self| {
            let (host, peer) = (run.pair.side(end), run.pair.peer_of(end));
            REPORTS.iter().filter_map(|text| host.logged(struck, &[text, &peer])).map(|line| line.at_ns).min()
        };
        let deadline = struck + (REPORTED_MS + GRACE_MS) as u64 * 1_000_000;
        self.await_that(|run| line_of(run).is_some() || now_ns() > deadline);
        match line_of(self).map(|at| millis_between(struck, at)) {
            Some(after_ms) if after_ms <= REPORTED_MS => {
                self.verdict.note(format!("the {} reported the silence after {after_ms:.0} ms", whose(end)));
            }
            Some(after_ms) => {
                self.verdict
                    .broken(format!("the {} reported the silence after {after_ms:.0} ms", whose(end)));
            }
            None => self.verdict.broken(format!("the {} did not report the silence", whose(end))),
        }
    }

    /// What waits for the peer ends as the fault wants it: at the deadline, or soon.
    pub(super) fn check_end(&mut self, what: &str, reply: &mut Reply, struck: u64, whose: End) {
        let answer = reply.within(self.drill.timeouts.peer + PATIENCE);
        let Some(answer) = self.verdict.came(what, answer) else { return };
        let (earliest, latest) = self.end_window_ms();
        if let Answer::Failed { text, at_ns } = answer {
            let peer = self.pair.peer_of(whose);
            self.judge_error(what, &text, millis_between(struck, at_ns), earliest, latest, &peer);
        }
        // Success is judged by the bytes.
    }

    /// When a peer may count as lost, counted from the fault.
    pub(super) fn end_window_ms(&self) -> (f64, f64) {
        let peer_ms = self.drill.timeouts.peer.as_millis() as f64;
        match self.drill.fault {
            fault if fault.is_reset() => (0.0, RESET_MS),
            _ => (peer_ms - HEARTBEAT_MS, peer_ms + GRACE_MS),
        }
    }

    /// Both sides give each other up, and not before the deadline.
    pub(super) fn check_lost(&mut self, struck: u64) {
        let (earliest, latest) = self.end_window_ms();
        for end in [End::A, End::B] {
            let peer = self.pair.peer_of(end);
            let line_of = |run: &Self| run.pair.side(end).logged(struck, &["peer lost", &peer]);
            if !self.await_that(|run| line_of(run).is_some()) {
                self.verdict.broken(format!("the {} never gave its peer up", whose(end)));
            }
            let Some(line) = line_of(self) else { continue };
            let after_ms = millis_between(struck, line.at_ns);
            if after_ms < earliest || after_ms > latest {
                let text = line.text;
                self.verdict
                    .broken(format!("the {} gave its peer up after {after_ms:.0} ms: {text}", whose(end)));
            }
        }
    }

    /// What has to fail, does so within its deadline and says whom it is about.
    pub(super) fn has_to_fail(
        &mut self,
        what: &str,
        mut reply: Reply,
        begun: u64,
        limit_ms: f64,
        names: &str,
    ) {
        let answer = reply.within(PATIENCE);
        match self.verdict.came(what, answer) {
            Some(Answer::Failed { text, at_ns }) => {
                let after_ms = millis_between(begun, at_ns);
                self.judge_error(what, &text, after_ms, 0.0, limit_ms + GRACE_MS, names);
            }
            Some(_) => self.verdict.broken(format!("{what} succeeded")),
            None => {}
        }
    }

    pub(super) fn judge_error(
        &mut self,
        what: &str,
        text: &str,
        after_ms: f64,
        earliest: f64,
        latest: f64,
        names: &str,
    ) {
        let said = format!("{what} after {after_ms:.0} ms: {text}");
        if after_ms < earliest || after_ms > latest {
            self.verdict.broken(format!("not within {earliest:.0} to {latest:.0} ms: {said}"));
        } else if !text.contains(names) {
            self.verdict.broken(format!("does not name {names}: {said}"));
        } else {
            self.verdict.failed(said, after_ms);
        }
    }

    /// A success, of either side, means that every byte is there; and never anything but bytes of this transfer.
    pub(super) fn check_truth(&mut self, ends: &mut [(&str, &mut Reply)]) {
        for (what, reply) in ends {
            let is_complete = || self.pair.receiver.arena.check(0, &[Content(1)]);
            if reply.now().is_some_and(|answer| answer.is_done())
                && let Err(foreign) = is_complete()
            {
                self.verdict
                    .add(Kind::Corrupt, format!("{what} told of a success that is not true: {foreign}"));
            }
        }
        let check = self.pair.check(End::B, 0);
        self.verdict.hold_bytes(check);
    }

    /// Memory of a transfer that both have lost is its owners' again, and stays as they write it.
    pub(super) fn take_back(&mut self) {
        let taken = self.pair.take_back(0);
        self.verdict.hold(taken, "taking memory back");
    }

    /// Every byte of both, at the end.
    pub(super) fn check_memory(&mut self) {
        for end in [End::A, End::B] {
            for slot in 0..SHAPE.slots {
                let check = self.pair.check(end, slot);
                self.verdict.hold_bytes(check);
            }
        }
    }

    /// A cancel ends within the peer's deadline; what it says is true, and where the peer could be heard in time it is quiet.
    pub(super) fn check_cancel(&mut self, cancelled: &mut Reply, struck: u64) {
        let answer = cancelled.within(self.drill.timeouts.peer + PATIENCE);
        let Some(answer) = self.verdict.came("cancel", answer) else { return };
        let after_ms = at_ns(&answer).map_or(0.0, |at| millis_between(struck, at));
        if after_ms > self.drill.timeouts.peer.as_millis() as f64 + GRACE_MS {
            self.verdict.broken(format!("cancel took {after_ms:.0} ms"));
        }
        let said = answer.text().map(str::to_owned);
        self.verdict.note(format!("cancel after {after_ms:.0} ms: {said:?}"));
        let is_quiet = said.as_deref() == Ok("quiet");
        if is_quiet {
            self.stays_quiet();
        } else if self.drill.fault.passes() {
            self.verdict.broken(format!("cancel did not come to quiet over a fault that passes: {said:?}"));
        }
    }

    /// After a cancel that says quiet no byte lands.
    fn stays_quiet(&mut self) {
        let slot = 0;
        self.pair.fill(End::B, slot, QUIET);
        std::thread::sleep(PASSING); // nothing may happen for so long
        self.heal();
        std::thread::sleep(PASSING);
        let check = self.pair.check(End::B, slot);
        self.verdict.hold_bytes(check.map_err(|foreign| format!("after a quiet cancel: {foreign}")));
    }
}
