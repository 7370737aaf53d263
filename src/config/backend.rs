//! Which backend serves: what `DEFAULT` resolves to, and the NIXL backend below it.
//!
//! Precedence and log lines are TensorRT-LLM's own, because operators grep for them. A backend that is
//! named explicitly in the YAML is never changed by a variable.

use super::environment::{Environment, SettingError};
use serde::{Serialize, Serializer};
use std::fmt;

/// The backends of `cache_transceiver_config.backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Whatever [`resolve`] says.
    Default,
    /// The UCX connection manager.
    Ucx,
    /// The transfer agent: Baton's seam.
    Nixl,
    /// The transfer agent under its Mooncake name.
    Mooncake,
    /// MPI, compiled into TensorRT-LLM.
    Mpi,
}

impl Backend {
    /// All of them, in the order of TensorRT-LLM's documents.
    pub const ALL: [Backend; 5] =
        [Backend::Default, Backend::Ucx, Backend::Nixl, Backend::Mooncake, Backend::Mpi];

    /// The name in the YAML.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Default => "DEFAULT",
            Backend::Ucx => "UCX",
            Backend::Nixl => "NIXL",
            Backend::Mooncake => "MOONCAKE",
            Backend::Mpi => "MPI",
        }
    }

    /// The backend of that name: all upper or all lower case, as TensorRT-LLM's C++ side takes it.
    pub fn parse(name: &str) -> Option<Backend> {
        Backend::ALL
            .into_iter()
            .find(|backend| name == backend.name() || name == backend.name().to_lowercase())
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Backend {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Who resolves `DEFAULT`; the two sides of TensorRT-LLM look at the variables in different orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frontend {
    /// The Python frontend: it runs first wherever the YAML is used.
    #[default]
    Python,
    /// The factory of the legacy C++ executor.
    Cpp,
}

impl Frontend {
    /// The selectors in the order this side looks at them.
    pub fn selectors(self) -> [(&'static str, Backend); 4] {
        let nixl = ("TRTLLM_USE_NIXL_KVCACHE", Backend::Nixl);
        let ucx = ("TRTLLM_USE_UCX_KVCACHE", Backend::Ucx);
        let mooncake = ("TRTLLM_USE_MOONCAKE_KVCACHE", Backend::Mooncake);
        let mpi = ("TRTLLM_USE_MPI_KVCACHE", Backend::Mpi);
        match self {
            Frontend::Python => [nixl, ucx, mooncake, mpi],
            Frontend::Cpp => [ucx, nixl, mooncake, mpi],
        }
    }
}

/// What a configured backend comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Never [`Backend::Default`].
    pub backend: Backend,
    /// The variable that decided, if one did.
    pub variable: Option<&'static str>,
    /// Why, in words.
    pub why: String,
    /// What TensorRT-LLM logs about it, word for word.
    pub warnings: Vec<String>,
}

/// Resolves the configured backend as `frontend` does.
pub fn resolve(configured: Backend, environment: &Environment, frontend: Frontend) -> Resolution {
    let (backend, variable, why) = match configured {
        Backend::Default => resolve_default(environment, frontend),
        named => (named, None, format!("{named} is named in the configuration; no variable changes that")),
    };
    let selected = variable.map(|name| {
        format!(
            "{name}=1 is set, but it's recommended to set cache_transceiver_config.backend in yaml config"
        )
    });
    let deprecated = (backend == Backend::Mpi)
        .then(|| "MPI CacheTransceiver is deprecated, UCX or NIXL is recommended".to_owned());
    Resolution { backend, variable, why, warnings: selected.into_iter().chain(deprecated).collect() }
}

fn resolve_default(environment: &Environment, frontend: Frontend) -> (Backend, Option<&'static str>, String) {
    let selectors = frontend.selectors();
    match selectors.into_iter().find(|(name, _)| environment.is_on(name)) {
        Some((name, backend)) => {
            let order = selectors.map(|(_, backend)| backend.name()).join(", ");
            (backend, Some(name), format!("{name}=1 (first of the order {order})"))
        }
        None => (Backend::Nixl, None, "no TRTLLM_USE_*_KVCACHE is \"1\", so NIXL".to_owned()),
    }
}

/// The NIXL backend of `TRTLLM_NIXL_KVCACHE_BACKEND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NixlBackend {
    /// UCX where there is a libucp that serves, Baton's own lanes in any case.
    Ucx,
    /// libfabric.
    Libfabric,
}

impl NixlBackend {
    /// The name in the variable and in the log line.
    pub fn name(self) -> &'static str {
        match self {
            NixlBackend::Ucx => "UCX",
            NixlBackend::Libfabric => "LIBFABRIC",
        }
    }
}

