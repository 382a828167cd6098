//! `interop/vectors/rsa_misty1.json`: whole exchanges of the legacy suite, with the private keys.
//!
//! RSA keys and OAEP are random each time, so the file is not made anew octet for octet: keys and RSA fields
//! are kept as long as they open, and all else must be what the code says of them.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, UnixSeconds};
use keyfall_protocol::keys::{MasterKey, Secret};
use keyfall_protocol::rng::Random;
use keyfall_protocol::sharing::misty1::Misty1;
use keyfall_protocol::sharing::rsa_misty1::{
    IdInformation, Request, RsaSecret, RsaSize, open_key_dis, open_key_req, seal_key_dis,
    seal_key_req,
};
use serde_json::{Value, json};

use crate::stream::{Stream, octets32};
use crate::vectors::{check, from_top, hex};

#[test]
fn exchanges_of_the_legacy_suite_are_the_published_ones() {
    let held = held().unwrap_or(Value::Null);
    let server = own_key(&held["server"], RsaSize::Bits3072);
    let terminal = own_key(&held["terminal"], RsaSize::Bits2048);
    let exchanges: Vec<Value> = CASES
        .iter()
        .enumerate()
        .map(|(place, case)| {
            let held = &held["exchanges"][place];
            let (key_req, key_dis) = case
                .held(&server, &terminal, held)
                .unwrap_or_else(|| case.made(&server, &terminal));
            case.shown(&server, &terminal, &key_req, &key_dis)
        })
        .collect();
    check(
        "rsa_misty1.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Legacy suite rsa-misty1\". Octets are hex text; private keys \
                      are PKCS #8, public ones SubjectPublicKeyInfo, both as DER. A nonce is the first 16 \
                      octets of the stream of \"nonce of\" and the name of the exchange; what the server \
                      drew, 32 octets for Km and the IV, is the stream of the name; the key of group N is \
                      that of \"master key of group N\". `plain` is the plaintext of the MISTY1 field.",
            "server": shown_key(&server),
            "terminal": shown_key(&terminal),
            "exchanges": exchanges,
        }),
    );
}

struct Case {
    name: &'static str,
    terminal: u32,
    time: u32,
    groups: &'static [(u32, u32, u32)],
    statuses: &'static [u8],
}

const CASES: &[Case] = &[
    Case {
        name: "a terminal in no group",
        terminal: 1,
        time: 0,
        groups: &[],
        statuses: &[0],
    },
    Case {
        name: "a terminal in one group",
        terminal: 7,
        time: 1_800_000_000,
        groups: &[(5, 32_774_400, 12)],
        statuses: &[0, 1, 2, 3],
    },
    Case {
        name: "the largest numbers",
        terminal: (1 << 24) - 1,
        time: u32::MAX,
        groups: &[(1, 0, 0), (2, 1, 1), ((1 << 30) - 1, u32::MAX, 1 << 31)],
        statuses: &[0, 255],
    },
];

impl Case {
    fn nonce(&self) -> [u8; 16] {
        let stream = octets32(&format!("nonce of {}", self.name));
        stream[..16].try_into().unwrap()
    }

