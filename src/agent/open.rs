//! Opening an agent: which address it tells peers, which fabrics it has, who it is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::backend;
use crate::desc::SessionId;
use crate::fabric::local::LocalConfig;
use crate::fabric::registry::{Opened, RegistryConfig, open as open_fabrics};
use crate::fabric::stream::StreamConfig;
use crate::fabric::ucx::UcxConfig;
use crate::fabric::{Fabric, HEADER_MAX_BYTES, Limits};
use crate::proto::blob::check_name;
use crate::proto::endpoint::{Endpoint, Identity, LaneSpec};
use crate::proto::section::{self, FabricAddress, HostId, Section};
use crate::proto::session::Deadlines;
use crate::proto::wire::DATA_SPANS_MAX;

use super::address::{advertised_address, format_connection_info};
use super::core::Core;
use super::error::CreateError;
use super::gpus::Gpus;
use super::inbox::Inbox;
use super::lobby::Lobby;
use super::marks;
use super::progress::Shared;
use super::signal::Signal;
use super::sockets::{listen_tcp, listen_unix};
use super::{AgentConfig, EngineSettings, staging};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Opens everything but the progress thread. Returns the connection info too.
pub(super) fn open(config: AgentConfig) -> Result<(Shared, String), CreateError> {
    open_over(config, open_lanes)
}

/// The same, over these fabrics.
pub(super) fn open_with(
    config: AgentConfig,
    fabrics: Vec<Box<dyn Fabric>>,
) -> Result<(Shared, String), CreateError> {
    open_over(config, |_, _, _| Ok((fabrics, String::new())))
}

/// The fabrics, and why others cannot be had.
type Lanes = (Vec<Box<dyn Fabric>>, String);

fn open_over(
    config: AgentConfig,
    open_lanes: impl FnOnce(&str, &EngineSettings, std::net::IpAddr) -> Result<Lanes, CreateError>,
) -> Result<(Shared, String), CreateError> {
    let AgentConfig { name, settings } = config;
    check_name(&name)
        .map_err(|error| CreateError::BadName { name: name.clone(), reason: error.to_string() })?;
    let system = |what: &str| {
        let (name, what) = (name.clone(), what.to_owned());
        move |source: io::Error| CreateError::System { name, what, source }
    };
    let advertised = advertised_address(settings.interface.as_deref())
        .map_err(|source| CreateError::Address { name: name.clone(), source })?;
    let what = format!("listening on {} port {}", advertised.ip, settings.port);
    let (tcp, port) = listen_near(advertised.ip, settings.port).map_err(system(&what))?;
    let mut listeners = vec![tcp];
    let mut endpoints = vec![section::Endpoint::Tcp { ip: advertised.ip, port }];
    if uses_unix(&settings) {
        let unix_name = format!("baton-{}", hex(&random().map_err(system("random bytes"))?));
        listeners.push(listen_unix(unix_name.as_bytes()).map_err(system("listening on a Unix socket"))?);
        endpoints.insert(0, section::Endpoint::UnixAbstract(unix_name.into_bytes()));
    }
    let connection_info = format_connection_info(advertised.ip, port);
    tracing::info!(
        agent = name,
        address = connection_info,
        reason = advertised.reason,
        "listening; peers are told this address"
    );
    tell_trust(&name, &settings, (advertised.ip, &connection_info), &WARNED);
    marks::attach(settings.profiler_library.as_deref());
    let gpus = Gpus::open(&settings);
    let (mut fabrics, unavailable) = open_lanes(&name, &settings, advertised.ip)?;
    let copiers = staging::copiers(&fabrics, &settings, &gpus);
    let section = Section {
        session: SessionId(random().map_err(system("random bytes"))?),
        host: host_id(),
        uid: rustix::process::geteuid().as_raw(),
        capabilities: if copiers.is_empty() { 0 } else { section::CAPABILITY_SLOTS },
        endpoints,
        fabrics: fabrics
            .iter()
            .map(|f| FabricAddress { name: f.name().into(), address: f.address() })
            .collect(),
        regions: Vec::new(),
        mac: None,
    };
    let deadlines = Deadlines {
        handshake: settings.connect_timeout,
        peer: settings.peer_timeout,
        stall: settings.stall_timeout,
    };
    let lanes = fabrics.iter().map(|fabric| lane_spec(&**fabric, &settings)).collect();
    let endpoint = Endpoint::new(Identity { name: name.clone(), section }, lanes, deadlines);
    fabrics.extend(copiers);
    let (inbox, signal) = (Arc::new(Inbox::default()), Arc::new(Signal::default()));
    let mut core = Core::new(
        endpoint,
        fabrics,
        Lobby::new(name.clone(), listeners, settings.secret.clone()),
        Arc::clone(&inbox),
        Arc::clone(&signal),
        settings.secret.clone(),
        settings.copy_threads,
    )
    .map_err(system("watching sockets"))?;
    core.stage_host();
    let wake = system("making a wake-up handle");
    let shared = Shared::new(name, settings, unavailable, core, gpus, inbox, signal).map_err(wake)?;
    Ok((shared, connection_info))
}

