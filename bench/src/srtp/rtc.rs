//! rtc-srtp, with either of its crypto providers.

use bytes::BytesMut;
use rtc_srtp::context::Context;
use rtc_srtp::crypto::RTCCryptoProvider;
use rtc_srtp::crypto::providers::{AwsLcRsProvider, RingProvider};
use rtc_srtp::option::srtp_replay_protection;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::{MASTER_KEY, MASTER_SALT, number, rtp_packet};

pub enum Provider {
    AwsLc,
    Ring,
}

pub fn contender(octets: usize, provider: Provider) -> anyhow::Result<impl FnMut(u32)> {
    let provider: Box<dyn RTCCryptoProvider> = match provider {
        Provider::AwsLc => Box::new(AwsLcRsProvider::new()),
        Provider::Ring => Box::new(RingProvider::new()),
    };
    let context = |window| {
        Context::new(
            &MASTER_KEY,
            &MASTER_SALT,
            ProtectionProfile::AeadAes256Gcm,
            window,
            None,
            provider.crypto(),
        )
    };
    let mut sender = context(None)?;
    let mut receiver = context(Some(srtp_replay_protection(WINDOW)))?;
    let mut packet = BytesMut::from(&rtp_packet(octets)[..]);
    let mut sequence = 0;
    Ok(move |n| {
        for _ in 0..n {
            number(&mut packet, &mut sequence);
            let sealed = sender.encrypt_rtp(&packet).expect("a good packet");
            packet = receiver
                .decrypt_rtp(&sealed)
                .expect("protected a moment ago");
        }
    })
}

/// Its windows are narrow, and the narrower the faster.
const WINDOW: usize = 64;
