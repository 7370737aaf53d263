//! The seed corpora: well-formed bytes of every kind, for the fuzzers to start from.
//!
//! They are committed, in `fuzz/corpus`, so that a run begins the same way everywhere; `make fuzz-seeds` writes them
//! anew after a change of the formats. What fuzzing has found stands beside them, under names that begin with `found-`.

use std::net::{Ipv4Addr, Ipv6Addr};

use baton::config::variables::Variable;
use baton::desc::{MemoryKind, Region, RegionKey, Segment, SessionId, Span, TransferId, TransferOp};
use baton::device::{HandleKind, SharedHandle};
use baton::fabric::stream::StreamAddress;
use baton::fabric::ucx;
use baton::proto::blob::Blob;
use baton::proto::codec::Writer;
use baton::proto::grant::Slot;
use baton::proto::section::{AnnouncedRegion, Endpoint, FabricAddress, FabricKey, HostId, Section};
use baton::proto::stock;
use baton::proto::tagged::message::Message;
use baton::proto::tagged::{RecvId, Role, SendId, Tag};
use baton::proto::transfer::{Run, Runs};
use baton::proto::wire::{
    Commit, DataHeader, Event, Filled, Frame, Hello, LENGTH_BYTES, RefuseReason, StagingSlot, Standing, State,
};
use baton::proto::zeromq;
use baton::trust::{Asked, Initiator, Purpose, Responder, TrustError, refusal};

use crate::targets::sealed_handshake;
use crate::targets::tcp_store::NONCE;

/// A seed: which target's, its name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// All of them.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, bytes: Vec<u8>| seeds.push((target, name.to_owned(), bytes));
    for (name, section) in sections() {
        let mut bytes = Vec::new();
        section.encode(&mut bytes);
        add("section", name, bytes);
        add("blob", name, Blob { name: "ctx".into(), section }.encode());
    }
    let mut region = vec![2];
    full_section().regions[0].encode(&mut Writer::new(&mut region));
    add("section", "region", region);
    add("blob", "golden-1.0", golden(include_str!("../golden/blob-v1.0.hex")));
    add("blob", "stock", golden(include_str!("../golden/nixl-1.5.1-ucx.hex")));
    let (notice, hello) = (stock::notice("ctx"), stock::hello("ctx"));
    let blob = Blob { name: "ctx".into(), section: full_section() }.encode();
    add("blob", "behind-a-notice", [&notice[..], &blob].concat());
    for (name, bytes) in [("notice", notice), ("hello", hello), ("answer", stock::answer("ctx"))] {
        add("stock", name, bytes.clone());
        add("control_stream", name, [&[0, 7][..], &bytes].concat());
    }
    add("stock", "send", b"\x0d\0\0\0\0\0\0\0NIXLCOMM:SEND".to_vec());
    let asked = [&zeromq::greeting()[..], b"\x01\x00\x00\x05where"].concat();
    add("zeromq", "asked", [&[3], &asked[..]].concat());
    add("control_stream", "zeromq", [&[1, 30], &asked[..]].concat());
    for (name, frame) in frames() {
        let mut bytes = Vec::new();
        frame.encode(0x1122, &mut bytes);
        add("control_frame", name, bytes[LENGTH_BYTES..].to_vec());
        add("control_stream", name, [&[1, 5], &bytes[..], &bytes[..]].concat());
    }
    let spans = vec![Span { addr: 0x10000, len: 64 }, Span { addr: u64::MAX, len: 1 }];
    for (name, answer, spans) in [("write", false, spans), ("answer", true, Vec::new())] {
        add(
            "data_header",
            name,
            DataHeader { link: 1, id: TransferId(2), answer, heard: 9, chunk: 3, spans }.encode(),
        );
    }
    for (name, message) in messages() {
        add("tagged", name, message.encode(Role::Requester, Tag(-19)));
    }
    meetings(&mut add);
    lanes(&mut add);
    texts(&mut add);
    stories(&mut add);
    sealed(&mut add);
    seeds
}

