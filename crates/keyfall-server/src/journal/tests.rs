use std::fs;
use std::sync::OnceLock;

use keyfall_protocol::keys::EspSuite;
use keyfall_protocol::server::{Addresses, ChangeMode, PacketSettings, Stragglers};
use keyfall_protocol::sharing::rsa_misty1::{RsaSecret, RsaSize};

use super::*;

fn entries() -> Vec<Entry> {
    let terminal = |number| TerminalNumber::new(number).expect("a terminal number");
    let group = |number| GroupNumber::new(number).expect("a group number");
    vec![
        Entry::Sequence {
            through: SequenceNumber::new(28_000_000_999),
        },
        Entry::Enrolment {
            terminal: terminal(1),
            name: "alice".to_owned(),
        },
        Entry::Enrolment {
            terminal: terminal(3),
            name: "bob \"\n\u{1f511}".to_owned(),
        },
        Entry::Enrolment {
            terminal: terminal(2),
            name: "carol".to_owned(),
        },
        Entry::Epoch {
            group: group(7),
            epoch: KeyEpoch::new(28_000_000),
            name: "ops".to_owned(),
        },
        Entry::Epoch {
            group: group(8),
            epoch: KeyEpoch::new(5),
            name: "ops".to_owned(),
        },
        Entry::Epoch {
            group: group(7),
            epoch: KeyEpoch::new(28_000_001),
            name: "ops".to_owned(),
        },
        Entry::Member {
            group: group(7),
            terminal: terminal(3),
            epoch: KeyEpoch::new(28_000_001),
            generation: Generation::new(2).expect("a generation"),
        },
        Entry::Renewal {
            group: group(7),
            epoch: KeyEpoch::new(28_000_001),
            generation: Generation::new(3).expect("a generation"),
        },
        Entry::Renewal {
            group: group(7),
            epoch: KeyEpoch::new(28_000_000),
            generation: Generation::new(9).expect("a generation"),
        },
        Entry::RankOne {
            g: Generation::new(12).expect("a generation"),
        },
        Entry::Removal {
            group: group(7),
            terminals: vec![terminal(3), terminal(1)],
            epoch: KeyEpoch::new(28_000_002),
        },
        Entry::Member {
            group: group(7),
            terminal: terminal(1),
            epoch: KeyEpoch::new(28_000_002),
            generation: Generation::new(1).expect("a generation"),
        },
        Entry::Device {
            terminal: terminal(2),
            generation: Generation::new(14).expect("a generation"),
            offset: 2,
        },
        Entry::Exclusion {
            terminals: vec![terminal(2), terminal(3)],
            groups: vec![FreshEpoch {
                group: group(8),
                old: KeyEpoch::new(5),
                new: KeyEpoch::new(28_000_003),
            }],
        },
        Entry::Erase {
            terminal: terminal(2),
            kind: OrderKind::Delete,
            version: None,
        },
        Entry::Erase {
            terminal: terminal(1),
            kind: OrderKind::Unlock,
            version: Some(28_000_004),
        },
        Entry::KeySet {
            version: 28_000_005,
            g: Generation::new(900).expect("a generation"),
            groups: vec![FreshEpoch {
                group: group(7),
                old: KeyEpoch::new(28_000_002),
                new: KeyEpoch::new(28_000_005),
            }],
            frame: vec![0xd2, 0x84, 0x00],
        },
        Entry::Restored {
            g: Generation::new(901).expect("a generation"),
            keys: vec![(group(7), KeyEpoch::new(28_000_006), Generation::ZERO)],
            incomplete: true,
        },
        Entry::Policy {
            group: group(7),
            policy: GroupPolicy {
                change: ChangeMode::Barrier,
                stragglers: Stragglers::LeaveOut,
                legacy: true,
            },
        },
        Entry::LegacyKey {
            terminal: terminal(3),
            key: Some(rsa_key()),
        },
        Entry::LegacyKey {
            terminal: terminal(3),
            key: None,
        },
        Entry::Packets {
            group: group(7),
            packets: Some(PacketSettings {
                priority: 5,
                mtu: Some(1380),
                suite: EspSuite::Aes128Gcm,
                networks: vec!["10.77.0.0/16".parse().expect("a prefix")],
            }),
            epoch: Some(KeyEpoch::new(28_000_007)),
        },
        Entry::Packets {
            group: group(7),
            packets: None,
            epoch: None,
        },
        Entry::Addresses {
            terminal: terminal(3),
            addresses: Addresses {
                prefixes: vec!["fd77::/64".parse().expect("a prefix")],
                endpoints: vec!["[2001:db8::9]:4500".parse().expect("an endpoint")],
            },
        },
        Entry::Sequence {
            through: SequenceNumber::new(u64::MAX),
        },
    ]
}

