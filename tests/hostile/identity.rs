//! Who speaks: under another's name, in another's place, with a handshake that somebody else has made, on another's
//! stream.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

use baton::agent::Agent;
use baton::desc::SessionId;
use baton::proto::blob::Blob;
use baton::proto::section::{Endpoint, Section};
use baton::proto::wire::{Event, Frame, LENGTH_BYTES};

use crate::puppet::{Papers, Puppet, WATCHDOG, agent, beside, closes, eventually, hello, knock, read_frame};

/// A stranger cannot take a live peer's name, whatever session it claims; the peer's stream stays as it is.
#[test]
fn a_live_peers_name_is_not_to_be_had() {
    let _beside = beside();
    let (ctx, gene) = (agent("ctx"), agent("gen"));
    gene.load_blob(ctx.name(), &ctx.local_blob()).expect("it loads");
    let session = Blob::decode(&gene.local_blob()).expect("its blob").section.session.0;
    for (claimed, reason) in [([9; 16], "NameTaken"), (session, "Crossed")] {
        let papers = Papers { name: gene.name().to_owned(), session: claimed, ..Papers::default() };
        let answer = Puppet::answer_to(&ctx, &hello(&ctx, &papers, None).0);
        assert!(answer.starts_with("Refuse") && answer.contains(reason), "{answer}");
        assert_heard(&gene, &ctx);
    }
}

#[test]
fn our_own_name_is_not_to_be_had() {
    let _beside = beside();
    let ctx = agent("ctx");
    let papers = Papers { name: ctx.name().to_owned(), ..Papers::default() };
    let answer = Puppet::answer_to(&ctx, &hello(&ctx, &papers, None).0);
    assert!(answer.starts_with("Refuse") && answer.contains("our own name"), "{answer}");
}

/// What is refused is told nothing: no region, no address, no session.
#[test]
fn a_refusal_tells_nothing_of_us() {
    let _beside = beside();
    let ctx = agent("ctx");
    let own = Blob::decode(&ctx.local_blob()).expect("its blob").section;
    let papers = Papers { expected: Some([3; 16]), ..Papers::default() };
    let mut stream = knock(&ctx);
    stream.write_all(&hello(&ctx, &papers, None).0).expect("said");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it closes");
    assert!(answer.windows(16).all(|bytes| bytes != own.session.0 && bytes != own.host.0));
    let (_, frame) = Frame::decode(&answer[LENGTH_BYTES..]).expect("one frame");
    assert!(matches!(frame, Frame::Refuse { .. }), "{frame:?}");
}

/// Notifications carry no name: theirs is the name that the stream was opened under, whatever they hold.
#[test]
fn a_peer_speaks_under_its_own_name_alone() {
    let _beside = beside();
    let ctx = agent("ctx");
    let (mut one, two) = (Puppet::meet(&ctx, Papers::default()), Puppet::meet(&ctx, Papers::default()));
    one.tell(Event::Notify { message: two.name().as_bytes() });
    let heard = eventually("its message", || ctx.take_notifications().pop());
    assert_eq!(heard, (one.name().to_owned(), vec![two.name().as_bytes().to_vec()]));
}

/// A frame with another stream's tag costs the one who sent it its stream, and not the one whose tag it is.
#[test]
fn a_frame_of_another_stream_ends_the_one_that_it_came_on() {
    let _beside = beside();
    let ctx = agent("ctx");
    let (mut one, mut two) = (Puppet::meet(&ctx, Papers::default()), Puppet::meet(&ctx, Papers::default()));
    one.tag = two.tag;
    one.tell(Event::Notify { message: b"in another's name" });
    assert!(closes(&mut one.control));
    two.tell(Event::Notify { message: b"mine" });
    let heard = eventually("its message", || ctx.take_notifications().pop());
    assert_eq!(heard, (two.name().to_owned(), vec![b"mine".to_vec()]));
}

