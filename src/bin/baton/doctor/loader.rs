//! Where the dynamic loader finds a library that is asked for by its bare name, and why: glibc's rules, as a pure
//! function over facts.
//!
//! ```text
//!   loaded already under that name (LD_PRELOAD, or a file with that DT_SONAME)
//!   DT_RPATH of the object that asks, then of those that loaded it       unless the asker has a DT_RUNPATH
//!   LD_LIBRARY_PATH
//!   DT_RUNPATH of the object that asks, and of it alone
//!   ld.so.cache, default folders                                         unless the asker says NODEFLIB
//! ```
//!
//! Not modelled: `glibc-hwcaps` subfolders, `LD_AUDIT`, processes with raised privileges.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::elf::{Elf, FileKind};

/// An object that asks for a library, or stands in the line of those that loaded it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub elf: Elf,
}

/// What the loader goes by beside the objects.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `LD_LIBRARY_PATH`, split.
    pub library_path: Vec<PathBuf>,
    /// `LD_PRELOAD`: files and, for those that could be read, their `DT_SONAME`.
    pub preloaded: Vec<(PathBuf, Option<String>)>,
    /// What `ld.so.cache` has under a name.
    pub cache: Vec<(String, PathBuf)>,
}

/// The rule by which a file is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "rule", content = "of", rename_all = "kebab-case")]
pub enum Rule {
    /// It is in the process before anybody asks.
    Preloaded,
    /// `DT_RPATH` of this file.
    Rpath(PathBuf),
    /// `LD_LIBRARY_PATH`.
    LibraryPath,
    /// `DT_RUNPATH` of this file.
    Runpath(PathBuf),
    /// `ld.so.cache`.
    Cache,
    /// A folder that is always looked into.
    DefaultFolder,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Preloaded => f.write_str("LD_PRELOAD, which comes before everything"),
            Rule::Rpath(file) => write!(f, "DT_RPATH of {}, which comes before LD_LIBRARY_PATH", name(file)),
            Rule::LibraryPath => f.write_str("LD_LIBRARY_PATH"),
            Rule::Runpath(file) => {
                write!(f, "DT_RUNPATH of {}, which comes after LD_LIBRARY_PATH", name(file))
            }
            Rule::Cache => f.write_str("ld.so.cache"),
            Rule::DefaultFolder => f.write_str("the loader's default folders"),
        }
    }
}

fn name(file: &Path) -> std::path::Display<'_> {
    file.file_name().map_or(file, Path::new).display()
}

/// A file on the loader's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The file.
    pub path: PathBuf,
    /// How it is reached.
    pub rule: Rule,
    /// Why the loader stops here with an error, if it does.
    pub broken: Option<String>,
}

/// Where a library is looked for, and what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// What is found, in the loader's order: the first one is loaded, the others are never looked at.
    pub hits: Vec<Hit>,
    /// Every folder that was looked into, with its rule, in order.
    pub looked_in: Vec<(PathBuf, Rule)>,
}

/// Looks for `library` as the loader does on behalf of `askers[0]`, which the following ones loaded in turn. `kind`
/// says what a path is.
pub fn search(
    library: &str,
    askers: &[Loaded],
    around: &Surroundings,
    kind: &dyn Fn(&Path) -> FileKind,
) -> Search {
    let mut search = Search::default();
    for (path, soname) in &around.preloaded {
        let same_name =
            soname.as_deref() == Some(library) || path.file_name().is_some_and(|name| name == library);
        if same_name {
            search.add(path.clone(), Rule::Preloaded, kind);
        }
    }
    for (folder, rule) in folders(askers, around) {
        search.looked_in.push((folder.clone(), rule.clone()));
        search.add(folder.join(library), rule, kind);
    }
    if askers.first().is_some_and(|asker| asker.elf.no_default_folders) {
        return search;
    }
    for (_, path) in around.cache.iter().filter(|(name, _)| name == library) {
        search.add(path.clone(), Rule::Cache, kind);
    }
    for folder in DEFAULT_FOLDERS {
        search.add(Path::new(folder).join(library), Rule::DefaultFolder, kind);
    }
    search
}

impl Search {
    fn add(&mut self, path: PathBuf, rule: Rule, kind: &dyn Fn(&Path) -> FileKind) {
        let broken = match kind(&path) {
            FileKind::Absent | FileKind::OtherMachine => return,
            FileKind::Object => None,
            FileKind::Broken(why) => Some(why),
        };
        if !self.hits.iter().any(|hit| hit.path == path) {
            self.hits.push(Hit { path, rule, broken });
        }
    }
}

/// The folders that the objects and the environment name, in order.
fn folders(askers: &[Loaded], around: &Surroundings) -> Vec<(PathBuf, Rule)> {
    let mut found = Vec::new();
    let asker = askers.first();
    let runpath = asker.and_then(|asker| asker.elf.runpath.as_deref().map(|list| (asker, list)));
    if runpath.is_none() {
        for object in askers.iter().filter(|object| object.elf.runpath.is_none()) {
            let list = object.elf.rpath.as_deref().unwrap_or_default();
            let rule = Rule::Rpath(object.path.clone());
            found.extend(expand(list, &object.path).map(|folder| (folder, rule.clone())));
        }
    }
    found.extend(around.library_path.iter().map(|folder| (folder.clone(), Rule::LibraryPath)));
    if let Some((asker, list)) = runpath {
        let rule = Rule::Runpath(asker.path.clone());
        found.extend(expand(list, &asker.path).map(|folder| (folder, rule.clone())));
    }
    found
}

