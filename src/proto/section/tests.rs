use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

pub(in crate::proto) fn sample() -> Section {
    let span = Span { addr: 0x7f00_0000_1000, len: 0x20_0000 };
    let region = Region { key: RegionKey(7), kind: MemoryKind::Dram, device: 0, span };
    let keys = vec![FabricKey { fabric: 1, bytes: vec![0xAA, 0xBB] }];
    Section {
        session: SessionId(*b"0123456789abcdef"),
        host: HostId(*b"fedcba9876543210"),
        uid: 1000,
        capabilities: 0x0102,
        endpoints: vec![
            Endpoint::UnixAbstract(b"baton-1".to_vec()),
            Endpoint::Tcp { ip: Ipv4Addr::new(10, 0, 0, 7).into(), port: 5001 },
            Endpoint::Tcp { ip: Ipv6Addr::LOCALHOST.into(), port: 5002 },
        ],
        fabrics: vec![
            FabricAddress { name: "local".into(), address: vec![] },
            FabricAddress { name: "ucx".into(), address: vec![1, 2, 3] },
        ],
        regions: vec![AnnouncedRegion { region, keys }],
        mac: None,
    }
}

fn encoded(section: &Section) -> Vec<u8> {
    let mut out = Vec::new();
    section.encode(&mut out);
    out
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = encoded(&Section { mac: Some([9; 32]), ..sample() });
    for len in 0..bytes.len() {
        assert!(Section::decode(&bytes[..len]).is_err(), "{len} of {} bytes were taken", bytes.len());
    }
}

#[test]
fn a_later_minor_version_is_read_and_its_fields_skipped() {
    let mut bytes = encoded(&sample());
    bytes[6..8].copy_from_slice(&9_u16.to_le_bytes());
    bytes.extend_from_slice(b"a field of the future");
    assert_eq!(Section::decode(&bytes), Ok(sample()));
}

#[test]
fn a_later_kind_of_endpoint_is_skipped() {
    let mut bytes = encoded(&sample());
    let kind = bytes.windows(7).position(|at| at == b"baton-1").unwrap() - 5;
    assert_eq!(bytes[kind], UNIX_ABSTRACT);
    bytes[kind] = 200;
    let endpoints = Section::decode(&bytes).unwrap().endpoints;
    assert_eq!(endpoints, sample().endpoints[1..]);
}

#[test]
fn errors_say_what_is_wrong() {
    let text = |bytes: &[u8]| Section::decode(bytes).unwrap_err().to_string();
    assert_eq!(text(b"UCX0"), "not a Baton section: it does not begin with \"BATN\"");
    let mut bytes = encoded(&sample());
    bytes[4] = 2;
    assert_eq!(
        text(&bytes),
        "it speaks version 2.0 of Baton's format and this library 1.0: install the same release on both sides"
    );
    let wrong = |change: fn(&mut Section)| {
        let mut section = sample();
        change(&mut section);
        let error = section.check().unwrap_err();
        assert_eq!(Section::decode(&encoded(&section)), Err(error.clone()));
        error.to_string()
    };
    assert_eq!(
        wrong(|section| section.regions[0].region.span = Span { addr: u64::MAX, len: 2 }),
        "region 7 at 0xffffffffffffffff+2 runs past the end of the address space: check its length"
    );
    assert_eq!(
        wrong(|section| section.regions[0].region.span.len = 0),
        "region 7 at 0x7f0000001000+0 has zero length: leave it out"
    );
    assert_eq!(
        wrong(|section| section.regions[0].keys[0].fabric = 2),
        "region 7 has a key for fabric 2, which is not listed or has one already"
    );
    assert_eq!(
        wrong(|section| section.regions[0].keys = vec![FabricKey { fabric: 0, bytes: vec![] }; 2]),
        "region 7 has a key for fabric 0, which is not listed or has one already"
    );
    assert_eq!(
        wrong(|section| section.regions[0].keys = vec![FabricKey { fabric: 0, bytes: vec![] }; 3]),
        "keys of a region: 3, but at most 2 are allowed"
    );
    assert_eq!(
        wrong(|section| section.endpoints = vec![Endpoint::UnixAbstract(vec![b'a']); 17]),
        "endpoints: 17, but at most 16 are allowed"
    );
    assert_eq!(
        wrong(|section| section.fabrics[0].address = vec![0; MAX_ADDRESS_BYTES + 1]),
        "bytes of a fabric's address: 65537, but at most 65536 are allowed"
    );
    assert_eq!(
        wrong(|section| section.endpoints[1] = Endpoint::Tcp { ip: Ipv4Addr::LOCALHOST.into(), port: 0 }),
        "address or port of an endpoint holds 0x0, which is not a valid value"
    );
}

