//! `keyfall admin terminal add --token` and `keyfall terminal enrol --server --token`, over UDP on
//! loopback.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use crate::ran::{Ran, keyfall, keyfall_with};
use crate::server::Place;

/// An address on which nobody listens.
fn free_address() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

fn enrol(dir: &Path, address: &str, token: &str, more: &[&str]) -> Ran {
    let dir = dir.to_str().unwrap();
    let words = [
        "terminal", "enrol", dir, "--server", address, "--token", token,
    ];
    keyfall_with(words.iter().chain(more), b"")
}

fn token_of(ran: &Ran) -> String {
    let document = ran.document();
    let terminal = &document["terminals"][0];
    assert!(terminal["package"].is_null() && terminal["code"].is_null());
    terminal["token"].as_str().unwrap().to_owned()
}

fn states(place: &Place) -> Vec<String> {
    let list = place.admin(&["terminal", "list", "--json"]).document();
    let terminals = list["terminals"].as_array().unwrap().iter();
    terminals
        .map(|it| it["token"].as_str().unwrap_or("-").to_owned())
        .collect()
}

/// one command at the server, one at the terminal, over restarts of the server; then the token is
/// used, for whoever else has it.
#[test]
fn a_token_enrols_one_terminal_once() {
    let (place, address) = (Place::new(), free_address());
    let founded = place.init_with(&["--listen", &address]);
    assert_eq!(founded.exit, 0, "{}", founded.stderr);
    let server = place.serve();
    let added = place.admin(&["terminal", "add", "dave", "--token", "--json"]);
    let token = token_of(&added);
    assert_eq!(added.document()["terminals"][0]["server"], address.as_str());
    place.admin(&["group", "create", "ops", "--member", "dave"]);
    assert_eq!(states(&place), ["pending"]);
    let shown = place.admin(&["terminal", "show", "dave"]);
    assert!(
        shown.stdout.contains("waits for its token to be used"),
        "{}",
        shown.stdout
    );
    drop(server);

    let server = place.serve();
    let dir = place.top.path().join("dave");
    // As a person copies it; nobody else on the machine sees it.
    let typed = format!(" {} \n", token.to_lowercase());
    let words = ["terminal", "enrol", dir.to_str().unwrap(), "--json"];
    let words = words
        .into_iter()
        .chain(["--server", &address, "--token", "-"]);
    let enrolled = keyfall_with(words, typed.as_bytes()).document();
    assert_eq!(enrolled["name"], "dave");
    assert_eq!(enrolled["confirmed"], true);
    assert_eq!(enrolled["groups"], 1);
    assert_eq!(states(&place), ["used"]);
    let status = keyfall(["terminal", "status", dir.to_str().unwrap(), "--json"]).document();
    assert_eq!(status["groups"].as_array().unwrap().len(), 1);
    drop(server);

    let server = place.serve();
    let other = place.top.path().join("other");
    enrol(&other, &address, &token, &[]).refuses(3, "KF-3123", "ask for a new one");
    assert!(!other.exists(), "nothing is left of it");
    let again = enrol(&dir, &address, &token, &[]);
    again.refuses(3, "KF-3102", "already");
    let audit = place.admin(&["audit"]).stdout;
    assert!(
        audit.contains("by its token, which is used now, from 127.0.0.1:"),
        "{audit}"
    );
    assert!(audit.contains("it was used before"), "{audit}");
    assert!(!audit.contains(&token[..20]));
    drop(server);
    // Neither the token nor its key stands in the database.
    let database = std::fs::read(place.dir.join("keyfall.db")).unwrap();
    assert!(!database.windows(20).any(|it| it == &token.as_bytes()[..20]));
}

/// Each way in which it comes to nothing has its sentence and its code.
#[test]
fn a_token_that_does_not_count_says_what_to_do() {
    let (place, address) = (Place::new(), free_address());
    place.init_with(&["--listen", &address]);
    let server = place.serve();
    let dir = place.top.path().join("dave");

    enrol(&dir, &address, "KF1T-NONSENSE", &[]).refuses(2, "KF-3122", "copy the whole line");
    let both = enrol(&dir, &address, "KF1T-A", &["some.enrol"]);
    both.refuses(2, "KF-3001", "give one of them");
    let alone = keyfall([
        "terminal",
        "enrol",
        dir.to_str().unwrap(),
        "--token",
        "KF1T-A",
    ]);
    alone.refuses(2, "KF-3001", "--server");

    let short = place.admin(&["terminal", "add", "eve", "--token", "--good-for", "10s"]);
    short.refuses(2, "KF-3331", "60 to 2592000 seconds");
    let token = token_of(&place.admin(&["terminal", "add", "dave", "--token", "--json"]));
    place.admin(&["exclude", "dave", "--yes"]);
    enrol(&dir, &address, &token, &[]).refuses(3, "KF-3123", "taken back");

    // Another fleet's server at that address.
    let (elsewhere, its_address) = (Place::new(), free_address());
    elsewhere.init_with(&["--listen", &its_address]);
    let other = elsewhere.serve();
    let token = token_of(&place.admin(&["terminal", "add", "erin", "--token", "--json"]));
    enrol(&dir, &its_address, &token, &[]).refuses(3, "KF-3124", "take a token of that fleet");
    assert!(!dir.exists());
    drop((server, other));

    let one_way = Place::new();
    one_way.init();
    let server = one_way.serve();
    let refused = one_way.admin(&["terminal", "add", "dave", "--token"]);
    refused.refuses(3, "KF-3332", "listens nowhere");
    drop(server);
}

