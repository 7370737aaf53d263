//! Panics on purpose, one for each time that a test asks for it, so that it can be shown that none gets past the seam and
//! none takes more with it than its agent.
//!
//! Only the feature `panics` makes them possible, and it cannot be switched on in a release build. Without it [`here`] is
//! nothing. With it, the library has functions beside the seam's, for the host of `tests/panics` alone, which is the one
//! that CMake builds such a library for.
//!
//! What this is not: a list of bugs ([`crate::planted`]).
#![cfg_attr(feature = "panics", allow(unsafe_code))] // names that C++ can look up, and a text of its

#[cfg(all(feature = "panics", not(debug_assertions)))]
compile_error!("the feature `panics` is for the tests of the seam: it has no place in a release build");

/// Panics if a test has asked for it `moment` ("before", "after", "while driving") of this `place`.
#[cfg(not(feature = "panics"))]
#[inline(always)]
pub fn here(_moment: &str, _place: &str) {}

#[cfg(feature = "panics")]
pub use provoked::here;

#[cfg(feature = "panics")]
mod provoked {
    use std::ffi::{CStr, c_char};

    use parking_lot::Mutex;

    /// What has been asked for and has not happened yet.
    static WANTED: Mutex<Vec<String>> = Mutex::new(Vec::new());

    /// Panics if a test has asked for it at this `moment` of this `place`.
    pub fn here(moment: &str, place: &str) {
        let here = format!("{moment} {place}");
        let found = {
            let mut wanted = WANTED.lock();
            let at = wanted.iter().position(|wanted| *wanted == here);
            at.map(|at| wanted.swap_remove(at))
        };
        if let Some(here) = found {
            panic!("provoked {here}");
        }
    }

    /// Asks for one panic, as `moment place`.
    ///
    /// # Safety
    /// `here` is a C string.
    // SAFETY: the name is no other symbol's.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn baton_test_panic(here: *const c_char) {
        // SAFETY: the caller's promise.
        let here = unsafe { CStr::from_ptr(here) };
        WANTED.lock().push(here.to_string_lossy().into_owned());
    }

    /// How many of those that were asked for have not happened.
    // SAFETY: the name is no other symbol's.
    #[unsafe(no_mangle)]
    pub extern "C" fn baton_test_panics_left() -> usize {
        WANTED.lock().len()
    }
}
