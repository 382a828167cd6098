//! SRTP and SRTCP from strangers: no panic, and nothing opens without the key.
#![no_main]

use keyfall_plane::{Arrival, SrtpReceiver, StaticReceiver, Stretch};
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch};
use keyfall_protocol::keys::{MasterKey, Secret, SrtpMaster, SrtpSuite};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let group = GroupNumber::new(1).expect("not 0");
    let secret = Secret::init_with(|into| into.fill(5));
    let key = MasterKey::new(group, KeyEpoch::new(1), Generation::ZERO, secret);
    let mut plain = Vec::new();
    for suite in SrtpSuite::ALL {
        if let Ok(arrival) = Arrival::of_srtp(suite, octets) {
            let mut receiver =
                SrtpReceiver::new(arrival.stream(suite), Stretch::new(16).expect("in bounds"));
            assert!(receiver.unprotect_rtp(octets, &mut plain).is_err());
            assert!(receiver.try_rtp(&key, octets, &mut plain).is_err());
        }
        if let Ok(arrival) = Arrival::of_srtcp(suite, octets) {
            let mut receiver =
                SrtpReceiver::new(arrival.stream(suite), Stretch::new(10).expect("in bounds"));
            assert!(receiver.try_rtcp(&key, octets, &mut plain).is_err());
        }
        let stock = [9; 46];
        let len = suite.key_len() + suite.salt_len();
        let master = SrtpMaster::from_octets(suite, &stock[..len]).expect("that length");
        let mut stock = StaticReceiver::new(&master, 1, 0);
        assert!(stock.unprotect_rtp(octets, &mut plain).is_err());
        assert!(stock.unprotect_rtcp(octets, &mut plain).is_err());
    }
});
