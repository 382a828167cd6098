#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::LazyLock;

use aws_lc_rs::{digest, hmac};

use super::header::{self, HEADER_LEN, Kind};
use super::*;
use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, UnixSeconds};
use crate::keys::{MasterKey, Secret};
use crate::rng::Random;
use crate::sharing::misty1::Misty1;

/// The keys of a server, of the terminal that asks, and of a stranger.
static SERVER: LazyLock<RsaSecret> = LazyLock::new(key);
static TERMINAL: LazyLock<RsaSecret> = LazyLock::new(key);
static STRANGER: LazyLock<RsaSecret> = LazyLock::new(key);

fn key() -> RsaSecret {
    RsaSecret::generate(RsaSize::Bits2048).unwrap()
}

/// Octets that are as good as random and always the same.
struct Counting(u64);

impl Random for Counting {
    fn fill(&mut self, into: &mut [u8]) {
        for chunk in into.chunks_mut(32) {
            self.0 += 1;
            let block = digest::digest(&digest::SHA256, &self.0.to_be_bytes());
            chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        }
    }
}

fn id() -> IdInformation {
    IdInformation {
        terminal: TerminalNumber::new(7).unwrap(),
        nonce: *b"a nonce of dave.",
        time: UnixSeconds::new(1_800_000_000),
    }
}

fn master_key(group: u32) -> MasterKey {
    MasterKey::new(
        GroupNumber::new(group).unwrap(),
        KeyEpoch::new(group + 1000),
        Generation::new(group + 2000).unwrap(),
        Secret::init_with(|into| Counting(1 << 32 | u64::from(group)).fill(into)),
    )
}

fn master_keys(count: u32) -> Vec<MasterKey> {
    (1..=count).map(master_key).collect()
}

fn request(key_req: &[u8]) -> Request<'_> {
    Request {
        key_req,
        nonce: id().nonce,
    }
}

/// A request, and its answer with that many keys.
fn answered(count: u32) -> (Vec<u8>, Sealed) {
    let key_req = seal_key_req(SERVER.public(), &id());
    let keys = master_keys(count);
    let sealed = seal_key_dis(
        TERMINAL.public(),
        request(&key_req),
        &keys,
        &mut Counting(0),
    )
    .unwrap();
    (key_req, sealed)
}

/// Messages that differ from this one in one bit, each bit of the header and one of each other octet;
/// and some that are shorter or longer.
fn changed(message: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let header = (0..8 * HEADER_LEN).map(|bit| (bit / 8, bit % 8));
    let rest = (HEADER_LEN..message.len()).map(|at| (at, at % 8));
    let flipped = header.chain(rest).map(|(at, bit)| {
        let mut other = message.to_vec();
        other[at] ^= 1 << bit;
        other
    });
    let cut = (0..message.len())
        .step_by(7)
        .map(|len| message[..len].to_vec());
    let longer = [1, 8, 44, 88].map(|more| [message, &vec![0; more]].concat());
    flipped.chain(cut).chain(longer)
}

#[test]
fn what_is_asked_for_is_read_and_acknowledged() {
    for count in [0, 1, 2, 3, 16, 256] {
        let (key_req, sealed) = answered(count);
        assert_eq!(sealed_for(&key_req), Some(SERVER.public().name()));
        assert_eq!(open_key_req(&SERVER, &key_req), Some(id()));
        let opened = open_key_dis(&TERMINAL, request(&key_req), &sealed.key_dis).unwrap();
        assert_eq!(opened.keys.len(), count as usize);
        for (key, sent) in opened.keys.iter().zip(master_keys(count)) {
            assert_eq!(key.kid(), sent.kid());
            assert_eq!(key.epoch(), sent.epoch());
            assert_eq!(key.generation(), sent.generation());
            assert_eq!(key.secret(), sent.secret());
        }
        for status in [0, 1, 2, 3, 255] {
            let ack = opened.exchange.make_ack(status);
            assert_eq!(ack.len(), ACK_LEN);
            assert_eq!(sealed.exchange.check_ack(&ack), Some(status));
        }
    }
}

