//! Files as the rules see them: their lines, and for Rust the code without comments and string contents, and
//! which lines are tests.

use std::fs;
use std::path::Path;

/// Every file the rules look at.
pub struct Tree {
    /// Rust sources.
    pub rust: Vec<Source>,
    /// Everything else that is text, and the Rust sources again, as plain lines.
    pub text: Vec<TextFile>,
}

/// A text file, its path relative to the root.
pub struct TextFile {
    pub path: String,
    pub text: String,
}

/// A Rust source.
pub struct Source {
    pub path: String,
    /// As written.
    pub lines: Vec<String>,
    /// The same lines with comments and the contents of strings and characters blanked.
    pub code: Vec<String>,
    /// For each line, whether it is compiled for tests only.
    pub is_test: Vec<bool>,
}

/// Not ours, or not text: build outputs, and what git or an editor keeps.
const SKIPPED: &[&str] = &["target", "build", ".git", "node_modules"];

impl Tree {
    /// Reads the tree under `root`.
    pub fn read(root: &Path) -> Self {
        let mut paths = Vec::new();
        walk(root, root, &mut paths);
        paths.sort();
        let text: Vec<TextFile> = paths
            .into_iter()
            // What is not UTF-8 is data, and no rule is about data.
            .filter_map(|path| Some(TextFile { text: fs::read_to_string(root.join(&path)).ok()?, path }))
            .collect();
        let files = text.iter().filter(|file| file.path.ends_with(".rs"));
        Self::of_rust(files.map(|file| Source::parse(&file.path, &file.text)).collect(), text)
    }

    /// A tree of these files, with whole files marked as tests where their parent declares them so.
    pub fn of_rust(mut rust: Vec<Source>, text: Vec<TextFile>) -> Self {
        let test_files: Vec<String> = rust.iter().flat_map(Source::test_files).collect();
        for source in &mut rust {
            let under = |root: &String| {
                source.path == format!("{root}.rs") || source.path.starts_with(&format!("{root}/"))
            };
            let whole = source.path.ends_with("tests.rs")
                || ["tests/", "benches/", "examples/"].iter().any(|dir| source.path.contains(dir));
            if whole || test_files.iter().any(under) {
                source.is_test.fill(true);
            }
        }
        Self { rust, text }
    }
}

fn walk(root: &Path, folder: &Path, out: &mut Vec<String>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if SKIPPED.contains(&name) || path.is_symlink() {
            continue;
        } else if path.is_dir() {
            walk(root, &path, out);
        } else {
            let relative = path.strip_prefix(root).expect("a path under the root");
            out.push(relative.to_string_lossy().into_owned());
        }
    }
}

impl Source {
    /// Reads one file's text.
    pub fn parse(path: &str, text: &str) -> Self {
        let masked = mask(text);
        let code: Vec<String> = masked.lines().map(str::to_owned).collect();
        let is_test = test_lines(&code);
        Self { path: path.to_owned(), lines: text.lines().map(str::to_owned).collect(), code, is_test }
    }

    /// Line numbers (from 1) and code of everything that is not a test.
    pub fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().zip(&self.is_test).enumerate();
        lines.filter(|(_, (_, test))| !**test).map(|(at, (code, _))| (at + 1, code.as_str()))
    }

    /// The code with the lines of tests left empty, so that line numbers hold.
    pub fn product_with_breaks(&self) -> String {
        let lines = self.code.iter().zip(&self.is_test);
        lines.map(|(code, test)| if *test { "\n".to_owned() } else { format!("{code}\n") }).collect()
    }

    /// The module that the file is, as path segments under the crate: `src/a/b.rs` is `[a, b]`.
    pub fn module(&self) -> Vec<&str> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        let mut segments: Vec<&str> = inner.split('/').collect();
        if matches!(segments.last(), Some(&"mod" | &"lib" | &"main")) {
            segments.pop();
        }
        segments
    }

    /// Paths, without `.rs`, of the files behind `#[cfg(test)] mod name;` in this file.
    fn test_files(&self) -> Vec<String> {
        let folder = match self.path.rsplit_once('/') {
            Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_owned(),
            _ => self.path.trim_end_matches(".rs").to_owned(),
        };
        let declared = self.code.iter().zip(&self.is_test).filter(|(_, test)| **test);
        declared
            .filter_map(|(code, _)| {
                let name = code.trim().strip_suffix(';')?.rsplit_once("mod ")?.1;
                Some(format!("{folder}/{name}"))
            })
            .collect()
    }
}

