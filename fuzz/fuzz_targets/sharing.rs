//! Messages of key sharing: what reads is written again octet for octet, and what strangers make
//! opens for nobody.
#![no_main]

use keyfall_protocol::command::SigningKey;
use keyfall_protocol::ids::{Generation, TerminalNumber, Tick};
use keyfall_protocol::keys::{Secret, WrapKey};
use keyfall_protocol::sharing::message::{KeyReq, Message, RequestHash, marked};
use keyfall_protocol::sharing::pair::SignedGrant;
use keyfall_protocol::sharing::{Assembly, Bundle, Confirmation, Introduction};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let number = TerminalNumber::new(1).expect("not 0");
    let wrap = WrapKey::new(
        number,
        Generation::ZERO,
        Secret::init_with(|into| into.fill(7)),
    );
    if let Ok(message) = Message::decode(octets) {
        assert_eq!(message.encode(), octets);
        match message {
            Message::KeyReq {
                request: KeyReq::Psk(ask),
                cookie,
            } => assert!(ask.open(&wrap, cookie).is_none()),
            Message::KeyDis { distribution, .. } => {
                if let Ok(signed) = SignedGrant::decode(distribution) {
                    let key = SigningKey::from_seed(Secret::init_with(|into| into.fill(8)));
                    let request = RequestHash::of(b"a request");
                    assert!(signed.verify(&request, &key.public()).is_none());
                }
            }
            Message::Part(part) => {
                let mut assembly = Assembly::new(4, 64);
                let _whole = assembly.add((), &part, Tick::default());
            }
            Message::KeyReq { .. }
            | Message::Cookie { .. }
            | Message::Ack { .. }
            | Message::Command { .. }
            | Message::Hello { .. }
            | Message::Introduction { .. } => {}
        }
    }
    if let Ok(introduction) = Introduction::decode(octets) {
        assert_eq!(introduction.encode(), octets);
    }
    let datagram = marked(octets);
    if let Ok(one) = Confirmation::decode(&datagram) {
        assert_eq!(one.encode(), datagram);
        assert!(!one.check(&wrap));
    }
    if let Ok(bundle) = Bundle::decode(&datagram) {
        assert_eq!(bundle.encode(), datagram);
    }
});
