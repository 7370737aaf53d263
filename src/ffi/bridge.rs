//! What C++ can call, one function per slot of the seam, in the seam's order.
//!
//! Each runs inside [`guard`] and returns a `Result`: cxx turns an error into an exception, which `cpp/` turns
//! into the `std::runtime_error` that hosts expect, or swallows where the host expects none. Any thread may call
//! anything on a shared object; destroying one is the host's last use of it.
#![allow(unsafe_code)] // cxx's blocks, and two calls that hand the host's promise on

use once_cell::sync::OnceCell;

use crate::agent::loopback::{Direction, LoopbackAgent};
use crate::agent::{self, Agent, Transfer};
use crate::host::age::{Decision, HostAge, HostFacts, decide};

use super::calls::Call;
use super::connections::{SeamConnections, close_connections, open_connections};
use super::convert;
use super::guard::{SeamError, guard};
use super::host_facts;

use shared::{AgentSettings, File, Memory, PeerMessages, Request, SyncMessage, VramRegion};

/// The declarations that both languages share.
#[cxx::bridge(namespace = "baton::bridge")]
pub mod shared {
    /// The host's configuration of an agent, as far as its age has the fields.
    struct AgentSettings<'a> {
        is_nixl: bool,
        name: &'a [u8],
        backend_params: Vec<String>,
        bounce_buffer_mib: u64,
    }

    /// Pieces of memory of one kind.
    struct Memory<'a> {
        kind: u8,
        descs: &'a [MemoryDesc],
    }

    /// What to move.
    struct Request<'a> {
        op: u8,
        local: Memory<'a>,
        remote: Memory<'a>,
        peer: &'a [u8],
        has_message: bool,
        message: &'a [u8],
    }

    /// A notification.
    struct SyncMessage {
        bytes: Vec<u8>,
    }

    /// All notifications of one peer, oldest first.
    struct PeerMessages {
        peer: String,
        messages: Vec<SyncMessage>,
    }

    /// Registered GPU memory, as a region of an AgentDesc.
    struct VramRegion {
        base: u64,
        len: u64,
        chunk_len: u64,
    }

    /// An open file, from offset 0.
    struct File {
        fd: i32,
        len: u64,
    }

    /// Where a rank of this instance can be reached.
    struct RankAddress {
        ip: String,
        port: u16,
    }

    /// The connection that a message came on, if one came.
    struct Accepted {
        is_some: bool,
        id: u32,
    }

    unsafe extern "C++" {
        include!("abi/transfer_agent.h");
        include!("cancel_flag.h");

        #[namespace = "baton"]
        type CancelFlag;
        fn is_set(self: &CancelFlag) -> bool;

        #[namespace = "tensorrt_llm::executor::kv_cache"]
        type MemoryDesc = crate::desc::Descriptor;
    }

    extern "Rust" {
        fn host_age(factory: &str) -> Result<u8>;
        fn log_error(call: &str, text: &[u8]);

        type SeamAgent;
        fn open_agent(settings: &AgentSettings) -> Result<Box<SeamAgent>>;
        fn shut_down(self: &SeamAgent) -> Result<()>;
        fn close_agent(agent: Box<SeamAgent>) -> Result<()>;
        unsafe fn register_memory(self: &SeamAgent, memory: &Memory) -> Result<()>;
        fn deregister_memory(self: &SeamAgent, memory: &Memory) -> Result<()>;
        fn load_from_blob(self: &SeamAgent, name: &[u8], blob: &[u8]) -> Result<()>;
        fn load_from_connection_info(self: &SeamAgent, name: &[u8], info: &[u8]) -> Result<()>;
        fn invalidate(self: &SeamAgent, name: &[u8]) -> Result<()>;
        fn local_blob(self: &SeamAgent) -> Result<Vec<u8>>;
        fn vram_regions(self: &SeamAgent) -> Result<Vec<VramRegion>>;
        fn connection_info(self: &SeamAgent) -> Result<String>;
        fn submit(self: &SeamAgent, request: &Request) -> Result<Box<SeamTransfer>>;
        fn notify(self: &SeamAgent, peer: &[u8], message: &[u8]) -> Result<()>;
        fn take_notifications(self: &SeamAgent) -> Result<Vec<PeerMessages>>;
        fn check_remote(self: &SeamAgent, name: &[u8], memory: &Memory) -> Result<bool>;

        type SeamTransfer;
        fn state(self: &SeamTransfer) -> Result<u8>;
        fn wait(self: &SeamTransfer, timeout_ms: i64) -> Result<u8>;
        fn release(self: &SeamTransfer) -> Result<bool>;
        fn error_text(self: &SeamTransfer) -> Result<String>;
        fn status_code(self: &SeamTransfer) -> Result<i32>;
        fn close_transfer(transfer: Box<SeamTransfer>) -> Result<()>;

        type SeamConnections;
        fn open_connections() -> Result<Box<SeamConnections>>;
        fn close_connections(connections: Box<SeamConnections>) -> Result<()>;
        fn ranks(self: &SeamConnections) -> Result<Vec<RankAddress>>;
        fn rank(self: &SeamConnections) -> Result<i32>;
        fn connect(self: &SeamConnections, ip: &[u8], port: u16) -> Result<u32>;
        unsafe fn send(
            self: &SeamConnections,
            id: u32,
            tag: i32,
            addr: usize,
            len: usize,
            cancelled: &CancelFlag,
        ) -> Result<()>;
        unsafe fn receive(
            self: &SeamConnections,
            id: u32,
            tag: i32,
            addr: usize,
            len: usize,
            cancelled: &CancelFlag,
        ) -> Result<()>;
        unsafe fn accept(
            self: &SeamConnections,
            tag: i32,
            addr: usize,
            len: usize,
            cancelled: &CancelFlag,
        ) -> Result<Accepted>;
        fn is_open(self: &SeamConnections) -> Result<bool>;

        type SeamLoopback;
        fn open_loopback(name: &[u8]) -> Result<Box<SeamLoopback>>;
        unsafe fn execute(self: &SeamLoopback, memory: &Memory, files: &[File], offload: bool) -> Result<()>;
    }
}

