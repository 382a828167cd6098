//! `keyfall inspect` of captures: every form and link layer that the usual tools write, damage, and the
//! drawing.

use std::fs;
use std::path::Path;

use etherparse::PacketBuilder;
use serde_json::Value;

use crate::inspect::{hex, vectors};
use crate::ran::{Ran, keyfall, keyfall_with};

/// One datagram in each form of a file, on each link layer, over IPv4 and IPv6.
#[test]
fn a_capture_is_read_in_every_form_and_from_every_link_layer() {
    let octets = datagrams("psk, nothing lacks", "key_req").remove(0);
    for (link, head) in LINKS {
        let packet = |six| {
            let mut head = head.to_vec();
            // The protocol, where the link layer names it.
            let four = head.windows(2).rposition(|two| two == [0x08, 0x00]);
            if let Some(place) = four.filter(|_| six) {
                head[place..place + 2].copy_from_slice(&[0x86, 0xdd]);
            }
            (1_790_018_007, 0, [head, ip(six, 1, &octets)].concat())
        };
        let packets = [packet(false), packet(true)];
        let ends = [
            ("192.0.2.1:50000", "192.0.2.255:47900"),
            ("[2001:db8::1]:50000", "[2001:db8::ff]:47900"),
        ];
        for form in FORMS {
            let shown = shown(&form.write(*link, &packets));
            for (message, (from, to)) in shown["messages"].as_array().unwrap().iter().zip(ends) {
                assert_eq!(message["kind"], "KEY-REQ", "link type {link}, {form:?}");
                assert_eq!(message["octets"], octets.len());
                assert_eq!(message["packet"]["from"], from);
                assert_eq!(message["packet"]["to"], to);
            }
            assert_eq!(shown["messages"][1]["packet"]["number"], 2);
            assert_eq!(shown["left_out"]["not_udp"], 0);
        }
    }
}

#[test]
fn time_counts_from_the_first_message_in_every_resolution() {
    let octets = datagrams("psk, nothing lacks", "key_req").remove(0);
    let packets = [
        (7, 999_000_000, ip(false, 1, &octets)),
        (9, 4_000_000, ip(false, 1, &octets)),
    ];
    for form in FORMS {
        let shown = shown(&form.write(RAW, &packets));
        let seconds = shown["messages"][1]["packet"]["seconds"].as_f64().unwrap();
        assert!((seconds - 1.005).abs() < 1e-6, "{form:?}: {seconds}");
    }
}

/// F-05: each type that is on the wire, named, with its reference and what is sealed.
#[test]
fn every_datagram_of_key_sharing_is_readable() {
    for suite in ["psk", "hpke", "hpke-pq"] {
        let case = format!("{suite}, the first request of a terminal");
        let mut capture = Vec::new();
        for key in ["key_req", "cookie", "key_dis", "ack"] {
            capture.extend(datagrams(&case, key));
        }
        let shown = shown(lines(&capture).as_bytes());
        let shown = shown["messages"].as_array().unwrap();
        assert_eq!(shown.len(), capture.len(), "{case}");
        let mut reference = None;
        for one in shown {
            let inside = &one["inside"];
            let one = if one["kind"] == "PART" && !inside.is_null() {
                inside
            } else {
                one
            };
            match one["kind"].as_str().unwrap() {
                "PART" => {}
                "COOKIE" => assert!(one["inside"].is_null() || one["inside"]["kind"] == "TIME"),
                kind @ ("KEY-REQ" | "KEY-DIS" | "ACK") => {
                    assert_eq!(field(one, "suite").as_deref(), Some(suite), "{kind}");
                    let of_this = field(one, "reference").unwrap();
                    let first = reference.get_or_insert_with(|| of_this.clone());
                    assert_eq!(*first, of_this, "{kind}");
                    assert_eq!(field(one, "sealed").is_some(), kind != "ACK", "{kind}");
                }
                other => panic!("{other}"),
            }
        }
    }
    let published = vectors("sharing.json");
    for command in published["commands"].as_array().unwrap() {
        let octets = lines(&all(&command["datagrams"]));
        let shown = shown(octets.as_bytes());
        let last = shown["messages"].as_array().unwrap().last().unwrap();
        assert_eq!(last["kind"], "COMMAND");
        let frame = from_hex(&command["frame"]);
        assert_eq!(last["inside"]["octets"], frame.len());
        assert_ne!(last["inside"]["kind"], "unknown");
    }
    let introduction = &published["introductions"][0];
    let hello = shown(lines(&all(&introduction["hello"])).as_bytes());
    assert_eq!(hello["messages"][0]["kind"], "HELLO");
    assert_eq!(hello["messages"][0]["octets"], 1200);
    let pieces = read(lines(&all(&introduction["datagrams"])).as_bytes()).stdout;
    assert!(
        pieces.contains(introduction["hash"].as_str().unwrap()),
        "{pieces}"
    );
}

