//! The files of root and erase keys: an Ed25519 private key as PKCS #8 PEM (RFC 8410 section 7), so
//! that other tools can make, keep and encrypt them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use keyfall_protocol::command::SigningKey;
use keyfall_protocol::keys::Secret;
use zeroize::Zeroizing;

/// Writes a signing key to a new file at `path`, durably, for the eyes of its owner only.
///
/// # Errors
/// Where the system refuses; a file that is there is not touched.
pub(crate) fn write(path: &Path, key: &SigningKey) -> io::Result<()> {
    let pem = pem_of(key.seed());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}

/// Reads a signing key.
///
/// # Errors
/// [`KeyFileError`].
pub fn read(path: &Path) -> Result<SigningKey, KeyFileError> {
    let text = fs::read(path).map(Zeroizing::new);
    let text = text.map_err(|source| KeyFileError::Io {
        path: path.to_owned(),
        source,
    })?;
    seed_of(&text)
        .map(SigningKey::from_seed)
        .ok_or_else(|| KeyFileError::NotAKey {
            path: path.to_owned(),
        })
}

/// Why a file gave no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("cannot read the key {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} is not an Ed25519 private key as PKCS #8 PEM: take the file that `keyfall server init` \
         wrote, and decrypt it first if you encrypted it",
        path.display()
    )]
    NotAKey { path: PathBuf },
}

fn pem_of(seed: &Secret<32>) -> Zeroizing<String> {
    let mut der = Zeroizing::new([0; DER_LEN]);
    der[..16].copy_from_slice(&ED25519_PKCS8);
    der[16..].copy_from_slice(seed.expose());
    let mut pem = Zeroizing::new(String::with_capacity(160));
    pem.push_str(BEGIN);
    pem.push('\n');
    // 48 octets are 64 letters of base 64, without padding: one line.
    for three in der.chunks_exact(3) {
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for shift in [18, 12, 6, 0] {
            pem.push(char::from(BASE64[(bits >> shift & 63) as usize]));
        }
    }
    pem.push('\n');
    pem.push_str(END);
    pem.push('\n');
    pem
}

/// The seed in the one PEM block of `text`; lines before and after it are for people (RFC 7468
/// section 2). `None` where there is no such key.
fn seed_of(text: &[u8]) -> Option<Secret<32>> {
    let after = find(text, BEGIN.as_bytes())? + BEGIN.len();
    let block = &text[after..];
    let block = &block[..find(block, END.as_bytes())?];
    let mut der = Zeroizing::new([0; DER_LEN]);
    let mut letters = block.iter().filter(|letter| !letter.is_ascii_whitespace());
    for three in der.chunks_exact_mut(3) {
        let mut bits = 0;
        for _ in 0..4 {
            let letter = letters.next()?;
            let value = BASE64.iter().position(|one| one == letter)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        three.copy_from_slice(&bits.to_be_bytes()[1..]);
    }
    if letters.next().is_some() || der[..16] != ED25519_PKCS8 {
        return None;
    }
    Secret::from_slice(&der[16..])
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// PrivateKeyInfo of an Ed25519 key up to its 32 octets (RFC 8410 section 10.3).
const ED25519_PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const DER_LEN: usize = 48;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410 section 10.3, the first private key.
    #[test]
    fn a_key_file_is_the_one_of_the_standard() {
        let seed = [
            0xd4, 0xee, 0x72, 0xdb, 0xf9, 0x13, 0x58, 0x4a, 0xd5, 0xb6, 0xd8, 0xf1, 0xf7, 0x69,
            0xf8, 0xad, 0x3a, 0xfe, 0x7c, 0x28, 0xcb, 0xf1, 0xd4, 0xfb, 0xe0, 0x97, 0xa8, 0x8f,
            0x44, 0x75, 0x58, 0x42,
        ];
        let pem = pem_of(&Secret::from_slice(&seed).expect("32 octets"));
        assert_eq!(
            pem.as_str(),
            "-----BEGIN PRIVATE KEY-----\n\
             MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
             -----END PRIVATE KEY-----\n"
        );
        assert_eq!(seed_of(pem.as_bytes()).expect("a key").expose(), &seed);
        let folded = format!("our root\r\n{}", pem.replace("CBC", "CBC\r\n"));
        assert_eq!(seed_of(folded.as_bytes()).expect("a key").expose(), &seed);
    }

    #[test]
    fn what_is_not_such_a_key_is_told_apart() {
        let good = pem_of(&Secret::init_with(|into| into.fill(9)));
        for bad in [
            String::new(),
            good.replace("MC4C", "MC4B"),
            good.replace("-----END", "----END"),
            good.replace("CQkJ\n", "\n"),
            good.replace("CQkJ\n", "CQkJCQkJ\n"),
            good.replace("CQkJ\n", "CQk=\n"),
            good.replace("PRIVATE", "ENCRYPTED PRIVATE"),
        ] {
            assert!(seed_of(bad.as_bytes()).is_none(), "{bad}");
        }
        let missing = read(Path::new("/nowhere/root.key")).expect_err("missing");
        assert!(missing.to_string().starts_with("cannot read the key"));
    }
}
