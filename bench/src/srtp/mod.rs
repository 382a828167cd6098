//! SRTP AEAD_AES_256_GCM, protect then unprotect of one packet: ours, libsrtp on OpenSSL, rtc-srtp,
//! and the bare AEAD calls that no SRTP can be faster than.
//!
//! Every contender works as its library is meant to be used, with a replay window. Ours and libsrtp
//! carry the 14-octet MKI; rtc-srtp knows none.

mod bare;
#[cfg(feature = "libsrtp")]
mod libsrtp;
mod ours;
mod rtc;

use crate::rounds::{Contender, Limit, Report, Table, interleave};

pub fn run() -> anyhow::Result<Report> {
    let mut tables = Vec::new();
    let mut limits = Vec::new();
    for octets in [160, 1200] {
        let mut contenders = vec![
            Contender::new("bare", bare::contender(octets)),
            Contender::new("ours", ours::contender(octets)),
            Contender::new(
                "rtc-srtp on aws-lc",
                rtc::contender(octets, rtc::Provider::AwsLc)?,
            ),
            Contender::new(
                "rtc-srtp on ring",
                rtc::contender(octets, rtc::Provider::Ring)?,
            ),
        ];
        #[cfg(feature = "libsrtp")]
        contenders.push(Contender::new(
            "libsrtp on OpenSSL",
            libsrtp::contender(octets)?,
        ));
        let timings = interleave(&mut contenders, SLICE);
        drop(contenders);

        let title = format!("SRTP AES-256-GCM, protect + unprotect, {octets} octets of payload");
        let table = Table {
            title,
            timings,
            reference: "bare",
        };
        let best = |name| table.best(name).unwrap_or(f64::NAN);
        let ours = best("ours");
        let rtc = best("rtc-srtp on aws-lc").min(best("rtc-srtp on ring"));
        let at = |what: &str| format!("{octets} octets: {what}");
        limits.push(Limit::at_least(
            at("share of the speed of bare calls"),
            0.7,
            best("bare") / ours,
        ));
        limits.push(Limit::at_least(
            at("times the faster rtc-srtp"),
            1.0,
            rtc / ours,
        ));
        if cfg!(feature = "libsrtp") {
            let libsrtp = best("libsrtp on OpenSSL");
            limits.push(Limit::at_least(at("times libsrtp"), 2.0, libsrtp / ours));
        }
        tables.push(table);
    }
    if !cfg!(feature = "libsrtp") {
        eprintln!("bench: built without libsrtp, so the limit against it is not judged");
    }
    Ok(Report {
        group: "srtp",
        tables,
        limits,
    })
}

/// A plain RTP packet of the benchmarks' SSRC.
fn rtp_packet(octets: usize) -> Vec<u8> {
    let mut packet = Vec::with_capacity(2048);
    packet.extend_from_slice(&[0x80, 96, 0, 0, 0, 0, 0, 160]);
    packet.extend_from_slice(&SSRC.to_be_bytes());
    packet.resize(HEADER_LEN + octets, 0x55);
    packet
}

/// Numbers the packet as a sender would: one further each time.
fn number(packet: &mut [u8], sequence: &mut u16) {
    *sequence = sequence.wrapping_add(1);
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
}

const SSRC: u32 = 0x1234_5678;
const HEADER_LEN: usize = 12;
/// Packets in one slice.
const SLICE: u32 = 250;
/// SRTP master key and salt of the contenders that take them.
const MASTER_KEY: [u8; 32] = [0x5a; 32];
const MASTER_SALT: [u8; 12] = [0xa5; 12];
