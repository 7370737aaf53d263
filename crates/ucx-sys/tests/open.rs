//! Opening the library: what is found is named, what is missing is an error.

use std::path::Path;

use ucx_sys::{Library, OLDEST, OpenError};

/// One test, in order: once a copy is loaded, `open` returns that one whatever path it is given.
#[test]
fn open_names_what_it_found() {
    let absent = Path::new("/nonexistent/libucp.so.0");
    match Library::open(Some(absent)) {
        Err(OpenError::NotLoaded { name, .. }) => assert_eq!(Path::new(&name), absent),
        other => panic!("expected NotLoaded, got {other:?}"),
    }
    let not_ucx = Path::new("libc.so.6");
    match Library::open(Some(not_ucx)) {
        Err(OpenError::MissingSymbol { reason, .. }) => {
            assert!(reason.contains("ucp_get_version"), "{reason}")
        }
        other => panic!("expected MissingSymbol, got {other:?}"),
    }
    match Library::open(None) {
        Ok(library) => {
            assert!(library.version() >= OLDEST);
            assert!(library.path().is_absolute(), "{library:?}");
            assert_eq!(library.status_text(0), "Success");
            let again = Library::open(Some(absent)).expect("the loaded copy is used");
            assert_eq!(again.found(), ucx_sys::Found::AlreadyLoaded);
        }
        Err(OpenError::NotLoaded { .. }) => {
            println!("skipped: open_names_what_it_found (no libucp on this machine)")
        }
        Err(other) => panic!("{other}"),
    }
}
