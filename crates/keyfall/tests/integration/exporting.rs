//! `keyfall terminal export`: keys of packets for other people's tools.

use crate::fleet::GROUP;
use crate::guarding::{behind_a_passphrase, unlock};
use crate::ran::{Ran, keyfall, until};

const RIGHT: &str = "correct horse battery\n";

fn export(dir: &str, more: &[&str]) -> Ran {
    let between = ["--source", "192.0.2.1", "--destination", "239.1.1.1"];
    let words = [
        &["terminal", "export", dir, "--group", "7"],
        &between[..],
        more,
    ];
    keyfall(words.concat())
}

/// The issue's "export": refused without an unlock; then one session, and a stock sender that is stored
/// and shown.
#[test]
fn packet_keys_are_exported_after_an_unlock_and_stock_senders_are_shown() {
    assert_eq!(GROUP, 7);
    let bench = behind_a_passphrase("5");
    let dir = bench.dir();
    let stock = [
        "--for-stock-sender",
        "--speaks-for",
        "10.9.0.0/24",
        "--for",
        "1h",
        "--format",
    ];
    let for_linux = [&stock[..], &["ip-xfrm"]].concat();
    let session = ["--session", "a0a1a2a3a4", "--format"];
    export(dir, &for_linux).refuses(4, "KF-3107", "start it with");
    {
        let _running = bench.run();
        for refused in [
            export(dir, &for_linux),
            export(dir, &[&session[..], &["ip-xfrm"]].concat()),
        ] {
            refused.refuses(5, "KF-3116", "keyfall terminal unlock");
        }
        unlock(dir, RIGHT);
        let stranger = export(dir, &for_linux);
        stranger.refuses(3, "KF-3110", "the key of group 7 is not held");
        bench.carrier.tell(&bench.fleet.time());
        bench.carrier.tell(&bench.fleet.key_dist(GROUP, 3, &[1]));
        until("it sends", || bench.status()["groups"][0]["sending"] == 3);

        let ran = export(dir, &[&session[..], &["wireshark"]].concat());
        let start = r#""IPv4","192.0.2.1","239.1.1.1","0x8000"#;
        assert!(
            ran.stdout.starts_with(start),
            "{}{}",
            ran.stdout,
            ran.stderr
        );
        assert!(
            ran.stderr.is_empty(),
            "a session has no end to tell of: {}",
            ran.stderr
        );
        let more = [&session[..], &["ip-xfrm", "--suite", "ChaCha20-Poly1305"]].concat();
        let ran = export(dir, &more);
        assert!(
            ran.stdout.contains("rfc7539esp(chacha20,poly1305)"),
            "{}",
            ran.stdout
        );
        let more = [&session[..], &["wireshark", "--suite", "ChaCha20-Poly1305"]].concat();
        export(dir, &more).refuses(2, "KF-3001", "ask for ip-xfrm");
        let more = [&session[..], &["ip-xfrm", "--generation", "9"]].concat();
        export(dir, &more).refuses(2, "KF-3001", "not held");
        export(dir, &["--format", "ip-xfrm"]).refuses(2, "KF-3001", "sends no packets");
        let more = ["--session", "a0a1", "--format", "ip-xfrm"];
        export(dir, &more).refuses(2, "KF-3001", "ten hexadecimal digits");

        let ran = export(dir, &for_linux);
        assert!(
            ran.stdout
                .starts_with("xfrm state add src 192.0.2.1 dst 239.1.1.1 proto esp spi 0x")
        );
        assert_eq!(ran.stdout.lines().count(), 1, "for scripts: {}", ran.stdout);
        assert!(ran.stderr.contains("is received until"), "{}", ran.stderr);
        let senders = bench.status()["stock_senders"].clone();
        let spi = senders[0]["spi"].as_str().unwrap().to_owned();
        assert!(
            ran.stdout.contains(&format!("spi {spi} ")),
            "{senders} {}",
            ran.stdout
        );
        let people = keyfall(["terminal", "status", dir]).stdout;
        assert!(people.contains(&format!("SPI {spi}")), "{people}");
    }
    let _running = bench.run();
    assert_eq!(
        bench.status()["stock_senders"].as_array().unwrap().len(),
        0,
        "locked"
    );
    unlock(dir, RIGHT);
    assert_eq!(
        bench.status()["stock_senders"].as_array().unwrap().len(),
        1,
        "stored"
    );
}
