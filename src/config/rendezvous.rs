#[derive(Clone, Debug, Default)] pub struct RendezvousSettings;
