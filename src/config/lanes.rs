//! Which lanes may carry data: `BATON_LANES`.

use super::environment::{Environment, SettingError};
use super::nearest::did_you_mean;

/// The lanes that may carry data; `BATON_LANES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneChoice {
    /// Same host, the owner of the destination pulls.
    pub local: bool,
    /// One-sided writes through UCX's native transports.
    pub ucx: bool,
    /// Same host, GPU memory: the owner of the destination copies out of the peer's, mapped by CUDA IPC.
    pub cuda: bool,
    /// Baton's stream over a Unix socket.
    pub stream_unix: bool,
    /// Baton's stream over TCP.
    pub stream_tcp: bool,
    /// Somebody chose: a choice without a stream has no fallback, and a peer it cannot reach is refused.
    pub explicit: bool,
}

impl Default for LaneChoice {
    fn default() -> Self {
        LaneChoice {
            local: true,
            ucx: true,
            cuda: true,
            stream_unix: true,
            stream_tcp: true,
            explicit: false,
        }
    }
}

impl LaneChoice {
    /// No lane: what whoever names lanes begins with.
    pub const NONE: Self =
        Self { local: false, ucx: false, cuda: false, stream_unix: false, stream_tcp: false, explicit: true };

    /// The lanes' names, in the order of preference.
    pub fn names(&self) -> Vec<&'static str> {
        [
            (self.local, "local"),
            (self.ucx, "ucx"),
            (self.cuda, "cuda"),
            (self.stream_unix, "stream-unix"),
            (self.stream_tcp, "stream-tcp"),
        ]
        .into_iter()
        .filter_map(|(chosen, name)| chosen.then_some(name))
        .collect()
    }

    /// The choice of an environment; what it names in vain is added to `warnings`.
    ///
    /// # Errors
    /// An unknown lane, with the nearest name, or a list that leaves none.
    pub(super) fn from_environment(
        environment: &Environment,
        warnings: &mut Vec<String>,
    ) -> Result<LaneChoice, SettingError> {
        let Some(list) = environment.setting(LANES)? else { return Ok(LaneChoice::default()) };
        let mut choice = LaneChoice::NONE;
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            choice.add(name, list, warnings)?;
        }
        if choice.names().is_empty() {
            let expected =
                format!("it leaves no lane that this version has; valid: {}", LANE_NAMES.join(", "));
            return Err(SettingError::unusable(LANES, list, expected));
        }
        Ok(choice)
    }

    fn add(&mut self, name: &str, list: &str, warnings: &mut Vec<String>) -> Result<(), SettingError> {
        match name {
            "local" => self.local = true,
            "ucx" => self.ucx = true,
            "cuda" => self.cuda = true,
            "stream" => (self.stream_unix, self.stream_tcp) = (true, true),
            "stream-unix" => self.stream_unix = true,
            "stream-tcp" => self.stream_tcp = true,
            "libfabric" | "mpi" => {
                warnings.push(format!("{LANES} names {name}, which this version does not have yet"));
            }
            unknown => {
                let hint = did_you_mean(unknown, &LANE_NAMES);
                let expected = format!("unknown lane \"{unknown}\"{hint}; valid: {}", LANE_NAMES.join(", "));
                return Err(SettingError::unusable(LANES, list, expected));
            }
        }
        Ok(())
    }
}

const LANES: &str = "BATON_LANES";
const LANE_NAMES: [&str; 8] =
    ["local", "ucx", "cuda", "libfabric", "mpi", "stream", "stream-unix", "stream-tcp"];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<(LaneChoice, Vec<String>), SettingError> {
        let mut warnings = Vec::new();
        let environment = Environment::from_map([(LANES, list)]);
        LaneChoice::from_environment(&environment, &mut warnings).map(|choice| (choice, warnings))
    }

    #[test]
    fn lane_lists() {
        let table: &[(&str, &[&str])] = &[
            ("stream", &["stream-unix", "stream-tcp"]),
            ("ucx", &["ucx"]),
            ("stream-unix,cuda", &["cuda", "stream-unix"]),
            ("stream-unix,local", &["local", "stream-unix"]),
            ("local,,local,", &["local"]),
            ("libfabric,stream-tcp", &["stream-tcp"]),
        ];
        for (list, names) in table {
            assert_eq!(parse(list).unwrap().0.names(), *names, "{list}");
        }
    }

    #[test]
    fn a_lane_that_does_not_exist_yet_is_warned_about() {
        assert_eq!(
            parse("mpi,local").unwrap().1,
            ["BATON_LANES names mpi, which this version does not have yet"]
        );
    }

    #[test]
    fn an_empty_list_leaves_the_default() {
        assert_eq!(parse("").unwrap().0, LaneChoice::default());
        assert!(parse(",").is_err());
    }
}
