//! Who else may be at the other end: sides without Baton, nobody, other versions, other lanes.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use baton::agent::{Agent, AgentConfig};
use baton::config::EngineSettings;
use baton::proto::{stock, zeromq};

use crate::logged;
use crate::pair::{Lane, WATCHDOG, agent, settings, unique};

const CURE: &str = "put the Baton library on that side too, or remove it here";

fn text<T: std::fmt::Debug, E: std::fmt::Display>(outcome: Result<T, E>) -> String {
    outcome.map_err(|error| error.to_string()).expect_err("this must be refused")
}

fn framed(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// Serves one connection as somebody else would: says `greeting`, reads one NIXLCOMM message if it `listens`, says
/// `answer`, and hands over all that came. Ends with the connection.
fn somebody(greeting: &'static [u8], listens: bool, answer: Vec<u8>) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    let serve = move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
        stream.write_all(greeting).expect("written");
        let mut heard = vec![0; 8];
        if listens {
            stream.read_exact(&mut heard).expect("a length");
            let length = u64::from_le_bytes(heard[..].try_into().expect("eight bytes"));
            assert!(length < 1 << 20, "a stock listener would allocate {length} bytes");
            heard = vec![0; length as usize];
            stream.read_exact(&mut heard).expect("a message");
            stream.write_all(&answer).expect("written");
        }
        let _ = stream.read_to_end(&mut Vec::new()); // until the other side leaves
        heard
    };
    (address, std::thread::spawn(serve))
}

/// The answer of a stock agent: its real metadata, of NIXL 1.5.1.
fn stock_answer() -> Vec<u8> {
    let hex: Vec<u32> =
        include_str!("../golden/nixl-1.5.1-ucx.hex").chars().filter_map(|digit| digit.to_digit(16)).collect();
    let document: Vec<u8> = hex.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect();
    framed(&[&b"NIXLCOMM:LOAD"[..], &document].concat())
}

#[test]
fn a_stock_listener_is_named_at_once_and_told_why() {
    let agent = agent("gen", Lane::StreamTcp);
    let (address, listener) = somebody(b"", true, stock_answer());
    let begun = Instant::now();
    let text = text(agent.load_from("ctx", &address.to_string()));
    let expected = format!(
        "cannot load agent 'ctx' from {address}: a stock NIXL agent (TensorRT-LLM without Baton; it speaks NIXLCOMM) \
         listens there: {CURE}"
    );
    assert_eq!(text, expected);
    assert!(begun.elapsed() < settings(Lane::StreamTcp).connect_timeout / 2, "it was known from its answer");
    let heard = listener.join().expect("the listener ends");
    assert!(heard.starts_with(b"NIXLCOMM:LOADnixlSerDes|Agent") && heard.ends_with(b"NIXLCOMM:SEND"));
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.contains(&format!("Baton agent {} (cause: it runs Baton", agent.name())), "{heard}");
}

/// What a ZeroMQ socket says before anybody has spoken; and it goes on silent.
#[test]
fn a_stock_ucx_manager_is_named_at_once() {
    let agent = agent("gen", Lane::StreamTcp);
    let (address, listener) = somebody(b"\xff\0\0\0\0\0\0\0\x01\x7f", false, Vec::new());
    let text = text(agent.load_at(&address.to_string()));
    let expected =
        "a stock UCX connection manager (TensorRT-LLM without Baton; it speaks ZeroMQ) listens there: ";
    assert!(text.contains(expected) && text.ends_with(CURE) && text.contains(&address.to_string()), "{text}");
    listener.join().expect("the listener ends");
}

