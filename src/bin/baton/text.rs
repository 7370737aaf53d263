//! Text in and out: files of a bounded size, and lines for whoever still reads them.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write as _};
use std::path::Path;

/// The text of a file of at most `limit` bytes.
///
/// # Errors
/// The system's; a larger file, or one that never ends; bytes that are not UTF-8.
pub fn read(path: &Path, limit: u64) -> io::Result<String> {
    read_from(File::open(path)?, limit)
}

/// [`read`] from what is open already.
///
/// # Errors
/// As [`read`].
pub fn read_from(source: impl Read, limit: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "not UTF-8 text"))
}

/// Prints to standard output; a reader that has gone (`| head`) is no error.
///
/// # Errors
/// The system's, as for a full disk.
pub fn print(text: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// The largest serving configuration that is read.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_or_no_text_is_refused() {
        assert_eq!(read_from(&b"abc"[..], 3).unwrap(), "abc");
        assert_eq!(read_from(io::repeat(b'a'), 3).unwrap_err().to_string(), "larger than 3 bytes");
        assert_eq!(read_from(&b"\xff"[..], 3).unwrap_err().to_string(), "not UTF-8 text");
    }
}
