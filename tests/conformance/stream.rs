//! The stream fabric, over Unix sockets and over TCP, in the clear and sealed.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Arc;

use baton::desc::MemoryKind;
use baton::fabric::stream::{StreamAddress, StreamConfig, StreamFabric};
use baton::fabric::{Fabric, Link};
use baton::trust::{Answered, Asked, Channel, Initiator, Purpose, Responder, Secret};

use crate::harness::{Harness, Skip, own_credentials};

mod gpu;

/// A harness of streams that differ by their configuration alone.
trait Configured {
    fn config() -> StreamConfig;
}

/// Unix sockets alone.
struct Unix;

impl Harness for Unix {
    fn set_up() -> Result<Self, Skip> {
        Ok(Self)
    }

    fn open(&self) -> Box<dyn Fabric> {
        open(Self::config())
    }

    fn bad_links(&self, good: &Link) -> Vec<(&'static str, Link)> {
        let nobody = StreamAddress { unix: Some(b"baton-nobody-listens-here".to_vec()), tcp: None };
        let mut other_process = own_credentials();
        other_process.pid += 1;
        vec![
            ("half an address", with_address(good, good.address[..10].to_vec())),
            ("a name nobody listens on", with_address(good, nobody.encode())),
            ("a socket of another process", Link { credentials: Some(other_process), ..good.clone() }),
            ("a peer that is not on this host", Link { credentials: None, ..good.clone() }),
        ]
    }
}

impl Configured for Unix {
    fn config() -> StreamConfig {
        StreamConfig { tcp: false, ..StreamConfig::default() }
    }
}

/// TCP over IPv4 alone.
struct Tcp4;

impl Harness for Tcp4 {
    fn set_up() -> Result<Self, Skip> {
        Ok(Self)
    }

    fn open(&self) -> Box<dyn Fabric> {
        open(Self::config())
    }

    fn link(&self, target: &dyn Fabric, link_id: [u8; 16]) -> Link {
        Link { address: target.address(), link_id, credentials: None, keys: None }
    }

    fn bad_links(&self, good: &Link) -> Vec<(&'static str, Link)> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let free = StreamAddress { unix: None, tcp: Some(free.expect("a free port")) };
        vec![
            ("no address", with_address(good, Vec::new())),
            ("a port nobody listens on", with_address(good, free.encode())),
        ]
    }
}

impl Configured for Tcp4 {
    fn config() -> StreamConfig {
        tcp(Ipv4Addr::LOCALHOST.into())
    }
}

/// TCP over IPv6 alone.
struct Tcp6;

impl Harness for Tcp6 {
    fn set_up() -> Result<Self, Skip> {
        let probe = TcpListener::bind((Ipv6Addr::LOCALHOST, 0));
        probe.map(|_| Self).map_err(|error| Skip(format!("no IPv6 loopback: {error}")))
    }

    fn open(&self) -> Box<dyn Fabric> {
        open(tcp(Ipv6Addr::LOCALHOST.into()))
    }

    fn link(&self, target: &dyn Fabric, link_id: [u8; 16]) -> Link {
        Tcp4.link(target, link_id)
    }
}

/// The same between two sides that have a key in common: `INNER`'s links, sealed.
struct Sealed<INNER> {
    inner: INNER,
    /// What the handshake of the two control streams left behind: the dialer's, then the acceptor's.
    channels: [Channel; 2],
    /// Links of which one side has asked for its keys.
    half: RefCell<HashSet<[u8; 16]>>,
}

impl<INNER: Harness> Harness for Sealed<INNER> {
    const KINDS: [MemoryKind; 2] = INNER::KINDS;

    fn set_up() -> Result<Self, Skip> {
        let secret = Secret::parse(&b"0123456789abcdef".repeat(4)).expect("a key");
        let (mut dialer, opening) = Initiator::new(&secret, Purpose::Control, [1; 32]).expect("begins");
        let asked = Responder::handle(&secret, Purpose::Control, [2; 32], &opening);
        let Ok(Asked::Answer(acceptor, answer)) = asked else { panic!("the same key: {asked:?}") };
        let answered = dialer.handle(&answer);
        let Ok(Answered::Sealed(dialer, _)) = answered else { panic!("the same key: {answered:?}") };
        Ok(Self { inner: INNER::set_up()?, channels: [*dialer, *acceptor], half: RefCell::default() })
    }

    fn open(&self) -> Box<dyn Fabric> {
        self.inner.open()
    }

    /// Every link is asked for by one side and then by the other.
    fn link(&self, target: &dyn Fabric, link_id: [u8; 16]) -> Link {
        let mut half = self.half.borrow_mut();
        let side = usize::from(!half.insert(link_id));
        if side == 1 {
            half.remove(&link_id);
        }
        let keys = Some(Arc::new(self.channels[side].link_keys("stream", &link_id)));
        Link { keys, ..self.inner.link(target, link_id) }
    }

    fn bad_links(&self, good: &Link) -> Vec<(&'static str, Link)> {
        self.inner.bad_links(good)
    }
}

fn tcp(bind_ip: IpAddr) -> StreamConfig {
    StreamConfig { unix: false, bind_ip, ..StreamConfig::default() }
}

fn open(config: StreamConfig) -> Box<dyn Fabric> {
    Box::new(StreamFabric::open(config, None).expect("a stream opens on loopback"))
}

fn with_address(link: &Link, address: Vec<u8>) -> Link {
    Link { address, ..link.clone() }
}

conformance!(unix, Unix);
conformance!(tcp4, Tcp4);
conformance!(tcp6, Tcp6);
conformance!(sealed_unix, Sealed<Unix>);
conformance!(sealed_tcp, Sealed<Tcp4>);
