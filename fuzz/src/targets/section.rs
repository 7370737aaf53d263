//! Baton's section, as HELLO and WELCOME carry it, and a single region, as REGION_ADD does.

use baton::proto::codec::{Reader, Writer};
use baton::proto::section::{AnnouncedRegion, Section};

/// Both come back from their own bytes, and no region runs past the end of the address space.
pub fn run(data: &[u8]) -> bool {
    let section = Section::decode(data);
    if let Ok(section) = &section {
        assert_eq!(section.check(), Ok(()), "what is taken may be handed on");
        let mut bytes = Vec::new();
        section.encode(&mut bytes);
        assert_eq!(Section::decode(&bytes).as_ref(), Ok(section));
        section.regions.iter().for_each(check);
    }
    let region = data.split_first().and_then(|(fabrics, rest)| {
        AnnouncedRegion::decode(&mut Reader::new(rest), usize::from(*fabrics % 20)).ok()
    });
    if let Some(region) = &region {
        check(region);
        let mut bytes = Vec::new();
        region.encode(&mut Writer::new(&mut bytes));
        let fabrics = usize::from(data[0] % 20);
        assert_eq!(AnnouncedRegion::decode(&mut Reader::new(&bytes), fabrics).as_ref(), Ok(region));
    }
    section.is_ok() || region.is_some()
}

fn check(announced: &AnnouncedRegion) {
    let span = announced.region.span;
    assert!(span.len > 0 && span.addr.checked_add(span.len).is_some(), "{span}");
}
