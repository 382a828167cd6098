//! Octets that look random and are the same on every machine and in every language.

use aws_lc_rs::digest::{SHA256, digest};
use keyfall_protocol::rng::Random;

/// Block i = SHA-256(seed ‖ i), i in four octets, network byte order, from 0; blocks one after
/// another. It also remembers what was drawn, in order.
pub(crate) struct Stream {
    seed: String,
    block: u32,
    rest: Vec<u8>,
    pub(crate) drawn: Vec<Vec<u8>>,
}

impl Stream {
    pub(crate) fn new(seed: &str) -> Self {
        Self {
            seed: seed.to_owned(),
            block: 0,
            rest: Vec::new(),
            drawn: Vec::new(),
        }
    }
}

impl Random for Stream {
    fn fill(&mut self, into: &mut [u8]) {
        while self.rest.len() < into.len() {
            let text = [self.seed.as_bytes(), &self.block.to_be_bytes()].concat();
            self.rest.extend_from_slice(digest(&SHA256, &text).as_ref());
            self.block += 1;
        }
        into.copy_from_slice(&self.rest[..into.len()]);
        self.rest.drain(..into.len());
        self.drawn.push(into.to_vec());
    }
}

/// The first 32 octets of the stream of that seed.
pub(crate) fn octets32(seed: &str) -> [u8; 32] {
    let mut out = [0; 32];
    Stream::new(seed).fill(&mut out);
    out
}

#[test]
fn stream_is_what_the_vectors_say() {
    let first = digest(&SHA256, b"abc\0\0\0\0");
    let second = digest(&SHA256, b"abc\0\0\0\x01");
    let mut stream = Stream::new("abc");
    let (mut a, mut b) = ([0; 20], [0; 20]);
    stream.fill(&mut a);
    stream.fill(&mut b);
    let both = [first.as_ref(), second.as_ref()].concat();
    assert_eq!([a, b].concat(), both[..40]);
}
