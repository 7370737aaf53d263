//! The host's `version.py`, found beside its library. It is read as text, never run.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The package's `version.py`, one folder above that of `library`, and what it says.
pub fn version_beside(library: &Path) -> (PathBuf, Option<String>) {
    let beside = |path: &Path| Some(path.parent()?.parent()?.join("version.py"));
    let real = std::fs::canonicalize(library).ok();
    let files: Vec<_> = [Some(library), real.as_deref()].into_iter().flatten().filter_map(beside).collect();
    for file in &files {
        if let Some(version) = read_version(file) {
            return (file.clone(), Some(version));
        }
    }
    (files.into_iter().next().unwrap_or_else(|| PathBuf::from("version.py")), None)
}

fn read_version(file: &Path) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(file).ok()?.take(VERSION_FILE_MAX_BYTES).read_to_string(&mut text).ok()?;
    version_in(&text)
}

/// Enough for a licence header and one assignment.
const VERSION_FILE_MAX_BYTES: u64 = 64 * 1024;

/// The string that `__version__` is assigned.
fn version_in(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.trim_start().strip_prefix("__version__"))?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    let (version, _) = value[1..].split_once(quote)?;
    (!version.is_empty()).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_an_assignment() {
        for (text, expected) in [
            ("# Copyright\n__version__ = \"1.4.0rc1\"\n", Some("1.4.0rc1")),
            ("__version__='1.2.0'  # set by CI", Some("1.2.0")),
            ("__version__ = version()", None),
            ("__version__ = \"", None),
            ("__version__ = \"\"", None),
            ("", None),
        ] {
            assert_eq!(version_in(text).as_deref(), expected, "{text:?}");
        }
    }
}
