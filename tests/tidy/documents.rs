//! What stands beside the code: manifests, documents, and paths that hold on one machine only.

use std::collections::{HashMap, HashSet};

use crate::Violation;
use crate::source::{TextFile, Tree};

/// All rules of this file.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let mut found: Vec<Violation> = tree.text.iter().flat_map(private_paths).collect();
    let manifests = tree.text.iter().filter(|file| file.path.ends_with("Cargo.toml"));
    found.extend(manifests.flat_map(dependency_reasons));
    found.extend(tree.text.iter().flat_map(features));
    found.extend(links(&tree.text));
    found
}

fn violation(file: &TextFile, line: usize, rule: &'static str, text: String) -> Violation {
    Violation { path: file.path.clone(), line, rule, text }
}

fn private_paths(file: &TextFile) -> Vec<Violation> {
    // Spelt in two pieces, so that this file does not break its own rule.
    let private = [concat!("/wo", "rk/"), concat!("/ho", "me/")];
    let mut found = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        for path in private.iter().filter(|path| stands_at_a_root(line, path)) {
            let text = format!("{path} is a place on somebody's machine");
            found.push(violation(file, at + 1, "paths", text));
        }
    }
    found
}

/// Whether `path` occurs in `line` as the start of an absolute path.
fn stands_at_a_root(line: &str, path: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || "_-./}".contains(c);
    line.match_indices(path).any(|(at, _)| !line[..at].ends_with(inner))
}

fn dependency_reasons(manifest: &TextFile) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut within = false;
    for (at, line) in manifest.text.lines().enumerate() {
        let header = line.split('#').next().unwrap_or_default().trim();
        let is_header = header.starts_with('[') && header.ends_with(']');
        // `[dependencies.name]` spreads one dependency over several lines: its header is where the reason goes.
        let one = is_header && header.contains("dependencies.");
        if is_header {
            within = header.trim_matches(['[', ']']).ends_with("dependencies");
        }
        let dependency = one || (within && !is_header && header.contains('='));
        if dependency && !line.contains('#') {
            found.push(violation(manifest, at + 1, "dependencies", "add its reason after a #".to_owned()));
        }
    }
    found
}

/// What is shipped is built with no feature: one plants bugs, the other panics. Tests may have a library of their own.
fn features(file: &TextFile) -> Vec<Violation> {
    let is_manifest = file.path.ends_with("Cargo.toml");
    let is_recipe = ["Makefile", "CMakeLists.txt", ".cmake", ".sh", ".ci/run"];
    let is_recipe = is_recipe.iter().any(|end| file.path.ends_with(end)) && !file.path.starts_with("tests/");
    let turns_on = |line: &str| {
        let code = line.split('#').next().unwrap_or_default();
        let in_recipe = is_recipe && code.contains("-features") && !code.contains("cargo test");
        in_recipe
            || is_manifest && code.starts_with("default") && code.contains('=') && !code.contains("-run")
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| turns_on(line));
    let text = "a feature may be switched on by a `cargo test`, or in a recipe under tests/: src/planted.rs";
    lines.map(|(at, _)| violation(file, at + 1, "features", text.to_owned())).collect()
}

/// Relative links in documents lead to a file, and `#anchors` to a heading.
fn links(files: &[TextFile]) -> Vec<Violation> {
    let documents: Vec<&TextFile> = files.iter().filter(|file| file.path.ends_with(".md")).collect();
    let anchors: HashMap<&str, HashSet<String>> =
        documents.iter().map(|file| (file.path.as_str(), headings(&file.text))).collect();
    let exists =
        |path: &str| files.iter().any(|file| file.path == path || file.path.starts_with(&format!("{path}/")));

    let mut found = Vec::new();
    for file in documents {
        for (line, target) in link_targets(&file.text) {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = resolve(&file.path, path);
            if !exists(&path) {
                found.push(violation(
                    file,
                    line,
                    "links",
                    format!("{target} leads to {path}, which is not there"),
                ));
            } else if !anchor.is_empty()
                && !anchors.get(path.as_str()).is_some_and(|known| known.contains(anchor))
            {
                found.push(violation(file, line, "links", format!("{path} has no heading #{anchor}")));
            }
        }
    }
    found
}