fn full_section() -> Section {
    let span = Span { addr: 0x7f00_0000_1000, len: 0x20_0000 };
    let region = Region { key: RegionKey(7), kind: MemoryKind::Dram, device: 0, span };
    let keys = vec![FabricKey { fabric: 1, bytes: vec![0xAA, 0xBB] }];
    Section {
        session: SessionId(*b"0123456789abcdef"),
        host: HostId(*b"fedcba9876543210"),
        uid: 1000,
        capabilities: 0x0102,
        endpoints: vec![
            Endpoint::UnixAbstract(b"baton-1".to_vec()),
            Endpoint::Tcp { ip: Ipv4Addr::new(10, 0, 0, 7).into(), port: 5001 },
            Endpoint::Tcp { ip: Ipv6Addr::LOCALHOST.into(), port: 5002 },
        ],
        fabrics: vec![
            FabricAddress { name: "local".into(), address: vec![] },
            FabricAddress { name: "ucx".into(), address: vec![1, 2, 3] },
        ],
        regions: vec![AnnouncedRegion { region, keys }],
        mac: Some([5; 32]),
    }
}

fn sections() -> Vec<(&'static str, Section)> {
    let full = full_section();
    let (endpoints, fabrics, regions) = (Vec::new(), Vec::new(), Vec::new());
    let empty = Section { endpoints, fabrics, regions, mac: None, ..full.clone() };
    vec![("full", full), ("empty", empty)]
}

fn frames() -> Vec<(&'static str, Frame<'static>)> {
    let segments = vec![Segment { src: 1, dst: 2, len: 3 }, Segment { src: u64::MAX, dst: 0, len: 1 }];
    let id = TransferId(9);
    let hello = Hello { link_id: [7; 16], expected: [8; 16], name: "ctx", section: b"section" };
    let sync_message = Some(&b"done\0"[..]);
    let commit = Commit { id, op: TransferOp::Write, chunks: 3, bytes: 4096, events: 2, sync_message };
    let standing = Standing::Receiving;
    let unheard = Runs::new([Run { first: 9, last: u32::MAX }].into_iter());
    let missing = Runs::new((0..40).map(|at| Run { first: 9 * at, last: 9 * at + 1 }));
    let slot = StagingSlot { kind: MemoryKind::Dram, lease: Slot { index: 3, generation: 1 } };
    let span = Span { addr: 1 << 20, len: 4096 };
    let filled = Filled { slot, id, chunk: 0, heard: 4, spans: vec![span; 3].into() };
    vec![
        ("hello", Frame::Hello(hello)),
        ("welcome", Frame::Welcome { name: "gen", section: b"" }),
        ("refuse", Frame::Refuse { reason: RefuseReason::NameTaken, text: "taken" }),
        ("fetch", Frame::Fetch),
        ("blob", Frame::Blob { bytes: b"blob" }),
        ("ready", Frame::Ready { lanes: vec!["local", "stream"], again: false }),
        ("ready-again", Frame::Ready { lanes: vec!["local"], again: true }),
        ("heartbeat", Frame::Heartbeat { said: 5, heard: 4, again: true }),
        ("loaded", Frame::Event { number: 1, event: Event::Loaded { loaded: true } }),
        ("region-add", Frame::Event { number: 2, event: Event::RegionAdd { region: b"region" } }),
        ("region-remove", Frame::Event { number: 3, event: Event::RegionRemove { key: RegionKey(4) } }),
        ("region-released", Frame::Event { number: 4, event: Event::RegionReleased { key: RegionKey(4) } }),
        ("notify", Frame::Event { number: 5, event: Event::Notify { message: b"\0binary\xff" } }),
        ("slot-granted", Frame::Event { number: 6, event: Event::SlotGranted { slot, span } }),
        ("slot-filled", Frame::Event { number: 7, event: Event::SlotFilled(filled) }),
        ("slot-returned", Frame::Event { number: 8, event: Event::SlotReturned { slot } }),
        ("pull", Frame::Pull { id, chunk: 2, heard: 9, segments: segments.clone().into() }),
        ("send", Frame::Send { id, chunk: 2, heard: 9, segments: segments.into() }),
        ("commit", Frame::Commit(commit.clone())),
        ("commit-read", Frame::Commit(Commit { sync_message: None, op: TransferOp::Read, ..commit })),
        ("ack", Frame::Ack { id, events: 3 }),
        ("progress", Frame::Progress { id, done: 3 }),
        ("fail", Frame::Fail { id, text: "no such region" }),
        ("abort", Frame::Abort { id, issued: 5 }),
        ("aborted", Frame::Aborted { id, sent: 6 }),
        ("ask", Frame::Ask { id }),
        ("state", Frame::State(State { id, standing, committed: true, done: 7, unheard, missing })),
        ("goodbye", Frame::Goodbye { text: "shutdown" }),
    ]
}

