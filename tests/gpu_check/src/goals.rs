//! The figures that were set for one GPU of the class H200, and what was measured of them.

use serde::Serialize;
use serde_json::Value;

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What is measured.
    pub what: &'static str,
    /// What it has to be.
    pub goal: &'static str,
    /// What it is, if it was measured.
    pub measured: Option<f64>,
    /// Whether that is enough.
    pub reached: Option<bool>,
}

impl Goal {
    /// For people.
    pub fn line(&self) -> String {
        let Self { what, goal, measured, reached } = self;
        match (measured, reached) {
            (Some(value), Some(true)) => format!("reached: {what}: {value:.2} ({goal})"),
            (Some(value), _) => format!("NOT REACHED: {what}: {value:.2} ({goal})"),
            _ => format!("not measured: {what} ({goal})"),
        }
    }
}

/// All of them, by the figures of the cells of the bench; and how many checks found wrong bytes, where some compared any.
pub fn goals(cells: &[Value], corrupt: Option<usize>) -> Vec<Goal> {
    let number = |cell: &Value, name: &str| cell.get(name).and_then(Value::as_f64);
    // In whatever layout: the slower one counts.
    let is_headline =
        |cell: &&Value| number(cell, "size") == Some(4096.0) && number(cell, "count") == Some(HEADLINE_COUNT);
    let median =
        |cell: &Value| cell.get("peer_waits").and_then(|times| number(times, "median_us")).unwrap_or(0.0);
    let headlines = cells.iter().filter(is_headline);
    let headline = headlines.max_by(|one, other| median(one).total_cmp(&median(other)));
    let of_headline = |name: &str| headline.and_then(|cell| number(cell, name));
    let time = |name: &str| headline.and_then(|cell| number(cell.get("peer_waits")?, name));
    let is_large = |cell: &&Value| {
        number(cell, "size") >= Some(LARGE_SIZE) && number(cell, "bytes") >= Some(LARGE_BYTES)
    };
    let parts = cells.iter().filter(is_large).filter_map(|cell| number(cell, "of_limit"));
    let worst = parts.min_by(f64::total_cmp);
    let is_small =
        |cell: &&Value| number(cell, "size") == Some(4096.0) && number(cell, "bytes") >= Some(LARGE_BYTES);
    let beside = cells.iter().filter(is_small).filter_map(|cell| number(cell, "times_nixl"));
    let slowest = beside.min_by(f64::total_cmp);
    let per_descriptor = of_headline("plan_ns").zip(of_headline("list_ns")).map(|(plan, list)| plan + list);
    let at_most = |value: Option<f64>, bound: f64| value.map(|value| value <= bound);
    let at_least = |value: Option<f64>, bound: f64| value.map(|value| value >= bound);
    let (ack, all) = (time("launch_to_end_us"), time("median_us"));
    let goal = |what, goal, measured, reached| Goal { what, goal, measured, reached };
    vec![
        goal("18,432 x 4 KiB, first launch to ACK, us", "at most 120", ack, at_most(ack, 120.0)),
        goal("18,432 x 4 KiB, submit to SUCCESS, us", "at most 350", all, at_most(all, 350.0)),
        goal(
            "part of the device's copy limit, submit to SUCCESS, worst of 16 KiB and up, 64 MiB and up",
            "at least 0.70",
            worst,
            at_least(worst, 0.7),
        ),
        goal(
            "18,432 x 4 KiB, planning and list, ns a descriptor",
            "at most 12",
            per_descriptor,
            at_most(per_descriptor, 12.0),
        ),
        goal(
            "times NIXL cuda_ipc at 4 KiB, worst of 64 MiB and up",
            "at least 20",
            slowest,
            at_least(slowest, 20.0),
        ),
        goal(
            "checks with wrong bytes",
            "0",
            corrupt.map(|count| count as f64),
            corrupt.map(|count| count == 0),
        ),
    ]
}

const HEADLINE_COUNT: f64 = 18_432.0;
const LARGE_SIZE: f64 = 16_384.0;
const LARGE_BYTES: f64 = 67_108_864.0;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_held_against_the_right_cells() {
        let cells = [
            json!({"size": 4096, "count": 18_432, "peer_waits": {"median_us": 200.0}, "plan_ns": 1.0, "list_ns": 1.0}),
            json!({"size": 4096, "count": 18_432, "bytes": 75_497_472,
                   "peer_waits": {"median_us": 300.0, "launch_to_end_us": 121.0}, "of_limit": 0.1, "plan_ns": 5.0, "list_ns": 3.0, "times_nixl": 19.0}),
            json!({"size": 4096, "count": 65_536, "bytes": 268_435_456, "times_nixl": 30.0}),
            json!({"size": 4096, "count": 1, "bytes": 4096, "times_nixl": 1.0}),
            json!({"size": 16_384, "count": 1, "bytes": 16_384, "of_limit": 0.01}),
            json!({"size": 65_536, "count": 4096, "bytes": 268_435_456, "of_limit": 0.9}),
        ];
        let found: Vec<_> = goals(&cells, Some(0)).iter().map(|goal| (goal.measured, goal.reached)).collect();
        let expected = [
            (Some(121.0), Some(false)),
            (Some(300.0), Some(true)),
            (Some(0.9), Some(true)),
            (Some(8.0), Some(true)),
            (Some(19.0), Some(false)),
            (Some(0.0), Some(true)),
        ];
        assert_eq!(found, expected);
    }
}