/// KR-301. The change of an octet of the header is found by comparing, of the sealed part by OAEP.
#[test]
fn no_changed_octet_of_a_request_is_opened() {
    let key_req = seal_key_req(SERVER.public(), &id());
    for other in changed(&key_req) {
        assert_eq!(open_key_req(&SERVER, &other), None);
    }
    assert_eq!(open_key_req(&STRANGER, &key_req), None);

    // What was sealed by the rules, and holds no ID information.
    let server = SERVER.public();
    let name = *server.name().as_bytes();
    let plain = |terminal: u32| [&terminal.to_be_bytes()[..], &[0; 20]].concat();
    for (plain, terminal) in [
        (plain(7), Some(7)),
        (plain(0), None),
        (plain(1 << 24), None),
    ] {
        let made = header::join(Kind::KeyReq, name, &server.seal(&plain), &[]);
        let opened = open_key_req(&SERVER, &made).map(|id| id.terminal.get());
        assert_eq!(opened, terminal);
    }
    let with_more = header::join(Kind::KeyReq, name, &server.seal(&plain(7)), &[&[0]]);
    assert_eq!(open_key_req(&SERVER, &with_more), None);
    for len in [0, 23, 25] {
        let mut plain = plain(7);
        plain.resize(len, 0);
        let made = header::join(Kind::KeyReq, name, &server.seal(&plain), &[]);
        assert_eq!(open_key_req(&SERVER, &made), None);
    }
}

/// KR-302.
#[test]
fn no_changed_octet_of_a_distribution_is_opened() {
    let (key_req, sealed) = answered(2);
    let open = |key_dis: &[u8]| open_key_dis(&TERMINAL, request(&key_req), key_dis);
    assert!(open(&sealed.key_dis).is_some());
    for other in changed(&sealed.key_dis) {
        assert!(open(&other).is_none());
    }
    assert!(open_key_dis(&STRANGER, request(&key_req), &sealed.key_dis).is_none());
    assert!(open(&key_req).is_none());
}

/// What a distribution is made of, each part to be put wrong.
struct Forged {
    rsa_checksum: Option<[u8; 16]>,
    nonce: [u8; 16],
    count: u16,
    entries: Vec<(u32, u32)>,
    misty1_checksum: Option<[u8; 16]>,
    padding: u8,
}

impl Forged {
    fn good() -> Self {
        Self {
            rsa_checksum: None,
            nonce: id().nonce,
            count: 2,
            entries: vec![(5, 0), (6, 1 << 31)],
            misty1_checksum: None,
            padding: 0,
        }
    }

    /// Written apart from the product's own writer.
    fn made(&self, key_req: &[u8]) -> Vec<u8> {
        let km = Secret::init_with(|into| into.fill(9));
        let mut text = self.count.to_be_bytes().to_vec();
        for (group, generation) in &self.entries {
            text.extend([group.to_be_bytes(), [0; 4], generation.to_be_bytes()].concat());
            text.extend([1; 32]);
        }
        let under = [&self.nonce[..], &text].concat();
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[9; 16]), &under);
        let checksum = match &self.misty1_checksum {
            Some(wrong) => wrong,
            None => &mac.as_ref()[..16],
        };
        text.extend(checksum);
        text.resize(text.len().next_multiple_of(8), self.padding);
        Misty1::new(&km).encrypt([3; 8], &mut text).unwrap();
        let hash = digest::digest(&digest::SHA256, &[9; 16]);
        let checksum = match &self.rsa_checksum {
            Some(wrong) => wrong,
            None => &hash.as_ref()[..16],
        };
        let field = TERMINAL.public().seal(&[&[9; 16], checksum].concat());
        let reference = header::reference_to(&[key_req]);
        header::join(Kind::KeyDis, reference, &field, &[&[3; 8], &text])
    }

    fn is_opened(&self) -> bool {
        let key_req = seal_key_req(SERVER.public(), &id());
        open_key_dis(&TERMINAL, request(&key_req), &self.made(&key_req)).is_some()
    }
}

/// KR-302: each checksum counts by itself, and what is under them is still read strictly.
#[test]
fn a_distribution_with_a_wrong_checksum_or_content_is_not_opened() {
    let good = Forged::good;
    assert!(good().is_opened());
    let refused = [
        Forged {
            rsa_checksum: Some([0; 16]),
            ..good()
        },
        Forged {
            misty1_checksum: Some([0; 16]),
            ..good()
        },
        Forged { count: 1, ..good() },
        Forged { count: 3, ..good() },
        Forged {
            padding: 1,
            ..good()
        },
        Forged {
            entries: vec![(6, 0), (5, 0)],
            ..good()
        },
        Forged {
            entries: vec![(5, 0), (5, 0)],
            ..good()
        },
        Forged {
            entries: vec![(0, 0), (5, 0)],
            ..good()
        },
        Forged {
            entries: vec![(5, 0), (1 << 30, 0)],
            ..good()
        },
        Forged {
            entries: vec![(5, 0), (6, (1 << 31) + 1)],
            ..good()
        },
        Forged {
            count: 257,
            entries: (1..=257).map(|group| (group, 0)).collect(),
            ..good()
        },
    ];
    for (number, forged) in refused.iter().enumerate() {
        assert!(!forged.is_opened(), "{number}");
    }
}

