//! `cache_transceiver_config`, as people and their tools write it.

use baton::config::Environment;
use baton::config::explain::{Question, explain};
use baton::config::serving::ServingConfig;

/// What is taken can be explained; what is not has a text that a terminal can bear.
pub fn run(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else { return false };
    match ServingConfig::parse("config.yaml", text) {
        Ok(serving) => {
            let empty = Environment::default();
            let _answer = explain(Some(serving), &empty, Question::default(), |_| Ok("they meet".to_owned()));
            true
        }
        Err(error) => {
            assert!(error.to_string().len() < 4096 + 8 * text.len());
            false
        }
    }
}