/// An agent, behind the wall.
pub struct SeamAgent(Agent);

/// A transfer, behind the wall.
pub struct SeamTransfer(Transfer);

/// A loopback agent, behind the wall.
pub struct SeamLoopback(LoopbackAgent);

/// Hosts call one agent from several threads; the engine's types have to allow it.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<SeamAgent>();
    shared::<SeamTransfer>();
    shared::<SeamLoopback>();
};

/// The age of the host. The first factory call finds it, starts the log and says both; a refusal is not kept,
/// so that a host may try again with an override.
fn host_age(factory: &str) -> Result<u8, SeamError> {
    static AGE: OnceCell<HostAge> = OnceCell::new();
    guard(Call::HostAge, || {
        let age = AGE.get_or_try_init(|| {
            crate::trace::init(crate::config::process_log_filter().as_deref());
            let facts = host_facts::gather();
            let decision = decide(&facts, crate::config::process_abi_override().as_deref())?;
            announce(factory, &facts, &decision);
            Ok::<_, SeamError>(decision.age)
        })?;
        Ok(*age as u8)
    })
}

/// The one line that tells an operator which library serves which host.
fn announce(factory: &str, facts: &HostFacts, decision: &Decision) {
    let library = host_facts::own_path().unwrap_or_default();
    tracing::info!(
        library = %library.display(),
        version = env!("CARGO_PKG_VERSION"),
        host_age = %decision.age,
        found_by = decision.how,
        host = %facts,
        factory,
        "Baton is loaded"
    );
}

/// Logs what a call failed with where the host expects no exception.
fn log_error(call: &str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    // Nothing to report a panic of the log itself to: it ends here.
    let _ = guard(Call::LogError, || {
        tracing::error!(call, error = %text, "call failed where the host takes no error");
        Ok(())
    });
}

fn open_agent(settings: &AgentSettings<'_>) -> Result<Box<SeamAgent>, SeamError> {
    guard(Call::OpenAgent, || {
        let config = convert::agent_config(settings)?;
        Ok(Box::new(SeamAgent(Agent::new(config).map_err(SeamError::engine)?)))
    })
}

fn close_agent(agent: Box<SeamAgent>) -> Result<(), SeamError> {
    guard(Call::CloseAgent, || {
        agent.0.shutdown();
        drop(agent);
        Ok(())
    })
}

impl SeamAgent {
    fn shut_down(&self) -> Result<(), SeamError> {
        guard(Call::ShutDown, || {
            self.0.shutdown();
            Ok(())
        })
    }

    /// # Safety
    /// The memory stays mapped until it is deregistered: what the host promises with the call.
    unsafe fn register_memory(&self, memory: &Memory<'_>) -> Result<(), SeamError> {
        guard(Call::RegisterMemory, || {
            let list = convert::descriptor_list(memory)?;
            self.0.check_mapped(&list).map_err(SeamError::engine)?;
            // SAFETY: the caller's promise is the callee's.
            unsafe { self.0.register(&list) }.map_err(SeamError::engine)
        })
    }

    fn deregister_memory(&self, memory: &Memory<'_>) -> Result<(), SeamError> {
        guard(Call::DeregisterMemory, || {
            self.0.deregister(&convert::descriptor_list(memory)?);
            Ok(())
        })
    }

    fn load_from_blob(&self, name: &[u8], blob: &[u8]) -> Result<(), SeamError> {
        guard(Call::LoadFromBlob, || self.0.load_blob(peer_name(name)?, blob).map_err(SeamError::engine))
    }

