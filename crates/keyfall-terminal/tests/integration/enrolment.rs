//! Enrolment: what is refused changes nothing.

use std::time::Duration;

use keyfall_protocol::calendar::Utc;
use keyfall_protocol::enrolment::{EnrolmentCode, PackageError, parse_request, request_text};
use keyfall_protocol::ids::UnixSeconds;
use keyfall_terminal::key_store::KeyStoreError;
use keyfall_terminal::{EnrolmentError, OsRandom, RunOptions, enrol, request, restore};

use crate::fleet::{self, Carrier, Fleet};
use crate::running::{Running, take};

///
#[test]
fn package_opens_under_its_code_once() {
    let fleet = Fleet::new();
    let carrier = Carrier::new();
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("alice");
    let code = EnrolmentCode::random(&mut OsRandom);
    let package = fleet
        .package(1, &carrier.address)
        .seal_under(&code, &mut OsRandom);

    let needed = enrol(&dir, &package, None, None);
    assert!(matches!(
        needed,
        Err(EnrolmentError::Package(PackageError::CodeNeeded))
    ));
    let other = EnrolmentCode::random(&mut OsRandom);
    let wrong = enrol(&dir, &package, Some(&other), None);
    assert!(matches!(
        wrong,
        Err(EnrolmentError::Package(PackageError::WrongCode))
    ));
    for end in [0, 1, package.len() / 2, package.len() - 1] {
        let cut = enrol(&dir, &package[..end], Some(&code), None);
        assert!(matches!(cut, Err(EnrolmentError::Package(_))), "{end}");
    }
    assert!(!dir.exists(), "a refused import leaves nothing");

    let done = enrol(&dir, &package, Some(&code), None).unwrap();
    assert_eq!(done.terminal.identity().number.get(), 1);
    let again = enrol(&dir, &package, Some(&code), None);
    assert!(matches!(
        again,
        Err(EnrolmentError::Store(KeyStoreError::AlreadyExists { .. }))
    ));
    assert_eq!(restore(&dir).unwrap().identity().name, "terminal-1");
}

#[test]
fn package_for_a_request_key_opens_where_the_key_is_and_the_key_goes() {
    let fleet = Fleet::new();
    let carrier = Carrier::new();
    let dirs = tempfile::tempdir().unwrap();
    let (dir, elsewhere) = (dirs.path().join("alice"), dirs.path().join("mallory"));
    let key = request(&dir).unwrap();
    assert_eq!(
        request(&dir).unwrap(),
        key,
        "asking again shows the same key"
    );
    let key = parse_request(&request_text(&key)).unwrap();
    let package = fleet
        .package(1, &carrier.address)
        .seal_to(&key, &mut OsRandom)
        .unwrap();

    let without = enrol(&elsewhere, &package, None, None);
    let needed = Err(EnrolmentError::Package(PackageError::RequestKeyNeeded));
    assert_eq!(
        format!("{without:?}"),
        format!("{needed:?}", needed = needed as Result<(), _>)
    );
    request(&elsewhere).unwrap();
    let others = enrol(&elsewhere, &package, None, None);
    assert!(matches!(
        others,
        Err(EnrolmentError::Package(PackageError::WrongKey))
    ));

    enrol(&dir, &package, None, None).unwrap();
    assert!(!dir.join("request-key").exists());
    assert!(matches!(request(&dir), Err(EnrolmentError::Store(_))));
}

#[test]
fn package_past_its_end_is_refused() {
    let fleet = Fleet::new();
    let carrier = Carrier::new();
    let dirs = tempfile::tempdir().unwrap();
    let code = EnrolmentCode::random(&mut OsRandom);
    let mut package = fleet.package(1, &carrier.address);
    package.issued_at = UnixSeconds::new(fleet.now.get() - 7200);
    package.expires = UnixSeconds::new(fleet.now.get() - 3600);
    let sealed = package.seal_under(&code, &mut OsRandom);
    let dir = dirs.path().join("alice");
    let refused = enrol(&dir, &sealed, Some(&code), None);
    assert!(matches!(refused, Err(EnrolmentError::Expired { .. })));
    assert!(!dir.exists());
}

/// To a clock that is years ahead a package of today is long past its end: nobody finds that fault
/// unless the refusal names the clock.
#[test]
fn refusal_of_a_package_past_its_end_names_this_devices_clock() {
    let fleet = Fleet::new();
    let carrier = Carrier::new();
    let dirs = tempfile::tempdir().unwrap();
    let code = EnrolmentCode::random(&mut OsRandom);
    let mut package = fleet.package(1, &carrier.address);
    let years_ago = |years: u32| UnixSeconds::new(fleet.now.get() - years * 31_556_952);
    (package.issued_at, package.expires) = (years_ago(11), years_ago(10));
    let sealed = package.seal_under(&code, &mut OsRandom);
    let refused = enrol(&dirs.path().join("alice"), &sealed, Some(&code), None).unwrap_err();
    let EnrolmentError::Expired { expires, now } = refused else {
        panic!("{refused}");
    };
    assert_eq!(expires, years_ago(10));
    assert!(
        now.get() - fleet.now.get() < 60,
        "the device's clock says {now:?}"
    );
    let told = refused.to_string();
    for named in [
        format!("ended at {}", Utc(expires)),
        format!("this device's clock says {}", Utc(now)),
    ] {
        assert!(told.contains(&named), "{told} does not say {named}");
    }
}

/// who is to keep radio silence asks nobody, whatever its package says; without that it does.
#[test]
fn a_terminal_that_only_hears_sends_nothing_to_the_server_of_its_package() {
    let (fleet, carrier) = (Fleet::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for (one_way, wait) in [(false, 10), (true, 2)] {
        let dir = dirs.path().join(format!("one-way-{one_way}"));
        let mut package = fleet.package(1, &carrier.address);
        package.identity.servers = vec![server.local_addr().unwrap().to_string()];
        fleet::enrol(&dir, &package, None);
        let options = RunOptions {
            one_way,
            ..RunOptions::default()
        };
        let alice = Running::start_with(&dir, options);
        carrier.tell(&fleet.time());
        alice.until("it hears", |status| status.time.is_some());
        server
            .set_read_timeout(Some(Duration::from_secs(wait)))
            .unwrap();
        assert_eq!(take(&server).is_none(), one_way);
        alice.stop();
        // What it sent before it was stopped.
        server.set_nonblocking(true).unwrap();
        while take(&server).is_some() {}
        server.set_nonblocking(false).unwrap();
    }
}
