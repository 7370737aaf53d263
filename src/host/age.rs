//! Which age of TensorRT-LLM this process runs: a pure decision over facts that others gather.
//!
//! One library serves every age from 1.2.0rc2 on, and the ages differ in what a call may write and read in the
//! host's memory. A wrong guess corrupts the host, so nothing here guesses: the override wins, then the version
//! string, then the marker symbols; what is left undecided is refused with an error that names what was found.
//!
//! ```text
//!   age   AgentDesc   config read to   wait()
//!   P0     32 bytes    +34              void or state; our side throws on failure   (P0b and P1 alike)
//!   P2     32          +96              state, timeout in ms
//!   P3     56          +96              state, timeout in ms
//!   P4     88          all (176)        state, timeout in ms
//! ```
//!
//! What the evidence weighs:
//! * a version is believed unless a symbol proves it wrong: a *present* symbol is proof (it exists only where
//!   AgentDesc has grown), an absent one is a hint, for it may only be spelled otherwise;
//! * between P3 and P4 both wrong answers are fatal (56 bytes leave the host's third member unset, 88 overwrite
//!   what lies behind), so there a symbol has to decide, and the constructor of the host's
//!   AgentConnectionManager is the one that differs.

use std::fmt;

use thiserror::Error;

use super::version::{NEWEST, OLDEST, Reading, Version};

/// An age of the seam: a span of TensorRT-LLM releases with the same layouts. Values are those of `HostAge` in
/// `cpp/abi/provider.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum HostAge {
    /// 1.2.0rc2 on; P0b and P1 share its layouts.
    P0 = 0,
    /// As P0 for us; a name for those who know their host by it.
    P1 = 1,
    /// Config with backend parameters; `wait` with a timeout.
    P2 = 2,
    /// AgentDesc with GPU regions.
    P3 = 3,
    /// AgentDesc with a bounce handshake.
    P4 = 4,
}

impl HostAge {
    /// The age that `p0` to `p4` names.
    pub fn from_override(text: &str) -> Option<Self> {
        Some(match text {
            "p0" => Self::P0,
            "p1" => Self::P1,
            "p2" => Self::P2,
            "p3" => Self::P3,
            "p4" => Self::P4,
            _ => return None,
        })
    }
}

impl fmt::Display for HostAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{}", *self as u8)
    }
}

/// Symbols of the host that tell its age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Markers {
    /// `AgentDesc::serialize`, or the later `promoteHostLibraryToGlobalScope`: P3 and later.
    pub agent_desc_grew: bool,
    /// The AgentConnectionManager constructor that ends with the RNN state: before P4.
    pub manager_before_p4: bool,
    /// The AgentConnectionManager constructor that goes on with a size and a map: P4.
    pub manager_of_p4: bool,
}

/// What was found in the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Path of the host's `libtensorrt_llm.so`.
    pub library: Option<String>,
    /// Where the version was looked for.
    pub version_file: Option<String>,
    /// What it said.
    pub version: Option<String>,
    /// The symbols; `None` where the library could not be asked.
    pub markers: Option<Markers>,
}

/// A decided age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The age.
    pub age: HostAge,
    /// How it was found, for the log.
    pub how: String,
}

/// Why the host is refused, what was found, what to do.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HostAgeError {
    /// The override is not an age.
    #[error("BATON_TRTLLM_ABI={0} names no host age: use one of p0, p1, p2, p3, p4")]
    BadOverride(String),
    /// The host cannot be served, or cannot be told.
    #[error(
        "{reason}; found: {found}; if you know its age, set BATON_TRTLLM_ABI=p0|p1|p2|p3|p4 \
         (docs/abi.md lists the releases of each age)"
    )]
    Refused {
        /// Why.
        reason: String,
        /// The facts.
        found: String,
    },
}

/// Decides the age of the host from what was found; `forced` is the value of `BATON_TRTLLM_ABI`.
pub fn decide(facts: &HostFacts, forced: Option<&str>) -> Result<Decision, HostAgeError> {
    if let Some(text) = forced {
        let age = HostAge::from_override(text).ok_or_else(|| HostAgeError::BadOverride(text.to_owned()))?;
        return Ok(Decision { age, how: format!("BATON_TRTLLM_ABI={text}") });
    }
    let refused = |reason| HostAgeError::Refused { reason, found: facts.to_string() };
    match &facts.version {
        Some(text) => decide_by_version(text, facts.markers).map_err(refused),
        None => decide_by_markers(facts.markers).map_err(refused),
    }
}

