//! The contract, one function a promise. None knows which fabric it runs on.

pub mod basics;
pub mod bytes;
pub mod endings;
pub mod frames;
pub mod queue;
pub mod refusals;
