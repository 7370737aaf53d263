//! How far a host is: the names that it and the runner share (`tests/chaos/host/board.h`).

/// What a host has on its board. Each call has two: before it and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "the host's whole list, of which not every name is a point")]
pub enum Phase {
    Create,
    Created,
    Register,
    Registered,
    Blob,
    Connect,
    Connected,
    Introduce,
    Introduced,
    Hear,
    Heard,
    Forget,
    Forgot,
    Load,
    Loaded,
    Submit,
    Submitted,
    Success,
    Notify,
    Notified,
    Receive,
    Received,
    Cancel,
    Cancelled,
    Drop,
    Dropped,
    Withdraw,
    Withdrawn,
    Destroy,
    Destroyed,
    Leave,
    Left,
}

impl Phase {
    /// As points are named.
    pub fn word(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The host's list, in its order.
    fn hosts_list() -> Vec<String> {
        let header = include_str!("../host/board.h");
        let list = header.split("enum class Phase").nth(1).and_then(|rest| rest.split("};").next()).unwrap();
        list.lines()
            .filter_map(|line| line.trim().strip_prefix('k')?.split(',').next().map(str::to_owned))
            .collect()
    }

    #[test]
    fn the_host_has_the_same_phases() {
        let theirs = hosts_list();
        assert_eq!(theirs.len(), Phase::Left as usize + 1);
        for phase in [Phase::Create, Phase::Blob, Phase::Loaded, Phase::Success, Phase::Drop, Phase::Left] {
            assert_eq!(theirs[phase as usize], format!("{phase:?}"));
        }
    }
}
