//! A host calls its own transfer off while bytes are under way: every way there is, and nobody is hurt.

use super::{Play, Row, TIMES, as_usual};
use crate::aftermath::Aftermath;
use crate::points::{Break, Scene, Side};
use crate::row::Lane;

/// The rows.
pub fn rows() -> Vec<Row> {
    vec![
        row("39", "release() by the sender", cancel),
        row("39", "status destroyed by the sender", drop_status),
        row("44", "deregister by the sender", |play| call_off(play, Side::Sender, Break::Withdraw)),
        row("44", "deregister by the receiver", |play| call_off(play, Side::Receiver, Break::Withdraw)),
        row("44", "invalidate by the sender", |play| call_off(play, Side::Sender, Break::Leave)),
        row("44", "invalidate by the receiver", |play| call_off(play, Side::Receiver, Break::Leave)),
        row("46", "agent destroyed by the sender", |play| call_off(play, Side::Sender, Break::Destroy)),
        row("46", "agent destroyed by the receiver", |play| call_off(play, Side::Receiver, Break::Destroy)),
    ]
}

fn row(
    number: &'static str,
    fault: &'static str,
    play: fn(&mut Play<'_, '_>) -> Result<String, String>,
) -> Row {
    Row { number, fault, phase: "tx", lanes: &Lane::ALL, is_short: number == "44", set: as_usual, play }
}

fn cancel(play: &mut Play<'_, '_>) -> Result<String, String> {
    let seen = call_off(play, Side::Sender, Break::Cancel)?;
    match play.stage.answer(Side::Sender, "cancel").map(|answer| answer.text()) {
        Some(Ok("quiet")) | None => Ok(seen),
        Some(other) => Err(format!("release() of a transfer whose peer answers: {other:?}")),
    }
}

fn drop_status(play: &mut Play<'_, '_>) -> Result<String, String> {
    call_off(play, Side::Sender, Break::Drop)
}

/// The transfer ends, whichever way; memory goes back and is written anew; the next request is served.
fn call_off(play: &mut Play<'_, '_>, side: Side, what: Break) -> Result<String, String> {
    // Where the peer's transfer is cut off, the story ends early: that is what is looked at.
    let _ = play.act().play(Scene::Interrupted(side, what));
    let mut aftermath = Aftermath::new(play.stage, None, TIMES, play.findings);
    aftermath.settle();
    aftermath.serve_and_check(false);
    let mut errors = play.stage.said.iter().filter_map(|said| said.answer.text().err());
    Ok(errors.next_back().unwrap_or_default())
}
