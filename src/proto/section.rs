//! Baton's own section of an agent's blob: who the agent is, where it listens, what it has registered.
//!
//! Carried as the connection blob of the entry `BATON` in a NIXL metadata document (see
//! [`blob`](super::blob)); the byte diagram is in `docs/wire-format.md`. The single region's form is also
//! that of the control frames that announce regions later.
//!
//! Version rule: a reader refuses another major version, and takes any minor one: later minor versions
//! append fields, which older readers skip. Decoding is total and allocates nothing that the bytes at hand
//! do not fill; what it returns is within the bounds below.

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use super::codec::{DecodeError, Reader, Writer};
use super::regions::{MAX_REGIONS, RegionError, check_region};
use crate::desc::{MemoryKind, Region, RegionKey, SessionId, Span};

/// Major version that this library reads and writes.
pub const MAJOR: u16 = 1;
/// Minor version that this library writes.
pub const MINOR: u16 = 0;
/// The bit of [`Section::capabilities`] of an agent that knows of staging slots.
pub const CAPABILITY_SLOTS: u64 = 1;
/// Most stream endpoints of one agent.
pub const MAX_ENDPOINTS: usize = 16;
/// Most fabrics of one agent.
pub const MAX_FABRICS: usize = 16;
/// Longest address of a fabric, in bytes.
pub const MAX_ADDRESS_BYTES: usize = 64 * 1024;
/// Longest name of a fabric, in bytes.
pub const MAX_FABRIC_NAME_BYTES: usize = 64;
/// Longest key of a region for one fabric, in bytes.
pub const MAX_KEY_BYTES: usize = 4 * 1024;
/// Longest name of an abstract Unix socket, in bytes: `sun_path` without its leading zero.
pub const MAX_UNIX_NAME_BYTES: usize = 107;

/// Why a section cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SectionError {
    /// It does not begin as one.
    #[error("not a Baton section: it does not begin with \"BATN\"")]
    BadMagic,
    /// It is of a version that this library does not speak.
    #[error(
        "it speaks version {major}.{minor} of Baton's format and this library {MAJOR}.{MINOR}: install the same \
         release on both sides"
    )]
    OtherMajor {
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// A field is cut short or holds nonsense.
    #[error(transparent)]
    Field(#[from] DecodeError),
    /// More or longer than any agent's.
    #[error("{what}: {found}, but at most {max} are allowed")]
    TooMuch {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// A region that cannot be one.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// A region's key for a fabric that the section does not list, or a second key for one.
    #[error("region {key} has a key for fabric {fabric}, which is not listed or has one already")]
    FabricIndex {
        /// The region.
        key: RegionKey,
        /// The index.
        fabric: u8,
    },
}

/// The kernel's boot id: agents with the same one run on the same host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostId(pub [u8; 16]);

/// What one agent tells its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// This instance of the agent.
    pub session: SessionId,
    /// Where it runs.
    pub host: HostId,
    /// The user it runs as.
    pub uid: u32,
    /// Bits for what it can do; unknown ones are ignored.
    pub capabilities: u64,
    /// Where its control stream can be reached, best first.
    pub endpoints: Vec<Endpoint>,
    /// The fabrics it has opened.
    pub fabrics: Vec<FabricAddress>,
    /// The regions it has registered.
    pub regions: Vec<AnnouncedRegion>,
    /// Authenticates the blob; `None` where no key is configured.
    pub mac: Option<[u8; 32]>,
}

/// Where a control stream can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket of this name in the abstract namespace.
    UnixAbstract(Vec<u8>),
    /// A TCP listener.
    Tcp {
        /// Its address.
        ip: IpAddr,
        /// Its port.
        port: u16,
    },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnixAbstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
            Self::Tcp { ip: IpAddr::V4(ip), port } => write!(f, "tcp:{ip}:{port}"),
            Self::Tcp { ip: IpAddr::V6(ip), port } => write!(f, "tcp:[{ip}]:{port}"),
        }
    }
}

/// How a fabric of the peer's is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricAddress {
    /// The fabric's name.
    pub name: String,
    /// What it returned as its address.
    pub address: Vec<u8>,
}

/// A region, with what each fabric needs to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedRegion {
    /// The region.
    pub region: Region,
    /// Keys, at most one for each fabric; fabrics that need none are left out.
    pub keys: Vec<FabricKey>,
}