fn decide_by_version(text: &str, markers: Option<Markers>) -> Result<Decision, String> {
    let version = Version::parse(text)
        .ok_or_else(|| format!("TensorRT-LLM {text} is not a release that Baton knows"))?;
    let seen = markers.unwrap_or_default();
    let by_version = |age| Ok(Decision { age, how: format!("version {version}") });
    let by_symbol = |age| Ok(Decision { age, how: format!("version {version} and its marker symbols") });
    let reading = version.reading();
    if let (Some(newest), Some(shown)) = (reading.newest(), seen.newest())
        && shown > newest
    {
        return Err(format!(
            "TensorRT-LLM {version} should be of age {newest} at most, but its symbols are those of {shown} or later"
        ));
    }
    match reading {
        Reading::TooOld => Err(format!(
            "TensorRT-LLM {version} is older than {OLDEST}, the first with this order of virtual functions"
        )),
        Reading::Unknown => Err(format!(
            "TensorRT-LLM {version} is newer than {NEWEST} or unpublished: Baton does not know its layouts"
        )),
        Reading::Only(age) if seen.denies(age) => Err(format!(
            "TensorRT-LLM {version} should be of age {age}, but its symbols are those of an older one"
        )),
        Reading::Only(age) => by_version(age),
        Reading::Likely(_, other) if seen.shows(other) => by_symbol(other),
        Reading::Likely(age, _) => by_version(age),
        Reading::Either(_, newer) if seen.shows(newer) => by_symbol(newer),
        Reading::Either(older, newer) if markers.is_some_and(|seen| seen.denies(newer)) => {
            debug_assert!(older < newer);
            by_symbol(older)
        }
        Reading::Either(older, newer) => Err(format!(
            "TensorRT-LLM {version} may be of age {older} or {newer}, and its symbols do not tell"
        )),
    }
}

fn decide_by_markers(markers: Option<Markers>) -> Result<Decision, String> {
    let seen = markers.unwrap_or_default();
    let by_symbol = |age| Ok(Decision { age, how: "its marker symbols".to_owned() });
    if seen.shows(HostAge::P4) {
        by_symbol(HostAge::P4)
    } else if seen.shows(HostAge::P3) && seen.denies(HostAge::P4) {
        by_symbol(HostAge::P3)
    } else if seen.shows(HostAge::P3) {
        Err("TensorRT-LLM without a version string may be of age P3 or P4, and its symbols do not tell"
            .into())
    } else {
        Err("cannot tell the version of TensorRT-LLM in this process".into())
    }
}

impl Markers {
    /// Whether a symbol that exists only from `age` on is there.
    fn shows(self, age: HostAge) -> bool {
        match age {
            HostAge::P3 => self.agent_desc_grew,
            HostAge::P4 => self.manager_of_p4,
            HostAge::P0 | HostAge::P1 | HostAge::P2 => false,
        }
    }

    /// The newest age of which a symbol is there.
    fn newest(self) -> Option<HostAge> {
        [HostAge::P4, HostAge::P3].into_iter().find(|age| self.shows(*age))
    }

    /// Whether the symbols are those of a host before `age`: the older constructor is there, so that what is
    /// missing beside it is missing and not only spelled otherwise.
    fn denies(self, age: HostAge) -> bool {
        match age {
            HostAge::P3 => self.manager_before_p4 && !self.agent_desc_grew,
            HostAge::P4 => self.manager_before_p4 && !self.manager_of_p4,
            HostAge::P0 | HostAge::P1 | HostAge::P2 => false,
        }
    }
}

impl fmt::Display for HostFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.library {
            Some(path) => write!(f, "library {path}")?,
            None => f.write_str("no libtensorrt_llm.so in this process")?,
        }
        match (&self.version, &self.version_file) {
            (Some(version), Some(file)) => write!(f, ", version {version} in {file}")?,
            (Some(version), None) => write!(f, ", version {version}")?,
            (None, Some(file)) => write!(f, ", no version in {file}")?,
            (None, None) => f.write_str(", no version")?,
        }
        match self.markers {
            Some(markers) => write!(f, ", marker symbols: {markers}"),
            None => f.write_str(", marker symbols not readable"),
        }
    }
}

