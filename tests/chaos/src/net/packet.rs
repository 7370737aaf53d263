//! IPv4 and TCP, as far as a relay has to know them: where the payload lies, which frames of ours begin in it, checksums, and
//! the segment that resets a connection. Pure functions over bytes; total: whatever is not understood is `None`.

/// What is said of one TCP segment without copying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Addresses and ports, source first.
    pub source: ([u8; 4], u16),
    /// See `source`.
    pub destination: ([u8; 4], u16),
    /// Number of the first byte.
    pub sequence: u32,
    /// Next byte expected of the other side.
    pub acknowledged: u32,
    /// FIN, SYN, RST, PSH, ACK: the low byte.
    pub flags: u8,
    /// Bytes of the stream.
    pub payload: &'a [u8],
}

/// Kinds of control frames that faults aim at (`docs/wire-format.md`).
pub mod frame {
    /// The dialer's first frame.
    pub const HELLO: u8 = 1;
    /// The acceptor's answer.
    pub const WELCOME: u8 = 2;
    /// All of a transfer is asked for, or moved.
    pub const COMMIT: u8 = 14;
    /// All of it is in place.
    pub const ACK: u8 = 15;
    /// A transfer is given up.
    pub const ABORT: u8 = 17;
    /// An agent closes.
    pub const GOODBYE: u8 = 19;
}

const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const SYN_FIN: u8 = 0x03;
const TCP: u8 = 6;
const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
/// Length and kind of a control frame, and two fields that are zero.
const FRAME_HEADER: usize = 16;
/// Longest frame that is looked for: those that faults aim at are far shorter.
const FRAME_MAX_BYTES: usize = 1 << 20;

/// Reads a packet as a TCP segment over IPv4.
pub fn segment(packet: &[u8]) -> Option<Segment<'_>> {
    let (ip, tcp) = headers(packet)?;
    let at = |from: usize| {
        Some([*packet.get(from)?, *packet.get(from + 1)?, *packet.get(from + 2)?, *packet.get(from + 3)?])
    };
    let port = |from: usize| Some(u16::from_be_bytes([*packet.get(from)?, *packet.get(from + 1)?]));
    Some(Segment {
        source: (at(12)?, port(ip)?),
        destination: (at(16)?, port(ip + 2)?),
        sequence: u32::from_be_bytes(at(ip + 4)?),
        acknowledged: u32::from_be_bytes(at(ip + 8)?),
        flags: *packet.get(ip + 13)?,
        payload: packet.get(ip + tcp..)?,
    })
}

/// Whether a control frame of this kind begins in the payload of a segment that itself begins with a frame.
pub fn has_frame(payload: &[u8], kind: u8) -> bool {
    let mut rest = payload;
    while let Some(header) = rest.get(..FRAME_HEADER) {
        let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let plausible = (FRAME_HEADER - 4..FRAME_MAX_BYTES).contains(&length) && header[5..8] == [0; 3];
        if !plausible {
            return false;
        }
        if header[4] == kind {
            return true;
        }
        rest = rest.get(4 + length..).unwrap_or_default();
    }
    false
}

/// The resets that end a segment's connection: one for its receiver, one for its sender.
pub fn resets(packet: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let segment = segment(packet)?;
    let onward = bare(segment.source, segment.destination, segment.sequence, segment.acknowledged, RST | ACK);
    let back_acknowledges = segment
        .sequence
        .wrapping_add(segment.payload.len() as u32)
        .wrapping_add(u32::from(segment.flags & SYN_FIN != 0));
    let back = bare(segment.destination, segment.source, segment.acknowledged, back_acknowledges, RST | ACK);
    Some((onward, back))
}

/// Flips one bit of the payload; `choice` picks it. `is_sealed`: TCP's checksum is made right again, so that nothing but the
/// reader's own checks can notice. False where there is no payload.
pub fn flip_bit(packet: &mut [u8], choice: u64, is_sealed: bool) -> bool {
    let Some((ip, tcp)) = headers(packet) else { return false };
    let Some(payload) = packet.get_mut(ip + tcp..).filter(|payload| !payload.is_empty()) else {
        return false;
    };
    let bit = (choice % (payload.len() as u64 * 8)) as usize;
    payload[bit / 8] ^= 1 << (bit % 8);
    if is_sealed {
        seal_tcp(packet, ip);
    }
    true
}

/// Lengths of both headers, where the packet is an unfragmented TCP segment over IPv4.
fn headers(packet: &[u8]) -> Option<(usize, usize)> {
    let first = *packet.first()?;
    let ip = usize::from(first & 0x0f) * 4;
    let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
    if first >> 4 != 4 || ip < IP_HEADER || *packet.get(9)? != TCP || fragment != 0 {
        return None;
    }
    let tcp = usize::from(*packet.get(ip + 12)? >> 4) * 4;
    (tcp >= TCP_HEADER && packet.len() >= ip + tcp).then_some((ip, tcp))
}

