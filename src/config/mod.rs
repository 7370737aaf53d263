//! What Baton is told: the serving YAML and the environment, parsed once into validated values.
//!
//! ```text
//!   process environment         cache_transceiver_config (YAML, JSON)
//!           |                                 |
//!     [`environment`]                   [`document`]         text to plain data
//!        |         \                     [`fields`]
//!   [`engine`]   [`backend`]           [`serving`]           data to validated values
//!   [`lanes`]          \                 / [`transceiver`] [`bounce`]
//!   [`rendezvous`]       +--- [`rules`] --+                   values that do not go together
//!   the engine               [`explain`]   [`staging`]       what it all comes to, for a person
//! ```
//!
//! [`environment`] is the only reader of the process environment in the tree. Nothing here acts on a
//! setting, opens a library or logs: the engine receives plain values and logs the warnings.

pub mod backend;
pub mod bounce;
pub mod document;
pub mod engine;
pub mod environment;
pub mod explain;
pub mod fields;
pub mod lanes;
pub mod model;
mod nearest;
pub mod rendezvous;
pub mod rules;
pub mod serving;
pub mod staging;
pub mod transceiver;
pub mod trust;
pub mod variables;

pub use engine::{
    EngineSettings, GATHER_BELOW_MAX, abi_override, cuda_library, log_filter, process_abi_override,
    process_log_filter, ucx_transports,
};
pub use environment::{Environment, SettingError};
pub use lanes::LaneChoice;
pub use rendezvous::RendezvousSettings;