fn messages() -> Vec<(&'static str, Message<'static>)> {
    let (send, recv) = (SendId(7), RecvId(u64::MAX));
    vec![
        ("introduce", Message::Introduce { blob: b"blob" }),
        ("eager", Message::Eager { bytes: b"short" }),
        ("offer", Message::Offer { send, len: 1 << 40 }),
        ("retract", Message::Retract { send }),
        ("announce", Message::Announce { recv, answers: Some(send), seen: 3, addr: 4096, len: 5 }),
        ("withdraw", Message::Withdraw { recv }),
        ("withdrawn", Message::Withdrawn { recv, consumed: true }),
        ("done", Message::Done { recv }),
        ("failed", Message::Failed { recv, reason: "why" }),
        ("credit", Message::Credit { bytes: 9, seen: 10 }),
        ("closed", Message::Closed { reason: "over" }),
    ]
}

/// How ranks meet: frames of ours, and the answers of a store of torch's.
fn meetings(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let frame = |size: u8, kind: u16, body: &[u8]| {
        let len = (body.len() as u32).to_le_bytes();
        [&[size], &b"BATONMET"[..], &1_u16.to_le_bytes(), &kind.to_le_bytes(), &len, body].concat()
    };
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let hello = [&words(&[1, 2, 60_000])[..], &[4; 16], b"127.0.0.1:5000"].concat();
    add("rendezvous", "hello", frame(2, 1, &hello));
    let parts = [&words(&[2, 3])[..], b"one", &words(&[3]), b"two"].concat();
    add("rendezvous", "parts", frame(2, 2, &parts));
    add("rendezvous", "missing", frame(4, 3, &words(&[1, 5000, 2, 1, 3])));
    let same = [&words(&[2, 1, 2])[..], b"ab", &words(&[2]), b"cd"].concat();
    add("rendezvous", "same-rank", frame(4, 3, &same));
    add("rendezvous", "other-size", frame(4, 3, &[&words(&[3, 1, 8, 4, 2])[..], b"ab"].concat()));
    add("rendezvous", "other-version", frame(4, 3, &words(&[4, 2, 1])));
    let answers = [
        &NONCE.to_le_bytes()[..],
        &5_u64.to_le_bytes(),
        b"value",
        &1_i64.to_le_bytes(),
        &[0, 0],
        &1_i64.to_le_bytes(),
    ];
    add("tcp_store", "answers", [&[3, 0], &answers.concat()[..]].concat());
    let late = [&answers[..3].concat()[..], &1_i64.to_le_bytes(), &[0]].concat();
    add("tcp_store", "late", [&[200, 1], &late[..]].concat());
}

/// What lanes say of themselves and to each other.
fn lanes(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let unix = Some(b"baton-data-1".to_vec());
    let tcp = Some((Ipv4Addr::LOCALHOST, 5003).into());
    add("stream_frame", "address", StreamAddress { unix, tcp }.encode());
    add("stream_frame", "preface", [&b"BTNS\x01\0\0\0"[..], &[7; 16]].concat());
    add("stream_frame", "sealed-preface", [&b"BTNS\x02\0\0\0"[..], &[7; 16], &[8; 16]].concat());
    add("stream_frame", "head", b"BTNF\x19\0\0\0\0\x10\0\0\0\0\0\0".to_vec());
    let address = [&b"BUXA\x01\x03\0abc\x02\0de"[..], &0x7f00_1000_u64.to_le_bytes(), &[3; 32]].concat();
    add("ucx_wire", "address", address.clone());
    add("ucx_wire", "sealed-address", ucx::fuzzing::sealed(&address));
    add("ucx_wire", "key", b"BUXK\x01\x03\0abc".to_vec());
    add("ucx_wire", "sealed-key", ucx::fuzzing::sealed(b"BUXK\x01\x03\0abc"));
    let whole = Span { addr: 0x7f00_0020_0000, len: 2 << 20 };
    for kind in [HandleKind::Ipc([0x5a; 64]), HandleKind::Fd(17), HandleKind::Fabric([0xa5; 64])] {
        let name = kind.name().to_lowercase().replace(' ', "-");
        add("gpu_handle", &name, SharedHandle { kind, uuid: [6; 16], whole }.encode());
    }
}

