//! Which IP address to tell peers, and why; and the text in which they hand it on (`ip:port`).
//!
//! The order follows TensorRT-LLM: the interface that the operator named, else the address of the default
//! route (IPv4, then IPv6), else the first interface that is not loopback or a container bridge, else
//! loopback. Nothing is sent anywhere. Hostnames are never resolved: a lookup could block, and what it
//! yields depends on who asks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use thiserror::Error;

/// The address to advertise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The address.
    pub ip: IpAddr,
    /// Why this one, for the log.
    pub reason: String,
}

/// Why no address could be chosen.
#[derive(Debug, Error)]
pub enum AdvertiseError {
    /// No interface has the name that was asked for.
    #[error("interface {wanted} does not exist here; there are: {existing}")]
    NoInterface {
        /// The name.
        wanted: String,
        /// The names that exist.
        existing: String,
    },
    /// The interface has nothing that a peer could connect to.
    #[error(
        "interface {wanted} has no IPv4 and no global IPv6 address; interfaces that have one: {existing}"
    )]
    NoAddress {
        /// The name.
        wanted: String,
        /// Interfaces with a usable address.
        existing: String,
    },
    /// The interfaces could not be listed.
    #[error("cannot list the network interfaces: {0}")]
    List(#[from] io::Error),
}

/// Chooses the address to advertise. `interface` is what the operator named (`TRTLLM_NIXL_INTERFACE`).
pub fn advertised_address(interface: Option<&str>) -> Result<Advertised, AdvertiseError> {
    let list = || -> io::Result<Vec<Interface>> {
        let found = if_addrs::get_if_addrs()?;
        Ok(found.into_iter().map(|found| Interface { ip: found.ip(), name: found.name }).collect())
    };
    match interface.filter(|name| !name.is_empty()) {
        Some(name) => of_interface(name, &list()?, exists),
        None => Ok(of_route(local_end_of_route).unwrap_or_else(|| of_any(&list().unwrap_or_default()))),
    }
}

/// Why a connection info is not one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConnectionInfoError {
    /// There is no port.
    #[error("connection info {0:?} has no port: write ip:port, or [ipv6]:port")]
    NoPort(String),
    /// The port is not one.
    #[error("connection info {0:?}: the port must be a number from 1 to 65535")]
    BadPort(String),
    /// An IPv6 address without brackets, where nobody can tell address from port.
    #[error("connection info {0:?}: write an IPv6 address in brackets, as in [2001:db8::1]:5555")]
    BareIpv6(String),
    /// Not an IP address.
    #[error(
        "connection info {0:?}: the host must be an IP address; names are not resolved, so give the \
         address itself"
    )]
    NotAnIp(String),
}

/// Reads `ip:port` or `[ipv6]:port`.
pub fn parse_connection_info(text: &str) -> Result<SocketAddr, ConnectionInfoError> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| ConnectionInfoError::NoPort(text.into()))?;
    if text.parse::<IpAddr>().is_ok() || (host.contains(':') && !host.starts_with('[')) {
        return Err(ConnectionInfoError::BareIpv6(text.into()));
    }
    let not_an_ip = || ConnectionInfoError::NotAnIp(text.into());
    let ip: IpAddr = match host.strip_prefix('[') {
        // The last colon stands inside the brackets: there is no port after them.
        Some(_) if text.ends_with(']') => return Err(ConnectionInfoError::NoPort(text.into())),
        Some(rest) => {
            let inside = rest.strip_suffix(']').ok_or_else(not_an_ip)?;
            IpAddr::V6(inside.parse::<Ipv6Addr>().map_err(|_| not_an_ip())?)
        }
        None => IpAddr::V4(host.parse::<Ipv4Addr>().map_err(|_| not_an_ip())?),
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(SocketAddr::new(ip, port)),
        _ => Err(ConnectionInfoError::BadPort(text.into())),
    }
}

/// Writes `ip:port`, or `[ipv6]:port`: what [`parse_connection_info`] reads.
pub fn format_connection_info(ip: IpAddr, port: u16) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    }
}

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interface {
    name: String,
    ip: IpAddr,
}

