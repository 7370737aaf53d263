//! Somebody who speaks Baton's protocol to a real agent over real sockets, and says only what the test wants.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use baton::agent::{Agent, AgentConfig};
use baton::config::{EngineSettings, LaneChoice};
use baton::desc::{RegionKey, SessionId};
use baton::fabric::stream::StreamAddress;
use baton::proto::blob::Blob;
use baton::proto::section::{AnnouncedRegion, FabricAddress, Section};
use baton::proto::wire::{DataHeader, Event, Frame, Hello, LENGTH_BYTES};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Longest any wait of a test may take.
pub const WATCHDOG: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);
static ALONE: RwLock<()> = RwLock::new(());

/// For tests that measure the process or fill it with sockets: one at a time, and nothing beside it.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    ALONE.write()
}

/// For all other tests: any number of them, and none that measures.
pub fn beside() -> RwLockReadGuard<'static, ()> {
    ALONE.read()
}

/// A name nobody else has.
pub fn unique(stem: &str) -> String {
    format!("{stem}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Only the lanes that `choose` switches on; short deadlines for handshakes, long ones for peers that say nothing,
/// or confirm nothing, while a test is busy with others.
pub fn settings(choose: impl FnOnce(&mut LaneChoice)) -> EngineSettings {
    let mut lanes = LaneChoice::NONE;
    choose(&mut lanes);
    let (peer_timeout, stall_timeout) = (10 * WATCHDOG, 10 * WATCHDOG);
    let interface = Some("lo".into());
    EngineSettings { lanes, interface, peer_timeout, stall_timeout, ..EngineSettings::default() }
}

/// An agent with the stream over TCP alone.
pub fn agent(stem: &str) -> Agent {
    with_settings(stem, settings(|lanes| lanes.stream_tcp = true))
}

/// An agent with these settings.
pub fn with_settings(stem: &str, settings: EngineSettings) -> Agent {
    Agent::new(AgentConfig { name: unique(stem), settings }).expect("an agent opens")
}

/// A connection to an agent's port; no wait on it is longer than the watchdog.
pub fn knock(agent: &Agent) -> TcpStream {
    let stream = TcpStream::connect(agent.connection_info()).expect("it listens");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
    stream.set_write_timeout(Some(WATCHDOG)).expect("a deadline");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// Whether the other side closes, whatever it says before; false where it says things for longer than the watchdog.
pub fn closes(stream: &mut TcpStream) -> bool {
    let deadline = Instant::now() + WATCHDOG;
    while Instant::now() < deadline {
        match stream.read(&mut [0; 64 << 10]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
    false
}

/// Polls until `found` gives something.
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WATCHDOG;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {WATCHDOG:?}");
        std::thread::yield_now();
    }
}

/// An honest pair still finds each other and talks: what strangers may not prevent.
pub fn assert_serves(agent: &Agent) {
    let honest = self::agent("honest");
    honest.load_from(agent.name(), &agent.connection_info()).expect("an honest peer is served");
    honest.notify(agent.name(), b"honest").expect("it is loaded");
    eventually("an honest notification", || {
        let all = agent.take_notifications();
        all.iter()
            .any(|(from, messages)| from == honest.name() && messages.contains(&b"honest".to_vec()))
            .then_some(())
    });
}

/// How a puppet introduces itself.
pub struct Papers {
    /// Its name.
    pub name: String,
    /// Its session.
    pub session: [u8; 16],
    /// The session that it means to meet; that of the agent where there is none.
    pub expected: Option<[u8; 16]>,
    /// What it says it has registered.
    pub regions: Vec<AnnouncedRegion>,
    /// Whether it offers the stream lane, and opens it.
    pub stream: bool,
}

impl Default for Papers {
    fn default() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut session = [0x5a; 16];
        session[..4].copy_from_slice(&number.to_le_bytes());
        Self { name: unique("puppet"), session, expected: None, regions: Vec::new(), stream: false }
    }
}

/// A stream that has been shaken hands on. Its sockets close with it.
pub struct Puppet {
    /// The control stream.
    pub control: TcpStream,
    /// Drawn for the stream.
    pub link_id: [u8; 16],
    /// What its frames carry.
    pub tag: u64,
    /// Its own data connection to the agent, where it offered the lane.
    pub data: Option<TcpStream>,
    /// That of the agent to it.
    pub answers: Option<TcpStream>,
    /// Events said so far.
    told: u64,
    papers: Papers,
}

/// The bytes of a HELLO, and its link id.
pub fn hello(agent: &Agent, papers: &Papers, data_port: Option<u16>) -> (Vec<u8>, [u8; 16]) {
    let met = Blob::decode(&agent.local_blob()).expect("its blob").section;
    let tcp = data_port.map(|port| (Ipv4Addr::LOCALHOST, port).into());
    let fabrics = match tcp {
        None => Vec::new(),
        Some(_) => {
            let address = StreamAddress { unix: None, tcp }.encode();
            vec![FabricAddress { name: "stream".into(), address }]
        }
    };
    let section = Section {
        session: SessionId(papers.session),
        endpoints: Vec::new(),
        fabrics,
        regions: papers.regions.clone(),
        ..met.clone()
    };
    let mut bytes = Vec::new();
    section.encode(&mut bytes);
    let link_id = papers.session.map(|byte| !byte);
    let expected = papers.expected.unwrap_or(met.session.0);
    let mut out = Vec::new();
    Frame::Hello(Hello { link_id, expected, name: &papers.name, section: &bytes })
        .encode(tag(link_id), &mut out);
    (out, link_id)
}

fn tag(link_id: [u8; 16]) -> u64 {
    u64::from_le_bytes(*link_id.first_chunk().expect("sixteen bytes"))
}

impl Puppet {
    /// Meets an agent, up to READY of both.
    pub fn meet(agent: &Agent, papers: Papers) -> Self {
        let mut puppet = Self::greet(agent, papers);
        puppet.come_up();
        puppet
    }

    /// Says these bytes, which should be a HELLO, on a new connection; what is answered, as text.
    pub fn answer_to(agent: &Agent, hello: &[u8]) -> String {
        let mut stream = knock(agent);
        stream.write_all(hello).expect("said");
        let frame = read_frame(&mut stream).expect("an answer");
        Frame::decode(&frame).map_or_else(|error| error.to_string(), |(_, frame)| format!("{frame:?}"))
    }

    /// Says HELLO and hears WELCOME; opens the lane that it has offered.
    pub fn greet(agent: &Agent, papers: Papers) -> Self {
        let listener = papers.stream.then(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
        let port = listener.as_ref().map(|listener| listener.local_addr().expect("its address").port());
        let (bytes, link_id) = hello(agent, &papers, port);
        let mut control = knock(agent);
        control.write_all(&bytes).expect("said");
        let mut puppet =
            Self { control, link_id, tag: tag(link_id), data: None, answers: None, told: 0, papers };
        puppet.hear("Welcome");
        if let Some(listener) = listener {
            puppet.open_lane(agent, &listener, link_id);
        }
        puppet
    }

    fn open_lane(&mut self, agent: &Agent, listener: &TcpListener, link_id: [u8; 16]) {
        let theirs = Blob::decode(&agent.local_blob()).expect("its blob").section.fabrics;
        let theirs = theirs.iter().find(|fabric| fabric.name == "stream").expect("it has the lane");
        let theirs = StreamAddress::decode(&theirs.address).expect("its address").tcp.expect("over TCP");
        let mut data = TcpStream::connect(theirs).expect("it listens");
        data.set_write_timeout(Some(WATCHDOG)).expect("a deadline");
        data.write_all(&[&b"BTNS\x01\0\0\0"[..], &link_id].concat()).expect("said");
        let (answers, _) = listener.accept().expect("it dials");
        answers.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
        (self.data, self.answers) = (Some(data), Some(answers));
    }

    /// Exchanges READY. What is said after it proves, once it is answered, that the other side has taken ours.
    pub fn come_up(&mut self) {
        let lanes = if self.papers.stream { vec!["stream"] } else { Vec::new() };
        self.say(&Frame::Ready { lanes, again: false });
        self.tell(Event::RegionRemove { key: RegionKey(u32::MAX) });
        let first = self.hear_any(&["Ready", "RegionReleased"]);
        self.hear(if first.starts_with("Ready") { "RegionReleased" } else { "Ready" });
    }

    /// What its host would hand to the agent's, to have it loaded.
    pub fn blob(&self, agent: &Agent) -> Vec<u8> {
        let met = Blob::decode(&agent.local_blob()).expect("its blob").section;
        let session = SessionId(self.papers.session);
        let section =
            Section { session, endpoints: Vec::new(), fabrics: Vec::new(), regions: Vec::new(), ..met };
        Blob { name: self.papers.name.clone(), section }.encode()
    }

    /// The name that it goes by.
    pub fn name(&self) -> &str {
        &self.papers.name
    }

    /// Says a frame.
    pub fn say(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(self.tag, &mut bytes);
        self.control.write_all(&bytes).expect("said");
    }

    /// Says an event, under the number that is next.
    pub fn tell(&mut self, event: Event<'_>) {
        self.told += 1;
        self.say(&Frame::Event { number: self.told, event });
    }

    /// How many events it has said.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// Sends a data frame whose header says this, with a payload of so many bytes of 0xAB.
    pub fn send(&mut self, header: &DataHeader, payload: usize) {
        let header = header.encode();
        let lengths = [&(header.len() as u32).to_le_bytes()[..], &(payload as u64).to_le_bytes()].concat();
        let frame = [&b"BTNF"[..], &lengths, &header, &vec![0xAB; payload]].concat();
        self.data.as_mut().expect("a lane").write_all(&frame).expect("sent");
    }

    /// Hears frames until one of this kind, an event or another; that one, as text.
    #[track_caller]
    pub fn hear(&mut self, kind: &str) -> String {
        self.hear_any(&[kind])
    }

    /// As [`Puppet::hear`], for one of several kinds.
    #[track_caller]
    fn hear_any(&mut self, kinds: &[&str]) -> String {
        let deadline = Instant::now() + WATCHDOG;
        loop {
            assert!(Instant::now() < deadline, "no {kinds:?} came within {WATCHDOG:?}");
            let frame = self.frame().unwrap_or_else(|error| panic!("no {kinds:?} came: {error}"));
            let (_, frame) = Frame::decode(&frame).expect("what an agent says is well-formed");
            let text = match &frame {
                Frame::Event { event, .. } => format!("{event:?}"),
                other => format!("{other:?}"),
            };
            if kinds.iter().any(|kind| text.starts_with(kind)) {
                return text;
            }
        }
    }

    /// What the agent says before it closes, if it does: the text of its last words.
    pub fn last_words(&mut self) -> String {
        let (mut last, deadline) = (String::new(), Instant::now() + WATCHDOG);
        while let Ok(frame) = self.frame() {
            assert!(Instant::now() < deadline, "it does not close within {WATCHDOG:?}");
            last = Frame::decode(&frame)
                .map_or_else(|error| error.to_string(), |(_, frame)| format!("{frame:?}"));
        }
        last
    }

    fn frame(&mut self) -> io::Result<Vec<u8>> {
        read_frame(&mut self.control)
    }
}

/// The next frame of a control stream, without its length.
pub fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}
