//! The address of a stream fabric: where its data listeners are.
//!
//! ```text
//!  0         1         2
//!  +---------+---------+----------------------------------------------+
//!  | version | count   | count entries: kind u8, len u8, len bytes     |
//!  +---------+---------+----------------------------------------------+
//!  kind 1  abstract Unix socket: its name
//!  kind 2  TCP over IPv4: address (4, network order), port u16 little-endian
//!  kind 3  TCP over IPv6: address (16, network order), port u16 little-endian
//! ```
//! Entries of other kinds are skipped, so that a later version can offer more without a new number.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

/// Where the data listeners of one stream fabric are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamAddress {
    /// Name of the abstract Unix socket.
    pub unix: Option<Vec<u8>>,
    /// The TCP listener.
    pub tcp: Option<SocketAddr>,
}

/// Why the address of a stream could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The bytes end inside a field.
    #[error("the peer's stream address is cut short after {0} bytes")]
    Truncated(usize),
    /// A version this build does not know.
    #[error(
        "the peer's stream address has version {0}, this build reads version {VERSION}: update the older side"
    )]
    Version(u8),
    /// An entry whose contents cannot be what its kind says.
    #[error("entry {index} of the peer's stream address (kind {kind}, {len} bytes) is malformed")]
    BadEntry {
        /// Which entry.
        index: u8,
        /// Its kind.
        kind: u8,
        /// Its length.
        len: u8,
    },
    /// Bytes are left after the last entry.
    #[error("the peer's stream address has {0} bytes too many")]
    Trailing(usize),
}

impl StreamAddress {
    /// The bytes that a peer decodes.
    pub fn encode(&self) -> Vec<u8> {
        let entries: Vec<(u8, Vec<u8>)> =
            self.unix.iter().map(|name| (UNIX, name.clone())).chain(self.tcp.map(tcp_entry)).collect();
        let mut out = vec![VERSION, entries.len() as u8];
        for (kind, bytes) in entries {
            out.extend([kind, bytes.len() as u8]);
            out.extend(bytes);
        }
        out
    }

    /// Reads the bytes of a peer. Total: anything that is not an address is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, AddressError> {
        let short = AddressError::Truncated(bytes.len());
        let (&[version, count], mut rest) = bytes.split_first_chunk::<2>().ok_or(short)?;
        if version != VERSION {
            return Err(AddressError::Version(version));
        }
        let mut address = Self::default();
        for index in 0..count {
            let (&[kind, len], tail) = rest.split_first_chunk::<2>().ok_or(short)?;
            let (body, tail) = tail.split_at_checked(usize::from(len)).ok_or(short)?;
            address.read_entry(kind, body).ok_or(AddressError::BadEntry { index, kind, len })?;
            rest = tail;
        }
        if rest.is_empty() { Ok(address) } else { Err(AddressError::Trailing(rest.len())) }
    }

    fn read_entry(&mut self, kind: u8, body: &[u8]) -> Option<()> {
        match kind {
            UNIX if self.unix.is_none() && !body.is_empty() && body.len() <= UNIX_NAME_MAX => {
                self.unix = Some(body.to_vec());
            }
            TCP4 if self.tcp.is_none() => {
                self.tcp = Some(read_tcp::<4>(body, |ip| Ipv4Addr::from(ip).into())?)
            }
            TCP6 if self.tcp.is_none() => {
                self.tcp = Some(read_tcp::<16>(body, |ip| Ipv6Addr::from(ip).into())?)
            }
            UNIX | TCP4 | TCP6 => return None,
            _ => {}
        }
        Some(())
    }
}

impl fmt::Display for StreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.unix, self.tcp) {
            (Some(_), Some(tcp)) => write!(f, "a Unix socket and tcp {tcp}"),
            (Some(_), None) => f.write_str("a Unix socket only"),
            (None, Some(tcp)) => write!(f, "tcp {tcp} only"),
            (None, None) => f.write_str("nothing"),
        }
    }
}

fn tcp_entry(address: SocketAddr) -> (u8, Vec<u8>) {
    let (kind, mut body) = match address.ip() {
        IpAddr::V4(ip) => (TCP4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (TCP6, ip.octets().to_vec()),
    };
    body.extend(address.port().to_le_bytes());
    (kind, body)
}

fn read_tcp<const N: usize>(body: &[u8], ip: fn([u8; N]) -> IpAddr) -> Option<SocketAddr> {
    let (octets, port) = body.split_first_chunk::<N>()?;
    let port = u16::from_le_bytes(port.try_into().ok()?);
    (port != 0).then(|| SocketAddr::new(ip(*octets), port))
}

const VERSION: u8 = 1;
const UNIX: u8 = 1;
const TCP4: u8 = 2;
const TCP6: u8 = 3;
/// An abstract name fills `sun_path` but for its leading zero byte.
const UNIX_NAME_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addresses() -> impl Strategy<Value = StreamAddress> {
        let unix = prop::option::of(prop::collection::vec(any::<u8>(), 1..=UNIX_NAME_MAX));
        let tcp = prop::option::of((any::<IpAddr>(), 1..=u16::MAX).prop_map(SocketAddr::from));
        (unix, tcp).prop_map(|(unix, tcp)| StreamAddress { unix, tcp })
    }

    proptest! {
        #[test]
        fn every_address_survives_the_wire(address in addresses()) {
            prop_assert_eq!(StreamAddress::decode(&address.encode()), Ok(address));
        }

        #[test]
        fn a_cut_address_is_refused(address in addresses(), cut in any::<prop::sample::Index>()) {
            let bytes = address.encode();
            let cut = cut.index(bytes.len());
            prop_assert_eq!(StreamAddress::decode(&bytes[..cut]), Err(AddressError::Truncated(cut)));
        }

        #[test]
        fn a_longer_address_is_refused(address in addresses(), extra in 1..9usize) {
            let mut bytes = address.encode();
            bytes.extend(vec![0; extra]);
            prop_assert_eq!(StreamAddress::decode(&bytes), Err(AddressError::Trailing(extra)));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = StreamAddress::decode(&bytes);
        }
    }

    #[test]
    fn unknown_kinds_are_skipped_and_doubled_ones_refused() {
        let known = StreamAddress { unix: Some(b"x".to_vec()), tcp: None };
        assert_eq!(StreamAddress::decode(&[1, 2, 77, 1, 0, 1, 1, b'x']), Ok(known));
        let doubled = StreamAddress::decode(&[1, 2, 1, 1, b'x', 1, 1, b'y']);
        assert_eq!(doubled, Err(AddressError::BadEntry { index: 1, kind: 1, len: 1 }));
    }

    #[test]
    fn another_version_says_what_to_do() {
        let error = StreamAddress::decode(&[9, 0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the peer's stream address has version 9, this build reads version 1: update the older side"
        );
    }
}