/// What the kernel would send from, to reach a well-known address of either family.
fn of_route(local_end: impl Fn(SocketAddr) -> Option<IpAddr>) -> Option<Advertised> {
    let probes = [("IPv4", IpAddr::V4(PROBE_V4)), ("IPv6", IpAddr::V6(PROBE_V6))];
    probes.into_iter().find_map(|(family, probe)| {
        let ip =
            local_end(SocketAddr::new(probe, PROBE_PORT)).filter(|ip| is_usable(ip) && !ip.is_loopback())?;
        Some(Advertised { ip, reason: format!("the source address of the {family} route to {probe}") })
    })
}

fn of_interface(
    wanted: &str,
    all: &[Interface],
    exists: impl Fn(&str) -> bool,
) -> Result<Advertised, AdvertiseError> {
    let wanted_name = || wanted.to_owned();
    if !all.iter().any(|interface| interface.name == wanted) && !exists(wanted) {
        let existing = names(all.iter());
        return Err(AdvertiseError::NoInterface { wanted: wanted_name(), existing });
    }
    let usable = || all.iter().filter(|interface| is_usable(&interface.ip));
    let of_wanted = usable().filter(|interface| interface.name == wanted);
    match of_wanted.min_by_key(|interface| interface.ip.is_ipv6()) {
        Some(interface) => {
            Ok(Advertised { ip: interface.ip, reason: format!("interface {wanted} was asked for") })
        }
        None => Err(AdvertiseError::NoAddress { wanted: wanted_name(), existing: names(usable()) }),
    }
}

/// The last resort, without a route: some interface that leads out, else loopback.
fn of_any(all: &[Interface]) -> Advertised {
    let leads_out = |interface: &&Interface| {
        let bridge = BRIDGES.iter().any(|prefix| interface.name.starts_with(prefix));
        is_usable(&interface.ip) && !interface.ip.is_loopback() && !bridge
    };
    match all.iter().filter(leads_out).min_by_key(|interface| interface.ip.is_ipv6()) {
        Some(Interface { name, ip }) => {
            let reason = format!("there is no default route; first address of interface {name}");
            Advertised { ip: *ip, reason }
        }
        None => Advertised {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            reason: "there is no route and no interface but loopback: only peers on this host can connect"
                .into(),
        },
    }
}

/// Whether a peer could connect to it: IPv6 link-local addresses mean nothing without an interface.
fn is_usable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_unicast_link_local() && !ip.is_multicast(),
    }
}

/// Whether the kernel knows an interface of this name; the list has only those with an address.
fn exists(name: &str) -> bool {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None);
    socket.is_ok_and(|socket| name_to_index(&socket, name).is_ok())
}

