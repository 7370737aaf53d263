//! Version strings of TensorRT-LLM, and what each release is known to be.
//!
//! The table is the reading of `docs/abi.md`: published headers where there are any, release notes and dates
//! elsewhere. Where those leave a choice the row says so, and the symbols of the running host settle it.

use std::fmt;

use super::age::HostAge;

/// A released version: `1.3.0rc5.post1` and the like, ordered as Python orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    release: [u32; 3],
    candidate: u32,
    post: u32,
}

/// What a release is, as far as its version says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Its virtual functions stand in another order: Baton cannot serve it.
    TooOld,
    /// Published after this table was made.
    Unknown,
    /// Of this age.
    Only(HostAge),
    /// Of the first age, unless a symbol shows the second.
    Likely(HostAge, HostAge),
    /// Of either; a symbol has to tell.
    Either(HostAge, HostAge),
}

impl Version {
    /// Reads a version, without the local part after `+`; `None` for development builds and anything else
    /// that no release was called.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split('+').next().unwrap_or(text).trim();
        let (text, post) = match text.split_once(".post") {
            Some((rest, number)) => (rest, number_of(number)?.checked_add(1)?),
            None => (text, 0),
        };
        let (text, candidate) = match text.split_once("rc") {
            Some((rest, number)) => (rest, number_of(number)?),
            None => (text, FINAL),
        };
        let mut parts = text.split('.');
        let release = [number_of(parts.next()?)?, number_of(parts.next()?)?, number_of(parts.next()?)?];
        parts.next().is_none().then_some(Self { release, candidate, post })
    }

    /// What this release is.
    pub fn reading(self) -> Reading {
        let upto = TABLE.partition_point(|(from, _)| *from <= self);
        upto.checked_sub(1).map_or(Reading::TooOld, |row| TABLE[row].1)
    }
}