impl fmt::Display for Markers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.agent_desc_grew, "AgentDesc::serialize (P3 or later)"),
            (self.manager_before_p4, "AgentConnectionManager before P4"),
            (self.manager_of_p4, "AgentConnectionManager of P4"),
        ];
        let seen: Vec<_> = names.into_iter().filter(|(there, _)| *there).map(|(_, name)| name).collect();
        f.write_str(if seen.is_empty() { "none" } else { "" })?;
        f.write_str(&seen.join(" + "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HostAge::{P0, P1, P2, P3, P4};

    const NONE: Markers = Markers { agent_desc_grew: false, manager_before_p4: false, manager_of_p4: false };
    const OLD: Markers = Markers { manager_before_p4: true, ..NONE };
    const GREW: Markers = Markers { agent_desc_grew: true, ..NONE };
    const OF_P3: Markers = Markers { manager_before_p4: true, ..GREW };
    const OF_P4: Markers = Markers { manager_of_p4: true, ..GREW };

    fn facts(version: Option<&str>, markers: Option<Markers>) -> HostFacts {
        HostFacts {
            library: Some("/opt/tensorrt_llm/libs/libtensorrt_llm.so".into()),
            version_file: Some("/opt/tensorrt_llm/version.py".into()),
            version: version.map(str::to_owned),
            markers,
        }
    }

    #[test]
    fn table_of_decisions() {
        for (version, markers, expected) in [
            (Some("1.2.0rc2"), Some(NONE), Some(P0)),
            (Some("1.2.0"), None, Some(P0)),
            (Some("1.2.0"), Some(GREW), None), // the symbols prove the version wrong
            (Some("1.3.0rc5.post1"), Some(OLD), Some(P2)),
            (Some("1.3.0rc19"), Some(NONE), Some(P2)),
            (Some("1.3.0rc19"), Some(OF_P3), Some(P3)),
            (Some("1.3.0rc19"), Some(OF_P4), None), // 56 bytes would be too few
            (Some("1.3.0rc12.post1"), Some(OLD), Some(P2)),
            (Some("1.3.0rc12.post1"), Some(GREW), Some(P3)),
            (Some("1.3.0rc12.post1"), Some(NONE), None), // perhaps only spelled otherwise
            (Some("1.3.0rc12.post1"), Some(OF_P4), None),
            (Some("1.3.0rc12.post1"), None, None),
            (Some("1.3.0rc25"), Some(OF_P3), Some(P3)),
            (Some("1.3.0rc25"), None, Some(P3)),
            (Some("1.3.0rc27"), Some(OF_P4), Some(P4)),
            (Some("1.3.0rc28"), Some(OF_P3), Some(P3)),
            (Some("1.3.0rc28"), Some(OF_P4), Some(P4)),
            (Some("1.3.0rc28"), Some(GREW), None),
            (Some("1.4.0rc0"), None, None),
            (Some("1.4.0rc1"), Some(OF_P4), Some(P4)),
            (Some("1.4.0rc1"), Some(NONE), Some(P4)),
            (Some("1.4.0rc1"), Some(OF_P3), None), // 88 bytes would be too many
            (Some("1.1.0"), Some(NONE), None),
            (Some("1.5.0"), Some(OF_P4), None),
            (Some("1.3.0rc5.dev1"), Some(OLD), None),
            (None, Some(OF_P4), Some(P4)),
            (None, Some(OF_P3), Some(P3)),
            (None, Some(GREW), None),
            (None, Some(OLD), None),
            (None, None, None),
        ] {
            let decided = decide(&facts(version, markers), None).ok().map(|decision| decision.age);
            assert_eq!(decided, expected, "{version:?} {markers:?}");
        }
    }

    #[test]
    fn override_wins_over_everything() {
        for (text, age) in [("p0", P0), ("p1", P1), ("p2", P2), ("p3", P3), ("p4", P4)] {
            assert_eq!(decide(&facts(Some("1.1.0"), None), Some(text)).unwrap().age, age);
        }
        let text = decide(&HostFacts::default(), Some("p5")).unwrap_err().to_string();
        assert_eq!(text, "BATON_TRTLLM_ABI=p5 names no host age: use one of p0, p1, p2, p3, p4");
    }

    #[test]
    fn refusals_name_what_was_found_and_the_way_out() {
        for (version, markers, part) in [
            (Some("1.1.0"), Some(NONE), "TensorRT-LLM 1.1.0 is older than 1.2.0rc2"),
            (Some("1.5.0"), Some(NONE), "TensorRT-LLM 1.5.0 is newer than 1.4.0rc1"),
            (Some("1.4.0rc0"), Some(GREW), "may be of age P3 or P4"),
            (Some("1.2.0"), Some(GREW), "its symbols are those of P3 or later"),
            (None, None, "cannot tell the version"),
        ] {
            let text = decide(&facts(version, markers), None).unwrap_err().to_string();
            for part in [part, "/opt/tensorrt_llm/libs/libtensorrt_llm.so", "BATON_TRTLLM_ABI=p0|p1|p2|p3|p4"]
            {
                assert!(text.contains(part), "{text:?} lacks {part:?}");
            }
        }
        let text = decide(&HostFacts::default(), None).unwrap_err().to_string();
        assert!(text.contains("no libtensorrt_llm.so in this process"), "{text}");
    }
}
