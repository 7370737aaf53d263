//! Where the programs and the library that a subcommand needs lie: flags say so, or they lie where `make install` or a
//! build puts them, seen from this executable.

use std::fs;
use std::path::{self, Path, PathBuf};
use thiserror::Error;

/// Something that a subcommand needs and this executable does not contain.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// For people.
    pub what: &'static str,
    /// The flag that names its place.
    pub flag: &'static str,
    /// What the flag says.
    pub given: Option<&'a PathBuf>,
    /// Places to look at where it says nothing, seen from this executable's folder.
    pub near: &'a [&'a str],
    /// What a place must hold; empty where the place is the file itself.
    pub file: &'a str,
}

/// Something is not there.
#[derive(Debug, Error)]
#[error("{what} was not found (looked at {}); name its place with {flag}", listed(.looked_at))]
pub struct Missing {
    /// For people.
    pub what: &'static str,
    /// The flag that names its place.
    pub flag: &'static str,
    /// Every place that was looked at.
    pub looked_at: Vec<PathBuf>,
}

impl Wanted<'_> {
    /// The first place that has it, made absolute but not resolved: the library is found under the name of the link, in the
    /// link's folder.
    ///
    /// # Errors
    /// None has it.
    pub fn find(&self) -> Result<PathBuf, Missing> {
        let looked_at = self.places();
        let has = |place: &&PathBuf| match self.file {
            "" => place.is_file(),
            file => place.join(file).is_file(),
        };
        let found = looked_at.iter().find(has).and_then(|place| path::absolute(place).ok());
        found.ok_or(Missing { what: self.what, flag: self.flag, looked_at })
    }

    fn places(&self) -> Vec<PathBuf> {
        let Some(given) = self.given else {
            let here = fs::read_link("/proc/self/exe").unwrap_or_default();
            let here = here.parent().unwrap_or(Path::new(""));
            return self.near.iter().map(|folder| here.join(folder)).collect();
        };
        vec![given.clone()]
    }
}

/// Paths for people.
fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Where the library lies, seen from the `baton` executable.
pub const LIBRARY_FOLDERS: &[&str] =
    &[".", "../lib", "../lib64", "../lib/x86_64-linux-gnu", "../lib/aarch64-linux-gnu", "../../build/lib"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_places_and_its_flag() {
        let nowhere = PathBuf::from("/nowhere/h");
        let mut wanted =
            Wanted { what: "the engine host", flag: "--host", given: Some(&nowhere), near: &["."], file: "" };
        assert_eq!(
            wanted.find().unwrap_err().to_string(),
            "the engine host was not found (looked at /nowhere/h); name its place with --host"
        );
        (wanted.given, wanted.near, wanted.file) = (None, &["/nowhere", "/"], "__main__.py");
        let error = wanted.find().unwrap_err().to_string();
        assert!(error.contains("(looked at /nowhere, /); name its place"), "{error}");
    }

    #[test]
    fn the_first_place_that_has_it_is_taken() {
        let file = fs::read_link("/proc/self/exe").expect("procfs is mounted");
        let name = file.file_name().expect("it is a file").to_string_lossy().into_owned();
        let mut wanted =
            Wanted { what: "itself", flag: "--me", given: None, near: &["..", "."], file: &name };
        let folder = wanted.find().expect("it lies beside itself");
        assert_eq!(folder.join(&name).canonicalize().ok(), Some(file.clone()));
        (wanted.given, wanted.file) = (Some(&file), "");
        assert_eq!(wanted.find().ok(), Some(file.clone()));
    }
}
