//! The old way, for comparison (REQUIREMENTS R-110): a large number of keys is put into every
//! terminal before it goes out, and the fleet rotates through them.
//!
//! As kind to the method as it can be: each key is wiped when its time is over, so that the past
//! stays closed. What is still to come lies in the terminal.

use std::time::Duration;

use keyfall_plane::{Arrival, SrtpReceiver, SrtpSender, SrtpStream, Stretch};
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SessionId, TerminalNumber};
use keyfall_protocol::keys::{MasterKey, Secret, SrtpSuite};
use keyfall_protocol::rng::{Random, octets};

use crate::media::rtp_packet;
use crate::seeded::Seeded;
use crate::theft::TheftPlan;

/// The keys of one group as a terminal stores them.
pub struct Preloaded {
    keys: Vec<Secret<32>>,
    /// How many are used up and wiped.
    used: usize,
}

/// What a thief reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreloadedRun {
    /// Keys that were put into each terminal.
    pub keys: usize,
    /// Octets that they take.
    pub stored: usize,
    /// Seconds since the theft of each packet, and whether the thief read it.
    pub traffic: Vec<(i64, bool)>,
}

impl Preloaded {
    /// Keys for `count` periods.
    #[must_use]
    pub fn new(count: usize, rng: &mut Seeded) -> Self {
        let key = |_| Secret::init_with(|into| rng.fill(into));
        Self {
            keys: (0..count).map(key).collect(),
            used: 0,
        }
    }

    /// The terminal's copy when `used` periods are over.
    #[must_use]
    pub fn after(&self, used: usize) -> Self {
        let left = self.keys.iter().skip(used);
        Self {
            keys: left.map(Secret::duplicate).collect(),
            used,
        }
    }

    /// The key of that period; `None` where it is wiped, or where none is left.
    fn key(&self, period: usize) -> Option<MasterKey> {
        let secret = self.keys.get(period.checked_sub(self.used)?)?.duplicate();
        let name = Generation::new(u32::try_from(period).ok()?)?;
        Some(MasterKey::new(GROUP, KeyEpoch::new(0), name, secret))
    }
}

/// The theft of `plan` with this method, and nobody can do anything about it but visit every
/// terminal.
#[must_use]
pub fn steal_preloaded(plan: &TheftPlan, keys: usize, seed: u64) -> PreloadedRun {
    let mut rng = Seeded::new(seed);
    let fleet = Preloaded::new(keys, &mut rng);
    let theft = plan.theft_after().as_secs();
    let period = |second: u64| (second / u64::from(plan.period)) as usize;
    let stolen = fleet.after(period(theft));
    // Every key is tried: the thief need not know of which period a packet is.
    let left = (0..stolen.keys.len()).filter_map(|place| stolen.key(stolen.used + place));
    let loot: Vec<_> = left.map(|key| (key.tag(), key)).collect();
    let stream = SrtpStream {
        suite: SUITE,
        sender: SENDER,
        session: SessionId::new(octets(&mut rng)),
        ssrc: 1,
    };
    let mut sender = SrtpSender::new(stream, Stretch::default());
    let mut traffic = Vec::new();
    let end = theft + u64::from(plan.after);
    for (n, second) in (0..end).step_by(plan.every as usize).enumerate() {
        let Some(key) = fleet.key(period(second)) else {
            break;
        };
        let mut packet = rtp_packet(stream.ssrc, n as u16, b"speech");
        sender
            .protect_rtp(&key, &mut packet)
            .expect("sequence numbers that rise by one are protected");
        let arrival = Arrival::of_srtp(SUITE, &packet).expect("it was just protected");
        let read = loot
            .iter()
            .filter(|(tag, _)| *tag == arrival.mki.tag())
            .any(|(_, key)| opens(key, &arrival, &packet));
        traffic.push((second as i64 - theft as i64, read));
    }
    PreloadedRun {
        keys,
        stored: keys * 32,
        traffic,
    }
}

/// How many keys a period of that length takes to last a year.
#[must_use]
pub fn keys_for_a_year(period: u32) -> usize {
    (Duration::from_secs(365 * 86_400).as_secs() / u64::from(period.max(1))) as usize
}

fn opens(key: &MasterKey, arrival: &Arrival, packet: &[u8]) -> bool {
    SrtpReceiver::new(arrival.stream(SUITE), Stretch::default())
        .try_rtp(key, packet, &mut Vec::new())
        .is_ok()
}

const SUITE: SrtpSuite = SrtpSuite::AeadAes256Gcm;
const GROUP: GroupNumber = match GroupNumber::new(1) {
    Some(group) => group,
    None => unreachable!(),
};
const SENDER: TerminalNumber = match TerminalNumber::new(1) {
    Some(terminal) => terminal,
    None => unreachable!(),
};
