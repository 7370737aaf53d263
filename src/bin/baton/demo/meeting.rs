//! Where the ranks of a phase meet before they serve, as a launcher would tell them: an address on this machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Where each phase meets, for a run whose ranks have to.
#[derive(Clone, Copy, Debug)]
pub struct Meetings {
    /// The context ranks.
    pub context: SocketAddr,
    /// The generation ranks.
    pub generation: SocketAddr,
}

impl Meetings {
    /// Two addresses that nobody listens at.
    ///
    /// # Errors
    /// The system's, where no port can be had.
    pub fn choose() -> io::Result<Meetings> {
        // Both are held until both are known; the ranks bind them soon after.
        let context = listen()?;
        let generation = listen()?;
        Ok(Meetings { context: context.local_addr()?, generation: generation.local_addr()? })
    }
}

/// A listener below the ports that the system hands out by itself, so that no other socket of a rank gets it in the
/// meantime. Demos that run at once begin to look at different places.
fn listen() -> io::Result<TcpListener> {
    let begin = std::process::id() % u32::from(PORTS);
    let ports = (0..PORTS).map(|step| FIRST_PORT + (begin as u16 + step) % PORTS);
    let mut refused = io::ErrorKind::AddrInUse.into();
    for port in ports {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_meet_at_different_places_that_are_free() {
        let Meetings { context, generation } = Meetings::choose().unwrap();
        assert_ne!(context, generation);
        assert!(context.ip().is_loopback() && generation.ip().is_loopback());
        assert!(context.port() < 32_768, "the system hands out the ports from there on");
    }
}
