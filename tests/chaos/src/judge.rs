//! What is held against the promises after a run: what the survivor said of the fault, and when.

use crate::host::{Answer, Host};
use crate::outcome::Findings;
use crate::points::{Scene, Side};
use crate::row::{Kind, Seam};
use crate::scene::Times;
use crate::stage::Stage;
use crate::strike::{Blow, Strike};
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
    let ms = crate::clock::millis_between(struck_ns, at_ns);
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
    if !strike.blow.stops() && ms > KILL_BOUND_MS {
        findings.add(Kind::Broken, format!("the {} noticed after {ms:.0} ms: {text}", survivor.word()));
    }
    Some((ms, text))
}

/// A stopped peer that was met is reported within two seconds. Says after how many milliseconds.
pub fn judge_silence(
    stage: &Stage<'_>,
    strike: &Strike,
    times: Times,
    findings: &mut Findings,
) -> Option<f64> {
    let struck_ns = strike.struck_ns().filter(|_| strike.blow == Blow::Stop)?;
    let survivor = stage.host(strike.victim.other());
    let is_met = |phase| survivor.arena.reached_ns(phase).is_some_and(|at| at <= struck_ns);
    let met = match strike.victim {
        Side::Sender => is_met(crate::phase::Phase::Connected),
        Side::Receiver => is_met(crate::phase::Phase::Heard),
    };
    let is_gone = is_met(crate::phase::Phase::Destroy) || is_met(crate::phase::Phase::Leave);
    if !met || is_gone || times.hold < Duration::from_secs(2) {
        return None;
    }
    let peer = if stage.seam() == Seam::S3 { "peer" } else { &stage.party(strike.victim).name };
    match survivor.logged(struck_ns, &["WARN", peer]) {
        Some(line) => {
            let ms = crate::clock::millis_between(struck_ns, line.at_ns);
            if ms > REPORT_BOUND_MS {
                findings.add(Kind::Broken, format!("silence was reported after {ms:.0} ms"));
            }
            Some(ms)
        }
        None => {
            findings.add(Kind::Broken, "silence was never reported".to_owned());
            None
        }
    }
}

/// The library has said that it does not let go of memory: then its owner must not use it (D9).
pub fn is_quarantined(host: &Host) -> bool {
    ["must not be reused", "must not be used for anything else", "while its process lives"]
        .iter()
        .any(|words| host.logged(0, &[words]).is_some())
}

/// Heartbeats come every half second: the last one may be that old when the blow falls; and some slack.
const EARLY: Duration = Duration::from_millis(700);
/// The death of a process of the same host is noticed at once; this much only on a busy machine.
const KILL_BOUND_MS: f64 = 1000.0;
/// Two seconds, and what a busy machine adds.
const REPORT_BOUND_MS: f64 = 2300.0;
