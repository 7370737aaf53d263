//! A host that forks while connections are open: the child is refused, the parent goes on.

use baton::connection::{Connections, Tag};

use super::pair::{Lane, Memory, Pair, never, within};

const TAG: Tag = Tag(52);

#[test]
fn a_forked_child_is_refused_and_its_parent_unharmed() {
    let Pair { requester, acceptor, out, back } = Pair::new(Lane::Local);
    let (from, to) = (Memory::patterned(300_000, 1), Memory::filled(300_000, 0));
    // SAFETY: the child uses what it has got in ways that are refused, and ends by _exit or by a clock.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no memory is involved.
            unsafe { libc::alarm(20) };
            let good = is_refused(&requester, || requester.send(out, TAG, from.buffer(), &never).err())
                && is_refused(&acceptor, || acceptor.receive(back, TAG, to.buffer(), &never).err())
                && requester.connect(acceptor.ranks()[0]).is_err_and(|error| says_so(&error.to_string()));
            // SAFETY: this process ends without looking at either again.
            unsafe {
                drop(std::ptr::read(&raw const requester));
                drop(std::ptr::read(&raw const acceptor));
                libc::_exit(i32::from(!good))
            }
        }
        child => {
            let mut status = 0;
            // SAFETY: `status` is writable; the child is ours.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child, "forked");
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        }
    }
    within("a message of the parent's", || {
        std::thread::scope(|scope| {
            scope.spawn(|| requester.send(out, TAG, from.buffer(), &never).expect("sent"));
            acceptor.receive(back, TAG, to.buffer(), &never).expect("received");
        });
    });
    assert_eq!(from.bytes(), to.bytes());
}

fn is_refused<E: std::fmt::Display>(connections: &Connections, call: impl Fn() -> Option<E>) -> bool {
    !connections.is_open() && call().is_some_and(|error| says_so(&error.to_string()))
}

fn says_so(text: &str) -> bool {
    text.contains("a forked child cannot use it")
}
