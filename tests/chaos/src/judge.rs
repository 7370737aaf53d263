//! What is held against the promises after a run: what the survivor said of the fault, and when.

use crate::answers::Answer;
use crate::clock::{millis_between, now_ns};
use crate::host::{Host, LogLine};
use crate::outcome::Findings;
use crate::phase::Phase;
use crate::points::{Scene, Side};
use crate::row::{Kind, Lane, Seam};
use crate::scene::Times;
use crate::stage::Stage;
use crate::strike::{Blow, Strike};
use std::thread;
use std::time::Duration;

/// What the survivor says of the fault: its error names the peer, and comes when it has to.
pub fn judge_words(
    stage: &Stage<'_>,
    strike: &Strike,
    scene: Scene,
    times: Times,
    findings: &mut Findings,
) -> Option<(f64, String)> {
    let struck_ns = strike.struck_ns()?;
    let survivor = strike.victim.other();
    let peer = &stage.party(strike.victim).name;
    let first = stage.said.iter().filter(|said| said.side == survivor).find_map(|said| match &said.answer {
        Answer::Failed { text, at_ns } if *at_ns >= struck_ns => Some((text.clone(), *at_ns)),
        _ => None,
    });
    let (text, at_ns) = first?;
    let ms = millis_between(struck_ns, at_ns);
    let is_interrupted = matches!(scene, Scene::Interrupted(..));
    // At S3 nobody has a name: the library has one of its own, or the address.
    let is_unnamed = stage.seam() == Seam::S3 && (text.contains("_ucx") || text.contains("127.0.0.1:"));
    let names_it = text.contains(peer.as_str()) || is_unnamed;
    if !names_it && !is_interrupted && !text.starts_with("given up") {
        findings.add(Kind::Broken, format!("the {}'s error does not name {peer}: {text}", survivor.word()));
    }
    if strike.blow == Blow::Pause {
        findings.add(Kind::Broken, format!("a pause of {:?} broke it: {text}", times.hold));
    }
    let earliest = times.peer_timeout.saturating_sub(EARLY).as_secs_f64() * 1e3;
    if strike.blow == Blow::Stop && ms < earliest && !is_interrupted {
        findings.add(Kind::Broken, format!("given up after {ms:.0} ms, before the peer timeout: {text}"));
    }
    let latest = times.bound().as_secs_f64() * 1e3;
    if strike.blow == Blow::Stop && ms > latest {
        findings.add(Kind::Broken, format!("given up after {ms:.0} ms, long after the peer timeout: {text}"));
    }
    if !strike.blow.stops() && ms > KILL_BOUND_MS {
        findings.add(Kind::Broken, format!("the {} noticed after {ms:.0} ms: {text}", survivor.word()));
    }
    Some((ms, text))
}

/// A stopped peer that was met is reported within two seconds; and once it goes on, it reports as soon who has given it
/// up meanwhile. Says after how many milliseconds the first did.
pub fn judge_silence(stage: &Stage<'_>, strike: &Strike, findings: &mut Findings) -> Option<f64> {
    let struck_ns = strike.struck_ns().filter(|_| strike.blow == Blow::Stop)?;
    let (survivor, victim) = (strike.victim.other(), strike.victim);
    if !has_met(&stage.host(survivor), survivor, struck_ns) {
        return None;
    }
    let name = |side: Side| stage.host(side).agent().unwrap_or_else(|| stage.party(side).name.clone());
    let report = |side: Side, since_ns: u64, words: &[&str]| {
        let (host, peer) = (stage.host(side), name(side.other()));
        let said = words.iter().filter_map(|text| host.logged(since_ns, &[text, &peer]));
        said.min_by_key(|line| line.at_ns).map(|line| millis_between(since_ns, line.at_ns))
    };
    let reported_ms = report(survivor, struck_ns, &REPORTS);
    match reported_ms {
        Some(ms) if ms <= REPORT_BOUND_MS => {}
        Some(ms) => findings.add(Kind::Broken, format!("silence was reported after {ms:.0} ms")),
        None => findings.add(Kind::Broken, "silence was never reported"),
    }
    let was_given_up = stage.host(survivor).logged(struck_ns, &[LOST, &name(victim)]).is_some();
    let resumed_ns = strike.resumed_ns()?;
    if was_given_up && has_met(&stage.host(victim), victim, struck_ns) {
        let words = [REPORTS[0], REPORTS[1], LOST];
        let until = resumed_ns + (REPORT_BOUND_MS * 1e6) as u64;
        while report(victim, resumed_ns, &words).is_none() && now_ns() < until {
            thread::sleep(BETWEEN_LOOKS);
        }
        let is_late = report(victim, resumed_ns, &words).is_none_or(|ms| ms > REPORT_BOUND_MS);
        if is_late && !has_forgotten(&stage.host(victim), victim, until) {
            let text =
                format!("the {} went on and did not say within 2 s that it was given up", victim.word());
            findings.add(Kind::Broken, text);
        }
    }
    reported_ms
}