/// Made once: it takes a while, and entries are compared.
fn rsa_key() -> RsaPublic {
    static KEY: OnceLock<RsaPublic> = OnceLock::new();
    let made = || RsaSecret::generate(RsaSize::Bits2048).expect("made");
    KEY.get_or_init(|| made().public().clone()).clone()
}

fn written(path: &Path) -> Journal {
    let mut journal = Journal::create(path).expect("made");
    for (at, entry) in (1_795_300_000..).zip(entries()) {
        journal
            .append(UnixSeconds::new(at), &entry)
            .expect("appended");
    }
    journal
}

#[test]
fn a_journal_opens_and_is_read_again_line_by_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("orders.journal");
    let link = written(&path).link();
    let read = replay(&path).expect("reads");
    let said: Vec<_> = read.lines.iter().map(|line| line.entry.clone()).collect();
    assert_eq!(said, entries());
    assert_eq!(read.lines[2].at, UnixSeconds::new(1_795_300_002));
    assert_eq!(read.lines.last().map(|line| line.link), Some(link));
    assert_eq!(read.octets, fs::metadata(&path).expect("there").len());
    assert!(read.torn.is_none() && read.broken.is_none());
    let (mut journal, torn) = Journal::open(&path).expect("opens");
    assert_eq!((journal.link(), torn), (link, None));
    journal
        .append(UnixSeconds::new(0), &entries()[0])
        .expect("appended");
    drop(journal);
    assert_eq!(
        Journal::open(&path).expect("opens").0.seq,
        entries().len() as u64 + 1
    );
}

/// What hangs together before a changed line can be used, with the loss of the rest.
#[test]
fn a_broken_journal_reads_up_to_the_break() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("orders.journal");
    drop(written(&path));
    let text = fs::read_to_string(&path).expect("text");
    fs::write(&path, text.replacen("carol", "karol", 1)).expect("written");
    let read = replay(&path).expect("reads");
    assert_eq!(read.lines.len(), 3);
    let broken = read.broken.expect("the fourth line was changed");
    assert!(matches!(broken, JournalError::Broken { line: 4, .. }));
    let whole: usize = text.lines().take(3).map(|line| line.len() + 1).sum();
    assert_eq!(read.octets, whole as u64);
}