/// A ZeroMQ socket that reads before it has greeted hangs up over what it reads.
#[test]
fn a_stock_ucx_manager_that_hangs_up_at_once_is_named_too() {
    let agent = agent("gen", Lane::StreamTcp);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    let serving = std::thread::spawn(move || {
        let (mut first, _) = listener.accept().expect("a connection");
        first.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
        first.read_exact(&mut [0]).expect("a byte");
        drop(first); // with bytes unread: a reset
        let (mut second, _) = listener.accept().expect("another connection");
        second.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
        second.write_all(b"\xff\0\0\0\0\0\0\0\x01\x7f").expect("written");
        assert_eq!(second.read(&mut [0]).expect("an end"), 0, "it is only listened to");
    });
    let text = text(agent.load_from("ctx", &address.to_string()));
    assert!(text.contains("a stock UCX connection manager"), "{text}");
    serving.join().expect("the listener ends");
}

#[test]
fn a_stock_blob_is_named() {
    let agent = agent("gen", Lane::StreamTcp);
    let document = &stock_answer()[8 + b"NIXLCOMM:LOAD".len()..];
    let text = text(agent.load_blob("stock-agent", document));
    let expected = format!(
        "cannot load agent 'stock-agent': agent \"stock-agent\" is a stock NIXL agent (TensorRT-LLM without Baton) with \
         backend UCX: {CURE}"
    );
    assert_eq!(text, expected);
}

/// The name of a stock agent may come back as that of a Baton agent: nothing is left of the first.
#[test]
fn baton_under_a_name_that_was_a_stock_agents_is_loaded() {
    let (ctx, gene) = (agent("ctx", Lane::StreamTcp), agent("gen", Lane::StreamTcp));
    let (address, listener) = somebody(b"", true, stock_answer());
    assert!(text(gene.load_from(ctx.name(), &address.to_string())).contains("stock NIXL agent"));
    listener.join().expect("the listener ends");
    gene.load_from(ctx.name(), &ctx.connection_info()).expect("this one is Baton's");
}

/// Says `bytes` to the agent, and hands over what it answers until `enough` bytes have come.
fn say(agent: &Agent, bytes: &[u8], enough: usize) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(agent.connection_info()).expect("it listens");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
    stream.write_all(bytes).expect("written");
    let mut answer = vec![0; enough];
    stream.read_exact(&mut answer).expect("an answer");
    (stream, answer)
}

#[test]
fn a_stock_dialer_is_answered_in_its_words_and_logged_once() {
    logged::listen();
    let (ctx, gene) = (agent("ctx", Lane::StreamTcp), agent("gen", Lane::StreamTcp));
    let words = stock::answer(ctx.name());
    for command in ["SEND", "LOADnixlSerDes|Agent\x05\0\0\0\0\0\0\0stock|", "INVLstock"] {
        let (_stream, answer) = say(&ctx, &framed(format!("NIXLCOMM:{command}").as_bytes()), words.len());
        assert_eq!(answer, words);
    }
    gene.load_from(ctx.name(), &ctx.connection_info()).expect("an honest peer is served");
    let log = logged::errors_of(ctx.name());
    let expected = format!(
        "a stock NIXL agent (TensorRT-LLM without Baton; it speaks NIXLCOMM) has connected from 127.0.0.1; it cannot be \
         served: {CURE}"
    );
    assert!(matches!(&log[..], [line] if line.contains(&expected)), "{log:?}");
}

#[test]
fn a_load_that_meets_a_stock_agent_is_logged_once() {
    logged::listen();
    let agent = agent("gen", Lane::StreamTcp);
    let document = &stock_answer()[8 + b"NIXLCOMM:LOAD".len()..];
    let texts: Vec<String> = (0..3).map(|_| text(agent.load_blob("stock-agent", document))).collect();
    let log = logged::errors_of(agent.name());
    assert!(matches!(&log[..], [line] if line.contains(&texts[0])), "{log:?}");
}