/// What one fabric needs to reach a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricKey {
    /// Index into [`Section::fabrics`].
    pub fabric: u8,
    /// The key.
    pub bytes: Vec<u8>,
}

impl Section {
    /// Appends the section to `out`. It is for sections within the bounds: [`Section::check`] tells.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.raw(MAGIC).u16(MAJOR).u16(MINOR);
        writer.bytes(self.mac.as_ref().map_or(&[], |mac| mac.as_slice()));
        writer.raw(&self.session.0).raw(&self.host.0).u32(self.uid).u64(self.capabilities);
        writer.u32(self.endpoints.len() as u32);
        self.endpoints.iter().for_each(|endpoint| encode_endpoint(&mut writer, endpoint));
        writer.u32(self.fabrics.len() as u32);
        for fabric in &self.fabrics {
            writer.bytes(fabric.name.as_bytes()).bytes(&fabric.address);
        }
        writer.u32(self.regions.len() as u32);
        self.regions.iter().for_each(|region| region.encode(&mut writer));
    }

    /// Reads a section of any minor version.
    pub fn decode(bytes: &[u8]) -> Result<Self, SectionError> {
        let mut reader = Reader::new(bytes);
        if reader.take("magic", MAGIC.len()) != Ok(MAGIC) {
            return Err(SectionError::BadMagic);
        }
        let (major, minor) = (reader.u16("major version")?, reader.u16("minor version")?);
        if major != MAJOR {
            return Err(SectionError::OtherMajor { major, minor });
        }
        let mac = decode_mac(&mut reader)?;
        let session = SessionId(reader.array("session")?);
        let host = HostId(reader.array("host")?);
        let uid = reader.u32("uid")?;
        let capabilities = reader.u64("capabilities")?;
        let count = bounded("endpoints", reader.count("endpoints", 5)?, MAX_ENDPOINTS)?;
        let mut endpoints = Vec::with_capacity(count);
        for _ in 0..count {
            endpoints.extend(decode_endpoint(&mut reader)?);
        }
        let count = bounded("fabrics", reader.count("fabrics", 8)?, MAX_FABRICS)?;
        let fabrics = (0..count).map(|_| decode_fabric(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let count = bounded("regions", reader.count("regions", REGION_MIN_BYTES)?, MAX_REGIONS)?;
        let regions = (0..count)
            .map(|_| AnnouncedRegion::decode(&mut reader, fabrics.len()))
            .collect::<Result<Vec<_>, _>>()?;
        // What is left belongs to a later minor version.
        Ok(Self { session, host, uid, capabilities, endpoints, fabrics, regions, mac })
    }

    /// Whether a peer would take this section: all that [`Section::decode`] refuses is refused here.
    pub fn check(&self) -> Result<(), SectionError> {
        for announced in &self.regions {
            bounded(KEYS, announced.keys.len(), self.fabrics.len().min(MAX_FABRICS))?;
        }
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        Self::decode(&bytes).map(drop)
    }
}

/// What the MAC of an encoded section covers: everything but itself. `None` where there is no whole section head.
pub fn authenticated_parts(bytes: &[u8]) -> Option<[&[u8]; 2]> {
    let (head, rest) = bytes.split_at_checked(MAGIC.len() + 4)?; // magic and version
    let mut reader = Reader::new(rest);
    let mac = reader.bytes("MAC").ok()?;
    Some([head, &rest[4 + mac.len()..]]) // behind its length and itself
}

impl AnnouncedRegion {
    /// Appends the region.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        let Region { key, kind, device, span } = self.region;
        writer.u32(key.0).u8(kind as u8).u32(device).u64(span.addr).u64(span.len);
        writer.u8(self.keys.len() as u8); // at most MAX_FABRICS
        for key in &self.keys {
            writer.u8(key.fabric).bytes(&key.bytes);
        }
    }

    /// Reads a region of an agent that has listed this many fabrics.
    pub fn decode(reader: &mut Reader<'_>, fabrics: usize) -> Result<Self, SectionError> {
        let key = RegionKey(reader.u32("region key")?);
        let kind = reader.u8("memory kind")?;
        let kind = MemoryKind::from_wire(kind)
            .ok_or(DecodeError::BadValue { field: "memory kind", value: kind.into() })?;
        let device = reader.u32("device")?;
        let span = Span { addr: reader.u64("region address")?, len: reader.u64("region length")? };
        let region = Region { key, kind, device, span };
        check_region(&region)?;
        let count = bounded(KEYS, reader.u8(KEYS)?.into(), fabrics)?;
        let mut keys: Vec<FabricKey> = Vec::with_capacity(count);
        for _ in 0..count {
            let fabric = reader.u8("fabric of a region's key")?;
            if usize::from(fabric) >= fabrics || keys.iter().any(|known| known.fabric == fabric) {
                return Err(SectionError::FabricIndex { key, fabric });
            }
            let bytes = reader.bytes("region's key")?;
            bounded("bytes of a region's key", bytes.len(), MAX_KEY_BYTES)?;
            keys.push(FabricKey { fabric, bytes: bytes.to_vec() });
        }
        Ok(Self { region, keys })
    }
}