/// A path list of an object, with the loader's own variables filled in.
fn expand<'a>(list: &'a str, object: &Path) -> impl Iterator<Item = PathBuf> + use<'a> {
    let origin = object.parent().unwrap_or(Path::new("/")).display().to_string();
    list.split(':').filter(|entry| !entry.is_empty()).map(move |entry| {
        let mut entry = entry.to_owned();
        for (variable, value) in [("ORIGIN", origin.as_str()), ("LIB", LIB), ("PLATFORM", "x86_64")] {
            entry = entry.replace(&format!("${{{variable}}}"), value).replace(&format!("${variable}"), value);
        }
        PathBuf::from(entry)
    })
}

/// What `$LIB` stands for on Debian and its kin, on which the images are built.
const LIB: &str = "lib/x86_64-linux-gnu";

/// Folders that the loaders of Debian, Ubuntu and Red Hat always look into.
const DEFAULT_FOLDERS: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &str = "libw.so";

    fn object(path: &str, rpath: Option<&str>, runpath: Option<&str>) -> Loaded {
        let elf =
            Elf { rpath: rpath.map(str::to_owned), runpath: runpath.map(str::to_owned), ..Elf::default() };
        Loaded { path: path.into(), elf }
    }

    fn found(askers: &[Loaded], around: &Surroundings, files: &[&str]) -> Vec<(String, Rule)> {
        let kind = |path: &Path| match files.iter().any(|file| Path::new(file) == path) {
            true => FileKind::Object,
            false => FileKind::Absent,
        };
        let hits = search(LIBRARY, askers, around, &kind).hits;
        hits.into_iter().map(|hit| (hit.path.display().to_string(), hit.rule)).collect()
    }

    fn with_library_path(folder: &str) -> Surroundings {
        Surroundings { library_path: vec![folder.into()], ..Surroundings::default() }
    }

    #[test]
    fn rpath_beats_the_library_path_and_runpath_does_not() {
        let (around, files) = (with_library_path("/over"), ["/p/libs/libw.so", "/over/libw.so"]);
        let rpath = [object("/p/libs/host.so", Some("$ORIGIN"), None)];
        assert_eq!(
            found(&rpath, &around, &files)[0],
            ("/p/libs/libw.so".to_owned(), Rule::Rpath("/p/libs/host.so".into()))
        );
        let runpath = [object("/p/libs/host.so", None, Some("${ORIGIN}"))];
        let both = [object("/p/libs/host.so", Some("/p/libs"), Some("$ORIGIN"))];
        for askers in [runpath, both] {
            let hits = found(&askers, &around, &files);
            assert_eq!(hits[0], ("/over/libw.so".to_owned(), Rule::LibraryPath));
            assert_eq!(hits[1].1, Rule::Runpath("/p/libs/host.so".into()), "the shadowed copy is kept");
        }
    }

    #[test]
    fn rpaths_of_the_line_count_and_runpaths_do_not() {
        let line = [
            object("/p/libs/host.so", None, None),
            object("/p/binding.so", Some("$ORIGIN/libs"), None),
            object("/usr/bin/python3", None, Some("$ORIGIN/../lib")),
        ];
        let hits = found(&line, &Surroundings::default(), &["/p/libs/libw.so", "/usr/bin/../lib/libw.so"]);
        assert_eq!(hits, [("/p/libs/libw.so".to_owned(), Rule::Rpath("/p/binding.so".into()))]);
    }

    #[test]
    fn preloaded_names_win_and_the_cache_comes_late() {
        let mut around = with_library_path("/over");
        around.cache = vec![(LIBRARY.to_owned(), "/cached/libw.so".into())];
        around.preloaded = vec![("/pre/other.so".into(), Some(LIBRARY.to_owned()))];
        let asker = [object("/p/host.so", None, None)];
        let files = ["/over/libw.so", "/cached/libw.so", "/pre/other.so", "/usr/lib/libw.so"];
        let rules: Vec<Rule> = found(&asker, &around, &files).into_iter().map(|(_, rule)| rule).collect();
        assert_eq!(rules, [Rule::Preloaded, Rule::LibraryPath, Rule::Cache, Rule::DefaultFolder]);
        let mut without = asker[0].clone();
        without.elf.no_default_folders = true;
        assert_eq!(found(&[without], &around, &files).len(), 2);
    }

    #[test]
    fn other_machines_are_passed_over_and_a_broken_file_is_an_end() {
        let asker = [object("/p/host.so", Some("/a:/b"), None)];
        let kind = |path: &Path| match path.to_str() {
            Some("/a/libw.so") => FileKind::OtherMachine,
            Some("/b/libw.so") => FileKind::Broken("is no ELF file".into()),
            _ => FileKind::Absent,
        };
        let search = search(LIBRARY, &asker, &Surroundings::default(), &kind);
        assert_eq!(search.hits.len(), 1);
        assert_eq!(search.hits[0].broken.as_deref(), Some("is no ELF file"));
        assert_eq!(search.looked_in.len(), 2);
    }
}
