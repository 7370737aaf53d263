//! What the process around the engine does: it is forked, and it has signals.
//!
//! * **Fork.** A forked child has copies of an agent's sockets and memory, none of its threads, and its locks as they
//!   happened to be. Nothing of an agent may be touched there: a [`Home`] says where one is, every entry asks it first,
//!   and what would be cleaned up is left alone. The C library's fork handlers tell; a raw `clone` escapes them.
//! * **Signals.** Our threads take none that is sent to the process: those are the host's, and a host that is profiled or
//!   that has children gets a thousand a second. What a fault of the thread itself raises stays unblocked, for the
//!   host's crash handler.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use once_cell::sync::OnceCell;

/// The process that something was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    forks: u32,
}

/// Forks between the first process that asked and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

impl Home {
    /// This process.
    pub fn here() -> io::Result<Self> {
        static WATCHED: OnceCell<()> = OnceCell::new();
        // SAFETY: `in_child` may run in a child of a process with several threads: it does one atomic addition. The
        // library that it is in is never unloaded (linked with `-z nodelete`).
        WATCHED.get_or_try_init(|| match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        })?;
        Ok(Self { forks: FORKS.load(Ordering::Relaxed) })
    }

    /// Whether this is the same process still, and not a child that was forked from it. One atomic load.
    pub fn is_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.forks
    }
}

unsafe extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Starts a thread of ours.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // A thread starts with the mask of the one that starts it: nothing can come in between.
    let mask = Mask::block_all_sent()?;
    let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
    drop(mask);
    spawned
}

/// The signal mask that this thread had, which it gets back.
struct Mask(libc::sigset_t);

/// What a thread raises itself, by a fault: blocked, it would end the process without the host's handler.
const RAISED: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS];

impl Mask {
    fn block_all_sent() -> io::Result<Self> {
        let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both sets are writable; the first is filled before anything is taken out of it or it is read, the
        // second is written by a call that is checked before it is read.
        unsafe {
            libc::sigfillset(blocked.as_mut_ptr());
            for signal in RAISED {
                libc::sigdelset(blocked.as_mut_ptr(), signal);
            }
            match libc::pthread_sigmask(libc::SIG_SETMASK, blocked.as_ptr(), before.as_mut_ptr()) {
                0 => Ok(Self(before.assume_init())),
                code => Err(io::Error::from_raw_os_error(code)),
            }
        }
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        // SAFETY: the set is the one that the kernel gave us. It cannot fail with arguments like these.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blocked signals of the calling thread, as the kernel shows them.
    fn blocked() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("proc");
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a mask");
        u64::from_str_radix(line.trim(), 16).expect("hex")
    }

    #[test]
    fn our_threads_take_no_signal_and_their_starter_takes_what_it_took() {
        let before = blocked();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = spawn("baton-test", move || sender.send(blocked()).expect("heard")).expect("a thread");
        let seen = receiver.recv().expect("said");
        thread.join().expect("no panic");
        for signal in
            [libc::SIGPROF, libc::SIGCHLD, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGALRM]
        {
            assert_ne!(seen & 1 << (signal - 1), 0, "signal {signal} would interrupt it");
        }
        for signal in RAISED {
            assert_eq!(seen & 1 << (signal - 1), 0, "the host's handler of {signal} would not run");
        }
        assert_eq!(blocked(), before);
    }
}