#[test]
fn what_is_not_ours_is_counted_and_damage_is_said() {
    let octets = datagrams("psk, nothing lacks", "ack").remove(0);
    let mut tcp = Vec::new();
    let builder = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).tcp(1, 2, 3, 4);
    builder.write(&mut tcp, &[]).unwrap();
    let mut broken = octets.clone();
    *broken.last_mut().unwrap() = 0;
    broken.push(0);
    let packets = [
        (1, 0, tcp),
        (2, 0, ip(false, 1, b"a question of a name")),
        (3, 0, ip(false, 1, &octets)),
        (4, 0, ip(false, 1, &broken)),
    ];
    for form in FORMS {
        let file = form.write(RAW, &packets);
        let shown = shown(&file);
        assert_eq!(shown["messages"][0]["kind"], "ACK");
        assert_eq!(shown["messages"][0]["packet"]["number"], 3);
        assert_eq!(shown["messages"][1]["kind"], "unknown");
        let left_out = &shown["left_out"];
        assert_eq!(
            (&left_out["of_others"], &left_out["not_udp"]),
            (&1.into(), &1.into())
        );

        let short = &file[..file.len() - 1];
        read(short).refuses(1, "KF-3003", "damaged or cut off behind packet 3");
        let nothing = form.write(RAW, &packets[..2]);
        read(&nothing).refuses(1, "KF-3003", "1 datagram of UDP and none of ours");
        read(&form.write(147, &packets)).refuses(1, "KF-3003", "none of ours");
    }
    read(&FORMS[0].write(RAW, &packets)[..20]).refuses(1, "KF-3003", "ends in its header");
    // An interface that is not there.
    let mut pcapng = Form::Pcapng {
        swapped: false,
        units: 9,
    }
    .write(RAW, &packets);
    let place = pcapng
        .windows(4)
        .position(|four| four == [6, 0, 0, 0])
        .unwrap();
    pcapng[place + 8] = 9;
    read(&pcapng).refuses(1, "KF-3003", "names an interface");
}

/// Issue 4, item 8: the picture in the documents is what the command draws of the capture beside it.
#[test]
fn the_published_sequence_is_drawn_again_octet_for_octet() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let top = tempfile::tempdir().unwrap();
    let svg = top.path().join("again.svg");
    let capture = docs.join("sharing-sequence.pcap");
    let drawn = keyfall([
        "--json".as_ref(),
        "inspect".as_ref(),
        capture.as_os_str(),
        "--svg".as_ref(),
        svg.as_os_str(),
    ]);
    assert_eq!(drawn.document()["not_drawn"], 0);
    let svg = fs::read_to_string(svg).unwrap();
    assert!(
        svg == fs::read_to_string(docs.join("sharing-sequence.svg")).unwrap(),
        "draw it again: keyfall inspect docs/sharing-sequence.pcap --svg docs/sharing-sequence.svg"
    );
    // Every message of the capture, in its order: what went to one terminal after the other is one arrow.
    let listed = shown(&fs::read(capture).unwrap());
    let mut listed: Vec<_> = listed["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(name)
        .collect();
    listed.dedup_by(|a, b| a == b && a.starts_with("COMMAND"));
    let listed: Vec<_> = listed
        .iter()
        .map(|name| name.trim_start_matches("COMMAND "))
        .collect();
    assert_eq!(names(&svg), listed);
    for once in ["STOP-ACK", "START-ACK", "KEY-DIS"] {
        assert!(listed.contains(&once));
    }
}

