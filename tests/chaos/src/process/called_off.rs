//! A host calls its own transfer off while bytes are under way: every way there is, and nobody is hurt.

use super::{Play, Row, Script, Seen, Setting, TIMES};
use crate::aftermath::Aftermath;
use crate::answers::Answer;
use crate::bench::Bench;
use crate::clock::millis_between;
use crate::points::{Break, Scene, Side};
use crate::row::Lane;
use crate::stage::shape;
use std::time::Duration;

/// The rows.
pub fn rows() -> Vec<Row> {
    vec![
        row("39", "release() by the sender", cancel),
        row("39", "status destroyed by the sender", |play| call_off(play, Side::Sender, Break::Drop)),
        row("44", "deregister by the sender", |play| call_off(play, Side::Sender, Break::Withdraw)),
        row("44", "deregister by the receiver", |play| call_off(play, Side::Receiver, Break::Withdraw)),
        row("44", "invalidate by the sender", |play| call_off(play, Side::Sender, Break::Leave)),
        row("44", "invalidate by the receiver", |play| call_off(play, Side::Receiver, Break::Leave)),
        row("46", "agent destroyed by the sender", |play| call_off(play, Side::Sender, Break::Destroy)),
        row("46", "agent destroyed by the receiver", |play| call_off(play, Side::Receiver, Break::Destroy)),
    ]
}

fn row(number: &'static str, fault: &'static str, play: Script) -> Row {
    Row { number, fault, phase: "tx", lanes: &Lane::ALL, is_short: number == "44", set: large, play }
}

/// Bytes enough that most calls come while they move; a run in which one did not is run again.
fn large(_: &Bench, setting: &mut Setting) -> Result<(), String> {
    setting.both().into_iter().for_each(|spec| spec.shape = shape(SIZE_MIB));
    Ok(())
}

fn cancel(play: &mut Play<'_, '_>) -> Result<Seen, String> {
    let seen = call_off(play, Side::Sender, Break::Cancel)?;
    match play.stage.answer(Side::Sender, "cancel").map(Answer::text) {
        Some(Ok("quiet")) => Ok(seen),
        other => Err(format!("release() of a transfer whose peer answers: {other:?}")),
    }
}

/// The transfer ends, whichever way; memory goes back and is written anew; the next request is served.
fn call_off(play: &mut Play<'_, '_>, side: Side, what: Break) -> Result<Seen, String> {
    // Where the peer's transfer is cut off, the story ends early: that is what is looked at.
    let _ = play.act().play(Scene::Interrupted(side, what));
    let mut aftermath = Aftermath::new(play.stage, None, TIMES, play.findings);
    aftermath.settle();
    let ended = aftermath.stage.answer(Side::Sender, "wait").cloned();
    aftermath.serve_and_check(false);
    match (ended, play.stage.broken_off) {
        (Some(Answer::Failed { text, at_ns }), Some(off)) => {
            let after = Duration::from_secs_f64(millis_between(off.at_ns, at_ns) / 1e3);
            Seen::refused(text, after, &["gen0"])
        }
        _ => Ok(Seen::served()),
    }
}

const SIZE_MIB: usize = 64;