/// Targets of `[text](target)` outside code, without those that lead out of the tree.
fn link_targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, text) in prose(text) {
        for (at, _) in text.match_indices("](") {
            let Some(target) = text[at + 2..].split(')').next() else { continue };
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push((line, target.to_owned()));
            }
        }
    }
    found
}

/// The lines outside fenced code, without inline code.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((at + 1, line.split('`').step_by(2).collect()));
        }
    }
    lines
}

/// Anchors of a document's headings, as GitHub makes them.
fn headings(text: &str) -> HashSet<String> {
    let mut fenced = false;
    let mut anchors = HashSet::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if !fenced && title.len() < line.len() && title.starts_with(' ') {
            let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            anchors.insert(kept.collect::<String>().to_lowercase().replace(' ', "-"));
        }
    }
    anchors
}

/// `link` as it stands in the document `from`, relative to the root.
fn resolve(from: &str, link: &str) -> String {
    if link.is_empty() {
        return from.to_owned();
    }
    let mut segments: Vec<&str> = from.split('/').collect();
    segments.pop();
    for segment in link.trim_end_matches('/').split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(files: &[(&str, &str)]) -> Vec<(usize, &'static str)> {
        let text =
            files.iter().map(|(path, text)| TextFile { path: (*path).to_owned(), text: (*text).to_owned() });
        let found = check(&Tree::of_rust(Vec::new(), text.collect()));
        found.into_iter().map(|violation| (violation.line, violation.rule)).collect()
    }

    #[test]
    fn places_on_a_machine_are_found() {
        assert_eq!(rules(&[("a.sh", concat!("cd\ncd /wo", "rk/main\n"))]), [(2, "paths")]);
        assert_eq!(rules(&[("a.sh", concat!("x=\"/ho", "me/me\""))]), [(1, "paths")]);
        assert_eq!(rules(&[("a.sh", concat!("cd ./net", "/wo", "rk/x"))]), []);
    }

    #[test]
    fn a_dependency_needs_its_reason() {
        let text = "[package]\nname = \"x\"\n[dependencies]\na = \"1\" # why\nb = \"1\"\n[dev-dependencies.c]\nversion = \"1\"\n";
        assert_eq!(rules(&[("Cargo.toml", text)]), [(5, "dependencies"), (6, "dependencies")]);
        assert_eq!(
            rules(&[("Cargo.toml", "[target.'cfg(unix)'.dependencies]\na = \"1\"\n")]),
            [(2, "dependencies")]
        );
    }

    #[test]
    fn features_are_for_tests() {
        let manifest = "default-run = \"x\"\n[features]\ndefault = [\"planted\"] # why\nplanted = []\n";
        assert_eq!(rules(&[("Cargo.toml", manifest)]), [(3, "features")]);
        let recipe = "\tcargo test --features planted\n\tcargo build --all-features\n";
        assert_eq!(rules(&[("Makefile", recipe)]), [(2, "features")]);
        assert_eq!(
            rules(&[("cmake/x.cmake", "  COMMAND cargo build --features planted\n")]),
            [(1, "features")]
        );
    }

    #[test]
    fn links_lead_somewhere() {
        let files = |text: &'static str| {
            [("docs/a.md", text), ("docs/b.md", "# The `x` rule, twice\n"), ("src/lib.rs", "")]
        };
        assert_eq!(
            rules(&files("[b](b.md) [c](../src/lib.rs) [d](../src) [e](https://example.org/x)\n")),
            []
        );
        assert_eq!(rules(&files("[b](b.md#the-x-rule-twice)\n")), []);
        assert_eq!(rules(&files("\n[b](b.md#the-rule)\n")), [(2, "links")]);
        assert_eq!(rules(&files("[b](c.md)\n")), [(1, "links")]);
        assert_eq!(rules(&files("`[b](c.md)`\n```\n[b](c.md)\n```\n")), []);
    }
}