/// A segment without payload or options.
fn bare(
    source: ([u8; 4], u16),
    destination: ([u8; 4], u16),
    sequence: u32,
    acknowledged: u32,
    flags: u8,
) -> Vec<u8> {
    let length = IP_HEADER + TCP_HEADER;
    let mut packet = vec![0; length];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[8] = 64;
    packet[9] = TCP;
    packet[12..16].copy_from_slice(&source.0);
    packet[16..20].copy_from_slice(&destination.0);
    let header = checksum(0, &packet[..IP_HEADER]);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    packet[20..22].copy_from_slice(&source.1.to_be_bytes());
    packet[22..24].copy_from_slice(&destination.1.to_be_bytes());
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[28..32].copy_from_slice(&acknowledged.to_be_bytes());
    packet[32] = ((TCP_HEADER / 4) as u8) << 4;
    packet[33] = flags;
    seal_tcp(&mut packet, IP_HEADER);
    packet
}

/// Writes the TCP checksum.
fn seal_tcp(packet: &mut [u8], ip: usize) {
    packet[ip + 16..ip + 18].fill(0);
    let tcp_bytes = (packet.len() - ip) as u32;
    let pseudo = sum(&packet[12..20]) + u32::from(TCP) + tcp_bytes;
    let value = checksum(pseudo, &packet[ip..]);
    packet[ip + 16..ip + 18].copy_from_slice(&value.to_be_bytes());
}

fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut total = start + sum(bytes);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// Sum of the 16-bit words; 65,535 bytes of them stay below 2^32.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    const A: ([u8; 4], u16) = ([10, 77, 0, 1], 4000);
    const B: ([u8; 4], u16) = ([10, 77, 0, 2], 5000);

    /// A segment from A to B with this payload.
    pub fn data(payload: &[u8]) -> Vec<u8> {
        let mut packet = bare(A, B, 1000, 2000, ACK);
        packet.extend_from_slice(payload);
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[10..12].fill(0);
        let header = checksum(0, &packet[..IP_HEADER]);
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        seal_tcp(&mut packet, IP_HEADER);
        packet
    }

    fn is_sealed(packet: &[u8]) -> bool {
        let pseudo = sum(&packet[12..20]) + u32::from(TCP) + (packet.len() - IP_HEADER) as u32;
        checksum(0, &packet[..IP_HEADER]) == 0 && checksum(pseudo, &packet[IP_HEADER..]) == 0
    }

    fn control(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = ((12 + body.len()) as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(&[kind, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        frame.extend_from_slice(body);
        frame
    }

    #[test]
    fn a_segment_is_read() {
        let packet = data(b"hello");
        let read = segment(&packet).expect("it is TCP");
        assert_eq!((read.source, read.destination), (A, B));
        assert_eq!((read.sequence, read.acknowledged, read.payload), (1000, 2000, &b"hello"[..]));
        assert!(is_sealed(&packet));
    }

    #[test]
    fn whatever_is_cut_short_is_no_segment() {
        let packet = data(b"x");
        for length in 0..IP_HEADER + TCP_HEADER {
            assert_eq!(segment(&packet[..length]), None, "{length}");
        }
        let mut other = packet.clone();
        other[9] = 17;
        assert_eq!(segment(&other), None);
        other = packet.clone();
        other[0] = 0x60;
        assert_eq!(segment(&other), None);
    }

    #[test]
    fn resets_are_in_sequence_on_both_sides() {
        let (onward, back) = resets(&data(b"hello")).expect("it is TCP");
        let (to_b, to_a) = (segment(&onward).expect("TCP"), segment(&back).expect("TCP"));
        assert_eq!((to_b.source, to_b.sequence, to_b.flags & RST), (A, 1000, RST));
        assert_eq!((to_a.source, to_a.sequence, to_a.flags & RST), (B, 2000, RST));
        assert_eq!(to_a.acknowledged, 1005);
        assert!(is_sealed(&onward) && is_sealed(&back));
    }

    #[test]
    fn a_flipped_bit_passes_tcps_own_check_where_it_is_sealed() {
        let (before, mut packet) = (data(&[7; 100]), data(&[7; 100]));
        assert!(flip_bit(&mut packet, 12345, true));
        let differing: u32 = before[40..].iter().zip(&packet[40..]).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(differing, 1);
        assert!(is_sealed(&packet));
        assert!(flip_bit(&mut packet, 54321, false) && !is_sealed(&packet));
        assert!(!flip_bit(&mut data(b""), 1, true));
    }

    #[test]
    fn frames_are_found_behind_others_and_nowhere_else() {
        let both = [control(8, b""), control(frame::COMMIT, &[9; 30])].concat();
        assert!(has_frame(&both, frame::COMMIT) && has_frame(&both, 8));
        assert!(!has_frame(&both, frame::ACK));
        assert!(!has_frame(&[&[0xff; 3], &both[..]].concat(), frame::COMMIT));
        assert!(!has_frame(b"BTNF\x20\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00", frame::COMMIT));
        assert!(!has_frame(&[0; 64], 0));
    }
}
