//! A TensorRT-LLM package folder as small as the doctor needs it, and a Python that says where it is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

/// What the classes of the Python agent are called, in the plain namespace.
pub const CLASSES: [&str; 2] = [
    "_ZN12tensorrt_llm8executor8kv_cache17NixlTransferAgent8shutdownEv",
    "_ZNK12tensorrt_llm8executor8kv_cache18NixlTransferStatus13getLastStatusEv",
];
pub const FACTORY: &str = "createNixlTransferAgent";
pub const WRAPPER: &str = "libtensorrt_llm_nixl_wrapper.so";
/// `AgentDesc::serialize() const`: P3 and later.
pub const SERIALIZE: &str = "_ZNK12tensorrt_llm8executor8kv_cache9AgentDesc9serializeB5cxx11Ev";

/// A folder that is removed when the test ends, with `tensorrt_llm` in it.
pub struct Package {
    pub root: PathBuf,
}

/// How a search path stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtag {
    Rpath,
    Runpath,
    None,
}

impl Package {
    /// The package of a release whose library asks with `dtag`, without wrappers. `None`, and a line that says so, where
    /// nothing can be compiled.
    pub fn new(test: &str, dtag: Dtag) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if Command::new("c++").arg("--version").output().is_err() {
            println!("skipped: {test} (no c++)");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("doctor-{}-{number}", std::process::id()));
        let package = Self { root };
        fs::create_dir_all(package.libs()).unwrap();
        fs::write(
            package.folder().join("__init__.py"),
            "raise ImportError('this package is not to be imported')\n",
        )
        .unwrap();
        package.version("1.3.0rc25");
        let host = package.libs().join("libtensorrt_llm.so");
        // It also asks the real loader, so that the doctor's answer can be held against it.
        let ask = format!(
            "#include <dlfcn.h>\nextern \"C\" char const* where() {{ Dl_info info{{}}; \
             void* library = dlopen(\"{WRAPPER}\", RTLD_LAZY); \
             void* factory = library ? dlsym(library, \"{FACTORY}\") : nullptr; \
             return factory && dladdr(factory, &info) ? info.dli_fname : \"\"; }}\n"
        );
        package.compile(&host, &[SERIALIZE], &ask, &rpath(dtag, "$ORIGIN"));
        Some(package)
    }

    pub fn folder(&self) -> PathBuf {
        self.root.join("site/tensorrt_llm")
    }

    pub fn libs(&self) -> PathBuf {
        self.folder().join("libs")
    }

    pub fn version(&self, version: &str) {
        fs::write(self.folder().join("version.py"), format!("__version__ = \"{version}\"\n")).unwrap();
    }

    /// A wrapper of the stock kind.
    pub fn stock(&self, path: &Path, exports: &[&str]) {
        self.compile(path, exports, "", &[]);
    }

    /// A wrapper with Baton's own note, of version 9.9.9.
    pub fn baton(&self, path: &Path, exports: &[&str]) {
        let note = concat!(env!("CARGO_MANIFEST_DIR"), "/cpp/note.cc");
        let text = fs::read_to_string(note).unwrap();
        self.compile(path, exports, &text, &["-DBATON_VERSION=\"9.9.9\"".to_owned()]);
    }

    /// A wrapper of Baton's that needs version NEEDS_2 of a library beside it, which has NEEDS_1 alone.
    pub fn baton_for_a_newer_system(&self, path: &Path) {
        let library = "libneeds.so.1";
        let versioned = |folder: &Path, version: &str| {
            let script = self.root.join("versions");
            fs::write(&script, format!("{version} {{ global: needed; local: *; }};\n")).unwrap();
            let flag = format!("-Wl,--version-script={}", script.display());
            self.compile(&folder.join(library), &["needed"], "", &[flag]);
        };
        let newer = self.root.join("newer");
        versioned(&newer, "NEEDS_2");
        versioned(path.parent().unwrap(), "NEEDS_1");
        let note = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/cpp/note.cc")).unwrap();
        let text = format!("{note}\nextern \"C\" void needed();\nvoid call() {{ needed(); }}\n");
        let flags = [
            "-DBATON_VERSION=\"9.9.9\"".to_owned(),
            format!("-L{}", newer.display()),
            format!("-l:{library}"),
        ];
        self.compile(path, &[FACTORY], &text, &flags);
    }

    /// The Python runtime's module: linked to the wrapper, of which it wants [`CLASSES`].
    pub fn binding(&self, suffix: &str) {
        let path = self.folder().join(format!("tensorrt_llm_transfer_agent_binding{suffix}"));
        let calls: String = CLASSES
            .iter()
            .enumerate()
            .map(|(at, name)| format!("void import{at}() asm(\"{name}\");\n"))
            .chain(["void init() { import0(); import1(); }\n".to_owned()])
            .collect();
        let stand_in = self.root.join("link");
        fs::create_dir_all(&stand_in).unwrap();
        self.stock(&stand_in.join(WRAPPER), &CLASSES);
        let mut flags = rpath(Dtag::Rpath, "$ORIGIN/libs");
        flags.extend([format!("-L{}", stand_in.display()), format!("-l:{WRAPPER}")]);
        self.compile(&path, &[], &calls, &flags);
    }

    fn compile(&self, path: &Path, exports: &[&str], text: &str, flags: &[String]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let source = self.root.join("source.cc");
        let functions = exports.iter().enumerate();
        let functions: String = functions
            .map(|(at, name)| format!("void export{at}() asm(\"{name}\"); void export{at}() {{}}\n"))
            .collect();
        fs::write(&source, format!("{text}{functions}")).unwrap();
        let soname = path.file_name().unwrap().to_str().unwrap();
        let output = Command::new("c++")
            .args(["-shared", "-fPIC", "-O0", "-std=c++17", "-Wl,--no-as-needed"])
            .arg(format!("-Wl,-soname,{soname}"))
            .arg(&source)
            .args(flags)
            .args(["-ldl", "-o"])
            .arg(path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A Python that answers as this package's would, with a nixl package or without.
    pub fn python(&self, nixl: bool) -> PathBuf {
        let folder = self.root.join("site/nixl");
        let answer = json!({
            "executable": "/bin/sh",
            "version": "3.12.3",
            "suffixes": [".cpython-312-x86_64-linux-gnu.so", ".abi3.so", ".so"],
            "tensorrt_llm": self.folder(),
            "nixl": nixl.then_some(folder),
        });
        let path = self.root.join("python3");
        fs::write(
            &path,
            format!("#!/bin/sh\ncat <<'END'\na line of a .pth file\nbaton-doctor {answer}\nEND\n"),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// `baton doctor --json` on this package: exit code and report. `variables` is the whole environment.
    pub fn examine(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, Value) {
        let python = self.python(true);
        let mut all = vec!["--python", python.to_str().unwrap(), "--json"];
        all.extend(arguments);
        let output = doctor(&all, variables);
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{error}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        });
        (output.status.code().unwrap(), report)
    }

    /// What the real loader gives the package's library, in this environment.
    pub fn really_loaded(&self, variables: &[(&str, &str)]) -> PathBuf {
        let program = self.root.join("ask");
        if !program.exists() {
            let source = self.root.join("ask.cc");
            let text = "#include <dlfcn.h>\n#include <cstdio>\nint main(int, char** arguments) { \
                        void* host = dlopen(arguments[1], RTLD_NOW); \
                        auto where = (char const* (*)()) dlsym(host, \"where\"); std::puts(where()); }\n";
            fs::write(&source, text).unwrap();
            let built = Command::new("c++").arg(&source).args(["-ldl", "-o"]).arg(&program).status().unwrap();
            assert!(built.success());
        }
        let output = Command::new(program)
            .arg(self.libs().join("libtensorrt_llm.so"))
            .env_clear()
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// `baton doctor` with exactly these variables.
pub fn doctor(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_baton"))
        .arg("doctor")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

/// The door of a backend and a runtime in a report.
pub fn door<'a>(report: &'a Value, backend: &str, runtime: &str) -> &'a Value {
    let doors = report["doors"].as_array().unwrap();
    doors.iter().find(|door| door["backend"] == backend && door["runtime"] == runtime).unwrap()
}

/// The texts of all findings of a severity.
pub fn findings(report: &Value, severity: &str) -> Vec<String> {
    let all = report["findings"].as_array().unwrap().iter();
    all.filter(|finding| finding["severity"] == severity)
        .map(|finding| {
            format!("{} -> {}", finding["text"].as_str().unwrap(), finding["advice"].as_str().unwrap())
        })
        .collect()
}

fn rpath(dtag: Dtag, path: &str) -> Vec<String> {
    match dtag {
        Dtag::Rpath => vec!["-Wl,--disable-new-dtags".to_owned(), format!("-Wl,-rpath,{path}")],
        Dtag::Runpath => vec!["-Wl,--enable-new-dtags".to_owned(), format!("-Wl,-rpath,{path}")],
        Dtag::None => Vec::new(),
    }
}
