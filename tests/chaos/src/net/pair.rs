//! Two hosts at the two ends of a network of their own, and what they are asked to do together.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::drill::{Drill, whose};
use super::network::Network;
use super::storm::End;
use crate::answers::{Answer, Reply};
use crate::arena::{Content, Shape};
use crate::bench::Bench;
use crate::host::{Host, HostSpec, Place};
use crate::judge::kept_memory;
use crate::row::{Lane, Seam};

/// The agents' names.
pub const SENDER: &str = "ctx";
/// See [`SENDER`].
pub const RECEIVER: &str = "gen";
/// Two slots, so that what comes after a fault goes elsewhere.
pub const SHAPE: Shape = Shape { piece_bytes: 64 << 10, pieces: 256, slots: 2 };
/// What the receiver's slots hold before a transfer.
pub const BEFORE: Content = Content(u64::MAX);
/// What is written to a source that its owner has got back: never to be seen elsewhere.
const REUSED: Content = Content(u64::MAX - 1);
/// What is written to a destination that its owner has got back: nothing may land there any more.
const RECLAIMED: Content = Content(u64::MAX - 2);
/// How long anything that has no deadline of the library's may take.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// See the [module](self).
#[derive(Debug)]
pub struct Pair {
    /// What lies between them.
    pub network: Arc<Network>,
    /// At end A.
    pub sender: Host,
    /// At end B.
    pub receiver: Host,
    seam: Seam,
    cards: [String; 2],
    /// Where the receiver's slots lie.
    bases: Vec<String>,
    /// What each slot of both may hold: the sender's, the receiver's.
    allowed: [[Vec<Content>; SHAPE.slots]; 2],
}

/// A transfer under way, as both sides wait for it.
#[derive(Debug)]
pub struct Ongoing {
    /// The sender's wait.
    pub sent: Reply,
    /// The receiver's.
    pub received: Reply,
}

impl Pair {
    /// Starts the hosts; each has its agent and its memory registered when this returns.
    pub fn start(bench: &Bench, drill: &Drill, seed: u64, folder: &Path) -> io::Result<Self> {
        let network = Arc::new(Network::new(seed, drill.mtu).map_err(io::Error::other)?);
        let key = if drill.has_key { Some(key_file(folder)?) } else { None };
        let host = |end, name| Host::start(bench, &spec(&network, drill, end, key.as_deref()), name, folder);
        let (sender, receiver) = (host(End::A, SENDER)?, host(End::B, RECEIVER)?);
        let mut pair = Self {
            network,
            sender,
            receiver,
            seam: drill.seam,
            cards: Default::default(),
            bases: Vec::new(),
            allowed: Default::default(),
        };
        for slot in 0..SHAPE.slots {
            pair.fill(End::A, slot, REUSED);
            pair.fill(End::B, slot, BEFORE);
        }
        pair.make().map_err(io::Error::other)?;
        Ok(pair)
    }

    fn make(&mut self) -> Result<(), String> {
        self.remake_sender()?;
        let (card, bases) = made(&self.receiver, RECEIVER)?;
        (self.cards[End::B as usize], self.bases) = (card, bases);
        Ok(())
    }

    /// Makes the sender's agent, anew where it has been destroyed.
    pub fn remake_sender(&mut self) -> Result<(), String> {
        self.cards[End::A as usize] = made(&self.sender, SENDER)?.0;
        Ok(())
    }

    /// The receiver's first contact; the words of the library where it fails.
    pub fn connect(&self) -> Reply {
        self.receiver.tell(&format!("connect {SENDER} {}", self.cards[0]))
    }

    /// The same, to an address: `ip:port` at seam S1.
    pub fn connect_to(&self, address: &str) -> Reply {
        let hex: String = format!("{address}\n").bytes().map(|byte| format!("{byte:02x}")).collect();
        self.receiver.tell(&format!("connect {SENDER} {hex}"))
    }

    /// Everything after [`Pair::connect`] until both have each other loaded.
    pub fn welcome(&self) -> Result<(), String> {
        ask(&self.receiver, &format!("introduce {SENDER}"))?;
        ask(&self.sender, &format!("hear {RECEIVER}"))?;
        if self.seam == Seam::S3 {
            return Ok(()); // its connections are both ways
        }
        ask(&self.sender, &format!("forget {RECEIVER}"))?;
        ask(&self.sender, &format!("load {RECEIVER} {}", self.cards[1])).map(drop)
    }

    /// First contact, whole.
    pub fn meet(&self) -> Result<(), String> {
        result(self.connect(), PATIENCE)?;
        self.welcome()
    }

    /// Meets again after a loss.
    pub fn meet_again(&self) -> Result<(), String> {
        if self.seam != Seam::S3 {
            ask(&self.receiver, &format!("forget {SENDER}"))?;
        }
        self.meet()
    }

