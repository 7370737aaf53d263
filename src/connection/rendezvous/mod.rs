//! How the ranks of one instance find each other.
use crate::config::rendezvous::RendezvousSettings;
pub struct Gathered {
    pub rank: u32,
    pub parts: Vec<Vec<u8>>,
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct RendezvousError;
pub fn gather(_settings: &RendezvousSettings, part: &[u8]) -> Result<Gathered, RendezvousError> {
    Ok(Gathered { rank: 0, parts: vec![part.to_vec()] })
}
