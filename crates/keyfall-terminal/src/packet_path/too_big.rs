//! What an inner sender hears of a packet that is too long for the way to its peer: the error that any
//! router would send (RFC 792, RFC 1191, RFC 4443 section 3.2).

use crate::packet_path::checksum;

/// The error about an inner packet of so many octets, which may be the first of a super-packet, where
/// nothing longer than `fits` goes whole. `None`: it goes in fragments, as its sender allows, or as IPv6
/// asks for where the path has no room for 1,280 octets; or nobody may hear of it.
pub(super) fn too_big(packet: &[u8], length: usize, fits: usize) -> Option<Vec<u8>> {
    let packet = packet.get(..length)?;
    match packet.first()? >> 4 {
        4 => v4(packet, fits),
        6 => v6(packet, fits.max(V6_LEAST)),
        _ => None,
    }
}

fn v4(packet: &[u8], fits: usize) -> Option<Vec<u8>> {
    let head = packet.first_chunk::<20>()?;
    let header = usize::from(head[0] & 0xf) * 4;
    let may_not_be_cut = head[6] & DONT_FRAGMENT != 0;
    let is_first = u16::from_be_bytes([head[6] & 0x1f, head[7]]) == 0;
    // RFC 1122 section 3.2.2: no error about an error, to nobody in particular, about what goes to many.
    let is_error = head[9] == ICMP && !V4_QUESTIONS.contains(packet.get(header)?);
    let from_one = !matches!(head[12], 0 | 127 | 224..=255);
    let to_one = head[16] < 224;
    let tells = may_not_be_cut && is_first && !is_error && from_one && to_one;
    if !tells || packet.len() <= fits {
        return None;
    }
    let about = &packet[..packet.len().min(V4_ERROR_MAX - 28)];
    let mut error = Vec::with_capacity(28 + about.len());
    let length = u16::try_from(28 + about.len()).ok()?;
    error.extend([0x45, NETWORK_CONTROL]);
    error.extend(length.to_be_bytes());
    error.extend([0, 0, DONT_FRAGMENT, 0, HOPS, ICMP, 0, 0]);
    // In the name of the destination: what comes out of the tunnel comes from there.
    error.extend(&head[16..20]);
    error.extend(&head[12..16]);
    let sum = checksum::finish(checksum::add(0, &error));
    error[10..12].copy_from_slice(&sum);
    error.extend([3, 4, 0, 0, 0, 0]);
    error.extend(u16::try_from(fits).unwrap_or(u16::MAX).to_be_bytes());
    error.extend(about);
    // A super-packet says its own length.
    error[30..32].copy_from_slice(&u16::try_from(packet.len()).ok()?.to_be_bytes());
    error[38..40].fill(0);
    let sum = checksum::finish(checksum::add(0, error.get(28..28 + header)?));
    error[38..40].copy_from_slice(&sum);
    let sum = checksum::finish(checksum::add(0, &error[20..]));
    error[22..24].copy_from_slice(&sum);
    Some(error)
}

fn v6(packet: &[u8], fits: usize) -> Option<Vec<u8>> {
    let head = packet.first_chunk::<40>()?;
    let is_error = head[6] == ICMP_V6 && *packet.get(40)? < 128;
    let from_one = head[8] != 0xff && head[8..24] != [0; 16];
    let to_one = head[24] != 0xff;
    if is_error || !from_one || !to_one || packet.len() <= fits {
        return None;
    }
    let about = &packet[..packet.len().min(V6_LEAST - 48)];
    let mut error = Vec::with_capacity(48 + about.len());
    let length = u16::try_from(8 + about.len()).ok()?;
    error.extend([0x60, 0, 0, 0]);
    error.extend(length.to_be_bytes());
    error.extend([ICMP_V6, HOPS]);
    error.extend(&head[24..40]);
    error.extend(&head[8..24]);
    error.extend([2, 0, 0, 0]);
    error.extend(u32::try_from(fits).ok()?.to_be_bytes());
    error.extend(about);
    let of_first = u16::try_from(packet.len() - 40).ok()?;
    error[52..54].copy_from_slice(&of_first.to_be_bytes());
    let sum = checksum::add(0, &error[8..40]);
    let sum = checksum::add_u16(sum, length);
    let sum = checksum::add_u16(sum, u16::from(ICMP_V6));
    let sum = checksum::finish(checksum::add(sum, &error[40..]));
    error[42..44].copy_from_slice(&sum);
    Some(error)
}

