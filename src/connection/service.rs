//! Taking messages in: by whoever waits, and by a thread of its own while nobody does.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::proto::tagged::message::Message;
use crate::proto::tagged::receiving::Overrun;
use crate::proto::tagged::sending::{Target, Withdrawal};
use crate::proto::tagged::{ConnectionId, Role, Tag};

use super::hub::{Hub, Standing, State};

/// Longest park of the service thread.
const TICK: Duration = Duration::from_millis(250);

/// The service thread's body: loads peers that have introduced themselves, and takes messages in while no
/// operation waits. Ends when the connections are closed.
pub(super) fn run(hub: &Hub) {
    while !hub.is_closing() {
        if let Some(connection) = next_greeted(hub) {
            load(hub, connection);
            continue;
        }
        if hub.waiters.load(Ordering::SeqCst) > 0 {
            let mut state = hub.state.lock();
            hub.changed.wait_for(&mut state, TICK);
            continue;
        }
        let pumping = hub.pump.lock();
        hub.agent.park_for_notifications(Instant::now() + TICK, || hub.is_closing());
        hub.take_in();
        drop(pumping);
    }
}

fn next_greeted(hub: &Hub) -> Option<ConnectionId> {
    let state = hub.state.lock();
    let greeted = |(id, end): (usize, &super::hub::End)| {
        matches!(end.standing, Standing::Greeted { .. }).then_some(ConnectionId(id as u32))
    };
    state.ends.iter().enumerate().find_map(greeted)
}

/// Loads the peer of a connection, outside the lock, and then says what has waited for it.
fn load(hub: &Hub, connection: ConnectionId) {
    let (peer, blob) = {
        let state = hub.state.lock();
        let Some(end) = state.ends.get(connection.0 as usize) else { return };
        let Standing::Greeted { blob, .. } = &end.standing else { return };
        (end.peer.clone(), blob.clone())
    };
    let loaded = hub.agent.load_blob(&peer, &blob);
    let mut state = hub.state.lock();
    if let Err(error) = loaded {
        tracing::error!(peer, %error, "a peer that has connected cannot be answered");
        state.lose(connection, error.to_string());
    } else if let Some(end) = state.ends.get_mut(connection.0 as usize)
        && let Standing::Greeted { outbox, .. } = std::mem::replace(&mut end.standing, Standing::Up)
    {
        let said = outbox.iter().try_for_each(|bytes| hub.agent.notify(&peer, bytes));
        if let Err(error) = said {
            state.lose(connection, error.to_string());
        }
    }
    drop(state);
    hub.changed.notify_all();
}

impl Hub {
    /// Takes in what the agent has for us. By the holder of the pump alone, so that order is kept.
    pub fn take_in(&self) {
        let taken = self.agent.take_notifications();
        if taken.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        for (peer, messages) in taken {
            for message in messages {
                self.take_message(&mut state, &peer, &message);
            }
        }
        self.say_all(&mut state);
        drop(state);
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
                Role::Requester => drop(state.greet(peer.to_owned(), blob.to_vec())),
                Role::Acceptor => tracing::error!(peer, "an acceptor has introduced itself; it is ignored"),
            }
            return;
        }
        let Some(connection) = state.end_of(peer, speaks.other()) else {
            tracing::error!(peer, "a message came on a connection that was never made; it is dropped");
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
            Message::Introduce { .. } => {}
            Message::Eager { bytes } => state.receives.handle_eager(connection, tag, bytes)?,
            Message::Offer { send, .. } => state.receives.handle_offer(connection, tag, send)?,
            Message::Retract { send } => state.receives.handle_retract(connection, tag, send),
            Message::Announce { recv, answers, seen, addr, len } => {
                let target = Target { recv, addr, len };
                state.sends.handle_announce(connection, tag, (answers, seen), target);
            }
            Message::Withdraw { recv } => {
                if state.sends.handle_withdraw(connection, tag, recv) == Withdrawal::Granted {
                    let message = Message::Withdrawn { recv, consumed: false };
                    if let Err(error) = self.say(state, connection, tag, &message) {
                        state.lose(connection, error.to_string());
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
