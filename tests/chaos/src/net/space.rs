//! One end of a private network: a network namespace with a TUN device in it, and the way into it for processes and threads
//! of ours. The only unsafe of the network: an ioctl per setting, and the hook between fork and exec.
//!
//! Nothing here has a name outside: a namespace lives as long as a descriptor of ours or a process inside, the device
//! as long as its descriptor. Processes placed here have a boot id of their own too, by a mount that only they see, so that
//! two ends look like two hosts to whoever asks.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// The device's name, the same in every namespace.
pub const DEVICE: &str = "baton0";
const TUN: &CStr = c"/dev/net/tun";
const BOOT_ID: &CStr = c"/proc/sys/kernel/random/boot_id";
/// What an end has in its place; the first digit tells the ends apart.
const BOOT_ID_TEXT: &[u8; 37] = b"0ba70000-0000-4000-8000-000000000000\n";
/// A folder that every machine has, covered for the moment it takes to make a file.
const WORKBENCH: &CStr = c"/tmp";
const WORKBENCH_FILE: &CStr = c"/tmp/boot_id";

/// Why no network can be had here.
#[derive(Debug, thiserror::Error)]
#[error("this machine forbids {what}: {source}")]
pub struct Forbidden {
    /// What is missing.
    pub what: &'static str,
    /// The kernel's word.
    pub source: io::Error,
}

impl Forbidden {
    /// Whether the machine lacks it or does not allow it; else something is wrong with us.
    pub fn is_the_machines(&self) -> bool {
        let code = self.source.raw_os_error();
        code.is_some_and(|code| [libc::EPERM, libc::EACCES, libc::ENOENT, libc::ENODEV].contains(&code))
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Space {
    namespace: OwnedFd,
    tun: OwnedFd,
    boot_id: [u8; BOOT_ID_TEXT.len()],
}

impl Space {
    /// A new namespace with `address/24` on a TUN device, its loopback up. `host` tells the boot ids apart.
    pub fn new(address: Ipv4Addr, mtu: u32, host: u8) -> Result<Self, Forbidden> {
        let (namespace, tun) = on_a_thread_of_its_own(|| {
            // SAFETY: this thread was started for this, shares no descriptor table or working folder that CLONE_NEWNET would
            // part, and ends right after.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(forbidden("a network namespace (unshare)"))?;
            let namespace =
                rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(forbidden("opening the namespace"))?;
            let tun = open_tun().map_err(forbidden("a TUN device (/dev/net/tun)"))?;
            configure(address, mtu).map_err(forbidden("setting up the TUN device"))?;
            Ok((namespace, tun))
        })?;
        let mut boot_id = *BOOT_ID_TEXT;
        boot_id[0] = b'0' + host % 10;
        Ok(Self { namespace, tun, boot_id })
    }

    /// The TUN device: a packet per read and write, non-blocking.
    pub fn tun(&self) -> &OwnedFd {
        &self.tun
    }

    /// Makes a command's process start in this namespace, with the boot id of this end.
    pub fn place(&self, command: &mut Command) -> io::Result<()> {
        let (namespace, boot_id) = (self.namespace.try_clone()?, self.boot_id);
        let enter = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            // SAFETY: between fork and exec there is one thread, and what it parts from its parent's mounts is its own.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
            Ok(change_boot_id(&boot_id)?)
        };
        // SAFETY: the hook makes system calls and nothing else: every path is a constant with its final zero, so nothing
        // allocates, locks or touches memory of other threads.
        unsafe { command.pre_exec(enter) };
        Ok(())
    }

    /// Runs `work` on a thread inside this namespace, and waits for it.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread_of_its_own(|| {
            move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })
    }

    /// Sets the device up or down, as pulling its cable would.
    pub fn set_up(&self, up: bool) -> io::Result<()> {
        self.within(|| Settings::of(DEVICE)?.set_up(up))?
    }
}

fn forbidden<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Forbidden {
    move |error| Forbidden { what, source: error.into() }
}

/// Mounts another boot id over the kernel's, in this process's own mounts. The file is in a file system that has no name
/// once it is done.
fn change_boot_id(boot_id: &[u8]) -> rustix::io::Result<()> {
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount(c"none", WORKBENCH, c"tmpfs", MountFlags::empty(), None)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(WORKBENCH_FILE, flags, Mode::from_raw_mode(0o444))?;
    rustix::io::write(&file, boot_id)?;
    mount_bind(WORKBENCH_FILE, BOOT_ID)?;
    unmount(WORKBENCH, UnmountFlags::DETACH)
}

/// Threads have their own network namespace, so that of the caller stays as it is.
fn on_a_thread_of_its_own<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn open_tun() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tun = rustix::fs::open(TUN, flags, Mode::empty())?;
    let mut request = request(DEVICE);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which is ours, and keeps no pointer to it; the descriptor is open.
    let rc = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(tun) }
}

fn configure(address: Ipv4Addr, mtu: u32) -> io::Result<()> {
    Settings::of("lo")?.set_up(true)?;
    let device = Settings::of(DEVICE)?;
    device.set_address(libc::SIOCSIFADDR as _, address)?;
    device.set_address(libc::SIOCSIFNETMASK as _, Ipv4Addr::new(255, 255, 255, 0))?;
    device.set_mtu(mtu)?;
    device.set_up(true)
}

/// The settings of one device of this thread's namespace.
struct Settings {
    device: &'static str,
    socket: OwnedFd,
}

impl Settings {
    fn of(device: &'static str) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Self { device, socket })
    }

    fn set_address(&self, which: libc::Ioctl, address: Ipv4Addr) -> io::Result<()> {
        let mut request = request(self.device);
        let mut bytes = [0; 14]; // port, which does not count, and address
        bytes[2..6].copy_from_slice(&address.octets());
        let sa_data = bytes.map(|byte| byte as libc::c_char);
        request.ifr_ifru.ifru_addr =
            libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data };
        self.ask(which, &mut request)
    }

    fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        let mut request = request(self.device);
        request.ifr_ifru.ifru_mtu = mtu as libc::c_int;
        self.ask(libc::SIOCSIFMTU as _, &mut request)
    }

    fn set_up(&self, up: bool) -> io::Result<()> {
        let mut request = request(self.device);
        self.ask(libc::SIOCGIFFLAGS as _, &mut request)?;
        let flag = libc::IFF_UP as libc::c_short;
        // SAFETY: SIOCGIFFLAGS has just filled in this member of the union, an integer.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = if up { flags | flag } else { flags & !flag };
        self.ask(libc::SIOCSIFFLAGS as _, &mut request)
    }

    fn ask(&self, which: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: each of the requests used here reads or writes one ifreq, which outlives the call; the socket is open.
        let rc = unsafe { libc::ioctl(self.socket.as_raw_fd(), which, &raw mut *request) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// An empty request about a device. Names here are short constants.
fn request(device: &str) -> libc::ifreq {
    // SAFETY: ifreq is integers and arrays of them, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = byte as libc::c_char;
    }
    request
}