/// Says which key peers must have, or warns, once for all who share `warned`, that none is asked for where strangers
/// may come.
fn tell_trust(
    agent: &str,
    settings: &EngineSettings,
    (ip, address): (std::net::IpAddr, &str),
    warned: &AtomicBool,
) {
    match &settings.secret {
        Some(secret) => {
            let key = secret.fingerprint();
            tracing::info!(
                agent,
                key,
                "peers must have the key of BATON_PSK_FILE; two that match show the same"
            );
        }
        None if !ip.is_loopback() && !warned.swap(true, Ordering::Relaxed) => tracing::warn!(
            address,
            "peers are not authenticated: whoever reaches this address can read and write registered memory; set \
             BATON_PSK_FILE on all sides to a file with one key"
        ),
        None => {}
    }
}

/// Whether this process has been warned that peers are not authenticated.
static WARNED: AtomicBool = AtomicBool::new(false);

/// Listens on the port that is asked for, or on a free one where it is taken: the ranks of one host share
/// their environment, so only one of them can have it.
fn listen_near(ip: std::net::IpAddr, port: u16) -> io::Result<(std::os::fd::OwnedFd, u16)> {
    match listen_tcp(ip, port) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && port != 0 => {
            tracing::warn!(
                port,
                "the port of TRTLLM_NIXL_PORT is taken, by another rank perhaps: a free one serves"
            );
            listen_tcp(ip, 0)
        }
        outcome => outcome,
    }
}

/// Whether the control stream may be a Unix socket: not when only TCP lanes are wanted.
pub(super) fn uses_unix(settings: &EngineSettings) -> bool {
    let lanes = &settings.lanes;
    lanes.local || lanes.ucx || lanes.cuda || lanes.stream_unix
}

/// This host, as long as it runs: its boot id.
fn host_id() -> HostId {
    let text = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let mut id = [0; 16];
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    HostId(id)
}

/// Fresh random bytes.
pub(super) fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// The fabrics that `settings` ask for, with listeners on `ip`: what an agent opens, for whoever wants to try the same.
pub fn fabrics_of(settings: &EngineSettings, ip: std::net::IpAddr) -> RegistryConfig {
    let lanes = &settings.lanes;
    RegistryConfig {
        local: lanes.local.then(|| LocalConfig { copiers: settings.copy_threads, ..LocalConfig::default() }),
        ucx: lanes.ucx.then(|| UcxConfig {
            library: settings.ucx_library.clone(),
            user_tls: settings.ucx_transports.clone(),
        }),
        cuda: lanes.cuda,
        stream: (lanes.stream_unix || lanes.stream_tcp).then(|| StreamConfig {
            unix: lanes.stream_unix,
            tcp: lanes.stream_tcp,
            bind_ip: ip,
            connect_deadline: settings.connect_timeout,
            ..StreamConfig::default()
        }),
        driver: Gpus::open(settings).cuda(),
    }
}

