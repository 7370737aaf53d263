use super::*;
use crate::agent::sockets::{fetch_blob, listen_tcp, listen_unix};
use std::net::Ipv4Addr;

const WATCHDOG: Duration = Duration::from_secs(20);

#[test]
fn a_blob_larger_than_a_socket_takes_arrives_whole() {
    let (listener, port) = listen_tcp(Ipv4Addr::LOCALHOST.into(), 0).expect("a port");
    let mut lobby = Lobby::new("ctx".into(), vec![listener], None);
    let blob: Vec<u8> = (0..24u32 << 20).map(|at| (at >> 10) as u8).collect();
    let deadline = Instant::now() + WATCHDOG;
    let fetching =
        std::thread::spawn(move || fetch_blob((Ipv4Addr::LOCALHOST, port).into(), "gen", None, deadline));
    let mut guests = Vec::new();
    while !fetching.is_finished() {
        for token in [&[0], &guests[..]].concat() {
            let arrivals = lobby.serve(token, Instant::now(), || blob.clone());
            guests.extend(arrivals.iter().filter_map(|arrival| match arrival {
                Arrival::Guest(token) => Some(*token),
                _ => None,
            }));
        }
        std::thread::yield_now();
    }
    let fetched = fetching.join().expect("the fetcher lives").expect("the blob comes");
    assert!(fetched == blob, "{} bytes of {}", fetched.len(), blob.len());
}

#[test]
fn a_listener_that_cannot_accept_rests_and_is_watched_again() {
    // A connected socket is no listener: accepting fails, as it does without descriptors.
    let name = format!("baton-lobby-{}", std::process::id());
    let listener = listen_unix(name.as_bytes()).expect("a listener");
    let no_listener =
        std::os::unix::net::UnixStream::connect_addr(&abstract_name(&name)).expect("it listens").into();
    let mut lobby = Lobby::new("ctx".into(), vec![no_listener], None);
    let now = Instant::now();
    assert!(lobby.is_idle());
    assert!(matches!(lobby.serve(0, now, Vec::new)[..], [Arrival::Rest]));
    assert!(!lobby.is_idle(), "time has to bring it back");
    assert!(!lobby.expire(now));
    assert!(lobby.expire(now + REST) && lobby.is_idle());
    drop(listener);
}

fn abstract_name(name: &str) -> std::os::unix::net::SocketAddr {
    use std::os::linux::net::SocketAddrExt as _;
    std::os::unix::net::SocketAddr::from_abstract_name(name).expect("a name")
}

#[test]
fn a_served_guest_that_asks_again_is_closed() {
    use std::io::{Read as _, Write as _};
    let (listener, port) = listen_tcp(Ipv4Addr::LOCALHOST.into(), 0).expect("a port");
    let mut lobby = Lobby::new("ctx".into(), vec![listener], None);
    let mut client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    let mut fetch = Vec::new();
    Frame::Fetch.encode(0, &mut fetch);
    let token = match lobby.serve(0, Instant::now(), Vec::new)[..] {
        [Arrival::Guest(token)] => token,
        ref other => panic!("{other:?}"),
    };
    client.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
    client.write_all(&fetch).expect("written");
    while matches!(lobby.undecided.get(&token).expect("it waits").stage, Stage::Undecided) {
        lobby.serve(token, Instant::now(), || vec![1]);
    }
    client.write_all(&fetch).expect("written");
    let deadline = Instant::now() + WATCHDOG;
    while lobby.guest(token).is_some() {
        assert!(Instant::now() < deadline, "it is still served");
        lobby.serve(token, Instant::now(), || vec![1]);
    }
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer); // a reset is as good an end
    assert!(answer.len() < 64, "one answer, not two: {}", answer.len());
}