/// Parts are one arrow, a repeat is marked, a carrier reaches all.
#[test]
fn parts_repeats_and_carriers_are_drawn() {
    let case = "hpke-pq, the first request of a terminal";
    let request = datagrams(case, "key_req");
    let answer = datagrams(case, "key_dis");
    assert!(request.len() > 1);
    let commands = vectors("commands.json");
    let commands = commands["messages"].as_array().unwrap();
    let stop = commands.iter().find(|it| it["name"] == "STOP").unwrap();
    let stop = from_hex(&stop["frame"]);
    let mut packets = Vec::new();
    for second in [1, 4] {
        for part in &request {
            packets.push((second, 0, ip(false, 1, part)));
        }
    }
    // Another terminal, and a copy of one packet.
    packets.push((5, 0, ip(false, 2, &request[0])));
    packets.push((5, 1_000_000, ip(false, 2, &request[0])));
    for part in &answer {
        let to_first = ([192, 0, 2, 1], 50_000);
        packets.push((6, 0, udp(([192, 0, 2, 255], 47_900), to_first, part)));
    }
    let carrier = ([239, 255, 70, 77], 47_700);
    packets.push((7, 0, udp(([192, 0, 2, 255], 40_000), carrier, &stop)));
    let top = tempfile::tempdir().unwrap();
    let (file, svg) = (top.path().join("c.pcap"), top.path().join("c.svg"));
    fs::write(&file, FORMS[0].write(RAW, &packets)).unwrap();
    let words = [
        "inspect".as_ref(),
        file.as_os_str(),
        "--svg".as_ref(),
        svg.as_os_str(),
    ];
    assert!(keyfall(words).stdout.ends_with("c.svg: 5 messages\n"));
    let svg = fs::read_to_string(svg).unwrap();
    assert_eq!(
        names(&svg),
        ["KEY-REQ", "KEY-REQ", "PART", "KEY-DIS", "STOP"]
    );
    for words in [
        "in 3 parts",
        "again (2)",
        "1 of 3 parts",
        "to all",
        "3.0000 s later",
    ] {
        assert!(svg.contains(words), "{words}: {svg}");
    }
    assert_eq!(
        svg.matches(" again\"").count(),
        5,
        "the repeat, and four pauses"
    );
    for lifeline in ["server", "terminal 1", "terminal 2"] {
        assert!(svg.contains(&format!(">{lifeline}</text>")), "{lifeline}");
    }
    for foreign in ["<script", "url(", "@import", "href"] {
        assert!(!svg.contains(foreign), "{foreign}");
    }
}

/// what members hand to the one that collects is drawn between terminals, though both use other ports for it.
#[test]
fn what_a_member_collects_is_drawn_between_terminals() {
    let published = vectors("confirmations.json");
    let stop_ack = from_hex(&published["confirmations"][0]["datagram"]);
    let bundle = from_hex(&published["bundles"][0]["datagram"]);
    let ack = datagrams("psk, nothing lacks", "ack").remove(0);
    let (server, first, second) = ([192, 0, 2, 255], [192, 0, 2, 1], [192, 0, 2, 2]);
    let packets = [
        (1, 0, udp((first, 50_000), (server, 47_900), &ack)),
        (1, 1, udp((second, 50_000), (server, 47_900), &ack)),
        (1, 2, udp((second, 50_001), (first, 47_950), &stop_ack)),
        (1, 3, udp((first, 50_000), (server, 47_900), &bundle)),
    ];
    let top = tempfile::tempdir().unwrap();
    let (file, svg) = (top.path().join("c.pcap"), top.path().join("c.svg"));
    fs::write(&file, FORMS[0].write(RAW, &packets)).unwrap();
    let words = [
        "inspect".as_ref(),
        file.as_os_str(),
        "--svg".as_ref(),
        svg.as_os_str(),
    ];
    assert!(keyfall(words).stdout.ends_with("c.svg: 4 messages\n"));
    let svg = fs::read_to_string(svg).unwrap();
    assert_eq!(names(&svg), ["ACK", "ACK", "STOP-ACK", "BUNDLE"]);
    assert_eq!(
        svg.matches("class=\"axis\"").count(),
        3,
        "a line for each of three"
    );
    // From terminal 2 to terminal 1, and on to the server.
    let line = |number: usize| svg.split("<line class=\"arrow").nth(number).unwrap();
    assert!(line(3).contains("x1=\"460.0\"") && line(3).contains("x2=\"770.0\""));
    assert!(line(4).contains("x1=\"150.0\"") && line(4).contains("x2=\"460.0\""));
}

