//! A hash for what is looked up with each packet: addresses and names of sessions, a few octets. It is
//! several times quicker than the standard library's. It has a key, which nobody outside knows: who
//! chooses names cannot choose where they lie.

use std::hash::{BuildHasher, Hasher, RandomState};

/// One key for each map.
#[derive(Clone)]
pub(super) struct KeyedHash {
    start: u64,
    factor: u64,
}

impl Default for KeyedHash {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            start: random.hash_one(0),
            factor: random.hash_one(1) | 1,
        }
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = Running;

    #[inline]
    fn build_hasher(&self) -> Running {
        Running {
            state: self.start,
            factor: self.factor,
        }
    }
}

/// `state = fold((state ^ 8 octets) * factor)`, where fold gives the high half of the product to the low.
pub(super) struct Running {
    state: u64,
    factor: u64,
}

impl Hasher for Running {
    #[inline]
    fn write(&mut self, octets: &[u8]) {
        let (words, rest) = octets.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_ne_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.state ^ number) * u128::from(self.factor);
        // The low half, and the high half.
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        // A length or a variant: it fits.
        self.write_u64(number as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    /// hashbrown takes seven bits from the top and the place from the bottom.
    #[test]
    fn neighbouring_addresses_lie_apart() {
        let hash = KeyedHash::default();
        let (mut tops, mut bottoms) = (HashSet::new(), HashSet::new());
        for number in 0..4_096u32 {
            let ends: (IpAddr, IpAddr) = (
                Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
                Ipv4Addr::from_bits(0x0a01_0001).into(),
            );
            let hashed = hash.hash_one(ends);
            tops.insert(hashed >> 57);
            bottoms.insert(hashed % 65_536);
        }
        assert_eq!(tops.len(), 128);
        // Drawn at random they would be about 3,970.
        assert!(bottoms.len() > 3_700, "{}", bottoms.len());
    }

    #[test]
    fn each_map_has_its_own_key() {
        let (one, other) = (KeyedHash::default(), KeyedHash::default());
        assert_eq!(one.hash_one(7), one.hash_one(7));
        assert_ne!(one.hash_one(7), other.hash_one(7));
    }
}
