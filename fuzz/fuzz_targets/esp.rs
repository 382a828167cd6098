//! ESP from strangers and from members who know the key: no panic, and nothing opens without it.
#![no_main]

use keyfall_plane::{EspArrival, EspReceiver, EspRefused, EspSender, PinnedArrival, esp_len};
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber};
use keyfall_protocol::keys::{EspSuite, MasterKey, Secret};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let group = GroupNumber::new(1).expect("not 0");
    let secret = Secret::init_with(|into| into.fill(5));
    let key = MasterKey::new(group, KeyEpoch::new(1), Generation::ZERO, secret);
    let mut out = vec![0; octets.len()];
    for suite in EspSuite::ALL {
        if let Ok(arrival) = EspArrival::read(octets) {
            let (sender, session) = (arrival.spi.sender(), arrival.session);
            let mut receiver = EspReceiver::new(suite, &key, sender, session);
            assert!(receiver.open_into(octets, &mut out).is_err());
            assert_eq!(receiver.highest(), 0);
        }
        if let Ok(arrival) = PinnedArrival::read(octets) {
            let keys = key.derive_esp_pinned(suite, arrival.spi, [1; 16]);
            let mut receiver = EspReceiver::pinned(&keys, arrival.spi, 0);
            assert!(receiver.open_into(octets, &mut out).is_err());
        }
        let sender = TerminalNumber::new(9).expect("not 0");
        let session = EspSession::new([3; 5]);
        let mut ours = EspSender::new(suite, &key, sender, session);
        let mut packet = vec![0; esp_len(octets.len())];
        // Whatever is taken for an IP packet comes back as it was, once.
        if let Ok(len) = ours.seal_from(octets, &mut packet) {
            let mut receiver = EspReceiver::new(suite, &key, sender, session);
            let mut opened = vec![0; len];
            let (inner, sequence) = receiver
                .open_into(&packet[..len], &mut opened)
                .expect("sealed a moment ago");
            assert_eq!((&opened[..inner], sequence), (octets, 1));
            let again = receiver.open_into(&packet[..len], &mut opened);
            assert_eq!(again, Err(EspRefused::Replayed));
        }
    }
});