/// With a PIN the terminal starts locked, whichever way it came.
#[test]
fn a_terminal_that_came_by_a_token_may_have_a_passphrase() {
    let (place, address) = (Place::new(), free_address());
    place.init_with(&["--listen", &address, "--suites", "hpke-pq"]);
    let server = place.serve();
    let token = token_of(&place.admin(&["terminal", "add", "dave", "--token", "--json"]));
    let dir = place.top.path().join("dave");
    let file = place.top.path().join("passphrase");
    std::fs::write(&file, "a long passphrase\n").unwrap();
    let file = file.to_str().unwrap();
    let enrolled = enrol(
        &dir,
        &address,
        &token,
        &["--passphrase-file", file, "--json"],
    );
    let enrolled = enrolled.document();
    assert_eq!(
        (&enrolled["protected"], &enrolled["confirmed"]),
        (&true.into(), &true.into())
    );
    let status = keyfall(["terminal", "status", dir.to_str().unwrap(), "--json"]).document();
    assert_eq!(status["state"], "locked");
    drop(server);
}

/// Hands datagrams to and fro between one terminal and the server until it is dropped; `first_ack` is
/// called with the first ACK, and no ACK arrives.
fn between(server: &str, mut first_ack: impl FnMut() + Send + 'static) -> String {
    let (outer, inner) = (
        UdpSocket::bind("127.0.0.1:0"),
        UdpSocket::bind("127.0.0.1:0"),
    );
    let (outer, inner) = (outer.unwrap(), inner.unwrap());
    let address = outer.local_addr().unwrap().to_string();
    inner.connect(server).unwrap();
    for socket in [&outer, &inner] {
        let brief = Some(Duration::from_millis(5));
        socket.set_read_timeout(brief).unwrap();
    }
    std::thread::spawn(move || {
        let mut terminal: Option<SocketAddr> = None;
        let (mut buffer, mut acks, mut idle) = ([0; 2048], 0, 0);
        while idle < 6_000 {
            idle += 1;
            if let Ok((len, from)) = outer.recv_from(&mut buffer) {
                (terminal, idle) = (Some(from), 0);
                // The fourth octet after the marker is the type.
                if buffer[7] == ACK {
                    acks += 1;
                    if acks == 1 {
                        first_ack();
                    }
                } else {
                    inner.send(&buffer[..len]).unwrap();
                }
            }
            if let (Ok(len), Some(to)) = (inner.recv(&mut buffer), terminal) {
                outer.send_to(&buffer[..len], to).unwrap();
            }
        }
    });
    address
}

const ACK: u8 = 4;

/// T-06: a COOKIE says that the server does not know a terminal, and nobody signed it: what was
/// enrolled is kept.
#[test]
fn a_terminal_that_the_server_denies_is_kept() {
    let (place, address) = (Place::new(), free_address());
    place.init_with(&["--listen", &address]);
    let server = place.serve();
    let token = token_of(&place.admin(&["terminal", "add", "dave", "--token", "--json"]));
    let dir_of_server = place.dir().to_owned();
    let proxy = between(&address, move || {
        let words = ["admin", "exclude", "dave", "--yes", "--dir", &dir_of_server];
        let excluded = keyfall(words);
        assert_eq!(excluded.exit, 0, "{}", excluded.stderr);
    });
    let dir = place.top.path().join("dave");
    let enrolled = enrol(&dir, &proxy, &token, &["--json"]).document();
    assert_eq!(
        (&enrolled["confirmed"], &enrolled["denied"]),
        (&false.into(), &true.into())
    );
    let status = keyfall(["terminal", "status", dir.to_str().unwrap(), "--json"]);
    assert_eq!(status.document()["name"], "dave");
    drop(server);
}
