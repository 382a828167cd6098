//! The hash chain of the order journal and of the audit log: who changes or drops an entry has to
//! change every later one.
//!
//! It has no key. What it proves, it proves to whoever knows a link from elsewhere: from a copy, or
//! from the other log.

use std::fmt;

use aws_lc_rs::digest;

/// The hash that stands for one entry and all before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link([u8; 32]);

impl Link {
    /// What the first entry of the log called `log` hangs on: `SHA-256("KF1 log " ‖ log)`.
    #[must_use]
    pub fn start(log: &str) -> Self {
        Self::hash(&[b"KF1 log ", log.as_bytes()])
    }

    /// The link of the next entry: `SHA-256("KF1 link" ‖ this link ‖ entry)`.
    #[must_use]
    pub fn next(&self, entry: &[u8]) -> Self {
        Self::hash(&[b"KF1 link", &self.0, entry])
    }

    /// A link as it was stored.
    #[must_use]
    pub const fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn hash(parts: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        parts.iter().for_each(|part| context.update(part));
        let mut octets = [0; 32];
        octets.copy_from_slice(context.finish().as_ref());
        Self(octets)
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stands_for_its_log_its_entry_and_all_before() {
        let start = Link::start("journal");
        assert_eq!(
            start.to_string(),
            // printf 'KF1 log journal' | sha256sum
            "5a87e5f63fe766149aa70d896916592efe22c21bbe61e539afb1a1ffaee8f297"
        );
        let link = start.next(b"one").next(b"two");
        assert_ne!(link, Link::start("audit").next(b"one").next(b"two"));
        assert_ne!(link, start.next(b"two").next(b"one"));
        assert_ne!(link, start.next(b"onetwo"));
        assert_eq!(
            link,
            Link::from_octets(*start.next(b"one").as_bytes()).next(b"two")
        );
    }
}
