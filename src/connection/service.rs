//! Taking messages in, by whoever waits or else by a thread; and loading those who introduce themselves, by another.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::proto::tagged::message::Message;
use crate::proto::tagged::sending::{Target, Withdrawal};
use crate::proto::tagged::{ConnectionId, Overrun, Role, Tag};

use super::hub::{Hub, Standing, State};

/// Longest park of either thread.
const TICK: Duration = Duration::from_millis(250);

/// Takes messages in while no operation waits, on a thread of its own, until the connections are closed.
pub(super) fn pump(hub: &Hub) {
    while !hub.is_over() {
        let mut state = hub.state.lock();
        if hub.waiters.load(Ordering::SeqCst) > 0 && !hub.is_closing() {
            hub.idle.wait_for(&mut state, TICK);
            continue;
        }
        drop(state);
        let pumping = hub.pump.lock();
        hub.agent.park_for_notifications(Instant::now() + TICK, || hub.is_closing());
        hub.take_in();
        drop(pumping);
    }
}

/// Loads the peers that have introduced themselves, one after the other, on a thread of its own, until the
/// connections are closed.
pub(super) fn greet(hub: &Hub) {
    while !hub.is_over() {
        let mut state = hub.state.lock();
        let greeted = state.ends.iter().position(|end| matches!(end.standing, Standing::Greeted { .. }));
        match greeted {
            Some(id) => {
                drop(state);
                load(hub, ConnectionId(id as u32));
            }
            None if hub.is_closing() => return,
            None => drop(hub.greeted.wait_for(&mut state, TICK)),
        }
    }
}

/// Loads the peer of a connection, outside the lock, and then says what has waited for it.
fn load(hub: &Hub, connection: ConnectionId) {
    let (peer, blob) = {
        let state = hub.state.lock();
        let Some(end) = state.ends.get(connection.0 as usize) else { return };
        let Standing::Greeted { blob, .. } = &end.standing else { return };
        (end.peer.clone(), blob.clone())
    };
    let loaded = hub.agent.load_blob(&peer, &blob).map_err(|error| error.to_string());
    let loaded = loaded.and_then(|()| hub.agent.loaded_link(&peer).map_err(|error| error.to_string()));
    let mut state = hub.state.lock();
    // It may have been given up meanwhile; then it stays so.
    let Some(end) = state.ends.get_mut(connection.0 as usize) else { return };
    let Standing::Greeted { outbox, .. } = &mut end.standing else { return };
    match loaded {
        Err(reason) => {
            tracing::error!(peer, reason, "a peer that has connected cannot be answered");
            hub.lose(&mut state, connection, &reason);
        }
        Ok(link) => {
            let outbox = std::mem::take(outbox);
            end.standing = Standing::Up(link);
            let said = outbox.iter().try_for_each(|bytes| hub.agent.notify(&peer, bytes));
            if let Err(error) = said {
                hub.lose(&mut state, connection, &error.to_string());
            }
        }
    }
    drop(state);
    hub.changed.notify_all();
}

impl Hub {
    /// Takes in what the agent has for us. By the holder of the pump alone, so that order is kept.
    pub fn take_in(&self) {
        let taken = self.agent.take_notifications();
        if !taken.is_empty() {
            let mut state = self.state.lock();
            self.hand_all_on(&mut state, taken);
        }
    }

    /// The same, for a holder of the pump who has the state.
    pub fn take_in_under(&self, state: &mut State) {
        let taken = self.agent.take_notifications();
        self.hand_all_on(state, taken);
    }

    fn hand_all_on(&self, state: &mut State, taken: Vec<(String, Vec<Vec<u8>>)>) {
        for (peer, messages) in taken {
            for message in messages {
                self.take_message(state, &peer, &message);
            }
        }
        self.say_all(state);
        self.changed.notify_all();
    }

    fn take_message(&self, state: &mut State, peer: &str, bytes: &[u8]) {
        let (speaks, tag, message) = match Message::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::error!(peer, %error, "a notification is no message of a connection; it is dropped");
                return;
            }
        };
        if let Message::Introduce { blob } = message {
            match speaks {
                Role::Requester => {
                    state.greet(peer.to_owned(), blob.to_vec());
                    self.greeted.notify_all();
                }
                Role::Acceptor => tracing::error!(peer, "an acceptor has introduced itself; it is ignored"),
            }
            return;
        }
        let Some(connection) = state.end_of(peer, speaks.other()) else {
            tracing::error!(
                peer,
                tag = tag.0,
                "a message came on a connection that was never made; it is dropped"
            );
            return;
        };
        if self.hand_on(state, connection, tag, message).is_err() {
            tracing::error!(
                peer,
                "the peer sends more than may wait to be received; the connection is closed"
            );
            state.lose(connection, "the peer has sent more than may wait to be received".to_owned());
        }
    }

    fn hand_on(
        &self,
        state: &mut State,
        connection: ConnectionId,
        tag: Tag,
        message: Message<'_>,
    ) -> Result<(), Overrun> {
        match message {
            Message::Introduce { .. } | Message::Closed { .. } => {}
            Message::Eager { bytes } => state.receives.handle_eager(connection, tag, bytes)?,
            Message::Offer { send, .. } => state.receives.handle_offer(connection, tag, send)?,
            Message::Retract { send } => state.receives.handle_retract(connection, tag, send),
            Message::Announce { recv, answers, seen, addr, len } => {
                let target = Target { recv, addr, len };
                state.sends.handle_announce(connection, tag, (answers, seen), target)?;
            }
            Message::Withdraw { recv } => {
                if state.sends.handle_withdraw(connection, tag, recv) == Withdrawal::Granted {
                    let message = Message::Withdrawn { recv, consumed: false };
                    if let Err(error) = self.say(state, connection, tag, &message) {
                        self.lose(state, connection, &error.to_string());
                    }
                }
            }
            Message::Withdrawn { recv, consumed } => {
                state.receives.handle_withdrawn(connection, tag, recv, consumed);
            }
            Message::Done { recv } => state.receives.handle_done(connection, tag, recv),
            Message::Failed { recv, reason } => state.receives.handle_failed(connection, tag, recv, reason),
            Message::Credit { bytes, seen } => state.sends.handle_credit(connection, bytes, seen),
        }
        Ok(())
    }
}