    fn load_from_connection_info(&self, name: &[u8], info: &[u8]) -> Result<(), SeamError> {
        guard(Call::LoadFromConnectionInfo, || {
            let info = convert::text("connection info", info)?;
            self.0.load_from(peer_name(name)?, info).map_err(SeamError::engine)
        })
    }

    fn invalidate(&self, name: &[u8]) -> Result<(), SeamError> {
        guard(Call::Invalidate, || {
            self.0.invalidate(peer_name(name)?);
            Ok(())
        })
    }

    fn local_blob(&self) -> Result<Vec<u8>, SeamError> {
        guard(Call::LocalBlob, || {
            self.0.check_running().map_err(SeamError::engine)?;
            Ok(self.0.local_blob())
        })
    }

    fn vram_regions(&self) -> Result<Vec<VramRegion>, SeamError> {
        guard(Call::VramRegions, || {
            let regions = self.0.vram_regions().map_err(SeamError::engine)?;
            let passed =
                |r: agent::VramRegion| VramRegion { base: r.base, len: r.len, chunk_len: r.chunk_len };
            Ok(regions.into_iter().map(passed).collect())
        })
    }

    fn connection_info(&self) -> Result<String, SeamError> {
        guard(Call::ConnectionInfo, || {
            self.0.check_running().map_err(SeamError::engine)?;
            Ok(self.0.connection_info())
        })
    }

    fn submit(&self, request: &Request<'_>) -> Result<Box<SeamTransfer>, SeamError> {
        guard(Call::Submit, || {
            let request = convert::transfer_request(request)?;
            let transfer = self.0.submit(&request).map_err(SeamError::engine)?;
            Ok(Box::new(SeamTransfer(transfer)))
        })
    }

    fn notify(&self, peer: &[u8], message: &[u8]) -> Result<(), SeamError> {
        guard(Call::Notify, || self.0.notify(peer_name(peer)?, message).map_err(SeamError::engine))
    }

    fn take_notifications(&self) -> Result<Vec<PeerMessages>, SeamError> {
        guard(Call::TakeNotifications, || {
            self.0.check_running().map_err(SeamError::engine)?;
            let of_peer = |(peer, messages): (String, Vec<Vec<u8>>)| PeerMessages {
                peer,
                messages: messages.into_iter().map(|bytes| SyncMessage { bytes }).collect(),
            };
            Ok(self.0.take_notifications().into_iter().map(of_peer).collect())
        })
    }

    fn check_remote(&self, name: &[u8], memory: &Memory<'_>) -> Result<bool, SeamError> {
        guard(Call::CheckRemote, || {
            self.0.check_running().map_err(SeamError::engine)?;
            Ok(self.0.check_remote(peer_name(name)?, &convert::descriptor_list(memory)?))
        })
    }
}

impl SeamTransfer {
    fn state(&self) -> Result<u8, SeamError> {
        guard(Call::State, || Ok(self.0.state() as u8))
    }

    fn wait(&self, timeout_ms: i64) -> Result<u8, SeamError> {
        guard(Call::Wait, || Ok(self.0.wait(convert::timeout(timeout_ms)) as u8))
    }

    fn release(&self) -> Result<bool, SeamError> {
        guard(Call::Release, || Ok(self.0.release()))
    }

    fn error_text(&self) -> Result<String, SeamError> {
        guard(Call::ErrorText, || Ok(self.0.error_text()))
    }

    fn status_code(&self) -> Result<i32, SeamError> {
        guard(Call::StatusCode, || Ok(convert::status_code(&self.0)))
    }
}

fn close_transfer(transfer: Box<SeamTransfer>) -> Result<(), SeamError> {
    guard(Call::CloseTransfer, || {
        drop(transfer);
        Ok(())
    })
}

fn open_loopback(name: &[u8]) -> Result<Box<SeamLoopback>, SeamError> {
    guard(Call::OpenLoopback, || {
        let name = convert::text("agent name", name)?;
        Ok(Box::new(SeamLoopback(LoopbackAgent::new(name, convert::cuda_library()?))))
    })
}

impl SeamLoopback {
    /// # Safety
    /// The memory stays mapped, and writable for a load, until this returns.
    unsafe fn execute(&self, memory: &Memory<'_>, files: &[File], offload: bool) -> Result<(), SeamError> {
        guard(Call::Execute, || {
            let direction = if offload { Direction::Offload } else { Direction::Load };
            let (memory, files) = (convert::descriptor_list(memory)?, convert::file_spans(files));
            // SAFETY: the caller's promise is the callee's.
            Ok(unsafe { self.0.execute(&memory, &files, direction) }?)
        })
    }
}

fn peer_name(name: &[u8]) -> Result<&str, SeamError> {
    convert::text("name of the remote agent", name)
}
