//! Reads `ld.so.cache`, the list of libraries that `ldconfig` keeps for the dynamic loader.
//!
//! The format is glibc's 1.1 (2.2 and later): a header of 48 bytes, entries of 24, then their texts, which the entries
//! name by their offset from the header's start. Total: bytes that make no sense give fewer entries.

use std::path::PathBuf;

/// Names and files of the libraries for this processor, in the loader's order.
pub fn parse(bytes: &[u8]) -> Vec<(String, PathBuf)> {
    // An older table may stand in front of this one.
    let Some(start) = bytes.windows(MAGIC.len()).position(|window| window == MAGIC) else {
        return Vec::new();
    };
    let table = &bytes[start..];
    let count = number(table, MAGIC.len()).unwrap_or(0) as usize;
    let entries = table.get(HEADER_BYTES..).unwrap_or_default().chunks_exact(ENTRY_BYTES).take(count);
    entries.filter_map(|entry| library(table, entry)).collect()
}

fn library(table: &[u8], entry: &[u8]) -> Option<(String, PathBuf)> {
    if number(entry, 0)? != X86_64_LIBC6 {
        return None;
    }
    let name = text(table, number(entry, 4)?)?;
    let path = text(table, number(entry, 8)?)?;
    Some((name.to_owned(), PathBuf::from(path)))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn text(table: &[u8], at: u32) -> Option<&str> {
    let bytes = table.get(usize::try_from(at).ok()?..)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    str::from_utf8(&bytes[..end]).ok()
}

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 24;
/// `FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`.
const X86_64_LIBC6: u32 = 0x0303;

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(u32, &str, &str)]) -> Vec<u8> {
        let mut texts = Vec::new();
        let mut table = MAGIC.to_vec();
        table.extend((entries.len() as u32).to_le_bytes());
        table.resize(HEADER_BYTES, 0);
        let first = HEADER_BYTES + entries.len() * ENTRY_BYTES;
        for (flags, name, path) in entries {
            let mut put = |text: &str| {
                let at = (first + texts.len()) as u32;
                texts.extend(text.bytes().chain([0]));
                at
            };
            for word in [*flags, put(name), put(path), 0, 0, 0] {
                table.extend(word.to_le_bytes());
            }
        }
        table.extend(texts);
        table
    }

    #[test]
    fn entries_for_this_processor_are_read() {
        let bytes = cache(&[(0x0303, "liba.so", "/lib/liba.so"), (0x0803, "liba.so", "/lib32/liba.so")]);
        assert_eq!(parse(&bytes), [("liba.so".to_owned(), PathBuf::from("/lib/liba.so"))]);
        let behind_an_old_table = [b"ld.so-1.7.0".as_slice(), &bytes].concat();
        assert_eq!(parse(&behind_an_old_table).len(), 1);
    }

    #[test]
    fn every_cut_is_survived() {
        let bytes = cache(&[(0x0303, "liba.so", "/lib/liba.so")]);
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).is_empty(), "{end}");
        }
        let mut endless = bytes;
        endless[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(parse(&endless).len() <= 2);
    }
}
