//! One-time tokens: first contact over the network (FORMATS section 8, REQUIREMENTS R-036).
//!
//! A token stands for one terminal, once, until its end. It holds a secret that the server knows, and
//! the hash of the fleet's root, so that who has nothing but the token knows whom to believe.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use crate::command::VerifyingKey;
use crate::enrolment::{CHECKED_OCTETS, check, read_checked, write_checked};
use crate::ids::Generation;
use crate::keys::{Secret, WrapKey};
use crate::rng::Random;
use crate::sharing::message::CallerId;

/// What an operator hands to the one who sets up a terminal.
pub struct Token {
    secret: Secret<16>,
    /// The first 16 octets of SHA-256 of the root's public key.
    root: [u8; 16],
}

/// What a server keeps of a token.
#[derive(Debug)]
pub struct TokenRecord {
    /// Its name at the desk, for good: who comes with it later is noticed.
    pub id: CallerId,
    /// `None`: it was used, or is void.
    pub key: Option<WrapKey>,
}

/// That is no token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "that is not a token: copy the whole line that `keyfall admin terminal add NAME --token` printed"
)]
pub struct NotAToken;

impl Token {
    /// A fresh one of the fleet with that root.
    #[must_use]
    pub fn random(root: &VerifyingKey, rng: &mut dyn Random) -> Self {
        Self {
            secret: Secret::init_with(|into| rng.fill(into)),
            root: root_hash(root),
        }
    }

    /// Takes what [`Self::text`] gave, or a person copied: case, spaces and hyphens do not matter, nor
    /// o for 0, i or l for 1.
    ///
    /// # Errors
    /// [`NotAToken`].
    pub fn parse(typed: &str) -> Result<Self, NotAToken> {
        let octets = read_checked(typed, PREFIX).ok_or(NotAToken)?;
        let (secret, root) = octets.split_at(16);
        Ok(Self {
            secret: Secret::from_slice(secret).ok_or(NotAToken)?,
            root: root.try_into().map_err(|_| NotAToken)?,
        })
    }

    /// "KF1T-", then 56 letters that hold the secret, the root's hash, and the first 3 octets of
    /// SHA-256 of both.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let mut content = Zeroizing::new([0; 32]);
        content[..16].copy_from_slice(self.secret.expose());
        content[16..].copy_from_slice(&self.root);
        let mut octets = Zeroizing::new([0; CHECKED_OCTETS]);
        octets[..32].copy_from_slice(&content[..]);
        octets[32..].copy_from_slice(&check(&content));
        let mut text = Zeroizing::new(String::with_capacity(64));
        write_checked(&mut text, PREFIX, &octets);
        text
    }

    /// Whether it is of the fleet with that root.
    #[must_use]
    pub fn is_of(&self, root: &VerifyingKey) -> bool {
        self.root == root_hash(root)
    }

    /// `HKDF-Extract(salt = "KF1/token" ‖ root's hash, IKM = secret)` as a wrap key with id, epoch and
    /// generation 0.
    #[must_use]
    pub fn key(&self) -> WrapKey {
        let salt = [SALT, &self.root[..]].concat();
        let salt = hmac::Key::new(hmac::HMAC_SHA256, &salt);
        let bytes = Secret::init_with(|into| {
            into.copy_from_slice(hmac::sign(&salt, self.secret.expose()).as_ref());
        });
        WrapKey::of_token(bytes)
    }
}

impl TokenRecord {
    #[must_use]
    pub fn new(token: &Token) -> Self {
        let key = token.key();
        Self {
            id: key.key_req_id(),
            key: Some(key),
        }
    }

    /// From a store; `bytes`: [`WrapKey::secret`] of its key.
    #[must_use]
    pub fn restored(id: CallerId, bytes: Option<Secret<32>>) -> Self {
        Self {
            id,
            key: bytes.map(WrapKey::of_token),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

fn root_hash(root: &VerifyingKey) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest::digest(&digest::SHA256, root.as_bytes()).as_ref()[..16]);
    hash
}

/// The G under which is asked by a token: none is known yet.
pub(crate) const UNKNOWN_G: Generation = Generation::ZERO;
const PREFIX: &str = "KF1T-";
const SALT: &[u8] = b"KF1/token";

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u8);

    impl Random for Counting {
        fn fill(&mut self, into: &mut [u8]) {
            for octet in into {
                self.0 = self.0.wrapping_mul(73).wrapping_add(41);
                *octet = self.0;
            }
        }
    }

    #[test]
    fn a_token_reads_as_it_was_written_and_a_slip_of_the_hand_is_noticed() {
        let root = VerifyingKey::new([7; 32]);
        let token = Token::random(&root, &mut Counting(1));
        let text = token.text();
        assert_eq!(text.len(), 5 + 56);
        let typed = text.to_lowercase().replace('0', "o");
        for copy in [&text[..], &typed, &format!(" {} ", &text[..])] {
            let read = Token::parse(copy).expect("the same");
            assert_eq!(read.key().secret(), token.key().secret());
            assert!(read.is_of(&root) && !read.is_of(&VerifyingKey::new([8; 32])));
        }
        for place in 0..text.len() {
            let mut wrong = text.to_string();
            let other = if &text[place..=place] == "Z" {
                "Y"
            } else {
                "Z"
            };
            wrong.replace_range(place..=place, other);
            assert!(
                Token::parse(&wrong).is_err() || &text[place..=place] == "-",
                "{wrong}"
            );
        }
        assert!(Token::parse("KF1T-").is_err());
        assert!(Token::parse(&text[..text.len() - 1]).is_err());
        assert!(Token::parse(&format!("{}0", &text[..])).is_err());
    }
}