/// Whether a host knew its peer when the blow fell, and for as long as silence may go unreported.
fn has_met(host: &Host, side: Side, struck_ns: u64) -> bool {
    let met = match side {
        Side::Receiver => Phase::Connected,
        Side::Sender => Phase::Heard,
    };
    let until_ns = struck_ns + (REPORT_BOUND_MS * 1e6) as u64;
    let parts = [Phase::Destroy, Phase::Leave].iter().any(|phase| has_reached(host, *phase, until_ns));
    has_reached(host, met, struck_ns) && !has_forgotten(host, side, struck_ns) && !parts
}

/// Whether a host had let its agent forget the peer by then, and had not loaded it again.
fn has_forgotten(host: &Host, side: Side, by_ns: u64) -> bool {
    side == Side::Sender
        && has_reached(host, Phase::Forget, by_ns)
        && !has_reached(host, Phase::Loaded, by_ns)
}

fn has_reached(host: &Host, phase: Phase, by_ns: u64) -> bool {
    host.arena.reached_ns(phase).is_some_and(|at| at <= by_ns)
}

/// Who is dead touches no memory: the survivor is told so, and gets its own back.
pub fn judge_release(stage: &Stage<'_>, strike: &Strike, is_returned: bool, findings: &mut Findings) {
    let Some(struck_ns) = strike.struck_ns() else { return };
    let survivor = strike.victim.other();
    let kept = kept_memory(&stage.host(survivor));
    if strike.blow.stops() {
        // Over streams the owner of the memory moves the bytes itself: a peer that has been given up has no part in it. One
        // that is silent may yet be waited for.
        let is_stream = matches!(stage.spec.lane, Lane::StreamUnix | Lane::StreamTcp);
        let lost_ns = stage.host(survivor).logged(struck_ns, &[LOST]).map_or(u64::MAX, |line| line.at_ns);
        let is_fault = |line: &LogLine| is_stream && !(struck_ns..=lost_ns).contains(&line.at_ns);
        if let Some(line) = kept.filter(is_fault) {
            findings.add(Kind::Broken, format!("memory was kept over a stream: {}", line.text));
        }
        return;
    }
    match stage.answer(Side::Sender, "cancel") {
        Some(Answer::Done { text, .. }) if survivor == Side::Sender && text != "quiet" => {
            findings.add(Kind::Broken, format!("cancel says '{text}' of a peer that is dead"));
        }
        _ => {}
    }
    match kept {
        Some(line) => findings.add(Kind::Broken, format!("memory was kept from the dead: {}", line.text)),
        None if !is_returned => {
            findings.add(Kind::Broken, format!("the {} did not get its memory back", survivor.word()));
        }
        None => {}
    }
}

/// The line in which the library has said that it does not let go of memory: then its owner must not use it (D9).
pub fn kept_memory(host: &Host) -> Option<LogLine> {
    host.catch_up();
    ["must not be reused", "must not be used for anything else", "while its process lives"]
        .iter()
        .find_map(|words| host.logged(0, &[words]))
}

/// What an agent may say of a silent peer, beside its name.
pub const REPORTS: [&str; 2] = ["nothing has been heard", "stands still"];
/// What it says of one that it has given up.
const LOST: &str = "peer lost";
/// Heartbeats come every half second: the last one may be that old when the blow falls; and some slack.
const EARLY: Duration = Duration::from_millis(700);
/// The death of a process of the same host is noticed at once, which the report shows; what comes later than this, never.
const KILL_BOUND_MS: f64 = 5000.0;
/// Two seconds, and what a busy machine adds.
const REPORT_BOUND_MS: f64 = 2300.0;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
