//! Tries a lane between two processes: this one and a child of it, each with the engine's own fabric.
//!
//! ```text
//!   baton doctor                                 baton doctor --neighbour-for LANE
//!   start child ------------------------------->  open the fabric
//!      <------------------------------------------ its address
//!   connect, its own address ------------------->  connect
//!   poll until there is an outcome                poll until there is an outcome
//!      <------------------------------------------ its outcome
//!   close its input ---------------------------->  end
//! ```
//!
//! Both directions are proved: the child is an ancestor of nobody, so it needs the same leave as a worker.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use baton::agent::fabrics_of;
use baton::config::{EngineSettings, LaneChoice};
use baton::desc::MemoryKind;
use baton::error::{FabricError, FabricErrorKind};
use baton::fabric::registry::{self, Opened};
use baton::fabric::{Credentials, Fabric, Link, trial};
use rustix::process::{Pid, geteuid, getppid};

/// How a lane came through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Why not.
    pub error: Option<FabricError>,
    /// The library that it opened.
    pub library: Option<String>,
    /// The kinds of memory that it carries.
    pub kinds: &'static [MemoryKind],
}

/// Opens the fabric of one lane as an agent with `settings` would.
pub fn open(lane: &str, settings: &EngineSettings, ip: IpAddr) -> Option<Opened> {
    let lanes = LaneChoice {
        local: lane == "local",
        ucx: lane == "ucx",
        cuda: lane == "cuda",
        stream_unix: lane == "stream-unix",
        stream_tcp: lane == "stream-tcp",
        explicit: true,
    };
    let settings = EngineSettings { lanes, ..settings.clone() };
    registry::open(fabrics_of(&settings, ip)).pop()
}

/// Tries a lane of this host between two processes.
pub fn try_lane(lane: &'static str, settings: &EngineSettings) -> Tried {
    let Some(Opened { outcome, library, .. }) = open(lane, settings, IpAddr::V4(Ipv4Addr::LOCALHOST)) else {
        return Tried { error: Some(failure(lane, "open", "there is no such lane")), ..Tried::default() };
    };
    let kinds = outcome.as_ref().map_or(&[][..], |fabric| fabric.limits().kinds);
    let outcome = outcome.and_then(|mut fabric| link_with_child(lane, &mut *fabric));
    Tried { error: outcome.err(), library, kinds }
}

fn link_with_child(lane: &'static str, fabric: &mut dyn Fabric) -> Result<(), FabricError> {
    let deadline = Instant::now() + LIMIT;
    let broken = |what: &str| failure(lane, "trial", &format!("the process to try it with {what}"));
    let mut neighbour =
        Neighbour::start(lane).map_err(|error| broken(&format!("does not start: {error}")))?;
    let address = neighbour.line(deadline).ok_or_else(|| broken("gave no address"))?;
    if let Some(error) = parse_error(lane, &address) {
        return Err(error);
    }
    let address = unhex(&address).ok_or_else(|| broken("gave an address that is none"))?;
    let own = fabric.address();
    let credentials = Credentials { pid: neighbour.pid(), uid: geteuid().as_raw() };
    // It may ask before our connect gives it the leave it needs under Yama, and then asks again.
    neighbour.tell(&hex(&own)).map_err(|error| broken(&format!("takes no address: {error}")))?;
    trial::link(
        fabric,
        Link { address, link_id: LINK_ID, credentials: Some(credentials), keys: None },
        deadline,
    )?;
    match neighbour.line(deadline) {
        Some(line) if line == OK => Ok(()),
        Some(line) => Err(parse_error(lane, &line).unwrap_or_else(|| broken("gave no outcome"))),
        None => Err(broken("gave no outcome in time")),
    }
}

/// The child's side; its exit code is nobody's concern.
pub fn serve(lane: &str, settings: &EngineSettings) -> ExitCode {
    let say = |line: &str| {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush())
    };
    let outcome = || -> io::Result<()> {
        let opened = open(lane, settings, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut fabric = match opened.map(|opened| opened.outcome) {
            Some(Ok(fabric)) => fabric,
            Some(Err(error)) => return say(&error_line(&error)),
            None => return say("error"),
        };
        say(&hex(&fabric.address()))?;
        let mut input = io::stdin().lock();
        let mut line = String::new();
        input.read_line(&mut line)?;
        let parent = getppid().map_or(0, Pid::as_raw_pid);
        let credentials = Some(Credentials { pid: parent, uid: geteuid().as_raw() });
        let address = unhex(line.trim()).unwrap_or_default();
        let link = Link { address, link_id: LINK_ID, credentials, keys: None };
        match trial::link(&mut *fabric, link, Instant::now() + LIMIT) {
            Ok(()) => say(OK)?,
            Err(error) => say(&error_line(&error))?,
        }
        // The fabric stays open until the other side is done with it.
        line.clear();
        input.read_line(&mut line).map(drop)
    };
    match outcome() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The child; ended when dropped.
struct Neighbour {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Neighbour {
    fn start(lane: &str) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["doctor", NEIGHBOUR_FLAG, lane])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (sender, lines) = mpsc::sync_channel(8);
        if let Some(output) = child.stdout.take() {
            // Ends with the child, which closes the pipe.
            std::thread::spawn(move || {
                let read = BufReader::new(output).lines().map_while(Result::ok);
                read.for_each(|line| drop(sender.send(line)));
            });
        }
        Ok(Self { child, lines })
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    fn line(&self, deadline: Instant) -> Option<String> {
        self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        match &mut self.child.stdin {
            Some(input) => writeln!(input, "{line}").and_then(|()| input.flush()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // It has nothing left to do, whatever state it is in; the kernel cannot fail to end it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failure(fabric: &'static str, call: &'static str, detail: &str) -> FabricError {
    FabricError::new(fabric, call, FabricErrorKind::Internal, 0, detail)
}

/// An outcome on one line: the native code and the text.
fn error_line(error: &FabricError) -> String {
    format!("error {} {}", error.code, error.to_string().replace('\n', " "))
}

fn parse_error(lane: &'static str, line: &str) -> Option<FabricError> {
    let (code, text) = line.strip_prefix("error ")?.split_once(' ')?;
    let detail = format!("in the other process: {text}");
    Some(FabricError::new(lane, "trial", FabricErrorKind::Unsupported, code.parse().ok()?, detail))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The flag that makes a child of this program the other process.
pub const NEIGHBOUR_FLAG: &str = "--neighbour-for";
const OK: &str = "ok";
const LINK_ID: [u8; 16] = *b"baton doctor try";
/// For a child to start, to open UCX and to be proved.
const LIMIT: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_its_line() {
        let error = FabricError::new("local", "process_vm_readv", FabricErrorKind::Unsupported, 1, "a\nb");
        let parsed = parse_error("local", &error_line(&error)).unwrap();
        assert_eq!(parsed.code, 1);
        assert!(parsed.detail.ends_with("unsupported (1): a b"), "{}", parsed.detail);
        assert_eq!(parse_error("local", "0a0b"), None);
    }

    #[test]
    fn addresses_survive_their_line() {
        assert_eq!(unhex(&hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        for text in ["0", "0g", "é"] {
            assert!(unhex(text).is_none() || text == "0", "{text}");
        }
    }
}
