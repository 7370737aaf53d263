//! An agent's blob: a NIXL document with our section in it, as hosts hand it on.

use baton::proto::blob::Blob;

/// What is taken is within the bounds, and comes back from its own bytes.
pub fn run(data: &[u8]) -> bool {
    let blob = match Blob::decode(data) {
        Ok(blob) => blob,
        Err(error) => {
            assert!(error.to_string().len() < 1 << 20, "an error that no log can bear");
            return false;
        }
    };
    assert_eq!(blob.check(), Ok(()), "what is taken may be handed on");
    assert_eq!(Blob::decode(&blob.encode()).as_ref(), Ok(&blob));
    true
}