#[test]
fn a_line_reads_as_the_document_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("orders.journal");
    drop(written(&path));
    let text = fs::read_to_string(&path).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), entries().len());
    let hashed = r#"{"seq":1,"time":1795300000,"kind":"sequence","through":28000000999"#;
    let link = Link::start("journal").next(hashed.as_bytes());
    assert_eq!(lines[0], format!("{hashed},\"hash\":\"{link}\"}}"));
    let hashed = r#"{"seq":2,"time":1795300001,"kind":"enrolment","terminal":1,"name":"alice""#;
    assert_eq!(
        lines[1],
        format!("{hashed},\"hash\":\"{}\"}}", link.next(hashed.as_bytes()))
    );
    assert!(lines[4].contains(r#""kind":"epoch","group":7,"epoch":28000000,"#));
    assert!(lines[7].contains(r#""kind":"member","group":7,"terminal":3,"#));
    assert!(lines[8].contains(r#""kind":"renewal","group":7,"epoch":28000001,"generation":3,"#));
    assert!(lines[10].contains(r#""kind":"rank-one","g":12,"#));
    assert!(
        lines[11].contains(r#""kind":"removal","group":7,"terminals":[3,1],"epoch":28000002,"#)
    );
    assert!(lines[13].contains(r#""kind":"device","terminal":2,"generation":14,"offset":2,"#));
    let exclusion = r#""kind":"exclusion","terminals":[2,3],"groups":[[8,5,28000003]],"#;
    assert!(lines[14].contains(exclusion));
    assert!(lines[15].contains(r#""kind":"erase","terminal":2,"order":"DELETE","hash"#));
    assert!(lines[16].contains(r#""order":"UNLOCK","version":28000004,"#));
    assert!(lines[17].contains(r#""kind":"key-set","version":28000005,"g":900,"groups":[[7,"#));
    let policy = r#""kind":"policy","group":7,"change":"barrier","stragglers":"leave-out","#;
    assert!(lines[19].contains(policy));
    assert!(lines[20].contains(r#""kind":"legacy-key","terminal":3,"key":"308201"#));
    assert!(lines[21].contains(r#""kind":"legacy-key","terminal":3,"hash"#));
}

#[test]
fn a_crash_in_the_middle_of_an_append_loses_that_line_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("orders.journal");
    drop(written(&path));
    let whole = fs::read(&path).expect("read");
    let last_line_at = whole[..whole.len() - 1]
        .iter()
        .rposition(|o| *o == b'\n')
        .expect("two")
        + 1;
    for end in last_line_at..whole.len() {
        fs::write(&path, &whole[..end]).expect("written");
        let (mut journal, torn) = Journal::open(&path).expect("opens");
        let octets = end - last_line_at;
        let number = entries().len() as u64;
        assert_eq!(torn, (octets > 0).then_some(TornLine { number, octets }));
        assert_eq!(fs::read(&path).expect("read"), whole[..last_line_at]);
        assert_eq!(journal.number(), number - 1);
        let last = entries().pop().expect("entries");
        journal
            .append(UnixSeconds::new(1_795_300_025), &last)
            .expect("appended");
        assert_eq!(
            fs::read(&path).expect("read"),
            whole,
            "the chain goes on where it was"
        );
    }
}

#[test]
fn an_append_after_one_that_failed_leaves_whole_lines() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("orders.journal");
    let mut journal = written(&path);
    // What a full disk leaves of a line.
    journal
        .file
        .write_all_at(br#"{"seq":27,"time":1795300023,"#, journal.len)
        .expect("written");
    journal
        .append(UnixSeconds::new(1), &entries()[1])
        .expect("appended");
    drop(journal);
    let (journal, torn) = Journal::open(&path).expect("opens");
    assert_eq!((journal.seq, torn), (27, None));
}

#[test]
fn a_change_is_found_and_its_line_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("orders.journal");
    drop(written(&path));
    let whole = fs::read(&path).expect("read");
    for at in (0..whole.len() - 1).step_by(3) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        let line = whole[..at].iter().filter(|octet| **octet == b'\n').count() as u64 + 1;
        fs::write(&path, &changed).expect("written");
        let error = Journal::open(&path).expect_err("changed");
        let named = matches!(error, JournalError::Broken { line: named, .. } if named == line);
        assert!(named, "octet {at} of line {line}: {error}");
        assert_eq!(
            fs::read(&path).expect("read"),
            changed,
            "left as it was found"
        );
    }
    let text = String::from_utf8(whole).expect("text");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let without = |from: usize, to: usize| [&lines[..from], &lines[to..]].concat().concat();
    let swapped = [lines[0], lines[2], lines[1]].concat();
    for (changed, line) in [(without(0, 1), 1), (without(3, 5), 4), (swapped, 2)] {
        fs::write(&path, changed).expect("written");
        let error = Journal::open(&path).expect_err("a line is missing");
        assert_eq!(
            error
                .to_string()
                .replace(&dir.path().display().to_string(), "/srv"),
            format!(
                "line {line} of the order journal /srv/orders.journal was changed, or one before \
                 it was removed: put the journal back from where it is kept"
            )
        );
    }
}

#[test]
fn a_line_of_a_later_version_is_not_passed_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("orders.journal");
    for hashed in [
        r#"{"seq":1,"time":1,"kind":"recall","terminal":1"#,
        r#"{"seq":1,"time":1,"kind":"enrolment","terminal":0,"name":"nobody""#,
        r#"{"seq":2,"time":1,"kind":"rank-one","g":1"#,
    ] {
        let link = Link::start("journal").next(hashed.as_bytes());
        fs::write(&path, format!("{hashed},\"hash\":\"{link}\"}}\n")).expect("written");
        let error = Journal::open(&path).expect_err("unknown");
        assert_eq!(
            error
                .to_string()
                .replace(&dir.path().display().to_string(), "/srv"),
            "line 1 of the order journal /srv/orders.journal says what this version does not \
             know: run the version that wrote it, or a newer one"
        );
    }
}

#[test]
fn each_refusal_has_its_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("orders.journal");
    let sentence = |error: JournalError| {
        error
            .to_string()
            .replace(&dir.path().display().to_string(), "/srv")
    };
    assert_eq!(
        sentence(Journal::open(&path).expect_err("missing")),
        "the order journal /srv/orders.journal is missing: put it back from where it is kept, for \
         without it numbers would be used twice"
    );
    let journal = Journal::create(&path).expect("made");
    assert_eq!(
        sentence(Journal::open(&path).expect_err("locked")),
        "another process has the order journal /srv/orders.journal open: end that server first"
    );
    assert_eq!(
        sentence(Journal::create(&path).expect_err("there is one")),
        "/srv/orders.journal already exists: the journal of a server is never begun anew, move it \
         away first"
    );
    drop(journal);
    let (journal, torn) = Journal::open(&path).expect("an empty journal opens");
    assert_eq!((journal.number(), torn), (0, None));
}
