//! The process environment, captured once: the only place in the tree that reads it.
//!
//! An [`Environment`] is plain data. Tests and tools build one from a map, the engine takes one from its
//! process at start; what changes in the process afterwards is not seen. Only the families of variables
//! that somebody here reads are kept, so printing one never shows an unrelated secret.

use std::collections::BTreeMap;
use std::ffi::OsString;
use thiserror::Error;

/// The variables that Baton, or the host above it, reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    values: BTreeMap<String, OsString>,
}

impl Environment {
    /// The environment of this process, as it is now.
    #[allow(clippy::disallowed_methods)] // the one reader
    pub fn from_process() -> Self {
        Self::from_pairs(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))),
        )
    }

    /// An environment that holds exactly these variables; for tests and tools.
    pub fn from_map<N: Into<String>, V: Into<OsString>>(map: impl IntoIterator<Item = (N, V)>) -> Self {
        Self::from_pairs(map.into_iter().map(|(name, value)| (name.into(), value.into())))
    }

    /// The value as it stands, `None` when the variable is not set.
    ///
    /// # Errors
    /// A value that is not UTF-8.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>, SettingError> {
        self.values
            .get(name)
            .map(|value| value.to_str().ok_or(SettingError::NotText { variable: name }))
            .transpose()
    }

    /// The value, with an empty one counted as not set; what Baton's own variables go by.
    ///
    /// # Errors
    /// A value that is not UTF-8.
    pub fn setting(&self, name: &'static str) -> Result<Option<&str>, SettingError> {
        Ok(self.text(name)?.map(str::trim).filter(|value| !value.is_empty()))
    }

    /// Whether a switch of TensorRT-LLM is on: only the exact text `1` is.
    pub fn is_on(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value == "1")
    }

    /// Whether the variable is set to anything at all.
    pub fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The names that are set, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The value for a person's eyes, broken UTF-8 replaced.
    pub fn shown(&self, name: &str) -> Option<String> {
        self.values.get(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn from_pairs(pairs: impl Iterator<Item = (String, OsString)>) -> Self {
        let ours = |name: &str| {
            FAMILIES.iter().any(|family| name.starts_with(family))
                || OF_LAUNCHERS.contains(&name)
                || name == PROFILER
        };
        Self { values: pairs.filter(|(name, _)| ours(name)).collect() }
    }
}

/// Why a variable cannot be used as it is set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingError {
    /// The value is not one of those that are valid.
    #[error("{variable}=\"{value}\" is not usable: {expected}")]
    Unusable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is valid.
        expected: String,
    },
    /// The value is not UTF-8.
    #[error("{variable} is not usable: its value is not UTF-8 text")]
    NotText {
        /// The variable.
        variable: &'static str,
    },
    /// Two values that cannot both hold.
    #[error("{first} and {second} contradict each other: {cure}")]
    Contradiction {
        /// One, as `NAME=value`.
        first: String,
        /// The other.
        second: String,
        /// What to do.
        cure: String,
    },
    /// One of a pair of variables.
    #[error("{set} is set and {missing} is not: set both or neither")]
    Alone {
        /// That which is set.
        set: &'static str,
        /// That which is not.
        missing: &'static str,
    },
    /// The NIXL backend that was asked for cannot be had. The first words are those operators know.
    #[error("Failed to create NIXL backend: {backend}: {reason}")]
    BackendUnavailable {
        /// The backend, as `TRTLLM_NIXL_KVCACHE_BACKEND` spells it.
        backend: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
}

impl SettingError {
    pub(super) fn unusable(variable: &'static str, value: &str, expected: impl Into<String>) -> Self {
        SettingError::Unusable { variable, value: value.to_owned(), expected: expected.into() }
    }
}

/// The first letters of the variables that are kept.
const FAMILIES: [&str; 6] = ["BATON_", "TRTLLM_", "TLLM_", "UCX_", "NIXL_", "LD_"];

/// By which a profiler tells the programs that it starts where its library is.
pub(super) const PROFILER: &str = "NVTX_INJECTION64_PATH";

/// Single variables that are kept: those by which launchers tell a process which rank it is.
const OF_LAUNCHERS: [&str; 12] = [
    "MASTER_ADDR",
    "MASTER_PORT",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "PMIX_RANK",
    "PMI_RANK",
    "PMI_SIZE",
    "RANK",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "TORCHELASTIC_RESTART_COUNT",
    "WORLD_SIZE",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_switch_is_on_for_exactly_one() {
        for (value, on) in [("1", true), ("true", false), ("01", false), (" 1", false), ("", false)] {
            let environment = Environment::from_map([("TRTLLM_USE_UCX_KVCACHE", value)]);
            assert_eq!(environment.is_on("TRTLLM_USE_UCX_KVCACHE"), on, "{value:?}");
        }
        assert!(!Environment::default().is_on("TRTLLM_USE_UCX_KVCACHE"));
    }

    #[test]
    fn unrelated_variables_are_not_kept() {
        let environment = Environment::from_map([
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("RANK", "0"),
            ("RANKED_SECRET", "x"),
            ("UCX_TLS", "sm"),
        ]);
        assert_eq!(environment.names().collect::<Vec<_>>(), ["RANK", "UCX_TLS"]);
    }

    #[test]
    fn broken_text_is_an_error_that_names_the_variable() {
        let broken = OsString::from_vec(vec![0xff, 0xfe]);
        let environment = Environment::from_map([("BATON_LOG", broken)]);
        assert_eq!(
            environment.text("BATON_LOG").unwrap_err().to_string(),
            "BATON_LOG is not usable: its value is not UTF-8 text"
        );
    }

    #[test]
    fn an_empty_setting_counts_as_not_set() {
        let environment = Environment::from_map([("BATON_LANES", " ")]);
        assert_eq!(environment.setting("BATON_LANES"), Ok(None));
        assert_eq!(environment.text("BATON_LANES"), Ok(Some(" ")));
    }
}