/// The NIXL backend that was chosen, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NixlChoice {
    /// The backend.
    pub backend: NixlBackend,
    /// The variable names it, so its absence is an error.
    pub explicit: bool,
    /// The warning to log before the line below, word for word.
    pub warning: Option<String>,
}

impl Default for NixlChoice {
    /// Nobody chose.
    fn default() -> Self {
        NixlChoice { backend: NixlBackend::Ucx, explicit: false, warning: None }
    }
}

impl NixlChoice {
    /// What the environment chooses. An unknown name warns and falls back to UCX, as the stock agent does.
    ///
    /// # Errors
    /// A value that is not UTF-8.
    pub fn from_environment(environment: &Environment) -> Result<Self, SettingError> {
        let choice = |backend, explicit, warning| NixlChoice { backend, explicit, warning };
        Ok(match environment.text(NIXL_BACKEND_VARIABLE)? {
            None => NixlChoice::default(),
            Some("UCX") => choice(NixlBackend::Ucx, true, None),
            Some("LIBFABRIC") => choice(NixlBackend::Libfabric, true, None),
            Some(other) => {
                let warning = format!("Unsupported NIXL backend: {other}, fallback to UCX");
                choice(NixlBackend::Ucx, false, Some(warning))
            }
        })
    }

    /// The INFO line that operators grep for; the engine logs it once per agent.
    pub fn log_line(&self) -> String {
        format!("NixlTransferAgent::NixlTransferAgent using NIXL backend: {}", self.backend.name())
    }
}

/// The error for a UCX that was asked for by name and cannot be opened; `reason` is the opener's.
pub fn ucx_unavailable(reason: impl fmt::Display) -> SettingError {
    SettingError::BackendUnavailable {
        backend: NixlBackend::Ucx.name(),
        reason: format!(
            "{reason}; install UCX 1.16 or newer, point BATON_UCX_LIBRARY at its libucp, or unset \
             {NIXL_BACKEND_VARIABLE} to let Baton's stream serve"
        ),
    }
}

/// The error for LIBFABRIC, until that fabric exists.
pub fn libfabric_unavailable() -> SettingError {
    SettingError::BackendUnavailable {
        backend: NixlBackend::Libfabric.name(),
        reason: format!(
            "this version of Baton has no libfabric lane yet; unset {NIXL_BACKEND_VARIABLE} or set it to UCX"
        ),
    }
}

/// The log line for a UCX that nobody asked for by name and that cannot be opened: the stream serves.
pub fn stream_serves_line(reason: impl fmt::Display) -> String {
    format!("no UCX here, Baton's stream serves: {reason}")
}

const NIXL_BACKEND_VARIABLE: &str = "TRTLLM_NIXL_KVCACHE_BACKEND";

#[cfg(test)]
mod tests {
    use super::*;

    const NIXL: &str = "TRTLLM_USE_NIXL_KVCACHE";
    const UCX: &str = "TRTLLM_USE_UCX_KVCACHE";
    const MOONCAKE: &str = "TRTLLM_USE_MOONCAKE_KVCACHE";
    const MPI: &str = "TRTLLM_USE_MPI_KVCACHE";