/// Marks the lines of every item under `#[cfg(test)]` (or `cfg(all(test, ..))` and the like).
fn test_lines(code: &[String]) -> Vec<bool> {
    let mut is_test = vec![false; code.len()];
    for start in 0..code.len() {
        let line = code[start].trim_start();
        if !is_test[start] && (line.starts_with("#[cfg(test") || line.starts_with("#[cfg(all(test")) {
            let after_attribute = code[start].find(']').map_or(0, |at| at + 1);
            let end = item_end(code, start, after_attribute);
            is_test[start..=end].fill(true);
        }
    }
    is_test
}

/// The line on which the item that starts at (`line`, `column`) ends: at its closing brace, or at a
/// semicolon outside all brackets.
pub fn item_end(code: &[String], line: usize, column: usize) -> usize {
    let mut depth = 0usize;
    for (at, text) in code.iter().enumerate().skip(line) {
        let from = if at == line { column } else { 0 };
        for c in text[from..].chars() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && c == '}' {
                        return at;
                    }
                }
                ';' if depth == 0 => return at,
                _ => {}
            }
        }
    }
    code.len().saturating_sub(1)
}

/// `text` with comments and the contents of string and character literals turned into spaces. Line breaks
/// stay, so line numbers hold; columns hold in ASCII text.
fn mask(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let (kept, end) = literal_or_comment(&chars, at).unwrap_or((1, at + 1));
        for (offset, &c) in chars[at..end].iter().enumerate() {
            let keep = offset < kept || c == '\n';
            out.push(if keep { c } else { ' ' });
        }
        at = end;
    }
    out
}

/// If a comment or literal starts at `at`: how many characters of it to keep, and where it ends.
fn literal_or_comment(chars: &[char], at: usize) -> Option<(usize, usize)> {
    let next = |offset: usize| chars.get(at + offset).copied();
    let inside_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match (chars[at], next(1)) {
        ('/', Some('/')) => Some((0, find(chars, at, |c, _| c == '\n'))),
        ('/', Some('*')) => Some((0, block_comment_end(chars, at))),
        ('"', _) => Some((1, quoted_end(chars, at + 1, '"'))),
        ('r', Some('"' | '#')) | ('b', Some('r')) if !inside_word => {
            raw_string_end(chars, at).map(|end| (1, end))
        }
        // 'a' and '\n' are characters, 'a without a closing quote is a lifetime.
        ('\'', Some('\\')) => Some((1, quoted_end(chars, at + 1, '\''))),
        ('\'', Some(_)) if next(2) == Some('\'') => Some((1, at + 3)),
        _ => None,
    }
}

fn find(chars: &[char], from: usize, stop: impl Fn(char, usize) -> bool) -> usize {
    (from..chars.len()).find(|&at| stop(chars[at], at)).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut at = from;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// Where the raw string that starts at `from` (`r"`, `r#"`, `br"`) ends, or `None` if it is none.
fn raw_string_end(chars: &[char], from: usize) -> Option<usize> {
    let hashes_at = find(chars, from, |c, _| c != 'r' && c != 'b');
    let quote_at = find(chars, hashes_at, |c, _| c != '#');
    if chars.get(quote_at) != Some(&'"') {
        return None;
    }
    let hashes = quote_at - hashes_at;
    let closes = |at: usize| chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    Some((find(chars, quote_at + 1, |c, at| c == '"' && closes(at)) + 1 + hashes).min(chars.len()))
}

#[test]
fn comments_and_literals_are_blanked_and_code_is_not() {
    let text = "let a = \"x.unwrap() \\\" \"; // .unwrap()\nlet b = r#\"} \" {\"#; /* /* { */ } */ f('{', '\\'', 'a: b)\n";
    let code = mask(text);
    assert!(!code.contains("unwrap") && !code.contains('{') && !code.contains('}'), "{code}");
    assert!(code.contains("let b = r") && code.contains("'a: b)"), "{code}");
    assert_eq!(code.lines().count(), 2);
    assert_eq!(code.len(), text.len());
}

#[test]
fn tests_are_told_from_the_product() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod more;\n";
    let source = Source::parse("src/x.rs", text);
    assert_eq!(source.is_test, [false, true, true, true, true, false, true, true]);
    let more = Source::parse("src/x/more.rs", "fn d() {}");
    let tree = Tree::of_rust(vec![source, more], Vec::new());
    assert_eq!(tree.rust[1].is_test, [true]);
}

#[test]
fn a_file_is_the_module_its_path_says() {
    let module = |path: &str| Source::parse(path, "").module().join("::");
    assert_eq!(module("src/fabric/stream/mod.rs"), "fabric::stream");
    assert_eq!(module("src/fabric/sim.rs"), "fabric::sim");
    assert_eq!(module("src/lib.rs"), "");
}