fn names<'a>(interfaces: impl Iterator<Item = &'a Interface>) -> String {
    let mut names: Vec<&str> = interfaces.map(|interface| interface.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Connecting a UDP socket sends nothing; it makes the kernel choose a source address.
fn local_end_of_route(probe: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if probe.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(probe).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

const PROBE_V4: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
const PROBE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888);
const PROBE_PORT: u16 = 53;
/// Names that bridges of containers and virtual machines on this host begin with.
const BRIDGES: [&str; 4] = ["docker", "br-", "veth", "virbr"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interfaces(list: &[(&str, &str)]) -> Vec<Interface> {
        let one = |&(name, ip): &(&str, &str)| Interface { name: name.into(), ip: ip.parse().unwrap() };
        list.iter().map(one).collect()
    }

    #[test]
    fn a_named_interface_wins_with_ipv4_first() {
        let all = interfaces(&[
            ("lo", "127.0.0.1"),
            ("ib0", "fe80::1"),
            ("ib0", "2001:db8::5"),
            ("ib0", "10.0.0.5"),
        ]);
        let chosen = of_interface("ib0", &all, |name| name == "bare0").unwrap();
        assert_eq!(chosen.ip.to_string(), "10.0.0.5");
        assert_eq!(chosen.reason, "interface ib0 was asked for");
        assert_eq!(
            of_interface("ib0", &all[..3], |name| name == "bare0").unwrap().ip.to_string(),
            "2001:db8::5"
        );
        assert_eq!(of_interface("lo", &all, |name| name == "bare0").unwrap().ip.to_string(), "127.0.0.1");
    }

    #[test]
    fn a_wrong_interface_is_told_which_there_are() {
        let all = interfaces(&[
            ("lo", "127.0.0.1"),
            ("ib0", "fe80::1"),
            ("eth0", "10.0.0.1"),
            ("eth0", "10.0.0.2"),
        ]);
        assert_eq!(
            of_interface("ib9", &all, |name| name == "bare0").unwrap_err().to_string(),
            "interface ib9 does not exist here; there are: eth0, ib0, lo"
        );
        let bare = of_interface("bare0", &all, |name| name == "bare0").unwrap_err();
        assert!(matches!(bare, AdvertiseError::NoAddress { .. }), "{bare}");
        assert_eq!(
            of_interface("ib0", &all, |name| name == "bare0").unwrap_err().to_string(),
            "interface ib0 has no IPv4 and no global IPv6 address; interfaces that have one: eth0, lo"
        );
    }

    #[test]
    fn the_route_is_asked_over_ipv4_and_then_ipv6() {
        let v6: IpAddr = "2001:db8::9".parse().unwrap();
        let only_v6 = |probe: SocketAddr| probe.is_ipv6().then_some(v6);
        let chosen = of_route(only_v6).unwrap();
        assert_eq!(chosen.ip, v6);
        assert_eq!(chosen.reason, "the source address of the IPv6 route to 2001:4860:4860::8888");
        let both = |probe: SocketAddr| Some(if probe.is_ipv4() { "10.1.1.1".parse().unwrap() } else { v6 });
        assert_eq!(of_route(both).unwrap().ip.to_string(), "10.1.1.1");
        assert_eq!(of_route(|_| None), None);
        assert_eq!(of_route(|_| Some(Ipv4Addr::LOCALHOST.into())), None);
    }

    #[test]
    fn without_a_route_bridges_and_loopback_come_last() {
        let all = interfaces(&[("lo", "127.0.0.1"), ("docker0", "172.17.0.1"), ("eth1", "192.168.1.9")]);
        assert_eq!(of_any(&all).ip.to_string(), "192.168.1.9");
        assert_eq!(of_any(&all[..2]).ip, IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn this_machine_has_an_address() {
        let chosen = advertised_address(None).unwrap();
        assert!(is_usable(&chosen.ip) && !chosen.reason.is_empty(), "{chosen:?}");
        let error = advertised_address(Some("no-such-interface")).unwrap_err();
        assert!(error.to_string().starts_with("interface no-such-interface does not exist here"), "{error}");
    }

    proptest! {
        #[test]
        fn connection_info_reads_what_it_writes(ip in any::<IpAddr>(), port in 1..=u16::MAX) {
            let text = format_connection_info(ip, port);
            prop_assert_eq!(parse_connection_info(&text), Ok(SocketAddr::new(ip, port)));
        }

        #[test]
        fn connection_info_is_total(text in "[0-9a-z:.\\[\\]%-]{0,40}") {
            let _ = parse_connection_info(&text);
        }
    }

    #[test]
    fn connection_info_errors_name_the_mistake() {
        use ConnectionInfoError::*;
        type Make = fn(String) -> ConnectionInfoError;
        let cases: [(&str, Make); 12] = [
            ("", NoPort),
            ("10.0.0.1", NoPort),
            ("[::1]", NoPort),
            ("10.0.0.1:", BadPort),
            ("10.0.0.1:0", BadPort),
            ("10.0.0.1:70000", BadPort),
            ("10.0.0.1:+80", BadPort),
            ("::1", BareIpv6),
            ("2001:db8::1:5555", BareIpv6),
            ("node7:5555", NotAnIp),
            ("[10.0.0.1]:5555", NotAnIp),
            ("[::1:5555", NotAnIp),
        ];
        for (text, error) in cases {
            assert_eq!(parse_connection_info(text), Err(error(text.into())), "{text:?}");
        }
    }
}
