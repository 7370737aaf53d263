//! Warnings that anybody who knocks can cause: of each kind one a second, which says how many there were.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A kind is told about this often.
const EVERY: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Notices(HashMap<&'static str, Notice>);

#[derive(Debug)]
struct Notice {
    said: Instant,
    held_back: u64,
}

impl Notices {
    /// Whether `kind` may be told about now; if so, how many of it were held back since the last one.
    pub fn may_tell(&mut self, kind: &'static str, now: Instant) -> Option<u64> {
        match self.0.get_mut(kind) {
            Some(notice) if now.saturating_duration_since(notice.said) < EVERY => {
                notice.held_back += 1;
                None
            }
            Some(notice) => {
                notice.said = now;
                Some(std::mem::take(&mut notice.held_back))
            }
            None => {
                self.0.insert(kind, Notice { said: now, held_back: 0 });
                Some(0)
            }
        }
    }

    /// Logs that an incoming connection was closed, and why.
    pub fn warn(&mut self, kind: &'static str, error: &str, now: Instant) {
        if let Some(held_back) = self.may_tell(kind, now) {
            tracing::warn!(error, held_back, "an incoming connection was closed: {kind}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_about_once_a_second_with_the_number_of_the_others() {
        let (mut notices, start) = (Notices::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(notices.may_tell("a", at(0)), Some(0));
        assert_eq!((notices.may_tell("a", at(1)), notices.may_tell("a", at(999))), (None, None));
        assert_eq!(notices.may_tell("b", at(999)), Some(0));
        assert_eq!(notices.may_tell("a", at(1000)), Some(2));
        assert_eq!(notices.may_tell("a", at(2000)), Some(0));
    }
}
