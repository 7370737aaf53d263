//! What code may look like: nothing unfinished, nothing too long, names of the field, no hidden panics.

use crate::Violation;
use crate::source::{Source, Tree, item_end};

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 80;
/// Files that may be longer, each with its reason. Empty on purpose.
const LONG_FILES: &[(&str, &str)] = &[];

/// All rules of this file.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let ours = tree
        .rust
        .iter()
        .filter(|source| source.path.starts_with("src/") || source.path.starts_with("crates/"));
    let mut found: Vec<Violation> = ours
        .flat_map(|source| {
            [unfinished(source), file_length(source), function_length(source), names(source), panics(source)]
        })
        .flatten()
        .collect();
    let cpp = tree
        .text
        .iter()
        .filter(|file| [".cc", ".cpp", ".h", ".hpp"].iter().any(|end| file.path.ends_with(end)));
    found.extend(cpp.filter_map(|file| too_long(&file.path, file.text.lines().count())));
    found
}

fn violation(source: &Source, line: usize, rule: &'static str, text: impl Into<String>) -> Violation {
    Violation { path: source.path.clone(), line, rule, text: text.into() }
}

fn unfinished(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, code) in source.product() {
        for banned in ["todo!(", "unimplemented!(", "dbg!("] {
            if code.contains(banned) {
                found.push(violation(source, line, "unfinished", format!("{banned}..) in the product")));
            }
        }
        let prints = code.contains("println!(") || code.contains("eprintln!(");
        if prints && !source.path.starts_with("src/bin/") {
            found.push(violation(
                source,
                line,
                "unfinished",
                "a library logs through tracing, it does not print",
            ));
        }
    }
    found
}

fn file_length(source: &Source) -> Vec<Violation> {
    too_long(&source.path, source.product().count()).into_iter().collect()
}

fn too_long(path: &str, lines: usize) -> Option<Violation> {
    // Bindings are generated, and committed so that nobody needs the generator.
    let excused = path.ends_with("/bindings.rs") || LONG_FILES.iter().any(|(long, _)| *long == path);
    if lines <= MAX_FILE_LINES || excused {
        return None;
    }
    let text =
        format!("{lines} lines that are not tests, more than {MAX_FILE_LINES}: give each idea its own file");
    Some(Violation { path: path.to_owned(), line: 1, rule: "file length", text })
}

fn function_length(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, code) in source.product() {
        let Some((column, name)) = function(code) else { continue };
        let lines = item_end(&source.code, line - 1, column) + 2 - line;
        if lines > MAX_FUNCTION_LINES {
            let text = format!("{name} has {lines} lines, more than {MAX_FUNCTION_LINES}");
            found.push(violation(source, line, "function length", text));
        }
    }
    found
}

/// Where a function is declared on this line, and its name.
fn function(code: &str) -> Option<(usize, &str)> {
    let at = word(code, "fn")?;
    let rest = code[at + 2..].trim_start();
    let name = &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())];
    (!name.is_empty()).then_some((at, name))
}

fn names(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, code) in source.product() {
        if let Some((_, name)) =
            function(code).filter(|(_, name)| name.starts_with("get_") && *name != "get_mut")
        {
            found.push(violation(
                source,
                line,
                "names",
                format!("{name}: say what it returns, without get_"),
            ));
        }
        for keyword in ["struct", "enum", "trait", "type", "mod"] {
            let Some(at) = word(code, keyword) else { continue };
            let rest = code[at + keyword.len()..].trim_start();
            let name = &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())];
            let lower = name.to_lowercase();
            if ["manager", "helper", "helpers", "util", "utils"].iter().any(|tail| lower.ends_with(tail)) {
                found.push(violation(source, line, "names", format!("{name} does not say what it is for")));
            }
        }
    }
    found
}

/// Where `word` stands alone in `code`.
pub fn word(code: &str, word: &str) -> Option<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .find(|&at| !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part))
}