/// KR-303, REQUIREMENTS T-05. A masquerader knows the terminal's public key and the request as sent.
/// It does not know the nonce.
#[test]
fn who_could_not_read_the_request_cannot_answer_it() {
    let other_nonce = Forged {
        nonce: [0; 16],
        ..Forged::good()
    };
    assert!(!other_nonce.is_opened());
}

/// KR-303, REQUIREMENTS T-09. The header of a recorded answer is changed to refer to the new request.
#[test]
fn an_answer_to_an_older_request_is_not_opened() {
    let (older_req, recorded) = answered(2);
    let newer = IdInformation {
        nonce: [1; 16],
        ..id()
    };
    let newer_req = seal_key_req(SERVER.public(), &newer);
    let newer = Request {
        key_req: &newer_req,
        nonce: newer.nonce,
    };
    assert!(open_key_dis(&TERMINAL, newer, &recorded.key_dis).is_none());

    let mut moved = recorded.key_dis.clone();
    moved[8..HEADER_LEN].copy_from_slice(&header::reference_to(&[&newer_req]));
    assert!(open_key_dis(&TERMINAL, newer, &moved).is_none());
    // And to a request with the same nonce, which no terminal makes: the reference alone refuses it.
    let again = seal_key_req(SERVER.public(), &id());
    assert_ne!(again, older_req);
    assert!(open_key_dis(&TERMINAL, request(&again), &recorded.key_dis).is_none());
    assert!(open_key_dis(&TERMINAL, request(&older_req), &recorded.key_dis).is_some());
}

/// KR-304, REQUIREMENTS R-091.
#[test]
fn an_acknowledgement_by_who_could_not_decrypt_is_refused() {
    let (key_req, sealed) = answered(2);
    let opened = open_key_dis(&TERMINAL, request(&key_req), &sealed.key_dis).unwrap();
    let ack = opened.exchange.make_ack(0);
    for other in changed(&ack) {
        assert_eq!(sealed.exchange.check_ack(&other), None);
    }
    // Who knows all but Km, and who has Km and did not read what it opens.
    let parts = header::split(Kind::KeyDis, &sealed.key_dis).unwrap();
    let km = Secret::from_slice(&TERMINAL.open(parts.rsa_field).unwrap()[..16]).unwrap();
    let (iv, text) = parts.rest.split_first_chunk().unwrap();
    let mut text = text.to_vec();
    Misty1::new(&km).decrypt(*iv, &mut text).unwrap();
    let plaintext = rsa::sha256(&[&text]);
    let by = |km: &Secret<16>, plaintext| {
        let made = Exchange::new(km.duplicate(), &key_req, &sealed.key_dis, plaintext).make_ack(0);
        assert_eq!(made[..=HEADER_LEN], ack[..=HEADER_LEN]);
        sealed.exchange.check_ack(&made)
    };
    let guessed = Secret::from_slice(&id().nonce).unwrap();
    assert_eq!(by(&km, plaintext), Some(0));
    assert_eq!(by(&guessed, plaintext), None);
    assert_eq!(by(&km, [0; 32]), None);
    assert_eq!(by(&km, rsa::sha256(&[parts.rest])), None);
    // With an RSA field, which an ACK does not have.
    let mut longer = ack.clone();
    longer.insert(HEADER_LEN, 0);
    longer[5] = 1;
    assert_eq!(sealed.exchange.check_ack(&longer), None);
    let (_, another) = answered(2);
    // The acknowledgement of another exchange, and one of ours sent back to us as something else.
    assert_eq!(another.exchange.check_ack(&ack), None);
    assert_eq!(sealed.exchange.check_ack(&sealed.key_dis), None);
    assert_eq!(sealed.exchange.check_ack(&ack), Some(0));
}

