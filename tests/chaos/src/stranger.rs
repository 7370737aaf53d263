//! What strangers at a listening agent know: its address, from its card; and how long it bears one that says too little.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// `ip:port`, the first line of a card of S1; cards come in hex.
pub fn address_of(card: &str) -> Option<String> {
    let bytes = (0..card.len()).step_by(2).map(|at| u8::from_str_radix(card.get(at..at + 2)?, 16).ok());
    let address: Option<Vec<u8>> = bytes.take_while(|byte| *byte != Some(b'\n')).collect();
    String::from_utf8(address?).ok()
}

/// Waits until a stranger's connection is closed, whatever it is told first; an error where it still lives then.
pub fn await_closed(stranger: &mut TcpStream, limit: Duration) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let left = limit.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        stranger.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        match stranger.read(&mut [0; 4096]) {
            Ok(0) => return Ok(()),
            Ok(_) if began.elapsed() < limit => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            other => {
                let after = began.elapsed();
                return Err(format!("a stranger is still connected after {after:.1?}: {other:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::TcpListener;

    #[test]
    fn an_address_is_the_first_line_of_a_card() {
        assert_eq!(address_of("3132372e302e302e313a37370aff"), Some("127.0.0.1:77".to_owned()));
        assert_eq!(address_of("3"), None);
        assert_eq!(address_of("zz"), None);
    }

    #[test]
    fn a_stranger_that_is_told_something_and_kept_is_still_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stranger = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut kept, _) = listener.accept().unwrap();
        kept.write_all(b"hello").unwrap();
        await_closed(&mut stranger, Duration::from_millis(50)).unwrap_err();
        drop(kept);
        assert_eq!(await_closed(&mut stranger, Duration::from_secs(20)), Ok(()));
    }
}
