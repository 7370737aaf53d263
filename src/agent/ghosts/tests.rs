use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

use super::*;

const OLD: RegionKey = RegionKey(3);
const NEW: RegionKey = RegionKey(4);

fn ghost(number: u32, socket: Option<OwnedFd>) -> Ghost {
    let stream = socket.map(|socket| {
        rustix::io::ioctl_fionbio(&socket, true).expect("non-blocking");
        ControlStream::new(socket)
    });
    let session = SessionId([number as u8; 16]);
    let (key, name, awaited_until) = (PeerKey(number), format!("gen{number}"), Instant::now());
    Ghost { key, name, session, stream, process: None, pulls: true, last: OLD, awaited_until }
}

fn sleeper() -> (Child, OwnedFd) {
    let child = Command::new("sleep").arg("60").spawn().expect("a child");
    let pid = rustix::process::Pid::from_child(&child);
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a pidfd");
    (child, process)
}

/// What the watch says of ghosts, once it says something.
fn listen(ghosts: &mut Ghosts, watch: &Watch) {
    assert!(!watch.ready().is_empty(), "something is ready");
    for ready in watch.ready() {
        match ready.source {
            Source::Ghost(key) => ghosts.hear(key, watch),
            source => panic!("{source:?} is no ghost"),
        }
    }
}

fn remembered(ghost: Ghost) -> (Ghosts, Watch) {
    let (mut ghosts, watch) = (Ghosts::default(), Watch::new().expect("an epoll set"));
    if let Some(stream) = &ghost.stream {
        watch.add(stream, Source::Peer(ghost.key), Interest::Read).expect("watched");
    }
    ghosts.remember(ghost, &watch);
    (ghosts, watch)
}

#[test]
fn a_ghost_haunts_what_it_knew_until_its_process_is_dead() {
    let (mut child, process) = sleeper();
    let (ghosts, _watch) = remembered(Ghost { process: Some(process), ..ghost(0, None) });
    assert_eq!((ghosts.haunting(OLD), ghosts.haunting(NEW)), (Some("gen0"), None));
    assert!(ghosts.pulls("gen0") && !ghosts.pulls("gen1"));
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!((ghosts.haunting(OLD), ghosts.pulls("gen0")), (None, false));
}

#[test]
fn the_end_of_its_stream_lays_a_ghost_and_nothing_else_on_it_does() {
    let (here, mut there) = UnixStream::pair().expect("a pair");
    let (mut ghosts, watch) = remembered(ghost(0, Some(here.into())));
    there.write_all(&[1; 1000]).expect("written");
    listen(&mut ghosts, &watch);
    assert_eq!(ghosts.haunting(OLD), Some("gen0"), "it still speaks");
    drop(there);
    listen(&mut ghosts, &watch);
    assert_eq!(ghosts.haunting(OLD), None);
    assert!(watch.ready().is_empty(), "nothing is left in the watch");
}

/// What the peer has not read when it closes makes its kernel reset the connection.
#[test]
fn a_reset_proves_something_on_one_host_and_nothing_across_a_network() {
    let (here, there) = UnixStream::pair().expect("a pair");
    rustix::io::write(&here, b"unread").expect("written");
    let (mut ghosts, watch) = remembered(ghost(0, Some(here.into())));
    drop(there);
    listen(&mut ghosts, &watch);
    assert_eq!(ghosts.haunting(OLD), None);

    let (here, there) = reset_soon();
    drop(there);
    let (mut ghosts, watch) = remembered(ghost(0, Some(here)));
    listen(&mut ghosts, &watch);
    assert_eq!(ghosts.haunting(OLD), Some("gen0"), "anybody on the way may have reset it");
    assert!(watch.ready().is_empty(), "it is not heard any more");
}

/// The kernel tells of a reset once; what is read after it looks like an end.
#[test]
fn a_reset_that_somebody_has_read_before_is_no_end_either() {
    for reads in [true, false] {
        let (here, there) = reset_soon();
        rustix::io::ioctl_fionbio(&here, true).expect("non-blocking");
        let mut stream = ControlStream::new(here);
        drop(there);
        match reads {
            true => _ = stream.fill().expect_err("reset"),
            false => _ = stream.send(b"more").expect_err("reset"),
        }
        assert!(!stream.has_ended());
        let (mut ghosts, watch) = remembered(Ghost { stream: Some(stream), ..ghost(0, None) });
        listen(&mut ghosts, &watch);
        assert_eq!(ghosts.haunting(OLD), Some("gen0"), "read {reads}");
    }
}

/// A connection over TCP that its other end resets when it is dropped.
fn reset_soon() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut here = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (there, _) = listener.accept().expect("accepted");
    here.write_all(b"unread").expect("written");
    there.peek(&mut [0; 6]).expect("it has come");
    (here.into(), there)
}

#[test]
fn the_same_session_lays_its_ghost_and_no_other_does() {
    let (here, _there) = UnixStream::pair().expect("a pair");
    let (mut ghosts, watch) = remembered(ghost(0, Some(here.into())));
    ghosts.remember(ghost(1, None), &watch);
    ghosts.lay(SessionId([7; 16]), &watch);
    assert_eq!(ghosts.haunting(OLD), Some("gen0"));
    ghosts.lay(SessionId([0; 16]), &watch);
    assert_eq!(ghosts.haunting(OLD), Some("gen1"));
}

#[test]
fn a_session_that_is_given_up_again_is_one_ghost_that_knows_more() {
    let (mut ghosts, watch) = remembered(ghost(0, None));
    ghosts.remember(Ghost { key: PeerKey(9), pulls: false, last: NEW, ..ghost(0, None) }, &watch);
    assert_eq!(ghosts.about.len(), 1);
    assert!(ghosts.haunting(NEW).is_some() && ghosts.pulls("gen0"));
}

#[test]
fn one_that_was_heard_of_lately_is_awaited_for_a_while() {
    let now = Instant::now();
    let (ghosts, _watch) = remembered(Ghost { awaited_until: now + PROOF_WITHIN, ..ghost(0, None) });
    assert!(ghosts.is_awaited(OLD, now) && !ghosts.is_awaited(NEW, now));
    assert!(ghosts.pull_is_awaited("gen0", now) && !ghosts.pull_is_awaited("gen1", now));
    assert!(!ghosts.is_awaited(OLD, now + PROOF_WITHIN));
}

#[test]
fn ghosts_without_number_keep_what_they_could_touch() {
    let (mut ghosts, watch) = remembered(Ghost { last: NEW, ..ghost(0, None) });
    for number in 1..=GHOSTS_MAX as u32 {
        let mut session = [0; 16];
        session[..4].copy_from_slice(&number.to_le_bytes());
        session[15] = 1;
        ghosts.remember(Ghost { session: SessionId(session), ..ghost(number, None) }, &watch);
    }
    assert_eq!(ghosts.about.len(), GHOSTS_MAX);
    assert_eq!((ghosts.haunting(NEW), ghosts.pulls("anybody")), (Some(CROWD), true));
}
