//! `interop/vectors/enrolment.json`: packages in both forms, codes and request keys as text.

use keyfall_protocol::enrolment::{
    EnrolmentCode, EnrolmentPackage, PackageError, RequestKey, SealedPackage, is_server_address,
    parse_request, request_text,
};
use keyfall_protocol::error::DecodeError;
use serde_json::{Value, json};

use crate::fleet::{package, secret};
use crate::stream::{Stream, octets32};
use crate::vectors::{check, hex};

const CARRIER: &str = "udp://239.255.70.77:47700?if=127.0.0.1&ttl=1";

#[test]
fn packages_are_the_published_ones() {
    let request = RequestKey::from_seed(secret("request key of terminal 3"));
    let mut rng = Stream::new("package to a request key");
    let mut carol = package(3, "carol", &[CARRIER]);
    carol.identity.wipe_roots = vec!["/srv/crew".to_owned(), "/var/log/radio".to_owned()];
    carol.identity.servers = vec![
        "192.0.2.1:47701".to_owned(),
        "[2001:db8::1]:47701".to_owned(),
    ];
    let to_request = carol.seal_to(&request.public(), &mut rng).unwrap();
    let code = code();
    let mut code_rng = Stream::new("package under a code");
    let under_code = package(2, "bob", &[CARRIER]).seal_under(&code, &mut code_rng);
    let typed = typed_forms(&code);
    check(
        "enrolment.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Enrolment package\". `drawn` is what sealing drew: the \
                      IKM of the ephemeral key (RFC 9180, DeriveKeyPair); or salt and IV.",
            "to_request": {
                "request_seed": hex(&octets32("request key of terminal 3")),
                "request_public": hex(&request.public()),
                "request_text": request_text(&request.public()),
                "drawn": drawn(&rng),
                "package": hex(&to_request),
                "contents": contents_shown(&carol),
            },
            "under_code": {
                "code_drawn": drawn(&code_stream().1),
                "code": code.shown().as_str(),
                "typed": typed,
                "not_a_code": ["", "0000-0000-0000-000", "0000-0000-0000-00000", "U000-0000-0000-0000"],
                "drawn": drawn(&code_rng),
                "package": hex(&under_code),
                "contents": contents_shown(&package(2, "bob", &[CARRIER])),
            },
        }),
    );
}

/// REQUIREMENTS R-035: whoever has the key or the code opens it; nobody else, and each wrong way
/// has its own sentence.
#[test]
fn package_opens_for_its_own_terminal_only() {
    let request = RequestKey::from_seed(secret("request key of terminal 3"));
    let other = RequestKey::from_seed(secret("request key of terminal 4"));
    let mut rng = Stream::new("any");
    let made = package(3, "carol", &[CARRIER]);
    let sealed = made.seal_to(&request.public(), &mut rng).unwrap();
    let to_request = SealedPackage::decode(&sealed).unwrap();
    let opened = to_request.open_with(&request).unwrap();
    assert_eq!(opened.identity, made.identity);
    assert_eq!(opened.wrap.secret(), made.wrap.secret());
    assert_eq!(opened.wrap.generation(), made.wrap.generation());
    assert_eq!(opened.obey.secret(), made.obey.secret());
    assert_eq!(
        (opened.issued_at, opened.expires),
        (made.issued_at, made.expires)
    );
    assert_eq!(
        to_request.open_with(&other).unwrap_err(),
        PackageError::WrongKey
    );
    assert_eq!(
        to_request.open_under(&code()).unwrap_err(),
        PackageError::RequestKeyNeeded
    );

    let under_code = SealedPackage::decode(&made.seal_under(&code(), &mut rng)).unwrap();
    assert!(under_code.open_under(&code()).is_ok());
    let wrong = EnrolmentCode::parse("0000-0000-0000-0000").unwrap();
    assert_eq!(
        under_code.open_under(&wrong).unwrap_err(),
        PackageError::WrongCode
    );
    assert_eq!(
        under_code.open_with(&request).unwrap_err(),
        PackageError::CodeNeeded
    );
}

/// No octet of a sealed package can be changed.
#[test]
fn changed_package_is_refused() {
    let request = RequestKey::from_seed(secret("request key of terminal 3"));
    let mut rng = Stream::new("any");
    let sealed = package(3, "carol", &[CARRIER])
        .seal_to(&request.public(), &mut rng)
        .unwrap();
    for place in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[place] ^= 1;
        let opened = SealedPackage::decode(&changed).and_then(|p| p.open_with(&request));
        assert!(opened.is_err(), "octet {place}");
    }
    for len in 0..sealed.len() {
        assert!(
            SealedPackage::decode(&sealed[..len]).is_err(),
            "cut to {len}"
        );
    }
}

/// A package whose KEYSET the root in it did not sign is refused.
#[test]
fn package_with_a_foreign_keyset_is_refused() {
    let mut made = package(3, "carol", &[CARRIER]);
    made.identity.root = crate::fleet::signing_key("another root").public();
    let sealed = SealedPackage::decode(&made.seal_under(&code(), &mut Stream::new("any"))).unwrap();
    assert_eq!(
        sealed.open_under(&code()).unwrap_err(),
        PackageError::KeySetNotSigned
    );
}