#[test]
fn a_stock_ucx_manager_that_asks_is_refused() {
    let ctx = agent("ctx", Lane::StreamTcp);
    let greeting = zeromq::greeting();
    let (mut stream, answer) = say(&ctx, b"\xff\0\0\0\0\0\0\0\x01\x7f", greeting.len());
    assert_eq!(answer, greeting);
    let rest = [&b"\x03\x01NULL"[..], &[0; 48], b"\x04\x06\x05READY", b"\x01\x00\x00\x05where"].concat();
    stream.write_all(&rest).expect("written");
    let mut reply = vec![0; zeromq::reply().len()];
    stream.read_exact(&mut reply).expect("a reply");
    assert_eq!(reply, zeromq::reply());
}

#[test]
fn garbage_is_closed_and_others_are_served() {
    let (ctx, gene) = (agent("ctx", Lane::StreamTcp), agent("gen", Lane::StreamTcp));
    for bytes in [&[0xff; 64][..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(ctx.connection_info()).expect("it listens");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
        stream.write_all(bytes).expect("written");
        assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)), "closed without an answer");
    }
    let _silent = TcpStream::connect(ctx.connection_info()).expect("it listens");
    gene.load_from(ctx.name(), &ctx.connection_info()).expect("an honest peer is served");
}

#[test]
fn a_listener_that_says_nothing_meets_the_deadline() {
    let settings =
        EngineSettings { connect_timeout: Duration::from_millis(200), ..settings(Lane::StreamTcp) };
    let agent = Agent::new(AgentConfig { name: unique("gen"), settings }).expect("opens");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let text = text(agent.load_from("ctx", &address));
    assert!(text.contains("no answer before the deadline") && text.contains(&address), "{text}");
}

#[test]
fn a_blob_of_another_major_version_is_refused_by_name() {
    let (ctx, gene) = (agent("ctx", Lane::Local), agent("gen", Lane::Local));
    let mut blob = gene.local_blob();
    let section = blob.windows(4).position(|bytes| bytes == b"BATN").expect("our section");
    blob[section + 4] = 9;
    let text = text(ctx.load_blob(gene.name(), &blob));
    assert!(text.contains("it speaks version 9.0 of Baton's format"), "{text}");
}

#[test]
fn peers_without_a_lane_in_common_are_told_why() {
    let (ctx, gene) = (agent("ctx", Lane::Local), agent("gen", Lane::StreamUnix));
    let text = text(ctx.load_blob(gene.name(), &gene.local_blob()));
    assert!(text.contains("no lane in common (local: the peer does not offer it)"), "{text}");
    assert!(text.contains("BATON_LANES"), "{text}");
    assert!(ctx.notify(gene.name(), b"x").is_err(), "it is not loaded");
}

#[test]
fn an_agent_without_any_lane_is_not_created_and_told_why() {
    let mut settings = settings(Lane::Ucx);
    settings.ucx_transports = Some("tcp".into());
    let text = text(Agent::new(AgentConfig { name: "ctx".into(), settings }));
    assert!(
        text.contains("cannot create agent 'ctx': no lane can be had (ucx: not available here"),
        "{text}"
    );
    assert!(text.contains("UCX_TLS=tcp leaves out cma") && text.contains("BATON_LANES"), "{text}");
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    let with = |change: fn(&mut EngineSettings)| {
        let mut settings = settings(Lane::StreamTcp);
        change(&mut settings);
        Agent::new(AgentConfig { name: "ctx".into(), settings })
    };
    let no_interface = text(with(|settings| settings.interface = Some("eth99".into())));
    assert!(no_interface.contains("eth99") && no_interface.contains("lo"), "{no_interface}");
}

/// Ranks of one host share their environment: only the first of them gets the port.
#[test]
fn a_taken_port_gives_way_to_a_free_one() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let settings = EngineSettings { port, ..settings(Lane::StreamTcp) };
    let agent = Agent::new(AgentConfig { name: unique("ctx"), settings }).expect("opens");
    assert!(agent.connection_info().starts_with("127.0.0.1:"));
    assert_ne!(agent.connection_info(), format!("127.0.0.1:{port}"));
}
