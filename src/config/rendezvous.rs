//! How the ranks of an instance are told to find each other.
use super::environment::{Environment, SettingError};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct RendezvousSettings;

impl RendezvousSettings {
    /// What the environment says.
    pub fn from_environment(_environment: &Environment) -> Result<Self, SettingError> {
        Ok(Self)
    }
}