/// KR-388. A terminal would ask at its own door, or nowhere.
#[test]
fn a_package_with_a_server_that_cannot_be_asked_is_refused() {
    let long = format!("{}:47900", "x".repeat(64));
    let bad = [
        "keys.example",
        ":47900",
        "keys.example:",
        "keys.example:0",
        "keys.example:65536",
        "keys.example:+5",
        "0.0.0.0:47900",
        "[::]:47900",
        "[::ffff:0.0.0.0]:47900",
        "2001:db8::1",
        "[2001:db8::1]",
        "[192.0.2.1]:47900",
        "0:47900",
        "192.0.2:47900",
        "192.0.2.256:47900",
        "keys..example:47900",
        "-keys.example:47900",
        "keys example:47900",
        "udp://keys.example:47900",
        &long,
    ];
    for server in bad {
        let mut made = package(3, "carol", &[CARRIER]);
        made.identity.servers = vec!["keys.example:47900".to_owned(), server.to_owned()];
        let sealed = made.seal_under(&code(), &mut Stream::new("any"));
        let opened = SealedPackage::decode(&sealed).unwrap().open_under(&code());
        let fault = DecodeError::OutOfRange { what: "server" };
        assert_eq!(
            opened.unwrap_err(),
            PackageError::Malformed(fault),
            "{server}"
        );
    }
    for server in [
        "keys.example:47900",
        "keys_1.example.:1",
        "localhost:65535",
        "192.0.2.1:47900",
        "[2001:db8::1]:47900",
    ] {
        assert!(is_server_address(server), "{server}");
    }
}

#[test]
fn names_in_a_package_are_words_for_people() {
    for name in ["", "a\nb", &"x".repeat(201)] {
        let made = package(3, name, &[CARRIER]);
        let sealed = made.seal_under(&code(), &mut Stream::new("any"));
        let refused = SealedPackage::decode(&sealed)
            .unwrap()
            .open_under(&code())
            .unwrap_err();
        let fault = DecodeError::OutOfRange {
            what: "terminal name",
        };
        assert_eq!(refused, PackageError::Malformed(fault), "{name:?}");
    }
}

#[test]
fn request_key_survives_a_careless_copy_and_notices_a_wrong_one() {
    let public = octets32("any request key");
    let text = request_text(&public);
    assert_eq!(text.len(), 60);
    assert_eq!(parse_request(&text), Ok(public));
    let careless = text.to_lowercase().replace('0', "o").replace('1', "l");
    assert_eq!(parse_request(&format!(" {careless} ")), Ok(public));
    for place in 0..text.len() {
        let mut wrong: Vec<char> = text.chars().collect();
        wrong[place] = if wrong[place] == '7' { '8' } else { '7' };
        let wrong: String = wrong.into_iter().collect();
        assert_eq!(
            parse_request(&wrong),
            Err(PackageError::NotARequestKey),
            "{wrong}"
        );
    }
    let cases = [
        "",
        "KF1",
        "KF1-",
        &text[..59],
        &format!("{text}0"),
        &text[4..],
        "KF1-é",
    ];
    for wrong in cases {
        assert_eq!(
            parse_request(wrong),
            Err(PackageError::NotARequestKey),
            "{wrong}"
        );
    }
}

/// Octets of a package for carol, in both forms.
pub(crate) fn package_sizes() -> (usize, usize) {
    let made = package(3, "carol", &[CARRIER]);
    let mut rng = Stream::new("any");
    let request = RequestKey::from_seed(secret("request key of terminal 3"));
    let to_request = made.seal_to(&request.public(), &mut rng).unwrap();
    (to_request.len(), made.seal_under(&code(), &mut rng).len())
}

/// A package for bob under a code.
pub(crate) fn package_under_code() -> Vec<u8> {
    package(2, "bob", &[CARRIER]).seal_under(&code(), &mut Stream::new("package under a code"))
}

pub(crate) fn code() -> EnrolmentCode {
    code_stream().0
}

fn code_stream() -> (EnrolmentCode, Stream) {
    let mut rng = Stream::new("code of terminal 2");
    (EnrolmentCode::random(&mut rng), rng)
}

/// What people type for that code, and it is taken.
fn typed_forms(code: &EnrolmentCode) -> Vec<String> {
    let shown = code.shown().to_string();
    let forms = vec![
        shown.clone(),
        shown.to_lowercase(),
        shown.replace('-', ""),
        shown.replace('-', " "),
        shown.replace('0', "O").replace('1', "i"),
        shown.replace('0', "o").replace('1', "L"),
    ];
    for typed in &forms {
        assert_eq!(*EnrolmentCode::parse(typed).unwrap().shown(), shown);
    }
    forms
}

fn drawn(rng: &Stream) -> Vec<String> {
    rng.drawn.iter().map(|octets| hex(octets)).collect()
}

fn contents_shown(package: &EnrolmentPackage) -> Value {
    let identity = &package.identity;
    json!({
        "number": identity.number.get(),
        "name": identity.name,
        "fleet": identity.fleet,
        "root": hex(identity.root.as_bytes()),
        "key_set_frame": hex(&identity.key_set_frame),
        "streams": identity.streams.iter().map(|s| hex(s.as_bytes())).collect::<Vec<_>>(),
        "carriers": identity.carriers,
        "servers": identity.servers,
        "servers": identity.servers,
        "keep_time": identity.keep_time,
        "wipe_roots": identity.wipe_roots,
        "obey_key": hex(&package.obey.secret().expose()[..]),
        "wrap_key": hex(&package.wrap.secret().expose()[..]),
        "wrap_generation": package.wrap.generation().get(),
        "issued_at": package.issued_at.get(),
        "expires": package.expires.get(),
        "obey_fingerprint": hex(package.obey.fingerprint().as_bytes()),
        "wrap_fingerprint": hex(package.wrap.fingerprint().as_bytes()),
    })
}