/// RFC 8200 section 5: every link carries so many octets.
const V6_LEAST: usize = 1_280;
/// RFC 1812 section 4.3.2.3.
const V4_ERROR_MAX: usize = 576;
const DONT_FRAGMENT: u8 = 0x40;
/// Precedence of routers' errors (RFC 1812 section 4.3.2.5).
const NETWORK_CONTROL: u8 = 0xc0;
const HOPS: u8 = 64;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
/// Echo and its reply, time stamp and its reply.
const V4_QUESTIONS: [u8; 4] = [0, 8, 13, 14];

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn told(packet: &[u8], fits: usize) -> Option<Vec<u8>> {
        too_big(packet, packet.len(), fits)
    }

    fn v4_packet(flags: u8, protocol: u8, length: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0, high, low, 0, 1, flags, 0, 64, protocol, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        packet.push(8);
        packet.resize(length, 7);
        packet
    }

    fn v6_packet(next: u8, length: usize) -> Vec<u8> {
        let [high, low] = u16::try_from(length - 40).unwrap().to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, high, low, next, 64];
        packet.extend([0xfd; 16]);
        packet.extend([0xfe; 16]);
        packet.push(128);
        packet.resize(length, 7);
        packet
    }

    #[test]
    fn a_sender_that_may_not_be_cut_hears_how_much_fits() {
        let packet = v4_packet(DONT_FRAGMENT, 17, 1_400);
        let error = told(&packet, 1_218).unwrap();
        assert_eq!(error.len(), 576);
        assert!(checksum::holds(checksum::add(0, &error[..20])));
        assert!(checksum::holds(checksum::add(0, &error[20..])));
        assert_eq!(error[12..20], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!((error[20], error[21]), (3, 4));
        assert_eq!(u16::from_be_bytes([error[26], error[27]]), 1_218);
        assert_eq!(error[28..38], packet[..10]);
        assert!(checksum::holds(checksum::add(0, &error[28..48])));
        assert_eq!(error[48..], packet[20..548]);
    }

    #[test]
    fn ipv6_hears_of_no_less_than_1280() {
        let packet = v6_packet(6, 1_400);
        for (fits, said) in [(1_218, 1_280), (1_300, 1_300)] {
            let error = told(&packet, fits).unwrap();
            assert_eq!(error.len(), V6_LEAST);
            let sum = checksum::add(0, &error[8..40]);
            let sum = checksum::add_u16(sum, u16::try_from(error.len() - 40).unwrap());
            let sum = checksum::add_u16(sum, 58);
            assert!(checksum::holds(checksum::add(sum, &error[40..])));
            assert_eq!(error[8..40], [[0xfe; 16], [0xfd; 16]].concat());
            assert_eq!((error[40], error[41]), (2, 0));
            assert_eq!(u32::from_be_bytes(error[44..48].try_into().unwrap()), said);
        }
        // What is not longer goes in fragments.
        assert_eq!(told(&v6_packet(6, 1_280), 1_218), None);
    }

    /// RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e).
    #[test]
    fn nobody_hears_of_what_may_be_cut_of_errors_or_of_what_goes_to_many() {
        assert_eq!(told(&v4_packet(0, 17, 1_400), 1_218), None);
        assert_eq!(told(&v4_packet(DONT_FRAGMENT, 17, 1_218), 1_218), None);
        assert!(told(&v4_packet(DONT_FRAGMENT, ICMP, 1_400), 1_218).is_some());
        let mut error = v4_packet(DONT_FRAGMENT, ICMP, 1_400);
        error[20] = 3;
        let mut later = v4_packet(DONT_FRAGMENT, 17, 1_400);
        later[7] = 9;
        let mut many = v4_packet(DONT_FRAGMENT, 17, 1_400);
        many[16] = 239;
        let mut nobody = v4_packet(DONT_FRAGMENT, 17, 1_400);
        nobody[12..16].fill(0);
        for packet in [error, later, many, nobody] {
            assert_eq!(told(&packet, 1_218), None);
        }
        let mut error = v6_packet(ICMP_V6, 1_400);
        error[40] = 1;
        let mut many = v6_packet(17, 1_400);
        many[24] = 0xff;
        let mut nobody = v6_packet(17, 1_400);
        nobody[8..24].fill(0);
        for packet in [error, many, nobody] {
            assert_eq!(told(&packet, 1_218), None);
        }
        for length in 0..40 {
            assert_eq!(
                told(&v4_packet(DONT_FRAGMENT, 1, 64)[..length.min(20)], 8),
                None
            );
            assert_eq!(told(&v6_packet(ICMP_V6, 64)[..length], 8), None);
        }
    }
}