#[test]
fn counts_without_bytes_behind_them_are_refused_before_anything_is_allocated() {
    let section = Section { endpoints: vec![], fabrics: vec![], regions: vec![], ..sample() };
    let mut bytes = encoded(&section);
    let regions = bytes.len() - 4;
    bytes[regions..].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = Section::decode(&bytes).unwrap_err();
    assert!(matches!(error, SectionError::Field(DecodeError::Truncated { field: "regions", .. })), "{error}");
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let ip = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from),];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 1..108).prop_map(Endpoint::UnixAbstract),
        (ip.prop_filter("a real address", |ip| !ip.is_unspecified()), 1_u16..)
            .prop_map(|(ip, port)| Endpoint::Tcp { ip, port }),
    ]
}

fn region(fabrics: u8) -> impl Strategy<Value = AnnouncedRegion> {
    let keys =
        prop::collection::btree_map(0..fabrics.max(1), prop::collection::vec(any::<u8>(), 0..40), 0..4);
    let kind = (0_u8..5).prop_map(|kind| MemoryKind::from_wire(kind).unwrap());
    (any::<u32>(), kind, any::<u32>(), any::<u32>(), 1_u64..1 << 60, keys).prop_map(
        move |(key, kind, device, addr, len, keys)| {
            let span = Span { addr: addr.into(), len };
            let keys = keys.into_iter().filter(|_| fabrics > 0);
            AnnouncedRegion {
                region: Region { key: RegionKey(key), kind, device, span },
                keys: keys.map(|(fabric, bytes)| FabricKey { fabric, bytes }).collect(),
            }
        },
    )
}

pub(in crate::proto) fn section() -> impl Strategy<Value = Section> {
    let fabric = ("[a-z]{1,12}", prop::collection::vec(any::<u8>(), 0..300))
        .prop_map(|(name, address)| FabricAddress { name, address });
    let fabrics = prop::collection::vec(fabric, 0..=4);
    let lists = fabrics.prop_flat_map(|fabrics| {
        let regions = prop::collection::vec(region(fabrics.len() as u8), 0..20);
        (Just(fabrics), regions, prop::collection::vec(endpoint(), 0..=4))
    });
    let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u32>(), any::<u64>());
    (ids, any::<Option<[u8; 32]>>(), lists).prop_map(|(ids, mac, (fabrics, regions, endpoints))| Section {
        session: SessionId(ids.0),
        host: HostId(ids.1),
        uid: ids.2,
        capabilities: ids.3,
        endpoints,
        fabrics,
        regions,
        mac,
    })
}

proptest! {
    #[test]
    fn comes_back_as_it_was(section in section()) {
        prop_assert_eq!(section.check(), Ok(()));
        prop_assert_eq!(Section::decode(&encoded(&section)), Ok(section));
    }

    #[test]
    fn a_region_alone_comes_back_as_it_was(announced in region(4), after in any::<u32>()) {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        announced.encode(&mut writer);
        writer.u32(after);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(AnnouncedRegion::decode(&mut reader, 4), Ok(announced));
        prop_assert_eq!(reader.u32("after"), Ok(after));
    }

    /// What a damaged section decodes to, if it does, is a section that could have been sent.
    #[test]
    fn damage_never_panics(section in section(), hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = encoded(&section);
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(section) = Section::decode(&bytes) {
            prop_assert_eq!(section.check(), Ok(()));
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let headed = [MAGIC, &MAJOR.to_le_bytes(), &noise].concat();
        for bytes in [&noise, &headed] {
            if let Ok(section) = Section::decode(bytes) {
                prop_assert_eq!(section.check(), Ok(()));
            }
        }
    }
}

#[test]
fn a_mac_covers_everything_but_itself() {
    let mut section = sample();
    section.mac = None;
    let bare = encoded(&section);
    section.mac = Some([9; 32]);
    let sealed = encoded(&section);
    let parts = |bytes: &[u8]| authenticated_parts(bytes).map(|parts| parts.concat());
    assert_eq!(parts(&bare), parts(&sealed));
    assert_eq!(parts(&bare).map(|covered| covered.len()), Some(bare.len() - 4));
    assert!((0..12).all(|len| parts(&sealed[..len]).is_none()), "no head, no parts");
}
