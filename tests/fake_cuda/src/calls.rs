//! What every call begins and ends with: may it be made, is it told to fail, is it to be written down.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;

use crate::code::{Code, Outcome};
use crate::context::{self, Context};
use crate::driver::{self, Driver};
use crate::settings::{Settings, settings};

thread_local! {
    static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
    static NOTE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A call that needs nothing, not even `cuInit`.
pub fn bare(name: &str, body: impl FnOnce(&'static Settings) -> Outcome) -> u32 {
    call(name, || body(settings()))
}

/// A call that needs `cuInit`.
pub fn ready(name: &str, body: impl FnOnce(&'static Driver) -> Outcome) -> u32 {
    call(name, || body(driver::initialized()?))
}

/// A call that needs a current context that nothing is wrong with.
pub fn within(name: &str, body: impl FnOnce(&'static Context) -> Outcome) -> u32 {
    call(name, || {
        let context = context::current(driver::initialized()?)?;
        context.check()?;
        body(context)
    })
}

/// Adds to the line that is written down for this call.
pub fn note(text: fmt::Arguments<'_>) {
    if settings().log.is_some() {
        NOTE.with_borrow_mut(|note| *note = text.to_string());
    }
}

/// Runs a function of the host's, from which the driver may not be called.
pub fn host_function(body: impl FnOnce()) {
    IN_HOST_FUNCTION.set(true);
    body();
    IN_HOST_FUNCTION.set(false);
}

fn call(name: &str, body: impl FnOnce() -> Outcome) -> u32 {
    let outcome = permitted(name).and_then(|()| body());
    let code = outcome.err().map_or(0, |code| code.0);
    if settings().log.is_some() {
        write_down(name, code);
    }
    code
}

fn permitted(name: &str) -> Outcome {
    if IN_HOST_FUNCTION.get() {
        return Err(Code::NOT_PERMITTED);
    }
    let Some(code) = settings().failure(name) else { return Ok(()) };
    if code.is_sticky()
        && let Ok(context) = driver::initialized().and_then(context::current)
    {
        context.lose(code);
    }
    Err(code)
}

/// One line in one write, so that those of several processes do not mix.
fn write_down(name: &str, code: u32) {
    static LOG: OnceLock<Option<File>> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let path = settings().log.as_ref()?;
        let file = OpenOptions::new().create(true).append(true).open(path);
        Some(file.unwrap_or_else(|error| panic!("FAKE_CUDA_LOG: {}: {error}", path.display())))
    });
    let note = NOTE.take();
    let space = if note.is_empty() { "" } else { " " };
    let line = format!("{} {name} {code}{space}{note}\n", std::process::id());
    if let Some(mut log) = log.as_ref() {
        // A log that cannot be written fails the test that reads it.
        let _ = log.write_all(line.as_bytes());
    }
}
