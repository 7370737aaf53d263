//! Who else may be at the other end: stock agents, nobody, other versions, other lanes.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use baton::agent::{Agent, AgentConfig};
use baton::config::EngineSettings;

use crate::pair::{Lane, WATCHDOG, agent, settings, unique};

fn text<T: std::fmt::Debug, E: std::fmt::Display>(outcome: Result<T, E>) -> String {
    outcome.map_err(|error| error.to_string()).expect_err("this must be refused")
}

/// Answers connections as a stock NIXL listener does: drops what is no frame of its own, and sends its
/// metadata when asked. Serves `connections`, each within the watchdog.
fn stock_listener(connections: usize) -> (std::net::SocketAddr, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    let serve = move || {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
            let mut head = [0; 8];
            if stream.read_exact(&mut head).is_err() || u64::from_le_bytes(head) > 1 << 30 {
                continue;
            }
            let mut body = vec![0; u64::from_le_bytes(head) as usize];
            if stream.read_exact(&mut body).is_ok() && body == b"NIXLCOMM:SEND" {
                let answer = b"NIXLCOMM:LOADnixlSerDes|";
                stream.write_all(&(answer.len() as u64).to_le_bytes()).expect("written");
                stream.write_all(answer).expect("written");
            }
        }
    };
    (address, std::thread::spawn(serve))
}

#[test]
fn a_stock_listener_is_named() {
    let agent = agent("gen", Lane::StreamTcp);
    let (address, listener) = stock_listener(2);
    let text = text(agent.load_from("ctx", &address.to_string()));
    assert!(text.contains("a stock NIXL agent listens there (it speaks NIXLCOMM"), "{text}");
    assert!(text.contains(&address.to_string()) && text.contains("cannot load agent 'ctx'"), "{text}");
    listener.join().expect("the listener ends");
}

#[test]
fn a_stock_dialer_and_garbage_are_closed_and_others_served() {
    let (ctx, gene) = (agent("ctx", Lane::StreamTcp), agent("gen", Lane::StreamTcp));
    for bytes in [&b"\x0d\0\0\0\0\0\0\0NIXLCOMM:SEND"[..], &[0xff; 64], b"GET / HTTP/1.1\r\n\r\n"] {
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
