//! A network of our own for one run: two private namespaces, joined by a relay that loses, delays, doubles, damages, resets
//! and limits what passes.
//!
//! ```text
//!   end A: namespace, baton0 10.77.0.1/24  <--TUN-- relay --TUN-->  end B: namespace, baton0 10.77.0.2/24
//! ```
//! Not a simulator: real processes, real kernels' TCP. Nothing has a name outside of this process and those placed
//! inside, so nothing is left behind. Where the machine forbids it, [`Network::new`] says what is missing.

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;

use super::relay::Relay;
use super::space::{Forbidden, Space};
use super::storm::End;

/// See the [module](self).
#[derive(Debug)]
pub struct Network {
    // The relay reads the devices of the spaces: it goes first.
    relay: Relay,
    ends: [Space; 2],
}

impl Network {
    /// Makes a network whose relay draws from `seed`.
    pub fn new(seed: u64, mtu: u32) -> Result<Self, Forbidden> {
        let space = |end| Space::new(address(end), mtu, end as u8 + 1);
        let ends = [space(End::A)?, space(End::B)?];
        let device = |space: &Space| space.tun().try_clone();
        let relay = device(&ends[0])
            .and_then(|a| Relay::start(a, device(&ends[1])?, seed))
            .map_err(|source| Forbidden { what: "starting the relay", source })?;
        Ok(Self { relay, ends })
    }

    /// Makes a command's process start at this end. Once for each time it is spawned.
    pub fn place(&self, end: End, command: &mut Command) -> io::Result<()> {
        self.ends[end as usize].place(command)
    }

    /// Runs `work` at this end, on a thread of its own.
    pub fn within<T: Send>(&self, end: End, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.ends[end as usize].within(work)
    }

    /// Takes an end's device down, or up again.
    pub fn set_link(&self, end: End, up: bool) -> io::Result<()> {
        self.ends[end as usize].set_up(up)
    }

    /// What makes the weather.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }
}

/// The address of an end, inside its namespace.
pub fn address(end: End) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, end as u8 + 1)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::super::storm::{Mark, Reach, Storm};
    use super::super::weather::Weather;
    use super::*;
    use crate::clock::{millis_between, now_ns};

    /// A network, or none where this machine forbids it: then it says so.
    fn network(mtu: u32) -> Option<Network> {
        let made = Network::new(1, mtu);
        made.inspect_err(|forbidden| eprintln!("skipped: {forbidden}")).ok()
    }

    /// A connection from A to B, each end with a deadline.
    fn connection(network: &Network) -> (TcpStream, TcpStream) {
        let listen = || TcpListener::bind((address(End::B), 0)).expect("a port is free in a new namespace");
        let listener = network.within(End::B, listen).expect("the namespace can be entered");
        let to = listener.local_addr().expect("it is bound");
        let dial = || TcpStream::connect_timeout(&to, Duration::from_secs(20)).expect("somebody listens");
        let dialed = network.within(End::A, dial).expect("the namespace can be entered");
        let (accepted, _) = listener.accept().expect("it has been dialed");
        for socket in [&dialed, &accepted] {
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time is valid");
        }
        (dialed, accepted)
    }

    /// Sends `bytes` and holds what arrives against them.
    fn carry(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) {
        let sent: Vec<u8> = (0..bytes).map(|at| (at * 31 / 8) as u8).collect();
        let mut came = vec![0; bytes];
        std::thread::scope(|scope| {
            scope.spawn(|| from.write_all(&sent).expect("the connection lives"));
            to.read_exact(&mut came).expect("all of it comes");
        });
        assert!(came == sent, "{bytes} bytes are the same on both sides");
    }

    #[test]
    fn bytes_cross_in_fair_and_in_rough_weather_at_either_size_of_packet() {
        for mtu in [1500, 65_000] {
            let Some(network) = network(mtu) else { return };
            let (mut a, mut b) = connection(&network);
            carry(&mut a, &mut b, 1 << 20);
            network.relay().storm(Storm { reach: Reach::Both, weather: Weather::ROUGH, lasts: None });
            carry(&mut b, &mut a, 1 << 20);
            assert!(network.relay().tally(End::A).payload_bytes >= 1 << 20);
        }
    }

    #[test]
    fn a_silence_that_ends_only_delays() {
        let Some(network) = network(1500) else { return };
        let (mut a, mut b) = connection(&network);
        let lasts = Some(Duration::from_millis(300));
        let storm = Storm { reach: Reach::From(End::A), weather: Weather::SILENCE, lasts };
        network.relay().storm_at(End::A, Mark::Payload(100_000), storm);
        carry(&mut a, &mut b, 1 << 20);
        let struck = network.relay().await_struck(Instant::now()).expect("more than that has passed");
        assert!(millis_between(struck, now_ns()) >= 300.0);
        assert!(network.relay().tally(End::A).lost > 0);
    }

    #[test]
    fn a_reset_breaks_both_ends() {
        let Some(network) = network(1500) else { return };
        let (mut a, mut b) = connection(&network);
        network.relay().storm(Storm { reach: Reach::Both, weather: Weather::RESET, lasts: None });
        a.write_all(b"x").expect("it goes to the kernel");
        for socket in [&mut a, &mut b] {
            assert_eq!(socket.read(&mut [0; 8]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
        }
        network.relay().clear();
        let (mut a, mut b) = connection(&network);
        carry(&mut a, &mut b, 1000);
    }

    #[test]
    fn a_link_goes_down_and_comes_up_again() {
        let Some(network) = network(1500) else { return };
        let to = (address(End::B), 9).into();
        let dial = || TcpStream::connect_timeout(&to, Duration::from_secs(20));
        let error = || network.within(End::A, dial).expect("it can be entered").expect_err("nobody listens");
        assert_eq!(error().kind(), ErrorKind::ConnectionRefused);
        network.set_link(End::A, false).expect("it is ours");
        assert_eq!(error().kind(), ErrorKind::NetworkUnreachable);
        network.set_link(End::A, true).expect("it is ours");
        assert_eq!(error().kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn the_two_ends_are_two_hosts_to_their_processes_and_nobody_else_is_touched() {
        let Some(network) = network(1500) else { return };
        let mut ids = vec![std::fs::read_to_string(BOOT_ID).expect("the kernel has one")];
        for end in [End::A, End::B] {
            let mut command = Command::new("cat");
            network.place(end, command.args([BOOT_ID, "/proc/net/dev"])).expect("the namespace is open");
            let output = command.output().expect("cat runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("baton0") && output.status.success(), "{text}");
            ids.push(text.lines().next().unwrap_or_default().to_owned());
        }
        ids.push(std::fs::read_to_string(BOOT_ID).expect("the kernel has one"));
        assert_eq!(ids[0], ids[3]);
        assert!(ids[1] != ids[2] && ids[1] != ids[0].trim() && ids[2] != ids[0].trim(), "{ids:?}");
        let ours = std::fs::read_to_string("/proc/net/dev").expect("the kernel has it");
        assert!(!ours.contains("baton0"), "{ours}");
    }

    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
}
