//! Nodes and the streams between them, moved step by step: who goes next, how much arrives and when time passes is
//! all chance. Nothing blocks. Who watches the hosts' memory and messages is the net's `host`.

use std::time::{Duration, Instant};

use baton::desc::{PeerKey, SessionId, TransferId};
use baton::proto::endpoint::{Action, Stall, Standing, TICK};
use baton::proto::transfer::TransferError;

use crate::chance::Chance;
use crate::node::Node;
use crate::wire::{Weather, Wire};

/// What the hosts see of a net.
pub trait Watch {
    /// Node `n` queues a message of the node `from` for its host.
    fn delivered(&mut self, n: usize, from: &str, message: &[u8]);
    /// A transfer of node `n` is over.
    fn ended(&mut self, n: usize, id: TransferId, outcome: Result<(), TransferError>);
    /// Node `n` lets go of a stream, numbered as in [`Net::wires`].
    fn stream_broken(&mut self, n: usize, wire: usize);
    /// It has, and everything that hung on it there has ended.
    fn stream_closed(&mut self, n: usize, wire: usize);
    /// A step is over.
    fn stepped(&mut self, step: u64);
}

/// See the [module](self). The nodes come before the host: a fabric goes before the memory it knows.
pub struct Net<W> {
    pub nodes: Vec<Node>,
    pub wires: Vec<Wire>,
    pub host: W,
    pub chance: Chance,
    pub now: Instant,
    /// What befalls frames on their way.
    pub weather: Weather,
    /// Stopped processes: one takes nothing in and does nothing.
    pub frozen: Vec<bool>,
    /// Fabrics that do not move: the node lives, nothing of its data goes on.
    pub stuck: Vec<bool>,
    /// Streams that a node has let go of, and why.
    pub closed: Vec<(usize, PeerKey, String)>,
    /// How often whoever waits for something of a node has been told to look again.
    pub wakes: Vec<u64>,
    /// Silences that a node has reported.
    pub silences: Vec<(usize, u64)>,
    /// Stalls that a node has reported, and when.
    pub stalls: Vec<(usize, Instant, Stall)>,
    /// Of a hundred posts, so many fail before they reach the fabric.
    pub post_failures: usize,
    /// Whether what happens is printed.
    pub traces: bool,
    pub steps: u64,
    next_tick: Vec<Instant>,
    /// Streams let go of, whose endings are yet to be acted on.
    gone: Vec<(usize, usize)>,
    idle_steps: u32,
}

/// The nodes' names.
pub const NAMES: [&str; 3] = ["ctx", "gen", "aux"];
const IDLE_STEPS: u32 = 20;
/// Actions that an endpoint wants at one moment; more is a livelock, in which no time passes and nothing ends.
const ACTIONS_MAX: usize = 100_000;

impl<W: Watch> Net<W> {
    /// These nodes, none of which has met another.
    pub fn new(nodes: Vec<Node>, host: W, chance: Chance) -> Self {
        let (now, count) = (Instant::now(), nodes.len());
        Self {
            nodes,
            wires: Vec::new(),
            host,
            chance,
            now,
            weather: Weather::default(),
            frozen: vec![false; count],
            stuck: vec![false; count],
            closed: Vec::new(),
            wakes: vec![0; count],
            silences: Vec::new(),
            stalls: Vec::new(),
            post_failures: 0,
            traces: false,
            steps: 0,
            next_tick: vec![now; count],
            gone: Vec::new(),
            idle_steps: 0,
        }
    }

    /// Node `n` dials node `to`, which it takes for this session.
    pub fn dial(&mut self, n: usize, to: usize, session: SessionId) -> PeerKey {
        let random = self.chance.id();
        let key = self.nodes[n].endpoint.open_dialed(NAMES[to], session, random, self.now);
        let mut wire = Wire::between(n, to);
        wire.end(n).key = Some(key);
        self.wires.push(wire);
        self.trace(|net| format!("{} dials {} on stream {}", NAMES[n], NAMES[to], net.wires.len() - 1));
        self.act(n);
        key
    }

    /// Whether these two have each other up.
    pub fn are_up(&self, a: usize, b: usize) -> bool {
        [(a, b), (b, a)]
            .iter()
            .all(|(n, to)| matches!(self.nodes[*n].endpoint.standing(NAMES[*to]), Standing::Up(_)))
    }

    /// The stream behind a peer of node `n`, as an index into the wires.
    pub fn wire_of(&self, n: usize, key: PeerKey) -> Option<usize> {
        self.wires.iter().rposition(|wire| wire.side(n).is_some_and(|side| wire.ends[side].key == Some(key)))
    }

