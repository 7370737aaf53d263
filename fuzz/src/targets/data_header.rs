//! The header of a data frame.

use baton::proto::wire::DataHeader;

/// A header has one form only: what is taken is encoded to the same bytes.
pub fn run(data: &[u8]) -> bool {
    let Ok(header) = DataHeader::decode(data) else { return false };
    assert_eq!(header.encode(), data);
    true
}
