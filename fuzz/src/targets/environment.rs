//! Values of environment variables.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use baton::config::backend::Backend;
use baton::config::explain::{Question, explain};
use baton::config::model::Model;
use baton::config::{EngineSettings, Environment, RendezvousSettings};

/// Lines of names and values. Every reader of settings takes them or says what is wrong.
pub fn run(data: &[u8]) -> bool {
    let lines = data.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        Some((str::from_utf8(&line[..at]).ok()?, OsStr::from_bytes(&line[at + 1..])))
    });
    let environment = Environment::from_map(lines);
    let mut fine = true;
    for backend in [Backend::Nixl, Backend::Ucx, Backend::Mooncake] {
        fine &= EngineSettings::from_environment(&environment, backend).is_ok();
    }
    if let Ok(settings) = RendezvousSettings::from_environment(&environment) {
        fine &= settings.placement().is_ok() & settings.store().is_ok();
        let _looked = (settings.master(), settings.restarts());
    }
    let model = Model::by_name("llama-3.1-8b").ok();
    let question = Question { model, tp: 1, max_isl: Some(1 << 20), ..Question::default() };
    let _answer = explain(None, &environment, question, |_| Ok("they meet".to_owned()));
    fine && environment.names().next().is_some()
}
