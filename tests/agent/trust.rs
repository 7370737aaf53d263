//! Agents with a key: they serve each other, and nobody without it, with another one, or with old bytes.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use baton::agent::{Agent, AgentConfig, LoadError};
use baton::config::EngineSettings;
use baton::desc::TransferOp;
use baton::proto::blob::Blob;
use baton::proto::section::Endpoint;
use baton::proto::stock;
use baton::proto::wire::{Frame, Hello};
use baton::trust::{ANSWER_MAX_BYTES, Initiator, Purpose, Secret, TrustError};

use crate::logged;
use crate::pair::{Lane, Pair, Pool, WATCHDOG, eventually, notifications, settings, unique};

const KEY: &str = "8f1d4c27a05be9630f7d2a91c4e85b36d1720c9fae43587b16e2f90ad38c6b54";
const OTHER: &str = "00112233445566778899aabbccddeeffffeeddccbbaa99887766554433221101";

fn secret(text: &str) -> Secret {
    Secret::parse(text.as_bytes()).expect("a key")
}

fn with_key(lane: Lane, key: Option<&str>) -> EngineSettings {
    EngineSettings { secret: key.map(|text| Arc::new(secret(text))), ..settings(lane) }
}

fn agent(stem: &str, lane: Lane, key: Option<&str>) -> Agent {
    Agent::new(AgentConfig { name: unique(stem), settings: with_key(lane, key) }).expect("an agent opens")
}

fn distrust<T: std::fmt::Debug>(outcome: Result<T, LoadError>) -> TrustError {
    match outcome.expect_err("this must be refused") {
        LoadError::Trust { source, .. } => source,
        other => panic!("not over its key: {other}"),
    }
}

/// Sends `bytes` and nothing more, and reads until the other side closes.
fn tell(agent: &Agent, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(agent.connection_info()).expect("it listens");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
    stream.write_all(bytes).expect("written");
    let _ = stream.shutdown(Shutdown::Write); // a side that has closed already has said all it will
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer); // a reset is as good an end
    answer
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Nothing in `bytes` says who the agent is.
#[track_caller]
fn says_nothing_about(agent: &Agent, bytes: &[u8]) {
    let blob = Blob::decode(&agent.local_blob()).expect("its own blob");
    assert!(!contains(bytes, agent.name().as_bytes()), "its name");
    assert!(!contains(bytes, &blob.section.session.0), "its session");
    assert!(!contains(bytes, b"BATN"), "a section or hello");
}

pub fn bytes_arrive_with_a_key(lane: Lane) {
    let pair = Pair::of((agent("ctx", lane, Some(KEY)), agent("gen", lane, Some(KEY))), 3 << 20);
    let (from, to) = (pair.ctx_pool.desc(5, 2 << 20), pair.gen_pool.desc(77, 2 << 20));
    pair.run(&pair.request(TransferOp::Write, vec![from], vec![to]));
    assert!(pair.gen_pool.bytes()[77..77 + (2 << 20)] == pair.ctx_pool.bytes()[5..5 + (2 << 20)]);
    let (into, of) = (pair.ctx_pool.desc(5 << 19, 1 << 19), pair.gen_pool.desc(0, 1 << 19));
    pair.run(&pair.request(TransferOp::Read, vec![into], vec![of]));
    assert!(pair.ctx_pool.bytes()[5 << 19..] == pair.gen_pool.bytes()[..1 << 19]);
    pair.ctx.notify(pair.gene.name(), b"sealed").expect("it is loaded");
    assert_eq!(notifications(&pair.gene, pair.ctx.name(), 1), [b"sealed"]);
}

#[test]
fn a_blob_is_fetched_inside() {
    let (ctx, gene) = (agent("ctx", Lane::StreamTcp, Some(KEY)), agent("gen", Lane::StreamTcp, Some(KEY)));
    ctx.load_from(gene.name(), &gene.connection_info()).expect("the same key");
    assert_eq!(gene.load_at(&ctx.connection_info()).expect("the same key"), ctx.name());
}

