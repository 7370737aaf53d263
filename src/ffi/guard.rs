//! The panic wall: what every function of the bridge runs inside.
//!
//! A panic that reaches the bridge's C++ side ends the host process, so none may. `panic = "unwind"` in every
//! profile is what makes this work.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::agent::loopback::LoopbackError;
use crate::config::SettingError;
use crate::error::panic_text;
use crate::host::age::HostAgeError;
use crate::panics;

use super::calls::Call;

/// Why a call from the host failed. Its text is what the host's exception says.
#[derive(Debug, thiserror::Error)]
pub enum SeamError {
    /// The engine said so, in an error of the operation.
    #[error(transparent)]
    Engine(Box<dyn Error + Send + Sync>),
    /// The environment asks for something that cannot be.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The loopback agent said so.
    #[error(transparent)]
    Loopback(#[from] LoopbackError),
    /// The age of the host is not known.
    #[error(transparent)]
    HostAge(#[from] HostAgeError),
    /// An enum of the seam holds a value that no version of it defines.
    #[error("{field} has the value {value}, which no known version of TensorRT-LLM defines")]
    BadValue {
        /// What holds it.
        field: &'static str,
        /// The value.
        value: u8,
    },
    /// A name that has to be text is not.
    #[error("{field} is not valid UTF-8: {text}")]
    NotText {
        /// What it names.
        field: &'static str,
        /// The name, as far as it can be shown.
        text: String,
    },
    /// What should be an IP address is none.
    #[error("'{text}' is not an IP address; was the peer's state made by a UCX connection manager?")]
    NotAnAddress {
        /// What it is.
        text: String,
    },
    /// A fault in Baton.
    #[error("{call}: internal fault: {text}; please report it with the log")]
    Panicked {
        /// The call that was running.
        call: &'static str,
        /// What the panic said.
        text: String,
    },
}

impl SeamError {
    /// An error of one of the engine's operations; each has a type of its own.
    pub fn engine(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Engine(Box::new(error))
    }
}

/// Runs `body` in a span of the call; a panic in it becomes [`SeamError::Panicked`], logged with the name of the
/// call.
pub fn guard<T>(call: Call, body: impl FnOnce() -> Result<T, SeamError>) -> Result<T, SeamError> {
    let (name, function) = (call.name(), call.function());
    let _span = tracing::debug_span!("seam", call = name).entered();
    let body = || {
        panics::here("before", function);
        let outcome = body();
        panics::here("after", function);
        outcome
    };
    // AssertUnwindSafe: the engine's locks do not poison, and its invariants hold at every point that can panic
    // or the agent is already lost; the host gets the error either way.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = panic_text(payload);
        tracing::error!(call = name, text, "internal fault");
        Err(SeamError::Panicked { call: name, text })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_becomes_error_that_names_the_call() {
        let outcome: Result<(), _> = guard(Call::RegisterMemory, || panic!("slab index {}", 7));
        let text = outcome.unwrap_err().to_string();
        assert_eq!(text, "registerMemory: internal fault: slab index 7; please report it with the log");
    }

    #[test]
    fn payload_whose_drop_panics_stays_inside() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let outcome: Result<(), _> = guard(Call::Wait, || std::panic::panic_any(Bomb));
        assert!(matches!(outcome, Err(SeamError::Panicked { call: "wait", .. })));
    }

    #[test]
    fn values_and_errors_pass_through() {
        assert_eq!(guard(Call::Wait, || Ok(3)).unwrap(), 3);
        let error =
            guard::<()>(Call::Wait, || Err(SeamError::BadValue { field: "op", value: 9 })).unwrap_err();
        assert!(error.to_string().starts_with("op has the value 9"));
    }
}
