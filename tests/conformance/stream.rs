//! The stream fabric, over Unix sockets and over TCP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use baton::fabric::stream::{StreamAddress, StreamConfig, StreamFabric};
use baton::fabric::{Fabric, Link};

use crate::harness::{Harness, Skip, own_credentials};

/// Unix sockets alone.
struct Unix;

impl Harness for Unix {
    fn set_up() -> Result<Self, Skip> {
        Ok(Self)
    }

    fn open(&self) -> Box<dyn Fabric> {
        open(StreamConfig { tcp: false, ..StreamConfig::default() })
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

/// TCP over IPv4 alone.
struct Tcp4;

impl Harness for Tcp4 {
    fn set_up() -> Result<Self, Skip> {
        Ok(Self)
    }

    fn open(&self) -> Box<dyn Fabric> {
        open(tcp(Ipv4Addr::LOCALHOST.into()))
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

fn tcp(bind_ip: IpAddr) -> StreamConfig {
    StreamConfig { unix: false, bind_ip, ..StreamConfig::default() }
}

fn open(config: StreamConfig) -> Box<dyn Fabric> {
    Box::new(StreamFabric::open(config).expect("a stream opens on loopback"))
}

fn with_address(link: &Link, address: Vec<u8>) -> Link {
    Link { address, ..link.clone() }
}

conformance!(unix, Unix);
conformance!(tcp4, Tcp4);
conformance!(tcp6, Tcp6);