/// What goes over a stream under a key: an opening, its answer, records.
fn sealed(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let (secret, seed) = (sealed_handshake::secret(), sealed_handshake::SEED);
    let (_, opening) = Initiator::new(&secret, Purpose::Control, seed).expect("an opening");
    add("sealed_handshake", "opening", [&[0], &opening[..]].concat());
    let asked = Responder::handle(&secret, Purpose::Control, seed.map(|byte| !byte), &opening);
    let Ok(Asked::Answer(_, answer)) = asked else { panic!("it is answered") };
    add("sealed_handshake", "answer", [&[1], &answer[..]].concat());
    add("sealed_handshake", "refusal", [&[1], &refusal(TrustError::OtherKey)[..]].concat());
    add("sealed_handshake", "key", [&[2], &b"0123456789abcdef".repeat(4)[..], b"\n"].concat());
    add("sealed_records", "as-they-are", vec![0, 200]);
    add("sealed_records", "bent", vec![0, 200, 1, 5, 0, 1]);
    add("sealed_records", "cut", vec![0, 200, 2, 5, 0, 0]);
    add("sealed_records", "garbage", [&[1, 20, 0][..], &[7; 20]].concat());
}

/// What people and hosts write.
fn texts(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let mut text = |target, name: &str, text: &str| add(target, name, text.as_bytes().to_vec());
    text(
        "config_file",
        "alone",
        "backend: NIXL\nmax_tokens_in_buffer: 8192\nkv_transfer_timeout_ms: 60000\n",
    );
    text(
        "config_file",
        "whole",
        "tensor_parallel_size: 2\nkv_cache_config: {tokens_per_block: 32}\nenable_chunked_prefill: true\n\
         cache_transceiver_config:\n  backend: UCX\n  transceiver_runtime: PYTHON\n",
    );
    text("config_file", "json", r#"{"cache_transceiver_config": {"backend": "DEFAULT"}}"#);
    text("config_file", "aliases", "a: &a [1, 2]\nb: [*a, *a]\ncache_transceiver_config: {backend: MPI}\n");
    text("config_file", "misspelt", "cache_transceiver_config: {backnd: NIXL}\n");
    for (at, group) in baton::config::variables::VARIABLES.chunks(12).enumerate() {
        let line = |variable: &Variable| format!("{}={}\n", variable.name, variable.default);
        text("environment", &format!("group-{at}"), &group.iter().map(line).collect::<String>());
    }
    text(
        "environment",
        "rank",
        "BATON_RANK=1\nBATON_WORLD_SIZE=2\nBATON_RENDEZVOUS=[::1]:5000\nBATON_LANES=local,stream\n",
    );
    text("environment", "launched", "RANK=0\nWORLD_SIZE=2\nMASTER_ADDR=10.0.0.1\nMASTER_PORT=29500\n");
    for (at, info) in ["127.0.0.1:5000", "[::1]:65535", "1.3.0rc20.post1", "1.2.0+cu12"].iter().enumerate() {
        text("connection_info", &at.to_string(), info);
    }
}

/// Steps of `targets::endpoint`: dialed or dialing, up, and one of each kind of thing that can happen then.
fn stories(add: &mut impl FnMut(&'static str, &str, Vec<u8>)) {
    let dialed: &[u8] = &[1, 9, 0, 2, 0, 0, 0, 0];
    let dial: &[u8] = &[0, 0, 9, 0, 2, 0, 0];
    for style in 0..3 {
        for (name, open) in [("dialed", dialed), ("dial", dial)] {
            let mut story = [&[style], open, &[3, 0]].concat();
            for step in 3..31_u8 {
                story.extend([step, 1, 2, 3, 0, 4, 0, 5, 1, 0, 64, 0, 64, 0, 1, 0]);
            }
            add("endpoint", &format!("{name}-{style}"), story);
        }
    }
}

/// The bytes of a golden file.
fn golden(hex: &str) -> Vec<u8> {
    let lines = hex.lines().filter(|line| !line.starts_with('#'));
    let digits: Vec<u32> = lines.flat_map(str::chars).filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}
