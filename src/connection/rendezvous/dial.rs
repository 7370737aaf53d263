//! Connects to a host and port that may not be there yet, until a deadline.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::rendezvous::HostPort;

use super::deadline::Deadline;

/// Waits between tries: short at first, then longer, the same for everybody who dials.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Backoff {
    /// Starts with a short wait.
    pub fn new() -> Self {
        Self(FIRST_WAIT)
    }

    /// Waits, at most until `deadline`.
    pub fn wait(&mut self, deadline: Deadline) {
        std::thread::sleep(deadline.left().unwrap_or_default().min(self.0));
        self.0 = (self.0 * 2).min(LONGEST_WAIT);
    }
}

/// Connects as soon as somebody listens. The name is looked up again for each try: it may appear late, too.
///
/// # Errors
/// What came of the last try, once the deadline has passed.
pub fn dial(place: &HostPort, deadline: Deadline) -> Result<TcpStream, String> {
    let mut backoff = Backoff::new();
    let mut reason = "there was no time".to_owned();
    while deadline.left().is_some() {
        match once(place, deadline) {
            Ok(stream) => return Ok(stream),
            Err(error) => reason = error.to_string(),
        }
        backoff.wait(deadline);
    }
    Err(reason)
}

/// What the name stands for.
pub fn resolve(place: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = (place.host.as_str(), place.port).to_socket_addrs()?.collect();
    if found.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(found) }
}

fn once(place: &HostPort, deadline: Deadline) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for address in resolve(place)? {
        let Some(left) = deadline.left() else { break };
        match TcpStream::connect_timeout(&address, left.min(ONE_TRY)) {
            // A free port of this host that is dialled again and again ends up connected to itself.
            Ok(stream) if stream.local_addr()? == stream.peer_addr()? => {
                last = io::Error::from(io::ErrorKind::ConnectionRefused);
            }
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// Long enough for a lost first packet or two.
const ONE_TRY: Duration = Duration::from_secs(5);
