//! What Baton is told: the serving YAML and the environment, parsed once into validated values.
//!
//! [`environment`] is the only reader of the process environment in the tree. Nothing here acts on a
//! setting: the engine receives plain values.

pub mod model;
mod nearest;