#[test]
fn another_key_is_refused_on_both_sides() {
    let (ctx, gene) = (agent("ctx", Lane::StreamTcp, Some(KEY)), agent("gen", Lane::StreamTcp, Some(OTHER)));
    logged::listen();
    assert_eq!(distrust(ctx.load_blob(gene.name(), &gene.local_blob())), TrustError::AlteredBlob);
    assert_eq!(gene.counters().refused.not_authentic, 0, "it was not even dialed");
    let error = ctx.load_from(gene.name(), &gene.connection_info()).expect_err("another key");
    let expected = format!(
        "cannot load agent '{}': its key is not ours: give both sides the same file in BATON_PSK_FILE",
        gene.name()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(distrust(Err::<(), _>(error)), TrustError::OtherKey);
    assert_eq!(gene.counters().refused.not_authentic, 1);
    let log = logged::errors_of(gene.name());
    assert!(log.iter().any(|line| line.contains("its key is not ours")), "{log:?}");
}

#[test]
fn one_without_a_key_meets_one_with() {
    let (with, without) = (agent("ctx", Lane::StreamTcp, Some(KEY)), agent("gen", Lane::StreamTcp, None));
    assert_eq!(distrust(without.load_blob(with.name(), &with.local_blob())), TrustError::KeyWanted);
    assert_eq!(distrust(with.load_blob(without.name(), &without.local_blob())), TrustError::KeyMissing);
    assert_eq!(
        (with.counters().refused.one_key_alone, without.counters().refused.one_key_alone),
        (0, 0),
        "nobody was dialed"
    );
    assert_eq!(distrust(without.load_from(with.name(), &with.connection_info())), TrustError::KeyWanted);
    assert_eq!(distrust(with.load_from(without.name(), &without.connection_info())), TrustError::KeyMissing);
    assert_eq!((with.counters().refused.one_key_alone, without.counters().refused.one_key_alone), (1, 1));
}

#[test]
fn words_in_the_clear_learn_nothing() {
    let agent = agent("ctx", Lane::StreamTcp, Some(KEY));
    let frame = |frame: Frame<'_>| {
        let mut bytes = Vec::new();
        frame.encode(0, &mut bytes);
        bytes
    };
    let hello = Hello { link_id: [1; 16], expected: [2; 16], name: "gen", section: b"" };
    let (_, other_key) = Initiator::new(&secret(OTHER), Purpose::Control, [3; 32]).expect("begins");
    let words: [Vec<u8>; 6] = [
        frame(Frame::Fetch),
        frame(Frame::Hello(hello)),
        stock::hello("gen"),
        other_key,
        b"\x0d\0\0\0\0\0\0\0NIXLCOMM:SEND".to_vec(),
        b"\xff\0\0\0\0\0\0\0\x01\x7f".to_vec(),
    ];
    for (at, words) in words.iter().enumerate() {
        let answer = tell(&agent, words);
        assert!(!answer.is_empty(), "words {at} are answered");
        says_nothing_about(&agent, &answer);
    }
    assert_eq!(tell(&agent, b"GET / HTTP/1.1\r\n\r\n"), [] as [u8; 0]);
}

/// Passes one connection on to `agent`, and hands over all that the caller said.
fn eavesdropper(agent: &Agent) -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (address, target) = (listener.local_addr().expect("its address"), agent.connection_info());
    let relay = move || {
        let (mut caller, _) = listener.accept().expect("a connection");
        let mut callee = TcpStream::connect(target).expect("it listens");
        for stream in [&caller, &callee] {
            stream.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
        }
        let (mut back_from, mut back_to) =
            (callee.try_clone().expect("a handle"), caller.try_clone().expect("a handle"));
        let back = std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
        let (mut said, mut chunk) = (Vec::new(), [0; 4096]);
        while let Ok(len @ 1..) = caller.read(&mut chunk) {
            said.extend(&chunk[..len]);
            callee.write_all(&chunk[..len]).expect("passed on");
        }
        let _ = callee.shutdown(Shutdown::Both);
        let _ = back.join().expect("the way back ends");
        said
    };
    (address.to_string(), std::thread::spawn(relay))
}

