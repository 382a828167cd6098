//! The suite as first published: time until ACK against the length of its RSA keys (REQUIREMENTS
//! F-08). Both sides' work in processor time, without a network: an operation may take longer than the
//! system leaves one process alone.

use anyhow::Context as _;
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber};
use keyfall_protocol::keys::MasterKey;
use keyfall_protocol::rng::octets;
use keyfall_protocol::sharing::rsa_misty1::{
    IdInformation, Request, RsaSecret, RsaSize, open_key_dis, open_key_req, seal_key_dis,
    seal_key_req,
};
use keyfall_server::OsRandom;
use serde::{Deserialize, Serialize};

use super::fleet::{drawn, wall};
use super::median;
use super::watch::Watch;

/// One length of RSA keys; microseconds, the median.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RsaLength {
    pub(super) bits: u32,
    pub(super) until_ack: f64,
}

/// One terminal in one group. Server and terminal have one key here: a second of 8192 bits takes a
/// minute to make and works as long as the first.
pub(super) fn measure(size: RsaSize, rounds: usize) -> anyhow::Result<RsaLength> {
    let key = RsaSecret::generate(size).context("the library makes RSA keys")?;
    let group = GroupNumber::new(1).context("not 0")?;
    let wall = wall()?;
    let epoch = KeyEpoch::fresh(None, wall);
    let master = [MasterKey::new(group, epoch, Generation::ZERO, drawn())];
    let terminal = TerminalNumber::new(1).context("not 0")?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let watch = Watch::start();
        let id = IdInformation {
            terminal,
            nonce: octets(&mut OsRandom),
            time: wall,
        };
        let key_req = seal_key_req(key.public(), &id);
        let asked = open_key_req(&key, &key_req).context("KEY-REQ opens")?;
        let request = |nonce| Request {
            key_req: &key_req,
            nonce,
        };
        let sealed = seal_key_dis(key.public(), request(asked.nonce), &master, &mut OsRandom)?;
        let opened =
            open_key_dis(&key, request(id.nonce), &sealed.key_dis).context("KEY-DIS opens")?;
        let ack = opened.exchange.make_ack(0);
        let confirmed = sealed.exchange.check_ack(&ack);
        times.push(watch.read().cpu_ms() * 1e3);
        anyhow::ensure!(confirmed == Some(0), "ACK is genuine");
    }
    Ok(RsaLength {
        bits: bits(size),
        until_ack: median(times).context("some rounds")?,
    })
}

const fn bits(size: RsaSize) -> u32 {
    match size {
        RsaSize::Bits2048 => 2048,
        RsaSize::Bits3072 => 3072,
        RsaSize::Bits4096 => 4096,
        RsaSize::Bits8192 => 8192,
    }
}
