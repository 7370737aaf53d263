//! What a fabric around another one hands on as it is.

/// The methods of a `Fabric` with a field `inner` that are `inner`'s alone. Without a hand of its own, or a handle: whoever
/// wraps says what becomes of those.
macro_rules! hand_on {
    () => {
        fn name(&self) -> &'static str {
            self.inner.name()
        }

        fn limits(&self) -> baton::fabric::Limits {
            self.inner.limits()
        }

        fn address(&self) -> Vec<u8> {
            self.inner.address()
        }

        fn deregister(&mut self, key: baton::desc::RegionKey) {
            self.inner.deregister(key);
        }

        fn pinning(&self) -> Option<std::sync::Arc<dyn baton::fabric::Pinning>> {
            self.inner.pinning()
        }

        fn carrier(&self, peer: baton::desc::PeerKey) -> &'static str {
            self.inner.carrier(peer)
        }

        fn disconnect(&mut self, peer: baton::desc::PeerKey) {
            self.inner.disconnect(peer);
        }

        fn import(
            &mut self,
            peer: baton::desc::PeerKey,
            region: &baton::fabric::Region,
            key: Option<&[u8]>,
        ) -> Result<(), baton::error::FabricError> {
            self.inner.import(peer, region, key)
        }
    };
}

pub(crate) use hand_on;