#[test]
fn a_replayed_conversation_leads_to_no_session_and_tells_nothing() {
    let (ctx, gene) = (agent("ctx", Lane::StreamTcp, Some(KEY)), agent("gen", Lane::StreamTcp, Some(KEY)));
    let (address, relay) = eavesdropper(&ctx);
    gene.load_at(&address).expect("it passes everything on");
    let said = relay.join().expect("the relay ends");
    assert!(said.len() > 56, "a greeting, an opening and a record");
    says_nothing_about(&gene, &said);
    let before = ctx.counters().refused.not_authentic;
    let answer = tell(&ctx, &said);
    assert_eq!(answer.len(), ANSWER_MAX_BYTES, "the opening is answered, what follows opens nothing");
    says_nothing_about(&ctx, &answer);
    assert_eq!(ctx.counters().refused.not_authentic, before + 1);
}

#[test]
fn an_altered_blob_is_refused_before_anybody_is_dialed() {
    let (ctx, gene) = (agent("ctx", Lane::StreamTcp, Some(KEY)), agent("gen", Lane::StreamTcp, Some(KEY)));
    let blob = gene.local_blob();
    let section = blob.windows(4).position(|bytes| bytes == b"BATN").expect("our section");
    let uid = section + 8 + 4 + 32 + 16 + 16;
    let mut altered = blob.clone();
    altered[uid] ^= 1;
    assert_eq!(distrust(ctx.load_blob(gene.name(), &altered)), TrustError::AlteredBlob);
    ctx.load_blob(gene.name(), &blob).expect("the blob as it was");
}

#[test]
fn an_old_blob_replayed_fences_nobody() {
    let name = unique("gen");
    let open = || {
        let settings = with_key(Lane::StreamTcp, Some(KEY));
        Agent::new(AgentConfig { name: name.clone(), settings }).expect("opens")
    };
    let (ctx, old) = (agent("ctx", Lane::StreamTcp, Some(KEY)), open());
    let old_blob = old.local_blob();
    ctx.load_blob(&name, &old_blob).expect("it lives");
    old.shutdown();
    let new = open();
    ctx.load_blob(&name, &new.local_blob()).expect("the newer one answers");
    ctx.load_blob(&name, &old_blob).expect_err("nobody is there any more");
    ctx.notify(&name, b"still here").expect("the newer one is still loaded");
    assert_eq!(notifications(&new, ctx.name(), 1), [b"still here"]);
}

/// With a key the newer session of a name takes over by itself: nobody has to load it first.
#[test]
fn a_restarted_agent_takes_its_name_back_by_its_key() {
    let name = unique("gen");
    let open = || {
        let settings = with_key(Lane::StreamTcp, Some(KEY));
        Agent::new(AgentConfig { name: name.clone(), settings }).expect("opens")
    };
    let (ctx, old) = (agent("ctx", Lane::StreamTcp, Some(KEY)), open());
    ctx.load_blob(&name, &old.local_blob()).expect("it lives");
    let new = open();
    new.load_blob(ctx.name(), &ctx.local_blob()).expect("it has shown the key");
    new.notify(ctx.name(), b"newer").expect("it is up");
    assert_eq!(notifications(&ctx, &name, 1), [b"newer"]);
    eventually("the older one has lost its stream", || old.notify(ctx.name(), b"x").is_err().then_some(()));
}

#[test]
fn without_a_key_a_stranger_cannot_take_a_live_name() {
    let name = unique("gen");
    let open = || {
        Agent::new(AgentConfig { name: name.clone(), settings: settings(Lane::StreamTcp) }).expect("opens")
    };
    let (ctx, live) = (agent("ctx", Lane::StreamTcp, None), open());
    ctx.load_blob(&name, &live.local_blob()).expect("it lives");
    let stranger = open();
    let error = stranger.load_blob(ctx.name(), &ctx.local_blob()).expect_err("the name is taken");
    assert!(error.to_string().contains("a live agent is already known as"), "{error}");
    assert_eq!(ctx.counters().refused.fences, 1);
    ctx.notify(&name, b"still here").expect("it is loaded");
    assert_eq!(notifications(&live, ctx.name(), 1), [b"still here"]);
}

/// As user `nobody`, on a thread of its own: user ids belong to threads in Linux. Needs root.
fn as_nobody<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let nobody = rustix::process::Uid::from_raw(65534);
    let act = move || {
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).ok()?;
        Some(act())
    };
    std::thread::spawn(act).join().expect("it does not panic")
}

