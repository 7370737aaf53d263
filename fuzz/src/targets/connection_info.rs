//! Small texts that hosts and operators hand on: connection infos and versions.

use baton::agent::address::{format_connection_info, parse_connection_info};
use baton::host::version::Version;

/// A connection info is that of the address it stands for; a version is read or not.
pub fn run(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else { return false };
    let address = parse_connection_info(text);
    if let Ok(address) = address {
        let again = format_connection_info(address.ip(), address.port());
        assert_eq!(parse_connection_info(&again), Ok(address), "{text:?}");
    }
    let version = Version::parse(text);
    address.is_ok() || version.is_some()
}