    fn request<'a>(&self, key_req: &'a [u8]) -> Request<'a> {
        let nonce = self.nonce();
        Request { key_req, nonce }
    }

    fn keys(&self) -> Vec<MasterKey> {
        let key = |&(group, epoch, generation): &(u32, u32, u32)| {
            MasterKey::new(
                GroupNumber::new(group).unwrap(),
                KeyEpoch::new(epoch),
                Generation::new(generation).unwrap(),
                master_key(group),
            )
        };
        self.groups.iter().map(key).collect()
    }

    fn made(&self, server: &RsaSecret, terminal: &RsaSecret) -> (Vec<u8>, Vec<u8>) {
        let id = IdInformation {
            terminal: TerminalNumber::new(self.terminal).unwrap(),
            nonce: self.nonce(),
            time: UnixSeconds::new(self.time),
        };
        let key_req = seal_key_req(server.public(), &id);
        (key_req.clone(), self.sealed(terminal, &key_req))
    }

    fn sealed(&self, terminal: &RsaSecret, key_req: &[u8]) -> Vec<u8> {
        let rng = &mut Stream::new(self.name);
        let request = self.request(key_req);
        seal_key_dis(terminal.public(), request, &self.keys(), rng)
            .unwrap()
            .key_dis
    }

    /// What the file holds, where it still opens.
    fn held(
        &self,
        server: &RsaSecret,
        terminal: &RsaSecret,
        held: &Value,
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        let key_req = from_hex(held["key_req"].as_str()?);
        let key_dis = from_hex(held["key_dis"].as_str()?);
        open_key_req(server, &key_req)?;
        open_key_dis(terminal, self.request(&key_req), &key_dis)?;
        Some((key_req, key_dis))
    }

    fn shown(
        &self,
        server: &RsaSecret,
        terminal: &RsaSecret,
        key_req: &[u8],
        key_dis: &[u8],
    ) -> Value {
        let id = open_key_req(server, key_req).unwrap();
        let opened = open_key_dis(terminal, self.request(key_req), key_dis).unwrap();
        let groups: Vec<_> = opened
            .keys
            .iter()
            .map(|key| {
                json!({
                    "group": key.group().get(),
                    "epoch": key.epoch().get(),
                    "generation": key.generation().get(),
                    "key": hex(key.secret().expose()),
                })
            })
            .collect();
        let acks: Vec<_> = self
            .statuses
            .iter()
            .map(|&status| {
                let ack = opened.exchange.make_ack(status);
                assert_eq!(opened.exchange.check_ack(&ack), Some(status));
                json!({ "status": status, "ack": hex(&ack) })
            })
            .collect();

        // Sealed again, only the RSA field is another.
        let again = self.sealed(terminal, key_req);
        let (rsa_from, rsa_to) = (16, 16 + 256);
        assert_eq!(again[..rsa_from], key_dis[..rsa_from]);
        assert_ne!(again[rsa_from..rsa_to], key_dis[rsa_from..rsa_to]);
        assert_eq!(again[rsa_to..], key_dis[rsa_to..]);

        let mut drawn = Stream::new(self.name);
        let (mut fresh, mut iv) = ([0; 32], [0; 8]);
        drawn.fill(&mut fresh);
        drawn.fill(&mut iv);
        assert_eq!(key_dis[rsa_to..rsa_to + 8], iv);
        let km = km(&fresh, key_req);
        let mut plain = key_dis[rsa_to + 8..].to_vec();
        Misty1::new(&km).decrypt(iv, &mut plain).unwrap();

        json!({
            "name": self.name,
            "terminal": id.terminal.get(),
            "nonce": hex(&id.nonce),
            "time": id.time.get(),
            "key_req": hex(key_req),
            "km": hex(km.expose()),
            "iv": hex(&iv),
            "plain": hex(&plain),
            "groups": groups,
            "key_dis": hex(key_dis),
            "acks": acks,
        })
    }
}

fn master_key(group: u32) -> Secret<32> {
    Secret::from_slice(&octets32(&format!("master key of group {group}"))).unwrap()
}

/// Km by its formula, apart from the product's own code.
fn km(fresh: &[u8; 32], key_req: &[u8]) -> Secret<16> {
    struct Sixteen;
    impl KeyType for Sixteen {
        fn len(&self) -> usize {
            16
        }
    }
    let hash = digest(&SHA256, key_req);
    let prk = Prk::new_less_safe(HKDF_SHA256, fresh);
    let info = [hash.as_ref()];
    let okm = prk.expand(&info, Sixteen).unwrap();
    Secret::try_init_with(|into| okm.fill(into)).unwrap()
}

fn held() -> Option<Value> {
    let text = std::fs::read_to_string(from_top("interop/vectors/rsa_misty1.json")).ok()?;
    serde_json::from_str(&text).ok()
}

fn own_key(held: &Value, size: RsaSize) -> RsaSecret {
    let held = held["private"].as_str();
    held.and_then(|digits| RsaSecret::from_pkcs8(&from_hex(digits)))
        .unwrap_or_else(|| RsaSecret::generate(size).unwrap())
}

fn shown_key(key: &RsaSecret) -> Value {
    json!({
        "private": hex(&key.to_pkcs8()),
        "public": hex(key.public().as_spki()),
        "fingerprint": hex(&key.public().fingerprint()),
        "name": hex(key.public().name().as_bytes()),
    })
}

fn from_hex(digits: &str) -> Vec<u8> {
    let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(octet).collect()
}