/// KR-305, REQUIREMENTS R-037. The same keys for the same request: no octet of Km shows in two of them.
#[test]
fn two_distributions_in_a_row_have_two_km() {
    let key_req = seal_key_req(SERVER.public(), &id());
    let rng = &mut Counting(0);
    let mut made = || {
        let keys = master_keys(1);
        let sealed = seal_key_dis(TERMINAL.public(), request(&key_req), &keys, rng).unwrap();
        let parts = header::split(Kind::KeyDis, &sealed.key_dis).unwrap();
        let field = TERMINAL.open(parts.rsa_field).unwrap();
        (field[..16].to_vec(), parts.rest[..8].to_vec())
    };
    let (first, second) = (made(), made());
    assert_ne!(first.0, second.0);
    assert_ne!(first.1, second.1);
    // With a generator that repeats itself, another request still has another Km.
    let km = |key_req: &[u8]| {
        let sealed =
            seal_key_dis(TERMINAL.public(), request(key_req), &[], &mut Counting(0)).unwrap();
        let parts = header::split(Kind::KeyDis, &sealed.key_dis).unwrap();
        TERMINAL.open(parts.rsa_field).unwrap()[..16].to_vec()
    };
    assert_eq!(km(&key_req), first.0);
    assert_ne!(km(b"another request"), first.0);
}

/// REQUIREMENTS R-094: the public-key part is one block, for one key and for 256.
#[test]
fn one_key_and_256_cost_one_public_key_operation() {
    let field_len = |count| {
        let (_, sealed) = answered(count);
        let parts = header::split(Kind::KeyDis, &sealed.key_dis).unwrap();
        assert_eq!(
            parts.rest.len(),
            8 + (18 + 44 * count as usize).next_multiple_of(8)
        );
        parts.rsa_field.len()
    };
    assert_eq!((field_len(1), field_len(256)), (256, 256));
}

/// KR-306.
#[test]
fn what_does_not_fit_in_one_distribution_is_not_made() {
    let key_req = seal_key_req(SERVER.public(), &id());
    let seal = |keys: &[MasterKey]| {
        seal_key_dis(TERMINAL.public(), request(&key_req), keys, &mut Counting(0)).err()
    };
    let too_many = SealError::TooManyKeys { got: 257 };
    assert_eq!(seal(&master_keys(257)), Some(too_many));
    assert_eq!(
        seal(&[master_key(2), master_key(1)]),
        Some(SealError::NotRising)
    );
    assert_eq!(
        seal(&[master_key(2), master_key(2)]),
        Some(SealError::NotRising)
    );
    assert_eq!(seal(&master_keys(256)), None);
}

/// KR-307.
#[test]
fn rsa_keys_of_less_than_2048_bits_and_other_keys_are_refused() {
    for der in [SPKI_1024, SPKI_ED25519, "", "30", "3000"] {
        assert!(RsaPublic::from_spki(&from_hex(der)).is_none());
        assert!(RsaSecret::from_pkcs8(&from_hex(der)).is_none());
    }
    assert!(RsaSecret::from_pkcs8(&from_hex(PKCS8_1024)).is_none());

    let (spki, pkcs8) = (SERVER.public().as_spki(), SERVER.to_pkcs8());
    assert_eq!(RsaPublic::from_spki(spki).as_ref(), Some(SERVER.public()));
    assert!(RsaPublic::from_spki(&[spki, &[0]].concat()).is_none());
    assert!(RsaPublic::from_spki(&pkcs8).is_none());
    let again = RsaSecret::from_pkcs8(&pkcs8).unwrap();
    assert_eq!(again.public(), SERVER.public());
    assert_eq!(again.to_pkcs8(), pkcs8);
    assert_ne!(SERVER.public(), STRANGER.public());
    assert_ne!(SERVER.public().name(), STRANGER.public().name());
}

#[test]
fn keys_of_other_sizes_work_alike() {
    for (size, octets) in [(RsaSize::Bits3072, 384), (RsaSize::Bits4096, 512)] {
        let own = RsaSecret::generate(size).unwrap();
        let key_req = seal_key_req(own.public(), &id());
        assert_eq!(key_req.len(), HEADER_LEN + octets);
        assert_eq!(open_key_req(&own, &key_req), Some(id()));
        let sealed = seal_key_dis(own.public(), request(&key_req), &[], &mut Counting(0)).unwrap();
        assert!(open_key_dis(&own, request(&key_req), &sealed.key_dis).is_some());
        // The field is as long as its own key's modulus, before anything is decrypted.
        assert!(open_key_dis(&TERMINAL, request(&key_req), &sealed.key_dis).is_none());
    }
}

