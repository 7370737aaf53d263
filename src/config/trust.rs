//! The shared key: which file holds it (`BATON_PSK_FILE`), and whether that file may be used.
//!
//! Read once, when settings are parsed. What is in the file never comes into a text, an error's included.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::environment::{Environment, SettingError};
use crate::trust::Secret;

/// The key that the environment names, `None` where it names none.
///
/// # Errors
/// A file that is missing, that others than its owner may read, or that holds no key.
pub fn secret(environment: &Environment) -> Result<Option<Arc<Secret>>, SettingError> {
    let Some(path) = environment.setting(VARIABLE)? else { return Ok(None) };
    let unusable = |why: String| SettingError::unusable(VARIABLE, path, why);
    let mut file = open(path)
        .map_err(|error| unusable(format!("it cannot be opened ({error}): {}", way_out(error.kind()))))?;
    check(&file).map_err(unusable)?;
    let mut room = Zeroizing::new([0; ROOM_BYTES]);
    let len =
        fill(&mut file, &mut *room).map_err(|error| unusable(format!("it cannot be read ({error})")))?;
    match Secret::parse(&room[..len]) {
        Ok(secret) => Ok(Some(Arc::new(secret))),
        Err(error) => Err(unusable(format!("{error}: {MAKE_ONE}"))),
    }
}

/// What to do about a file that cannot be opened.
fn way_out(error: io::ErrorKind) -> String {
    match error {
        io::ErrorKind::NotFound => MAKE_ONE.to_owned(),
        io::ErrorKind::PermissionDenied => {
            format!(
                "let it belong to uid {}, as which this process runs",
                rustix::process::geteuid().as_raw()
            )
        }
        _ => "name the file that holds the key".to_owned(),
    }
}

/// Nothing but a file is opened: opening a device may already do something, and a pipe would wait.
fn open(path: &str) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Whether the open file may hold a key: asked of the file, not of the path, which may come to mean another one.
fn check(file: &File) -> Result<(), String> {
    let metadata = file.metadata().map_err(|error| format!("its mode cannot be seen ({error})"))?;
    if !metadata.is_file() {
        return Err("it is no regular file: name the file that holds the key".to_owned());
    }
    let (own, owner) = (rustix::process::geteuid().as_raw(), metadata.uid());
    if owner != own && owner != 0 {
        return Err(format!(
            "it belongs to uid {owner} and this process runs as uid {own}: make it your own"
        ));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "its mode is {mode:03o}, so others than its owner can get at the key: chmod 600 it"
        ));
    }
    Ok(())
}

/// Reads until the file or the room ends.
fn fill(file: &mut File, room: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < room.len() {
        match file.read(&mut room[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

const VARIABLE: &str = "BATON_PSK_FILE";
const MAKE_ONE: &str =
    "make a key with `(umask 077; openssl rand -hex 32 > FILE)` and copy that file to every host";
/// More than a key has, so that one that is too long is seen to be.
const ROOM_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    const KEY: &str = "00112233445566778899aabbccddeeffffeeddccbbaa99887766554433221100";

    /// A file that goes with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, text: &str, mode: u32) -> Self {
            let path = std::env::temp_dir().join(format!("baton-key-{}-{name}", std::process::id()));
            std::fs::write(&path, text).expect("a scratch file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
            Self(path)
        }

        fn secret(&self) -> Result<Option<Arc<Secret>>, String> {
            of(self.0.to_str().expect("UTF-8"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn of(path: &str) -> Result<Option<Arc<Secret>>, String> {
        secret(&Environment::from_map([(VARIABLE, path)])).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_of_ones_own_is_read() {
        for (name, mode, end) in [("rw", 0o600, "\n"), ("r", 0o400, "")] {
            let file = Scratch::new(name, &format!("{KEY}{end}"), mode);
            let expected = Secret::parse(KEY.as_bytes()).expect("a key");
            assert_eq!(file.secret(), Ok(Some(Arc::new(expected))));
        }
        assert_eq!(secret(&Environment::default()), Ok(None));
        assert_eq!(of(" "), Ok(None), "an empty setting is none");
    }

    #[test]
    fn every_refusal_says_what_to_do_and_shows_no_key() {
        let refused = |name: &str, text: &str, mode, expected: &str| {
            let file = Scratch::new(name, text, mode);
            let error = file.secret().expect_err(name);
            assert!(error.starts_with("BATON_PSK_FILE=\"") && error.contains(expected), "{name}: {error}");
            assert!(!error.contains(&KEY[..8]), "{name}: {error}");
        };
        refused(
            "group",
            KEY,
            0o640,
            "its mode is 640, so others than its owner can get at the key: chmod 600 it",
        );
        refused("world", KEY, 0o604, "chmod 600");
        refused("writable", KEY, 0o620, "chmod 600");
        refused("empty", "", 0o600, "it is empty: make a key with `(umask 077; openssl rand -hex 32");
        refused("short", &KEY[..40], 0o600, "it holds 40 characters, a key is 64 hex digits");
        refused("long", &KEY.repeat(100), 0o600, "it holds 256 characters");
        refused("words", &format!("{}zz", &KEY[..62]), 0o600, "character 63 is no hex digit");
        refused("zeroes", &"0".repeat(64), 0o600, "all of its bytes are the same");
    }

    #[test]
    fn what_is_no_file_is_named() {
        let missing = of("/nonexistent/baton.key").expect_err("no file");
        assert!(
            missing.contains("it cannot be opened (No such file") && missing.contains("openssl rand"),
            "{missing}"
        );
        let folder = of("/").expect_err("a folder");
        assert!(folder.contains("it is no regular file"), "{folder}");
        assert!(of("/dev/zero").expect_err("a device").contains("it is no regular file"));
    }
}
