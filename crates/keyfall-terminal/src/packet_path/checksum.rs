//! The Internet checksum (RFC 1071), fast enough to stand beside AES-GCM.

/// Adds the octets to a running sum. An odd octet may stand at the end of the whole only. The sum is
/// in the machine's own order of octets, which a one's complement sum does not mind.
pub(super) fn add(mut sum: u64, octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let (halves, last) = rest.as_chunks::<2>();
    for half in halves {
        sum += u64::from(u16::from_ne_bytes(*half));
    }
    if let [octet] = last {
        sum += u64::from(u16::from_ne_bytes([*octet, 0]));
    }
    sum
}

/// Adds a 16-bit number as it would stand in the packet.
pub(super) fn add_u16(sum: u64, number: u16) -> u64 {
    sum + u64::from(u16::from_ne_bytes(number.to_be_bytes()))
}

/// The sum in 16 bits, in the order of octets of the packet; not complemented.
pub(super) fn fold(mut sum: u64) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = u16::try_from(sum).expect("folded until it fits");
    sum.to_ne_bytes()
}

/// What is written into the packet.
pub(super) fn finish(sum: u64) -> [u8; 2] {
    let [high, low] = fold(sum);
    [!high, !low]
}

/// The same for UDP, where zero says that there is none (RFC 768).
pub(super) fn finish_udp(sum: u64) -> [u8; 2] {
    match finish(sum) {
        [0, 0] => [0xff, 0xff],
        sum => sum,
    }
}

/// Whether octets that hold their own checksum have the right one.
pub(super) fn holds(sum: u64) -> bool {
    fold(sum) == [0xff, 0xff]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(add(0, &octets)), [0xdd, 0xf2]);
        let mut whole = octets.to_vec();
        whole.extend(finish(add(0, &octets)));
        assert!(holds(add(0, &whole)));
    }

    #[test]
    fn any_length_is_the_sum_of_its_pairs() {
        for length in 0..70u8 {
            let octets: Vec<u8> = (0..length).map(|it| it.wrapping_mul(37) ^ 0xa5).collect();
            let mut slow = 0u32;
            for pair in octets.chunks(2) {
                let low = pair.get(1).copied().unwrap_or(0);
                slow += u32::from(u16::from_be_bytes([pair[0], low]));
            }
            let slow = (slow & 0xffff) + (slow >> 16);
            let slow = u16::try_from((slow & 0xffff) + (slow >> 16)).unwrap();
            assert_eq!(fold(add(0, &octets)), slow.to_be_bytes(), "{length}");
        }
    }
}