fn panics(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, code) in source.product() {
        if may_panic(code) && !says_invariant(source, line) {
            let text = "say the invariant that makes it impossible in a comment here, or return an error";
            found.push(violation(source, line, "unwrap", text));
        }
    }
    found
}

/// `expect` with a text is the standard library's; with anything else it is somebody's parser.
fn may_panic(code: &str) -> bool {
    let expects =
        [".expect(\"", ".expect(&"].iter().any(|call| code.contains(call)) || code.ends_with(".expect(");
    code.contains(".unwrap()") || expects
}

/// Whether this line, or the comment that ends on the line before, speaks of an invariant.
fn says_invariant(source: &Source, line: usize) -> bool {
    let speaks = |text: &String| text.to_lowercase().contains("invariant");
    let above = source.lines[..line - 1].iter().rev();
    speaks(&source.lines[line - 1])
        || source.lines[..line - 1].last().is_some_and(speaks)
        || above.take_while(|text| text.trim_start().starts_with("//")).any(speaks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let tree = Tree::of_rust(vec![Source::parse(path, text)], Vec::new());
        check(&tree).into_iter().map(|violation| (violation.line, violation.rule)).collect()
    }

    #[test]
    fn unfinished_code_is_found_outside_tests_and_comments() {
        let text = "fn a() { todo!() }\n// todo!()\n#[cfg(test)]\nmod tests { fn b() { dbg!(1); } }\n";
        assert_eq!(rules("src/a.rs", text), [(1, "unfinished")]);
        assert_eq!(rules("src/a.rs", "fn a() { println!(); }"), [(1, "unfinished")]);
        assert_eq!(rules("src/bin/baton/a.rs", "fn a() { println!(); }"), []);
    }

    #[test]
    fn long_files_and_functions_are_found() {
        let body = "    f();\n".repeat(MAX_FUNCTION_LINES - 2);
        assert_eq!(rules("src/a.rs", &format!("fn a() {{\n{body}}}\n")), []);
        assert_eq!(rules("src/a.rs", &format!("\nfn a(\n) {{\n{body}}}\n")), [(2, "function length")]);
        let constants = "const A: u8 = 1;\n".repeat(MAX_FILE_LINES);
        assert_eq!(rules("src/a.rs", &constants), []);
        assert_eq!(rules("src/a.rs", &format!("{constants}\n")), [(1, "file length")]);
        assert_eq!(rules("src/a.rs", &format!("{constants}#[cfg(test)]\nmod tests {{\n}}\n")), []);
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        assert_eq!(
            rules("src/a.rs", "pub struct SlotManager;\nfn get_slot() {}\nfn forget_slot() {}\n"),
            [(1, "names"), (2, "names")]
        );
        assert_eq!(rules("crates/x/src/a.rs", "mod utils;\nstruct Utility;\n"), [(1, "names")]);
    }

    #[test]
    fn an_unwrap_needs_its_invariant() {
        assert_eq!(rules("src/a.rs", "fn a() {\n    b().unwrap();\n}\n"), [(2, "unwrap")]);
        assert_eq!(rules("src/a.rs", "fn a() {\n    b()\n        .expect(\"x\");\n}\n"), [(3, "unwrap")]);
        assert_eq!(rules("src/a.rs", "fn a() {\n    b().unwrap(); // invariant: b is set in new\n}\n"), []);
        assert_eq!(
            rules("src/a.rs", "fn a() {\n    // Invariant: b is set\n    // in new\n    b().unwrap();\n}\n"),
            []
        );
        assert_eq!(rules("src/a.rs", "fn a() { b().unwrap_or(1); }\n"), []);
        assert_eq!(rules("src/a.rs", "fn a() { self.expect(tag, END)?; }\n"), []);
        assert_eq!(
            rules("src/a.rs", "fn a() {\n    b().expect(\n        \"x\",\n    );\n}\n"),
            [(2, "unwrap")]
        );
    }
}