/// Whoever was dialed and answers as another, or with another session, is let go before it learns anything more.
#[test]
fn who_answers_in_anothers_place_is_not_loaded() {
    let _beside = beside();
    let gene = agent("gen");
    let papers = Papers::default();
    for (name, session) in [("somebody-else", papers.session), (papers.name.as_str(), [3; 16])] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let endpoints = vec![Endpoint::Tcp { ip: Ipv4Addr::LOCALHOST.into(), port }];
        let own = Blob::decode(&gene.local_blob()).expect("its blob").section;
        let section = Section { session: SessionId(papers.session), endpoints, regions: Vec::new(), ..own };
        let blob = Blob { name: papers.name.clone(), section: section.clone() };
        let (answers_as, section) = (name.to_owned(), Section { session: SessionId(session), ..section });
        let serving = std::thread::spawn(move || answer_as(&listener, &answers_as, &section));
        let error = gene.load_blob(&papers.name, &blob.encode()).expect_err("it is another").to_string();
        assert!(
            error.contains(&format!("agent '{name}' of session")) && error.contains("answered in its place"),
            "{error}"
        );
        serving.join().expect("the listener ends");
    }
}

/// Takes one HELLO and answers with this WELCOME; ends when the other side has closed.
fn answer_as(listener: &TcpListener, name: &str, section: &Section) {
    let (mut stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
    let hello = read_frame(&mut stream).expect("a hello");
    let (link, frame) = Frame::decode(&hello).expect("a frame");
    assert!(matches!(frame, Frame::Hello(_)), "{frame:?}");
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    section.encode(&mut bytes);
    Frame::Welcome { name, section: &bytes }.encode(link, &mut out);
    stream.write_all(&out).expect("said");
    assert!(closes(&mut stream), "it lets go");
}

/// A handshake that was overheard, said again byte by byte: nothing of it works while its maker lives, and it stands in
/// nobody's way. (Nothing here proves who dials; a key does: `BATON_PSK_FILE`.)
#[test]
fn a_replayed_handshake_is_refused_and_harms_nobody() {
    let _beside = beside();
    let (ctx, gene) = (agent("ctx"), agent("gen"));
    let overheard = overhear(&ctx, &gene);
    for _ in 0..3 {
        let answer = Puppet::answer_to(&ctx, &overheard);
        assert!(answer.starts_with("Refuse") && answer.contains("Crossed"), "{answer}");
        assert_heard(&gene, &ctx);
    }
    // To an agent that has come after it, it says nothing.
    let (name, info) = (ctx.name().to_owned(), ctx.connection_info());
    drop(ctx);
    let port = info.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let mut settings = crate::puppet::settings(|lanes| lanes.stream_tcp = true);
    settings.port = port;
    let restarted = Agent::new(baton::agent::AgentConfig { name, settings }).expect("an agent opens");
    let answer = Puppet::answer_to(&restarted, &overheard);
    assert!(answer.starts_with("Refuse") && answer.contains("StaleSession"), "{answer}");
}

/// The HELLO by which one agent loads another, as a relay between them sees it.
fn overhear(ctx: &Agent, gene: &Agent) -> Vec<u8> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let mut blob = Blob::decode(&ctx.local_blob()).expect("its blob");
    blob.section.endpoints = vec![Endpoint::Tcp { ip: Ipv4Addr::LOCALHOST.into(), port }];
    let towards = knock(ctx);
    let relaying = std::thread::spawn(move || {
        let (mut from, _) = listener.accept().expect("a connection");
        from.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
        let hello = read_frame(&mut from).expect("a hello");
        let whole = [&(hello.len() as u32).to_le_bytes()[..], &hello].concat();
        let mut on = towards.try_clone().expect("a socket");
        on.write_all(&whole).expect("said on");
        let (mut back, mut answers) = (from.try_clone().expect("a socket"), towards);
        std::thread::spawn(move || _ = std::io::copy(&mut answers, &mut back));
        std::thread::spawn(move || _ = std::io::copy(&mut from, &mut on));
        whole
    });
    gene.load_blob(ctx.name(), &blob.encode()).expect("it loads through the relay");
    relaying.join().expect("the relay lives")
}

#[track_caller]
fn assert_heard(from: &Agent, by: &Agent) {
    from.notify(by.name(), b"still here").expect("it is loaded");
    eventually("its message", || by.take_notifications().pop());
}
