//! The SRTP suites and their numbers (docs/PROTOCOL.md, "Numbers").

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