/// The fabrics that can be had, and why the others cannot.
fn open_lanes(name: &str, settings: &EngineSettings, ip: std::net::IpAddr) -> Result<Lanes, CreateError> {
    let lanes = &settings.lanes;
    let (mut fabrics, mut unavailable) = (Vec::new(), Vec::new());
    for Opened { name: lane, outcome, .. } in open_fabrics(fabrics_of(settings, ip)) {
        match outcome {
            Ok(fabric) => fabrics.push(fabric),
            Err(error) if lane == "ucx" && settings.ucx_required => {
                let source = backend::ucx_unavailable(error);
                return Err(CreateError::Setting { name: name.into(), source });
            }
            Err(error) => {
                match lane == "ucx" && (lanes.stream_unix || lanes.stream_tcp) {
                    true => tracing::info!("{}", backend::stream_serves_line(&error)),
                    false => tracing::warn!(agent = name, lane, %error, "lane not available"),
                }
                unavailable.push(format!("{lane}: not available here: {error}"));
            }
        }
    }
    // Where nobody asks for it by name, a machine without a GPU lacks nothing.
    if let Some(error) = Gpus::open(settings).missing().filter(|_| lanes.cuda && lanes.explicit) {
        unavailable.push(format!("cuda: not available here: {error}"));
    }
    let reasons = unavailable.join("; ");
    if fabrics.is_empty() {
        return Err(CreateError::NoLane { name: name.into(), reasons });
    }
    Ok((fabrics, reasons))
}

/// The bytes that a lane's pieces have at least, on average, where they are not gathered.
pub(super) fn gathers_below(limits: &Limits, settings: &EngineSettings) -> u64 {
    settings.gather_below.filter(|_| limits.native_write).unwrap_or(limits.gathers_below)
}

fn lane_spec(fabric: &dyn Fabric, settings: &EngineSettings) -> LaneSpec {
    let limits = fabric.limits();
    const { assert!(DATA_SPANS_MAX * 16 < HEADER_MAX_BYTES) };
    LaneSpec {
        name: fabric.name(),
        native_read: limits.native_read,
        native_write: limits.native_write,
        framed: limits.framed,
        kinds: limits.kinds,
        selective: limits.selective,
        gathers_below: gathers_below(&limits, settings),
        maps_regions: limits.maps_regions,
        batches_in_flight: limits.batches_in_flight,
        // More would not fit a frame's header; and a request of more would keep the control stream for too long.
        segments_per_chunk: limits.segments_per_batch.min(DATA_SPANS_MAX),
        bytes_per_chunk: limits.bytes_per_batch,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Secret;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::AtomicUsize;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    /// Counts warnings.
    struct Warnings(Arc<AtomicUsize>);

    impl Subscriber for Warnings {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn strangers_who_may_come_are_one_warning() {
        let (warned, counted) = (AtomicBool::new(false), Arc::new(AtomicUsize::new(0)));
        let without = EngineSettings::default();
        let secret = Secret::parse(&b"0123456789abcdef".repeat(4)).map(Arc::new).ok();
        let with = EngineSettings { secret, ..EngineSettings::default() };
        let near = (IpAddr::V4(Ipv4Addr::LOCALHOST), "127.0.0.1:1");
        let far = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), "192.0.2.1:1");
        let told = |settings: &EngineSettings, place| {
            tell_trust("ctx", settings, place, &warned);
            counted.load(Ordering::Relaxed)
        };
        tracing::subscriber::with_default(Warnings(Arc::clone(&counted)), || {
            assert_eq!(told(&without, near), 0, "nobody comes from outside");
            assert_eq!(told(&with, far), 0, "they need the key");
            assert_eq!(told(&without, far), 1);
            assert_eq!(told(&without, far), 1, "once");
        });
    }
}
