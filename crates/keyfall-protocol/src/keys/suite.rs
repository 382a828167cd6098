//! The SRTP and ESP suites and their numbers (docs/PROTOCOL.md, "Numbers").

/// How media is protected. The number goes into the derivation context, so two suites never share
/// a session key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Default)]
pub enum SrtpSuite {
    /// AEAD_AES_256_GCM (RFC 7714), the default.
    #[default]
    AeadAes256Gcm,
    /// AEAD_AES_128_GCM (RFC 7714).
    AeadAes128Gcm,
    /// AES_CM_128_HMAC_SHA1_80 (RFC 3711 section 5), for receivers that know nothing newer.
    AesCm128HmacSha1Tag80,
}

impl SrtpSuite {
    /// Every suite, in the order of its number.
    pub const ALL: [Self; 3] = [
        Self::AeadAes256Gcm,
        Self::AeadAes128Gcm,
        Self::AesCm128HmacSha1Tag80,
    ];

    /// The number in derivation contexts.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::AeadAes256Gcm => 1,
            Self::AeadAes128Gcm => 2,
            Self::AesCm128HmacSha1Tag80 => 3,
        }
    }

    /// Octets of the SRTP master key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::AesCm128HmacSha1Tag80 => 16,
        }
    }

    /// Octets of the SRTP master salt.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 12,
            Self::AesCm128HmacSha1Tag80 => 14,
        }
    }

    /// The registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AesCm128HmacSha1Tag80 => "AES_CM_128_HMAC_SHA1_80",
        }
    }
}

/// How IP packets are protected. The number goes into the derivation context, so two suites never
/// share a session key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Default)]
pub enum EspSuite {
    /// AES-GCM with a key of 256 bits and an ICV of 16 octets (RFC 4106), the default.
    #[default]
    Aes256Gcm,
    /// AES-GCM with a key of 128 bits and an ICV of 16 octets (RFC 4106).
    Aes128Gcm,
    /// ChaCha20 and Poly1305 (RFC 7634), for machines without AES instructions.
    ChaCha20Poly1305,
}

impl EspSuite {
    /// Every suite, in the order of its number.
    pub const ALL: [Self; 3] = [Self::Aes256Gcm, Self::Aes128Gcm, Self::ChaCha20Poly1305];

    /// Octets of the salt, the same in each (RFC 4106 section 4, RFC 7634 section 2).
    pub const SALT_LEN: usize = 4;

    /// The number in derivation contexts.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::Aes128Gcm => 2,
            Self::ChaCha20Poly1305 => 3,
        }
    }

    /// The inverse of [`Self::number`].
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::Aes128Gcm),
            3 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// The suite that people mean, in whichever case they write it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let same = |suite: &Self| suite.name().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(same)
    }

    /// Octets of the key, without salt.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
            Self::Aes128Gcm => 16,
        }
    }

    /// The name that people read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::Aes128Gcm => "AES-128-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        }
    }
}
