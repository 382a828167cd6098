//! libsrtp, built on OpenSSL, with a 14-octet MKI.
#![expect(unsafe_code, reason = "a C library")]

use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::OnceLock;

use srtp2_sys as c;

use super::{MASTER_KEY, MASTER_SALT, SSRC, number, rtp_packet};

pub fn contender(octets: usize) -> anyhow::Result<impl FnMut(u32)> {
    init()?;
    let sender = Session::new()?;
    let receiver = Session::new()?;
    let mut packet = rtp_packet(octets);
    let mut sequence = 0;
    Ok(move |n| {
        for _ in 0..n {
            number(&mut packet, &mut sequence);
            sender.protect(&mut packet);
            receiver.unprotect(&mut packet);
        }
    })
}

/// Once for the process: the library refuses a second time.
fn init() -> anyhow::Result<()> {
    static STATUS: OnceLock<c::srtp_err_status_t> = OnceLock::new();
    // SAFETY: no other thread uses the library, and this runs once.
    check(*STATUS.get_or_init(|| unsafe { c::srtp_init() }))
}

/// One direction of one SSRC. Lives as long as the process.
struct Session(c::srtp_t);

impl Session {
    fn new() -> anyhow::Result<Self> {
        let mut key = [&MASTER_KEY[..], &MASTER_SALT[..]].concat();
        let mut mki = [7; 14];
        let mut master = c::srtp_master_key_t {
            key: key.as_mut_ptr(),
            mki_id: mki.as_mut_ptr(),
            mki_size: 14,
        };
        let mut masters = [&raw mut master];
        let mut session = null_mut();
        // SAFETY: a policy of zeros is the documented start; the library copies keys and MKI.
        let status = unsafe {
            let mut policy: c::srtp_policy_t = std::mem::zeroed();
            c::srtp_crypto_policy_set_aes_gcm_256_16_auth(&mut policy.rtp);
            c::srtp_crypto_policy_set_aes_gcm_256_16_auth(&mut policy.rtcp);
            policy.ssrc.type_ = c::srtp_ssrc_type_t_ssrc_specific;
            policy.ssrc.value = SSRC;
            policy.keys = masters.as_mut_ptr();
            policy.num_master_keys = 1;
            // Shifted whole with every packet: the default, 128, is faster than what we keep.
            policy.window_size = 0;
            c::srtp_create(&mut session, &policy)
        };
        check(status)?;
        Ok(Self(session))
    }

    fn protect(&self, packet: &mut Vec<u8>) {
        let mut len = packet.len() as c_int;
        packet.reserve(c::SRTP_MAX_TRAILER_LEN as usize);
        // SAFETY: the buffer has room for the longest trailer, and the library wrote `len` octets.
        unsafe {
            let status = c::srtp_protect_mki(self.0, packet.as_mut_ptr().cast(), &mut len, 1, 0);
            check(status).expect("a good packet");
            packet.set_len(len as usize);
        }
    }

    fn unprotect(&self, packet: &mut Vec<u8>) {
        let mut len = packet.len() as c_int;
        // SAFETY: the library works in place and shortens.
        unsafe {
            let status = c::srtp_unprotect_mki(self.0, packet.as_mut_ptr().cast(), &mut len, 1);
            check(status).expect("protected a moment ago");
            packet.set_len(len as usize);
        }
    }
}

fn check(status: c::srtp_err_status_t) -> anyhow::Result<()> {
    anyhow::ensure!(
        status == c::srtp_err_status_t_srtp_err_status_ok,
        "libsrtp says {status}"
    );
    Ok(())
}