    #[test]
    fn default_is_resolved_in_the_order_of_each_frontend() {
        type Variables<'a> = &'a [(&'a str, &'a str)];
        let table: &[(Variables<'_>, Backend, Backend)] = &[
            (&[], Backend::Nixl, Backend::Nixl),
            (&[(NIXL, "1")], Backend::Nixl, Backend::Nixl),
            (&[(UCX, "1")], Backend::Ucx, Backend::Ucx),
            (&[(MOONCAKE, "1")], Backend::Mooncake, Backend::Mooncake),
            (&[(MPI, "1")], Backend::Mpi, Backend::Mpi),
            (&[(NIXL, "1"), (UCX, "1")], Backend::Nixl, Backend::Ucx),
            (&[(UCX, "1"), (MOONCAKE, "1")], Backend::Ucx, Backend::Ucx),
            (&[(MOONCAKE, "1"), (MPI, "1")], Backend::Mooncake, Backend::Mooncake),
            (&[(NIXL, "1"), (UCX, "1"), (MOONCAKE, "1"), (MPI, "1")], Backend::Nixl, Backend::Ucx),
            (&[(NIXL, "0"), (UCX, "true"), (MPI, "1")], Backend::Mpi, Backend::Mpi),
            (&[(UCX, "yes"), (MOONCAKE, "")], Backend::Nixl, Backend::Nixl),
        ];
        for (variables, python, cpp) in table {
            let environment = Environment::from_map(variables.iter().copied());
            let resolved = |frontend| resolve(Backend::Default, &environment, frontend).backend;
            assert_eq!(resolved(Frontend::Python), *python, "{variables:?}");
            assert_eq!(resolved(Frontend::Cpp), *cpp, "{variables:?}");
        }
    }

    #[test]
    fn a_named_backend_ignores_the_selectors() {
        let environment = Environment::from_map([(MPI, "1"), (UCX, "1")]);
        for backend in [Backend::Ucx, Backend::Nixl, Backend::Mooncake, Backend::Mpi] {
            let resolution = resolve(backend, &environment, Frontend::Python);
            assert_eq!((resolution.backend, resolution.variable), (backend, None));
        }
    }

    #[test]
    fn the_log_lines_are_those_operators_grep() {
        let environment = Environment::from_map([(MPI, "1")]);
        assert_eq!(
            resolve(Backend::Default, &environment, Frontend::Python).warnings,
            [
                "TRTLLM_USE_MPI_KVCACHE=1 is set, but it's recommended to set \
                 cache_transceiver_config.backend in yaml config",
                "MPI CacheTransceiver is deprecated, UCX or NIXL is recommended",
            ]
        );
    }

    #[test]
    fn the_nixl_backend_is_taken_literally() {
        let table = [
            (None, NixlBackend::Ucx, false, None),
            (Some("UCX"), NixlBackend::Ucx, true, None),
            (Some("LIBFABRIC"), NixlBackend::Libfabric, true, None),
            (Some("ucx"), NixlBackend::Ucx, false, Some("Unsupported NIXL backend: ucx, fallback to UCX")),
            (Some("GDS"), NixlBackend::Ucx, false, Some("Unsupported NIXL backend: GDS, fallback to UCX")),
            (Some(""), NixlBackend::Ucx, false, Some("Unsupported NIXL backend: , fallback to UCX")),
        ];
        for (value, backend, explicit, warning) in table {
            let environment =
                Environment::from_map(value.map(|value| ("TRTLLM_NIXL_KVCACHE_BACKEND", value)));
            let choice = NixlChoice::from_environment(&environment).unwrap();
            assert_eq!((choice.backend, choice.explicit), (backend, explicit), "{value:?}");
            assert_eq!(choice.warning.as_deref(), warning, "{value:?}");
        }
    }

    #[test]
    fn backend_texts() {
        let choice = NixlChoice::from_environment(&Environment::default()).unwrap();
        assert_eq!(choice.log_line(), "NixlTransferAgent::NixlTransferAgent using NIXL backend: UCX");
        assert_eq!(
            libfabric_unavailable().to_string(),
            "Failed to create NIXL backend: LIBFABRIC: this version of Baton has no libfabric lane yet; \
             unset TRTLLM_NIXL_KVCACHE_BACKEND or set it to UCX"
        );
        assert_eq!(
            ucx_unavailable("libucp.so.0: cannot open shared object file").to_string(),
            "Failed to create NIXL backend: UCX: libucp.so.0: cannot open shared object file; install UCX \
             1.16 or newer, point BATON_UCX_LIBRARY at its libucp, or unset TRTLLM_NIXL_KVCACHE_BACKEND to \
             let Baton's stream serve"
        );
    }

    #[test]
    fn names_are_all_upper_or_all_lower_case() {
        assert_eq!(Backend::parse("MOONCAKE"), Some(Backend::Mooncake));
        assert_eq!(Backend::parse("nixl"), Some(Backend::Nixl));
        assert_eq!(Backend::parse("Nixl"), None);
    }
}