    /// Sends a slot, filled for this transfer, and waits for nothing.
    pub fn send(&mut self, id: u64, slot: usize) -> Result<Ongoing, String> {
        self.fill(End::A, slot, Content(id));
        self.fill(End::B, slot, BEFORE);
        self.allowed[End::B as usize][slot].push(Content(id));
        let received = self.receiver.tell(&format!("receive {id} {SENDER} {slot}"));
        let base = self.bases.get(slot).ok_or("no such slot")?;
        ask(&self.sender, &format!("send {id} {RECEIVER} {slot} {base} with"))?;
        Ok(Ongoing { sent: self.sender.tell(&format!("wait {id}")), received })
    }

    /// Takes a slot of both back from the library, after a transfer that failed, and writes it anew: from then on no
    /// byte of the one may travel, and none may land in the other.
    pub fn take_back(&mut self, slot: usize) -> Result<(), String> {
        for (end, content) in [(End::A, REUSED), (End::B, RECLAIMED)] {
            ask(self.side(end), &format!("withdraw {slot}"))?;
            if let Some(line) = kept_memory(self.side(end)) {
                return Err(format!("memory is kept over a stream: {}", line.text));
            }
            self.fill(end, slot, content);
            self.cards[end as usize] = ask(self.side(end), "card")?;
        }
        Ok(())
    }

    /// Writes a slot, which from now on may hold nothing else.
    pub fn fill(&mut self, end: End, slot: usize, content: Content) {
        self.side(end).arena.fill(slot, content);
        self.allowed[end as usize][slot] = vec![content];
    }

    /// Holds a slot against what it may hold.
    pub fn check(&self, end: End, slot: usize) -> Result<(), String> {
        let check = self.side(end).arena.check(slot, &self.allowed[end as usize][slot]);
        check.map_err(|foreign| format!("{}, {foreign}", whose(end)))
    }

    /// The host at an end.
    pub fn side(&self, end: End) -> &Host {
        match end {
            End::A => &self.sender,
            End::B => &self.receiver,
        }
    }

    /// The name under which the agent at this end knows the other one, which at seam S3 the library has made up.
    pub fn peer_of(&self, end: End) -> String {
        let usual = if end == End::A { RECEIVER } else { SENDER };
        self.side(end.other()).agent().unwrap_or_else(|| usual.to_owned())
    }
}

/// Makes a host's agent and registers its slots: its card, and where they lie.
fn made(host: &Host, name: &str) -> Result<(String, Vec<String>), String> {
    ask(host, &format!("make {name}"))?;
    let bases = (0..SHAPE.slots).map(|slot| ask(host, &format!("offer {slot}"))).collect::<Result<_, _>>()?;
    Ok((ask(host, "card")?, bases))
}

/// Asks for what has to work.
pub fn ask(host: &Host, command: &str) -> Result<String, String> {
    result(host.tell(command), PATIENCE)
}

/// What was answered, or what was asked and why it failed.
pub fn result(mut reply: Reply, limit: Duration) -> Result<String, String> {
    let answer = reply.within(limit);
    let verb = reply.command.split(' ').take(2).collect::<Vec<_>>().join(" ");
    answer.text().map(str::to_owned).map_err(|error| format!("{verb}: {error}"))
}

/// When an answer came, on CLOCK_MONOTONIC.
pub fn at_ns(answer: &Answer) -> Option<u64> {
    match answer {
        Answer::Done { at_ns, .. } | Answer::Failed { at_ns, .. } => Some(*at_ns),
        Answer::Gone | Answer::Late => None,
    }
}

fn spec(network: &Arc<Network>, drill: &Drill, end: End, key: Option<&Path>) -> HostSpec {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let lanes = if drill.lane == Lane::Ucx { "ucx,stream-tcp" } else { drill.lane.name() };
    let env = [
        ("BATON_LANES", lanes.to_owned()),
        ("BATON_PEER_TIMEOUT_MS", millis(drill.timeouts.peer)),
        ("BATON_STALL_TIMEOUT_MS", millis(drill.timeouts.stall)),
        ("BATON_CONNECT_TIMEOUT_MS", millis(drill.timeouts.connect)),
        ("TRTLLM_NIXL_INTERFACE", super::space::DEVICE.to_owned()),
        ("TRTLLM_UCX_INTERFACE", super::space::DEVICE.to_owned()),
    ];
    let mut env: Vec<_> = env.map(|(name, value)| (name.to_owned(), value)).into();
    env.extend(key.map(|path| ("BATON_PSK_FILE".to_owned(), path.display().to_string())));
    let network = Arc::clone(network);
    HostSpec {
        seam: drill.seam,
        lane: drill.lane,
        shape: SHAPE,
        env,
        place: Some(Place(Arc::new(move |command| network.place(end, command)))),
        args: Vec::new(),
        pipe_bytes: None,
    }
}

/// A file with a key, as `BATON_PSK_FILE` wants it.
fn key_file(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("key");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(&(0..64).map(|at| b"0123456789abcdef"[at * 7 % 16]).collect::<Vec<u8>>())?;
    Ok(path)
}