/// a key search is drawn between who asks, who is sought and who answers; by UDP, and by
/// the echo of an unmodified host.
#[test]
fn a_key_search_is_drawn_between_terminals() {
    let published = vectors("search.json");
    let search = &published["searches"][0];
    let (probe, answer) = (from_hex(&search["probe"]), from_hex(&search["answer"]));
    let (asker, sought, gateway) = ([192, 0, 2, 1], [10, 2, 0, 9], [192, 0, 2, 2]);
    let echo = |from, to, reply: bool, octets: &[u8]| {
        let mut packet = Vec::new();
        let ip = PacketBuilder::ipv4(from, to, 64);
        if reply {
            ip.icmpv4_echo_reply(7, 1)
                .write(&mut packet, octets)
                .unwrap();
        } else {
            ip.icmpv4_echo_request(7, 1)
                .write(&mut packet, octets)
                .unwrap();
        }
        packet
    };
    let by_udp = [
        (1, 0, udp((asker, 4_500), (sought, 4_500), &probe)),
        (1, 1, udp((gateway, 4_500), (asker, 4_500), &answer)),
    ];
    let by_echo = [
        (1, 0, echo(asker, sought, false, &probe)),
        (1, 1, echo(sought, asker, true, &answer)),
        (1, 2, echo(asker, sought, false, b"somebody's ping")),
    ];
    for (packets, lines) in [(&by_udp[..], 3), (&by_echo[..], 2)] {
        let top = tempfile::tempdir().unwrap();
        let (file, svg) = (top.path().join("s.pcap"), top.path().join("s.svg"));
        fs::write(&file, FORMS[0].write(RAW, packets)).unwrap();
        let words = [
            "inspect".as_ref(),
            file.as_os_str(),
            "--svg".as_ref(),
            svg.as_os_str(),
        ];
        let said = keyfall(words).stdout;
        assert!(said.ends_with("s.svg: 2 messages\n"), "{said}");
        let svg = fs::read_to_string(svg).unwrap();
        assert_eq!(names(&svg), ["PROBE", "ANSWER"]);
        assert_eq!(svg.matches("class=\"axis\"").count(), lines);
        for part in [
            "who is sought",
            "for 10.2.0.9, 2 groups",
            "of terminal 2, epoch 34000000",
        ] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
    }
}

/// More terminals than there is room for: the sheet grows, then the rest is counted.
#[test]
fn a_crowd_is_drawn_as_far_as_there_is_room() {
    let octets = datagrams("psk, nothing lacks", "ack").remove(0);
    let crowd = (0..30).map(|terminal| (u32::from(terminal), 0, ip(false, terminal, &octets)));
    let top = tempfile::tempdir().unwrap();
    let (file, svg) = (top.path().join("c.pcap"), top.path().join("c.svg"));
    let packets: Vec<_> = crowd.collect();
    fs::write(&file, FORMS[0].write(RAW, &packets)).unwrap();
    let words = [
        "inspect".as_ref(),
        file.as_os_str(),
        "--svg".as_ref(),
        svg.as_os_str(),
    ];
    let told = keyfall(words).stdout;
    assert!(told.contains("24 messages; 6 more have no room"), "{told}");
    let svg = fs::read_to_string(svg).unwrap();
    assert!(svg.contains("6 more not drawn") && svg.contains(">terminal 24</text>"));
    assert!(
        !svg.contains("viewBox=\"0 0 860 "),
        "wider than other charts"
    );
}