/// Dials the agent's Unix socket as another user; what it answers to a request for its blob.
fn unix_answer_to_nobody(agent: &Agent) -> Option<Vec<u8>> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let blob = Blob::decode(&agent.local_blob()).expect("its own blob");
    let unix = blob.section.endpoints.into_iter().find_map(|endpoint| match endpoint {
        Endpoint::UnixAbstract(name) => Some(name),
        Endpoint::Tcp { .. } => None,
    });
    let unix = SocketAddr::from_abstract_name(unix.expect("it listens on a Unix socket")).expect("a name");
    as_nobody(move || {
        let mut stream = UnixStream::connect_addr(&unix).expect("anybody may dial");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
        let mut fetch = Vec::new();
        Frame::Fetch.encode(0, &mut fetch);
        let _ = stream.write_all(&fetch); // it may have been closed already
        let mut answer = vec![0; 16];
        let len = stream.read(&mut answer).unwrap_or(0);
        answer.truncate(len);
        answer
    })
}

#[test]
fn another_user_needs_a_key() {
    let (without, with) = (agent("ctx", Lane::StreamUnix, None), agent("ctx", Lane::StreamUnix, Some(KEY)));
    let Some(answer) = unix_answer_to_nobody(&without) else {
        println!("skipped: another_user_needs_a_key: only root can become another user");
        return;
    };
    assert_eq!(answer, [] as [u8; 0], "closed without a word");
    assert_eq!(without.counters().refused.other_users, 1);
    let answer = unix_answer_to_nobody(&with).expect("we are root");
    assert_eq!(answer.get(4), Some(&3), "told, in a REFUSE, that a key is wanted");
    assert_eq!((with.counters().refused.other_users, with.counters().refused.one_key_alone), (0, 1));
}

#[test]
fn the_key_is_in_no_log_and_no_debug() {
    logged::listen();
    let (ctx, gene) = (agent("ctx", Lane::StreamTcp, Some(KEY)), agent("gen", Lane::StreamTcp, Some(KEY)));
    let foreign = agent("ctx", Lane::StreamTcp, Some(OTHER));
    ctx.load_from(gene.name(), &gene.connection_info()).expect("the same key");
    distrust(foreign.load_from(gene.name(), &gene.connection_info()));
    tell(&ctx, b"\x0c\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0");
    let settings = with_key(Lane::StreamTcp, Some(KEY));
    let config = AgentConfig { name: "x".into(), settings: settings.clone() };
    let mut texts = logged::all();
    texts.extend([format!("{settings:?}"), format!("{config:#?}"), format!("{ctx:?}"), format!("{gene:#?}")]);
    assert!(texts.iter().any(|text| text.contains(&secret(KEY).fingerprint())), "the log was listened to");
    let bytes: Vec<String> = KEY
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hex");
            u8::from_str_radix(pair, 16).expect("hex").to_string()
        })
        .collect();
    let (hex, listed) = (&KEY[..12], bytes[..6].join(", "));
    for text in texts {
        assert!(!text.to_lowercase().contains(hex) && !text.contains(&listed), "a key in: {text}");
    }
}

#[test]
fn a_key_costs_nobody_a_transfer_between_many_regions() {
    let (ctx, gene) = (agent("ctx", Lane::StreamTcp, Some(KEY)), agent("gen", Lane::StreamTcp, Some(KEY)));
    let pair = Pair::of((ctx, gene), 1 << 20);
    let pieces = |pool: &Pool, gap: usize| {
        (0..300).map(|at| pool.desc(at * gap, 1 + at * 7 % 900)).collect::<Vec<_>>()
    };
    pair.run(&pair.request(TransferOp::Write, pieces(&pair.ctx_pool, 3000), pieces(&pair.gen_pool, 2500)));
    let (from, to) = (pair.ctx_pool.bytes(), pair.gen_pool.bytes());
    for at in 0..300 {
        let len = 1 + at * 7 % 900;
        assert!(to[at * 2500..at * 2500 + len] == from[at * 3000..at * 3000 + len], "piece {at}");
    }
}