    /// So many steps.
    pub fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    /// So many milliseconds, in which what can move does.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now + Duration::from_millis(ms);
        while self.now < until {
            self.steps(10);
            self.pass_time();
        }
    }

    /// Polls each fabric so many times, and lets the control streams run in between.
    pub fn polls(&mut self, count: usize) {
        let all: Vec<_> = (0..self.nodes.len()).collect();
        for n in all.repeat(count) {
            self.poll(n);
            self.act(n);
            let stuck = std::mem::replace(&mut self.stuck, vec![true; all.len()]);
            self.steps(20);
            self.stuck = stuck;
        }
    }

    /// One node does one thing; or time jumps, when nothing has happened for a while.
    pub fn step(&mut self) {
        self.steps += 1;
        self.now += Duration::from_micros(self.chance.within(0..50) as u64);
        let n = self.chance.within(0..self.nodes.len());
        let worked = !self.frozen[n]
            && match self.chance.within(0..8) {
                0..=3 => self.read(n),
                4..=6 => self.poll(n),
                _ => self.tick(n),
            };
        if !self.frozen[n] {
            self.act(n);
        }
        self.idle_steps = if worked { 0 } else { self.idle_steps + 1 };
        if self.idle_steps > IDLE_STEPS {
            self.idle_steps = 0;
            self.pass_time();
        }
        self.host.stepped(self.steps);
    }

    /// Carries out all that node `n`'s endpoint wants.
    pub fn act(&mut self, n: usize) {
        let mut actions = 0;
        while let Some(action) = self.nodes[n].endpoint.poll_action(self.now) {
            actions += 1;
            assert!(
                actions <= ACTIONS_MAX,
                "{} wants {ACTIONS_MAX} things at once, now {action:?}",
                NAMES[n]
            );
            self.carry_out(n, action);
        }
        let keys: Vec<_> = self.nodes[n].endpoint.peers_with_output().collect();
        for key in keys {
            let wire = self.wire_of(n, key).map(|at| &self.wires[at]);
            match wire.is_some_and(|wire| wire.is_full_for(n, self.weather.capacity)) {
                true => self.weather.struck.output_full += 1,
                false => self.send_output(n, key),
            }
        }
        for (n, wire) in std::mem::take(&mut self.gone) {
            self.host.stream_closed(n, wire);
        }
        self.prove(n);
    }

    /// Tells node `n` of those that it has let go of, and that have let go of it: whose end of the stream is closed has let its
    /// fabric go before.
    fn prove(&mut self, n: usize) {
        let sessions: Vec<_> = self.nodes[n].endpoint.holding_sessions().collect();
        for session in sessions {
            let of_session = |node: &Node| node.endpoint.identity().section.session == session;
            let other = self.nodes.iter().position(of_session);
            let lingers = |wire: &&Wire| {
                let theirs = other.and_then(|other| wire.side(other)).map(|side| &wire.ends[side]);
                let ours = wire.side(n).map(|side| &wire.ends[side]);
                // One that never took the stream in has nothing to let go of.
                ours.zip(theirs)
                    .is_some_and(|(ours, theirs)| !ours.open && theirs.open && theirs.key.is_some())
            };
            if self.wires.iter().find(lingers).is_none() {
                self.nodes[n].endpoint.handle_let_go(session, self.now);
            }
        }
    }

    /// Ends node `n`'s stream from outside, as when its socket breaks.
    pub fn let_go(&mut self, n: usize, key: PeerKey, reason: &str) {
        if self.nodes[n].endpoint.peer(key).is_none() {
            return;
        }
        self.trace(|net| format!("{} lets go of stream {:?}: {reason}", NAMES[n], net.wire_of(n, key)));
        self.nodes[n].let_go(key, reason);
        self.wakes[n] += 1;
        self.closed.push((n, key, reason.into()));
        if let Some(at) = self.wire_of(n, key) {
            self.wires[at].end(n).close();
            self.host.stream_broken(n, at);
            self.gone.push((n, at));
        }
    }

    /// Whether everything is at rest: no work, no bytes of control on the way.
    pub fn is_quiet(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| !node.endpoint.is_busy() && !node.holds_batches() && node.posted.is_empty())
            && self.wires.iter().flat_map(|wire| &wire.ends).all(|end| end.coming() == 0)
    }

    /// What there is to see when a run does not end.
    pub fn state(&self) -> String {
        let nodes =
            self.nodes.iter().zip(NAMES).map(|(node, name)| {
                format!("{name}: posted {:?}\n{:?}\n", node.posted.keys(), node.endpoint)
            });
        format!("{:?}\n{:?}\n{}", self.closed, self.wires, nodes.collect::<String>())
    }

    /// Says what happens, where that is wanted.
    pub fn trace(&self, text: impl FnOnce(&Self) -> String) {
        if self.traces {
            eprintln!("step {:6} {:>12?}  {}", self.steps, self.now - self.weather.born, text(self));
        }
    }

    /// Node `n`'s process is gone, and another one takes its place. Streams break, or, with a whole machine lost, fall
    /// `silent` for the other side.
    pub fn replace(&mut self, n: usize, silent: bool, successor: impl FnOnce() -> Node) {
        for at in 0..self.wires.len() {
            let Some(side) = self.wires[at].side(n).filter(|side| self.wires[at].ends[*side].open) else {
                continue;
            };
            self.wires[at].ends[side].die(silent);
            self.host.stream_broken(n, at);
            self.host.stream_closed(n, at);
        }
        drop(self.nodes.remove(n));
        self.nodes.insert(n, successor());
        self.next_tick[n] = self.now;
    }

    fn read(&mut self, n: usize) -> bool {
        let steps = self.steps;
        let ready = |wire: &Wire| {
            let Some(side) = wire.side(n) else { return false };
            let end = &wire.ends[side];
            wire.is_broken_for(n) || end.coming() > 0 && end.open && end.held_until <= steps
        };
        let ready: Vec<_> = (0..self.wires.len()).filter(|at| ready(&self.wires[*at])).collect();
        if ready.is_empty() {
            return false;
        }
        let at = self.chance.pick(&ready);
        let end = self.wires[at].end(n);
        let most = end.coming();
        let count = if self.chance.percent(40) { most } else { self.chance.within(0..most + 1) };
        end.arrive(count);
        if self.chance.percent(5) {
            end.held_until = steps + self.chance.within(0..300) as u64;
            self.weather.struck.delayed += 1;
        }
        self.take_frames(n, at);
        self.act(n);
        if self.wires.get(at).is_some_and(|wire| wire.is_broken_for(n)) {
            let end = self.wires[at].end(n);
            end.open = false;
            if let Some(key) = end.key {
                self.let_go(n, key, "its process closed the connection or ended");
            }
        }
        true
    }

    /// Hands every whole frame to the endpoint; the first one makes it accept the stream.
    fn take_frames(&mut self, n: usize, at: usize) {
        loop {
            let end = self.wires[at].end(n);
            let frame = match end.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    let key = end.key;
                    end.close();
                    return key.into_iter().for_each(|key| self.let_go(n, key, &error));
                }
            };
            let endpoint = &mut self.nodes[n].endpoint;
            let key = *end.key.get_or_insert_with(|| endpoint.open_accepted(self.now).expect("room"));
            self.trace(|_| format!("{} <- {at}: {}", NAMES[n], said(&frame)));
            self.nodes[n].endpoint.handle_frame(key, &frame, self.now);
        }
    }

    /// Polls node `n`'s fabric, unless it is stuck.
    pub fn poll(&mut self, n: usize) -> bool {
        let budget = self.chance.within(1..5000) as u64;
        if self.stuck[n] {
            return false;
        }
        let worked = self.nodes[n].poll(budget, self.now);
        let mut held = self.wires.iter().filter_map(|wire| Some(&wire.ends[wire.side(n)?]));
        if worked && held.any(|end| end.coming() > 0) {
            self.weather.struck.overtaken += 1;
        }
        worked
    }

    fn tick(&mut self, n: usize) -> bool {
        if self.now < self.next_tick[n] {
            return false;
        }
        self.next_tick[n] = self.now + TICK;
        self.nodes[n].endpoint.handle_timeout(self.now);
        true
    }

    /// Nothing moves: what was held back arrives, or else time jumps to the next tick.
    pub fn pass_time(&mut self) {
        let frozen = &self.frozen;
        let mut any = false;
        for wire in &mut self.wires {
            let awake = wire.ends.iter_mut().zip(wire.nodes).filter(|(_, n)| !frozen[*n]);
            for (end, _) in awake.filter(|(end, _)| end.coming() > 0 && end.held_until > self.steps) {
                (end.held_until, any) = (0, true);
            }
        }
        if !any {
            self.now += TICK;
            for n in (0..self.nodes.len()).filter(|n| !self.frozen[*n]).collect::<Vec<_>>() {
                self.tick(n);
                self.act(n);
            }
        }
    }

    fn carry_out(&mut self, n: usize, action: Action) {
        if let Action::Post { token, .. } = action
            && self.chance.percent(self.post_failures)
        {
            let why = "it was made to fail";
            return self.nodes[n].endpoint.handle_completed(token, Err(why.into()), self.now);
        }
        self.trace(|_| format!("{}: {}", NAMES[n], cut(&format!("{action:?}"))));
        let Some(action) = self.nodes[n].carry_out(action, self.now) else { return };
        self.wakes[n] += u64::from(action.wakes());
        match action {
            Action::Deliver { peer, message } => self.host.delivered(n, &peer, &message),
            Action::Ended { id, outcome } => self.host.ended(n, id, outcome),
            Action::Silent { silent_ms, .. } => self.silences.push((n, silent_ms)),
            Action::Stalled(stall) => self.stalls.push((n, self.now, *stall)),
            Action::Close { peer, reason } => {
                self.send_output(n, peer);
                self.let_go(n, peer, &reason);
            }
            _ => {}
        }
    }

    fn send_output(&mut self, n: usize, key: PeerKey) {
        let bytes = self.nodes[n].endpoint.poll_output(key, self.now);
        if let Some(at) = self.wire_of(n, key) {
            self.wires[at].send(n, &bytes, &mut self.weather);
        }
    }
}

/// A frame, as a trace shows it.
fn said(frame: &[u8]) -> String {
    match baton::proto::wire::Frame::decode(frame) {
        Ok((_, frame)) => cut(&format!("{frame:?}")),
        Err(error) => error.to_string(),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(240).collect()
}