const MAGIC: &[u8] = b"BATN";
const UNIX_ABSTRACT: u8 = 1;
const TCP_V4: u8 = 2;
const TCP_V6: u8 = 3;
const KEYS: &str = "keys of a region";
/// A region without keys.
const REGION_MIN_BYTES: usize = 26;

fn bounded(what: &'static str, found: usize, max: usize) -> Result<usize, SectionError> {
    if found > max { Err(SectionError::TooMuch { what, found, max }) } else { Ok(found) }
}

fn decode_mac(reader: &mut Reader<'_>) -> Result<Option<[u8; 32]>, SectionError> {
    let bytes = reader.bytes("MAC")?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let bad = DecodeError::BadValue { field: "length of the MAC", value: bytes.len() as u64 };
    Ok(Some(bytes.try_into().map_err(|_| bad)?))
}

fn encode_endpoint(writer: &mut Writer<'_>, endpoint: &Endpoint) {
    match endpoint {
        Endpoint::UnixAbstract(name) => writer.u8(UNIX_ABSTRACT).bytes(name),
        Endpoint::Tcp { ip: IpAddr::V4(ip), port } => writer.u8(TCP_V4).u32(6).raw(&ip.octets()).u16(*port),
        Endpoint::Tcp { ip: IpAddr::V6(ip), port } => writer.u8(TCP_V6).u32(18).raw(&ip.octets()).u16(*port),
    };
}

/// `None` for a kind of endpoint that a later minor version has added.
fn decode_endpoint(reader: &mut Reader<'_>) -> Result<Option<Endpoint>, SectionError> {
    let kind = reader.u8("kind of endpoint")?;
    let body = reader.bytes("endpoint")?;
    let mut body_reader = Reader::new(body);
    let ip = match kind {
        UNIX_ABSTRACT => return unix_endpoint(body).map(Some),
        TCP_V4 => IpAddr::from(body_reader.array::<4>("IPv4 address")?),
        TCP_V6 => IpAddr::from(body_reader.array::<16>("IPv6 address")?),
        _ => return Ok(None),
    };
    let port = body_reader.u16("port")?;
    body_reader.finish()?;
    if port == 0 || ip.is_unspecified() {
        return Err(DecodeError::BadValue { field: "address or port of an endpoint", value: 0 }.into());
    }
    Ok(Some(Endpoint::Tcp { ip, port }))
}

fn unix_endpoint(name: &[u8]) -> Result<Endpoint, SectionError> {
    bounded("bytes of a socket name", name.len(), MAX_UNIX_NAME_BYTES)?;
    if name.is_empty() {
        return Err(DecodeError::BadValue { field: "length of a socket name", value: 0 }.into());
    }
    Ok(Endpoint::UnixAbstract(name.to_vec()))
}

fn decode_fabric(reader: &mut Reader<'_>) -> Result<FabricAddress, SectionError> {
    let name = reader.text("fabric name")?;
    bounded("bytes of a fabric's name", name.len(), MAX_FABRIC_NAME_BYTES)?;
    let address = reader.bytes("fabric address")?;
    bounded("bytes of a fabric's address", address.len(), MAX_ADDRESS_BYTES)?;
    Ok(FabricAddress { name: name.to_owned(), address: address.to_vec() })
}

#[cfg(test)]
pub(in crate::proto) mod tests;