#[test]
fn what_cannot_be_drawn_leaves_no_file() {
    let top = tempfile::tempdir().unwrap();
    let svg = top.path().join("none.svg");
    let draw = |octets: &[u8]| {
        let words = [
            "inspect".as_ref(),
            "-".as_ref(),
            "--svg".as_ref(),
            svg.as_os_str(),
        ];
        keyfall_with(words, octets)
    };
    draw(b"00ff").refuses(2, "KF-3001", "--svg draws a capture");
    let other = [(1, 0, ip(false, 1, b"other"))];
    draw(&FORMS[0].write(RAW, &other)).refuses(1, "KF-3003", "none of ours");
    let file = FORMS[0].write(RAW, &other);
    draw(&file[..file.len() - 1]).refuses(1, "KF-3003", "damaged");
    assert!(!svg.exists());
    fs::write(&svg, &file).unwrap();
    let over = [
        "inspect".as_ref(),
        svg.as_os_str(),
        "--svg".as_ref(),
        svg.as_os_str(),
    ];
    keyfall(over).refuses(2, "KF-3001", "write over the capture");
    assert_eq!(fs::read(svg).unwrap(), file);
}

fn shown(octets: &[u8]) -> Value {
    keyfall_with(["--json", "inspect"], octets).document()
}

fn read(octets: &[u8]) -> Ran {
    keyfall_with(["inspect"], octets)
}

fn name(message: &Value) -> String {
    let kind = message["kind"].as_str().unwrap();
    match message["inside"]["kind"].as_str() {
        Some(inside) if kind == "COMMAND" => format!("COMMAND {inside}"),
        Some(_) | None => kind.to_owned(),
    }
}

/// Of the arrows, from top to bottom.
fn names(svg: &str) -> Vec<&str> {
    let named = svg.split("<tspan font-weight=\"600\">").skip(1);
    named.map(|it| it.split('<').next().unwrap()).collect()
}

fn field(message: &Value, name: &str) -> Option<String> {
    let fields = message["fields"].as_array().unwrap();
    let field = fields.iter().find(|field| field["name"] == name)?;
    Some(field["value"].as_str().unwrap().to_owned())
}

/// What `interop/vectors` has of a message.
fn datagrams(case: &str, message: &str) -> Vec<Vec<u8>> {
    let published = vectors("sharing.json");
    let cases = published["cases"].as_array().unwrap();
    let case = cases.iter().find(|it| it["name"] == case).unwrap();
    let message = &case[message];
    match message["datagrams"].as_array() {
        Some(_) => all(&message["datagrams"]),
        None => all(message),
    }
}

