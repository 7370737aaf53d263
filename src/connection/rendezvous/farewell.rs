//! Rank 0's last word to all: to every connection its bytes, then wait until each has hung up.
//!
//! The wait makes sure that nobody's answer is lost with the listener's process. Bounded as a whole: one connection
//! that does not read costs the others nothing.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::deadline::Deadline;

/// A connection, what it is told, and how much of that has been said.
struct Told {
    stream: TcpStream,
    words: Arc<[u8]>,
    said: usize,
}

/// Says to each what is its; the number of connections that had not taken it and hung up within `limit`.
pub fn tell_all(all: Vec<(TcpStream, Arc<[u8]>)>, limit: Duration) -> usize {
    let deadline = Deadline::after(limit);
    let mut open: Vec<Told> =
        all.into_iter().map(|(stream, words)| Told { stream, words, said: 0 }).collect();
    let mut lost = 0;
    while !open.is_empty() {
        let Some(left) = deadline.left() else { break };
        if wait(&open, left).is_err() {
            break;
        }
        open.retain_mut(|told| match advance(&mut told.stream, &told.words, &mut told.said) {
            Ok(done) => !done,
            Err(_) => {
                lost += usize::from(told.said < told.words.len());
                false
            }
        });
    }
    open.len() + lost
}

fn wait(open: &[Told], limit: Duration) -> io::Result<()> {
    let wanted = |told: &Told| match told.said < told.words.len() {
        true => PollFlags::IN | PollFlags::OUT,
        false => PollFlags::IN,
    };
    let mut fds: Vec<PollFd<'_>> = open.iter().map(|told| PollFd::new(&told.stream, wanted(told))).collect();
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut fds, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes and reads what goes at once; true when the other has hung up and nothing is left to say.
fn advance(stream: &mut TcpStream, frame: &[u8], said: &mut usize) -> io::Result<bool> {
    while *said < frame.len() {
        match stream.write(&frame[*said..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *said += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    let mut unread = [0; 1024];
    match stream.read(&mut unread) {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// More than the buffers of a socket hold.
    const LARGE: usize = 16 << 20;

    #[test]
    fn one_that_does_not_read_costs_the_others_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let deaf = TcpStream::connect(address).unwrap();
        let reader = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut all = vec![0; LARGE];
            stream.read_exact(&mut all).map(|()| all)
        });
        let streams: Vec<TcpStream> = (0..2).map(|_| listener.accept().unwrap().0).collect();
        streams.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
        let frame: Arc<[u8]> = (0..LARGE).map(|index| ((index * 31) >> 3) as u8).collect();
        let all = streams.into_iter().map(|stream| (stream, Arc::clone(&frame))).collect();
        let left = tell_all(all, Duration::from_secs(3));
        assert_eq!(left, 1);
        assert!(reader.join().unwrap().unwrap()[..] == frame[..]);
        drop(deaf);
    }
}
