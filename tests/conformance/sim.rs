//! The suite on `sim`, in each of its styles.

use baton::fabric::Fabric;
use baton::fabric::sim::{SimConfig, SimNet, SimStyle};

use crate::harness::{Harness, Skip};

macro_rules! style {
    ($name:ident, $config:expr) => {
        struct $name(SimNet);

        impl Harness for $name {
            fn set_up() -> Result<Self, Skip> {
                Ok(Self(SimNet::new($config)))
            }

            fn open(&self) -> Box<dyn Fabric> {
                Box::new(self.0.open().expect("an eventfd"))
            }
        }
    };
}

style!(Native, SimConfig::new(SimStyle::Native, 1));
style!(NativeOrdered, SimConfig { ordered: true, ..SimConfig::new(SimStyle::Native, 2) });
style!(ReadOnly, SimConfig::new(SimStyle::ReadOnly, 3));
style!(Framed, SimConfig::new(SimStyle::Framed, 4));
style!(
    Narrow,
    SimConfig {
        batches_in_flight: 1,
        segments_per_batch: 7,
        bytes_per_batch: 100_000,
        piece_bytes: 20_000,
        ..SimConfig::new(SimStyle::Native, 5)
    }
);

conformance!(native, Native);
conformance!(native_ordered, NativeOrdered);
conformance!(read_only, ReadOnly);
conformance!(framed, Framed);
conformance!(narrow, Narrow);
