//! The rules of the tree that a machine can judge, held against the tree.
//!
//! | rule | where |
//! |---|---|
//! | arrows between rooms go down only; who may use which crate, the environment, `unsafe` | [`rooms`] |
//! | no unfinished code, bounded files and functions, names, `unwrap` with its invariant | [`shape`] |
//! | no path of somebody's machine, a reason beside every dependency, links that resolve | [`documents`] |
//!
//! Every violation is printed as `file:line: rule: what to do`, all of them at once. The rules are tested
//! on small planted violations beside them. This reads text, not types: [`source`] says how.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;

use std::fmt;

use source::Tree;

/// One broken rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    path: String,
    line: usize,
    rule: &'static str,
    text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.text)
    }
}

#[test]
fn the_tree_is_tidy() {
    let tree = Tree::read(env!("CARGO_MANIFEST_DIR").as_ref());
    assert!(tree.rust.iter().any(|file| file.path == "src/lib.rs"), "the tree was not found");
    assert!(tree.text.iter().any(|file| file.path == "Cargo.toml"), "the manifests were not found");

    let mut violations = rooms::check(&tree);
    violations.extend(shape::check(&tree));
    violations.extend(documents::check(&tree));
    violations.sort();
    let listed: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(violations.is_empty(), "{} rules are broken:\n{}\n", listed.len(), listed.join("\n"));
}