/// A driver's pool does the public-key work.
#[test]
fn public_key_work_may_be_done_on_another_thread() {
    fn is_send<T: Send + 'static>() {}
    is_send::<RsaSecret>();
    is_send::<RsaPublic>();
    is_send::<Opened>();
    let (key_req, sealed) = answered(1);
    let worker = std::thread::spawn(move || {
        let id = open_key_req(&SERVER, &key_req);
        let opened = open_key_dis(&TERMINAL, request(&key_req), &sealed.key_dis).unwrap();
        (id, opened.exchange.make_ack(0), sealed)
    });
    let (opened, ack, sealed) = worker.join().unwrap();
    assert_eq!(opened, Some(id()));
    assert_eq!(sealed.exchange.check_ack(&ack), Some(0));
}

#[test]
fn no_debug_print_of_an_exchange_shows_a_secret() {
    let (key_req, sealed) = answered(1);
    let opened = open_key_dis(&TERMINAL, request(&key_req), &sealed.key_dis).unwrap();
    let name = SERVER.public().name();
    assert_eq!(
        format!("{:?}", *SERVER),
        format!("private half of RSA key {name}, 2048 bits")
    );
    assert_eq!(format!("{:?}", opened.exchange), "Exchange");
    let keys = format!("{:?}", opened.keys);
    assert_eq!(keys, format!("{:?}", master_keys(1)));
    assert!(!keys.contains("bytes"));
}

fn from_hex(digits: &str) -> Vec<u8> {
    let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(octet).collect()
}

/// Keys that OpenSSL made: too short, and of another kind.
const SPKI_1024: &str = "30819f300d06092a864886f70d010101050003818d0030818902818100d0710c8b41e8c6faf4130b93f0c590fe\
    45815d1552dba48146c540c551afe1bf60a57156e64a815b4e645276709da2d75b29c67d947dcbc681b6e7210d\
    211c176e526f7a74b2732c2099e0f7938edcd82d5d86a16e95f95645c45254aad7edbea1ffbe8625482659ca31\
    d82b46184d2e02dff7d607ebe465675a2e8084aa783f0203010001";
const PKCS8_1024: &str = "30820277020100300d06092a864886f70d0101010500048202613082025d02010002818100d0710c8b41e8c6fa\
    f4130b93f0c590fe45815d1552dba48146c540c551afe1bf60a57156e64a815b4e645276709da2d75b29c67d94\
    7dcbc681b6e7210d211c176e526f7a74b2732c2099e0f7938edcd82d5d86a16e95f95645c45254aad7edbea1ff\
    be8625482659ca31d82b46184d2e02dff7d607ebe465675a2e8084aa783f020301000102818100a73b4bf91e34\
    0810a769f04c0d4c34fc0bffb212bd9b82ec453f54abfad1c5a8a97d92e54976553a5036a502696fcf8a4095cf\
    ae494874091b610726b945eb265e7feb89bf6379b759c321c0dea22dcce432cec9874a88efc31da465c16f242b\
    340baa1f9f6eea47ba35b4a6b30aa758c2d063409d63afd667c275f5fa057b81024100ee54902fd25c4931e12b\
    b1af81459423fa3c23f86e016784396020071661a5e29f1d997a03f8f8ad3226561515022cc860c9d227eb58a7\
    b35d77dfc61ea87591024100dfe534f44e6998404d5ccbb992022da8546533dc223ba52fe10d6ff6cf3bc50da6\
    f76ba0e98531a75a4d4cefecb8e83bd43fad6fa1e66dbe36665c15fd68e8cf02406c9692eb77091d4060bbabc5\
    af3ca8768bf902da9a2481a9b90a970d23a17217832fd551c6a5958834254b6b679b0a147225025fb5d73af17a\
    50b7e068ef90410241008b02925844ff06ca95bdd1b74bd2126afacb42e1a0578bfe282ae1a34993808b336956\
    e7b7553d38fcb615d8b90f2d11487ca8c030b312dc10868912161e36bd024005719315755e7429cc1fe03afaf0\
    ab35adbf96a234a4774a279e35749563e5df7c41547a669741cb317b68ee7990deb6b080d0817531794d44dfad\
    f22498893b";
const SPKI_ED25519: &str =
    "302a300506032b657003210014c3bb474b6719f9a6c30baa9587e64431eb987a8858d930881863685efa5bba";