impl Reading {
    /// The newest age that it leaves open; `None` where it names none.
    pub fn newest(self) -> Option<HostAge> {
        match self {
            Reading::TooOld | Reading::Unknown => None,
            Reading::Only(age) | Reading::Likely(_, age) | Reading::Either(_, age) => Some(age),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.release;
        write!(f, "{major}.{minor}.{patch}")?;
        if self.candidate != FINAL {
            write!(f, "rc{}", self.candidate)?;
        }
        if self.post > 0 { write!(f, ".post{}", self.post - 1) } else { Ok(()) }
    }
}

/// The oldest host that Baton serves.
pub const OLDEST: Version = rc([1, 2, 0], 2);
/// The newest host that the table knows.
pub const NEWEST: Version = rc([1, 4, 0], 1);

fn number_of(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

const FINAL: u32 = u32::MAX;

const fn rc(release: [u32; 3], candidate: u32) -> Version {
    Version { release, candidate, post: 0 }
}

const fn rc_post(release: [u32; 3], candidate: u32) -> Version {
    Version { release, candidate, post: 1 } // from .post0 on
}

const AFTER_1_2_1: Version = Version { release: [1, 2, 1], candidate: FINAL, post: 1 };

/// First version of each span, ascending.
const TABLE: &[(Version, Reading)] = &[
    // Config of 40 bytes and AgentDesc of 32 in all of P0, P0b and P1; which of the three a release is does
    // not matter on the floor they share. 1.3.0rc0-rc4 may already be P2: the floor is right for them too
    // (it ignores the timeout of `wait`), while P2's longer config would be read past the end of a P1 host's.
    (OLDEST, Reading::Only(HostAge::P0)),
    (AFTER_1_2_1, Reading::Unknown), // the last one of 1.2
    (rc([1, 3, 0], 0), Reading::Only(HostAge::P0)),
    // P2 from the first of these that a P2 host is known to ship (rc5.post1). The dates say that AgentDesc
    // did not grow before rc20; a host that exports AgentDesc::serialize has grown, whatever the date.
    (rc([1, 3, 0], 5), Reading::Likely(HostAge::P2, HostAge::P3)),
    // The two post releases cut from the branch that P3 came from.
    (rc_post([1, 3, 0], 12), Reading::Either(HostAge::P2, HostAge::P3)),
    (rc([1, 3, 0], 13), Reading::Likely(HostAge::P2, HostAge::P3)),
    (rc_post([1, 3, 0], 15), Reading::Either(HostAge::P2, HostAge::P3)),
    (rc([1, 3, 0], 16), Reading::Likely(HostAge::P2, HostAge::P3)),
    (rc([1, 3, 0], 20), Reading::Likely(HostAge::P3, HostAge::P4)),
    // AgentDesc is 56 or 88 bytes here. Writing 56 leaves the host's string unset, writing 88 overwrites
    // what lies behind it: no guess is the safe one.
    (rc([1, 3, 0], 28), Reading::Either(HostAge::P3, HostAge::P4)),
    (rc([1, 3, 0], 30), Reading::Unknown), // rc29 is the last one of 1.3.0
    (rc([1, 4, 0], 0), Reading::Either(HostAge::P3, HostAge::P4)),
    (NEWEST, Reading::Only(HostAge::P4)),
    (rc_post([1, 4, 0], 1), Reading::Unknown),
];

#[cfg(test)]
mod tests {
    use super::*;
    use HostAge::{P0, P2, P3, P4};
    use Reading::{Either, Likely, Only, TooOld, Unknown};

    fn reading(text: &str) -> Reading {
        Version::parse(text).unwrap_or_else(|| panic!("{text} must parse")).reading()
    }

    #[test]
    fn releases_read_as_the_reference_maps_them() {
        for (text, expected) in [
            ("0.20.0", TooOld),
            ("1.1.0", TooOld),
            ("1.2.0rc1", TooOld),
            ("1.2.0rc2", Only(P0)),
            ("1.2.0rc6.post3", Only(P0)),
            ("1.2.0", Only(P0)),
            ("1.2.1", Only(P0)),
            ("1.2.1.post1", Unknown),
            ("1.2.2", Unknown),
            ("1.3.0rc0", Only(P0)),
            ("1.3.0rc4", Only(P0)),
            ("1.3.0rc5.post1", Likely(P2, P3)),
            ("1.3.0rc12", Likely(P2, P3)),
            ("1.3.0rc12.post1", Either(P2, P3)),
            ("1.3.0rc14", Likely(P2, P3)),
            ("1.3.0rc15.post1", Either(P2, P3)),
            ("1.3.0rc19", Likely(P2, P3)),
            ("1.3.0rc20", Likely(P3, P4)),
            ("1.3.0rc27", Likely(P3, P4)),
            ("1.3.0rc28", Either(P3, P4)),
            ("1.3.0rc29", Either(P3, P4)),
            ("1.3.0rc30", Unknown),
            ("1.3.0", Unknown),
            ("1.4.0rc0", Either(P3, P4)),
            ("1.4.0rc1", Only(P4)),
            ("1.4.0rc1+cu130", Only(P4)),
            ("1.4.0rc1.post1", Unknown),
            ("1.4.0rc2", Unknown),
            ("1.4.0", Unknown),
            ("1.5.0", Unknown),
        ] {
            assert_eq!(reading(text), expected, "{text}");
        }
    }

    #[test]
    fn table_ascends() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn odd_versions_do_not_parse() {
        for text in
            ["", "1.2", "1.2.0.1", "1.2.0rc", "1.2.0rc2.dev1", "1.2.x", "v1.2.0", "1.2.0rc99999999999"]
        {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn display_gives_the_string_back() {
        for text in ["1.2.0rc2", "1.2.0", "1.3.0rc5.post1", "1.2.0.post0"] {
            assert_eq!(Version::parse(text).unwrap().to_string(), text);
        }
    }
}
