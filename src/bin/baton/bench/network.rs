//! Two network namespaces joined by a pair of virtual Ethernet devices, for drivers that are to be two hosts to each other.
//!
//! ```text
//!   initiator: namespace, baton0 10.77.0.1/24  <--veth-->  target: namespace, baton0 10.77.0.2/24
//! ```
//! Nothing here has a name outside: a namespace lives as long as the process that keeps it, or a driver inside. The keeper
//! reads its stdin, which only we hold, so that it ends with us, however we end; with it go the namespace and the devices.
//! The programs `unshare`, `nsenter` and `ip` do what takes privileges. `/sys` is mounted anew inside, for UCX looks there
//! for devices.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use thiserror::Error;

/// See the [module](self).
#[derive(Debug)]
pub struct Network {
    initiator: Keeper,
    target: Keeper,
}

/// One end of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Owns the source.
    Initiator,
    /// Owns the destination.
    Target,
}

/// Why this machine has no such network for us.
#[derive(Debug, Error)]
#[error(
    "two network namespaces cannot be had here (it takes root, unshare, nsenter, ip and veth): {step}: {said}"
)]
pub struct Forbidden {
    step: String,
    said: String,
}

impl Network {
    /// Makes both namespaces and joins them.
    ///
    /// # Errors
    /// The machine lacks or forbids something; nothing is left behind then.
    pub fn new() -> Result<Self, Forbidden> {
        let network = Self { initiator: Keeper::start()?, target: Keeper::start()? };
        let there = network.target.child.id().to_string();
        let join = ["link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", there.as_str()];
        network.initiator.ip(&join)?;
        for end in [End::Initiator, End::Target] {
            let keeper = network.keeper(end);
            keeper.ip(&["address", "add", &format!("{}/24", end.address()), "dev", DEVICE])?;
            keeper.ip(&["link", "set", DEVICE, "up"])?;
        }
        Ok(network)
    }

    /// The same command, for a process at this end that finds its address in `BENCH_ADDRESS`.
    pub fn place(&self, end: End, command: &Command) -> Command {
        let mut placed = self.keeper(end).inside();
        placed.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => placed.env(key, value),
                None => placed.env_remove(key),
            };
        }
        placed.env(ADDRESS_VARIABLE, end.address());
        placed
    }

    fn keeper(&self, end: End) -> &Keeper {
        match end {
            End::Initiator => &self.initiator,
            End::Target => &self.target,
        }
    }
}

impl End {
    fn address(self) -> &'static str {
        match self {
            Self::Initiator => "10.77.0.1",
            Self::Target => "10.77.0.2",
        }
    }
}

/// A process that does nothing but be in a namespace of its own.
#[derive(Debug)]
struct Keeper {
    child: Child,
}

impl Keeper {
    fn start() -> Result<Self, Forbidden> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-ec", KEEP]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| forbidden("unshare", error.to_string()))?;
        let mut keeper = Self { child };
        let mut word = String::new();
        let heard = keeper.child.stdout.take().map(|out| BufReader::new(out).read_line(&mut word));
        if matches!(heard, Some(Ok(_))) && word.trim() == INSIDE {
            return Ok(keeper);
        }
        let mut said = String::new();
        keeper.child.stderr.take().map(|err| BufReader::new(err).read_line(&mut said));
        Err(forbidden("unshare --net --mount", said))
    }

    /// What starts a program inside, in the folder that we are in.
    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--wd", "--target", &self.child.id().to_string(), "--"]);
        command
    }

    fn ip(&self, words: &[&str]) -> Result<(), Forbidden> {
        let step = format!("ip {}", words.join(" "));
        let done = self.inside().arg("ip").args(words).stdin(Stdio::null()).output();
        let done = done.map_err(|error| forbidden(&step, error.to_string()))?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() { Ok(()) } else { Err(forbidden(&step, said)) }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.child.kill()); // fails only for one that has ended
        drop(self.child.wait());
    }
}

fn forbidden(step: &str, said: String) -> Forbidden {
    Forbidden { step: step.to_owned(), said: said.trim().to_owned() }
}

/// The device's name at both ends.
pub const DEVICE: &str = "baton0";
/// Where a driver finds the address to use, if it is not loopback's.
const ADDRESS_VARIABLE: &str = "BENCH_ADDRESS";
const INSIDE: &str = "inside";
/// What a keeper does: it says when it is ready, and ends with its stdin.
const KEEP: &str = "mount -t sysfs baton /sys; ip link set lo up; echo inside; exec cat >/dev/null";

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command prints at an end.
    fn heard(network: &Network, end: End, command: &Command) -> String {
        let output = network.place(end, command).output().expect("nsenter has been used before");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn each_end_has_its_address_and_nobody_else_sees_them() {
        let network = match Network::new() {
            Ok(network) => network,
            Err(forbidden) => return eprintln!("skipped: {forbidden}"),
        };
        for (end, address) in [(End::Initiator, "10.77.0.1"), (End::Target, "10.77.0.2")] {
            let mut command = Command::new("sh");
            command.args(["-c", "echo $BENCH_ADDRESS $WORD$HOME; pwd; ip address; ls /sys/class/net"]);
            command.env_remove("HOME");
            let text = heard(&network, end, command.env("WORD", "passed on"));
            let here = std::env::current_dir().expect("it exists");
            assert!(text.starts_with(&format!("{address} passed on\n{}\n", here.display())), "{text}");
            assert!(text.contains(&format!("inet {address}/24")) && text.contains("\nbaton0\n"), "{text}");
        }
        let ours = std::fs::read_to_string("/proc/net/dev").expect("the kernel has it");
        assert!(!ours.contains(DEVICE), "{ours}");
    }

    #[test]
    fn the_namespace_goes_with_its_keeper() {
        let Ok(network) = Network::new() else { return eprintln!("skipped: no network") };
        let place = format!("/proc/{}/ns/net", network.initiator.child.id());
        assert!(std::fs::read_link(&place).is_ok());
        drop(network);
        assert!(std::fs::read_link(&place).is_err());
    }
}
