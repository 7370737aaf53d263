//! Where the libraries are that the build has made, and which driver the tests are for.

use std::env;
use std::path::PathBuf;

/// The driver that the tests of this process are for: the one that `BATON_CUDA_LIBRARY` names, a real one on a machine with
/// a GPU; else the stand-in. The first to open a driver decides for all of the process.
///
/// # Panics
/// Where none is named and there is no stand-in.
pub fn driver() -> PathBuf {
    named_driver().unwrap_or_else(library)
}

/// Whether [`driver`] is the stand-in, whose settings `test` needs; says so where that is left out.
pub fn serves(test: &str) -> bool {
    let is_fake = named_driver().is_none();
    if !is_fake {
        eprintln!("{test}: left out, it needs the stand-in's settings");
    }
    is_fake
}

#[allow(clippy::disallowed_methods, reason = "a setting of the tests")]
fn named_driver() -> Option<PathBuf> {
    env::var_os("BATON_CUDA_LIBRARY").filter(|name| !name.is_empty()).map(PathBuf::from)
}

/// The stand-in, for `BATON_CUDA_LIBRARY`: it lies with the dependencies of the test that asks.
///
/// # Panics
/// Where there is none: then cargo has not built this crate for the program that asks.
pub fn library() -> PathBuf {
    let program = env::current_exe().expect("this program has a path");
    // A test is in `deps` itself; a program of the package one above, an example beside it.
    let folders =
        program.ancestors().skip(1).take(2).flat_map(|folder| [folder.to_owned(), folder.join("deps")]);
    let places: Vec<PathBuf> = folders.map(|folder| folder.join("libfake_cuda.so")).collect();
    let found = places.iter().find(|place| place.exists());
    found
        .unwrap_or_else(|| panic!("no libfake_cuda.so: {places:?}; `cargo build -p fake-cuda` makes one"))
        .clone()
}

/// A folder that holds the stand-in as `libcuda.so.1`, for `LD_LIBRARY_PATH`.
///
/// # Panics
/// Where there is none.
pub fn driver_folder() -> PathBuf {
    let folder = PathBuf::from(env!("OUT_DIR")).join("driver");
    let link = folder.join("libcuda.so.1");
    assert!(
        link.exists(),
        "{} leads nowhere; `cargo build -p fake-cuda` makes what it names",
        link.display()
    );
    folder
}

/// A libcuda that lacks nearly every function, to be refused.
///
/// # Panics
/// Where there is none.
pub fn old_library() -> PathBuf {
    let library = PathBuf::from(env!("OUT_DIR")).join("libcuda_old.so");
    assert!(library.exists(), "no {}; `cargo build -p fake-cuda` makes one", library.display());
    library
}

/// A folder that holds a libcufile.so.0 for tests, for `LD_LIBRARY_PATH`: it moves bytes with the CPU, by the libcuda of the
/// process.
///
/// # Panics
/// Where there is none.
pub fn cufile_folder() -> PathBuf {
    let folder = PathBuf::from(env!("OUT_DIR")).join("cufile");
    assert!(
        folder.join("libcufile.so.0").exists(),
        "no libcufile.so.0 in {}; `cargo build -p fake-cuda` makes one",
        folder.display()
    );
    folder
}