/// One in hexadecimal, several, or none.
fn all(value: &Value) -> Vec<Vec<u8>> {
    match value {
        Value::Array(several) => several.iter().map(from_hex).collect(),
        Value::String(_) => vec![from_hex(value)],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

fn from_hex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap();
    let octet = |place| u8::from_str_radix(&digits[place..place + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(octet).collect()
}

fn lines(datagrams: &[Vec<u8>]) -> String {
    datagrams.iter().map(|octets| hex(octets) + "\n").collect()
}

/// From the terminal to the server.
fn ip(six: bool, terminal: u8, octets: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    if six {
        let mut from = [
            0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, terminal,
        ];
        let source = from;
        from[15] = 255;
        let builder = PacketBuilder::ipv6(source, from, 64).udp(50_000, 47_900);
        builder.write(&mut packet, octets).unwrap();
    } else {
        packet = udp(
            ([192, 0, 2, terminal], 50_000),
            ([192, 0, 2, 255], 47_900),
            octets,
        );
    }
    packet
}

fn udp(from: ([u8; 4], u16), to: ([u8; 4], u16), octets: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(from.0, to.0, 64).udp(from.1, to.1);
    builder.write(&mut packet, octets).unwrap();
    packet
}

/// Seconds, nanoseconds, octets.
type Packet = (u32, u32, Vec<u8>);

#[derive(Clone, Copy, Debug)]
enum Form {
    Pcap {
        swapped: bool,
        nanoseconds: bool,
    },
    /// `units`: as it stands in the file, a power of 10 or, with the highest bit, of 2.
    Pcapng {
        swapped: bool,
        units: u8,
    },
}

impl Form {
    fn write(self, link: u16, packets: &[Packet]) -> Vec<u8> {
        match self {
            Self::Pcap {
                swapped,
                nanoseconds,
            } => {
                let word = |value: u32| word(swapped, value);
                let magic = if nanoseconds {
                    0xa1b2_3c4d
                } else {
                    0xa1b2_c3d4
                };
                let version = if swapped { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
                let mut file = [&word(magic)[..], &version, &[0; 8], &word(65_535)].concat();
                file.extend(word(link.into()));
                for (seconds, nanos, octets) in packets {
                    let part = if nanoseconds { *nanos } else { nanos / 1000 };
                    let len = octets.len() as u32;
                    for value in [*seconds, part, len, len] {
                        file.extend(word(value));
                    }
                    file.extend(octets);
                }
                file
            }
            Self::Pcapng { swapped, units } => {
                let word = |value: u32| word(swapped, value);
                let short = |value: u16| {
                    let two = value.to_le_bytes();
                    if swapped { [two[1], two[0]] } else { two }
                };
                let block = |kind: u32, mut content: Vec<u8>| {
                    content.resize(content.len().next_multiple_of(4), 0);
                    let len = word(content.len() as u32 + 12);
                    [&word(kind)[..], &len, &content, &len].concat()
                };
                let section = [&word(0x1a2b_3c4d)[..], &short(1), &short(0), &[0xff; 8]].concat();
                let mut file = block(0x0a0d_0d0a, section);
                let mut interface = [&short(link)[..], &short(0), &word(0)].concat();
                interface.extend([&short(9)[..], &short(1), &[units, 0, 0, 0], &[0; 4]].concat());
                file.extend(block(1, interface));
                // What we do not know is passed over.
                file.extend(block(5, vec![0; 12]));
                for (seconds, nanos, octets) in packets {
                    let a_second = match units {
                        0x80.. => 1u64 << (units & 0x7f),
                        _ => 10u64.pow(units.into()),
                    };
                    let part = u128::from(*nanos) * u128::from(a_second) / 1_000_000_000;
                    let at = u64::from(*seconds) * a_second + part as u64;
                    let len = word(octets.len() as u32);
                    let clock = [word((at >> 32) as u32), word(at as u32)].concat();
                    let content = [&word(0)[..], &clock, &len, &len, octets].concat();
                    file.extend(block(6, content));
                }
                file
            }
        }
    }
}

fn word(swapped: bool, value: u32) -> [u8; 4] {
    if swapped {
        value.to_be_bytes()
    } else {
        value.to_le_bytes()
    }
}

const FORMS: [Form; 7] = [
    Form::Pcap {
        swapped: false,
        nanoseconds: false,
    },
    Form::Pcap {
        swapped: true,
        nanoseconds: false,
    },
    Form::Pcap {
        swapped: false,
        nanoseconds: true,
    },
    Form::Pcap {
        swapped: true,
        nanoseconds: true,
    },
    Form::Pcapng {
        swapped: false,
        units: 6,
    },
    Form::Pcapng {
        swapped: true,
        units: 9,
    },
    Form::Pcapng {
        swapped: false,
        units: 0x80 | 30,
    },
];
/// Raw IP.
const RAW: u16 = 101;
/// Link types, with what stands before an IPv4 packet.
const LINKS: &[(u16, &[u8])] = &[
    // Loopback of BSD, in the two byte orders, and of OpenBSD.
    (0, &[2, 0, 0, 0]),
    (0, &[0, 0, 0, 2]),
    (108, &[0, 0, 0, 2]),
    // Ethernet, without and with a VLAN.
    (1, &[2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 0x08, 0x00]),
    (
        1,
        &[
            2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 0x81, 0x00, 0x00, 0x07, 0x08, 0x00,
        ],
    ),
    (RAW, &[]),
    (12, &[]),
    (14, &[]),
    // Linux cooked.
    (113, &[0, 0, 0, 1, 0, 6, 4, 4, 4, 4, 4, 4, 0, 0, 0x08, 0x00]),
    (
        276,
        &[
            0x08, 0x00, 0, 0, 0, 0, 0, 3, 0, 1, 0, 6, 4, 4, 4, 4, 4, 4, 0, 0,
        ],
    ),
];
