//! The nearest valid name, for errors about misspelt ones.

/// Up to this distance (0 = same, 1 = nothing in common) a name counts as a misspelling.
const MAX_DISTANCE: f64 = 0.45;

/// The valid name that `name` most likely stands for, if any comes near.
pub fn nearest<'a>(name: &str, valid: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    valid
        .iter()
        .map(|candidate| (distance(&name, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= MAX_DISTANCE)
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean "x"?)`, or nothing when no valid name comes near.
pub fn did_you_mean(name: &str, valid: &[&str]) -> String {
    nearest(name, valid).map(|near| format!(" (did you mean \"{near}\"?)")).unwrap_or_default()
}

/// Edits per character, transposed neighbours counted as one edit.
fn distance(a: &str, b: &str) -> f64 {
    1.0 - strsim::normalized_damerau_levenshtein(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_misspellings_and_nothing_else() {
        let valid = ["UCX", "NIXL", "MOONCAKE"];
        let table = [
            ("NXIL", Some("NIXL")),
            ("nixl", Some("NIXL")),
            ("ucx ", Some("UCX")),
            ("MOONCKAE", Some("MOONCAKE")),
            ("tcp", None),
            ("", None),
        ];
        for (name, expected) in table {
            assert_eq!(nearest(name, &valid), expected, "{name:?}");
        }
    }

    #[test]
    fn the_hint_ends_a_sentence() {
        assert_eq!(did_you_mean("NIXLL", &["NIXL"]), " (did you mean \"NIXL\"?)");
        assert_eq!(did_you_mean("zzz", &["NIXL"]), "");
    }
}
