//! `keyfall terminal ping`: who protects the way to a terminal or an address, and how long an echo
//! takes. The running terminal tells the way; the echoes go through the tunnel as any packet does.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use clap::Args;
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type};
use keyfall_api::control::{Answer, ProtectedWay, Request, WayFound};
use keyfall_protocol::rng::octets;
use keyfall_terminal::OsRandom;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::control_client::{self, interrupted};
use crate::explain::Code;
use crate::output::{Failure, Output};
use crate::terminal::{dir_of_environment, no_directory, small_runtime};

/// Measure the way to a terminal, and tell which group and key protect it.
///
/// T is a terminal's number, or an address or name of a host in the fleet. The running terminal tells
/// the way, after a key search where it needs one; then echo requests go through the tunnel as any
/// packet does. Of a terminal with a subnet its first address is asked. Exit code 0: an echo came back.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  keyfall terminal ping alice 2\n  \
                        keyfall terminal ping alice 10.10.2.7 -c 100 --interval 0.01 --json\n  \
                        KEYFALL_DIR=alice keyfall terminal ping fd10:2::7 --size 1300")]
pub(super) struct PingArgs {
    /// The terminal's directory; instead of it: --dir or KEYFALL_DIR. Then T.
    #[arg(value_name = "DIR> <T", num_args = 1..=2, required = true)]
    places: Vec<String>,
    #[arg(long = "dir", value_name = "DIR", hide = true)]
    named: Option<PathBuf>,
    /// Echo requests; 0: until Ctrl-C.
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    count: u32,
    /// Seconds between two of them.
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    interval: Duration,
    /// Octets of payload.
    #[arg(short, long, value_name = "OCTETS", default_value_t = 56,
          value_parser = clap::value_parser!(u16).range(8..=65_000))]
    size: u16,
    /// Seconds until an echo counts as lost.
    #[arg(short = 'W', long, value_name = "SECONDS", value_parser = seconds, default_value = "2")]
    timeout: Duration,
}

pub(super) fn ping(args: &PingArgs, output: &Output) -> Result<(), Failure> {
    let (dir, to) = match args.places.as_slice() {
        [dir, to] => (Some(PathBuf::from(dir)), to),
        [to] => (args.named.clone().or_else(dir_of_environment), to),
        _ => (None, &String::new()),
    };
    let dir = dir.ok_or_else(no_directory)?;
    let way = way_to(&dir, &address_of(to))?;
    show(output, || way_for_people(&way))?;
    let (source, destination) = ends(&way)?;
    let echoes = small_runtime()?.block_on(measure(args, (source, destination), output))?;
    let after = way_to(&dir, &way.destination);
    let pinged = Pinged::of(way, after.ok(), echoes);
    if output.is_json() {
        output.versioned(&pinged, |_| String::new())?;
    } else {
        output.text(&pinged.summary())?;
    }
    pinged.verdict(output)
}

/// What a name means to the system; numbers and addresses are what they are.
fn address_of(to: &str) -> String {
    if to.parse::<u32>().is_ok() || to.parse::<IpAddr>().is_ok() {
        return to.to_owned();
    }
    let resolved = (to, 0).to_socket_addrs().ok();
    let first = resolved.and_then(|mut addresses| addresses.next());
    // The terminal says what it knows instead.
    first.map_or_else(|| to.to_owned(), |it| it.ip().to_string())
}

fn way_to(dir: &Path, to: &str) -> Result<ProtectedWay, Failure> {
    let to = to.to_owned();
    let Answer::Way(way) = control_client::ask(dir, &Request::Way { to })? else {
        return Err(control_client::unexpected());
    };
    Ok(way)
}

fn ends(way: &ProtectedWay) -> Result<(IpAddr, IpAddr), Failure> {
    let read = |text: &str| text.parse().map_err(|_| control_client::unexpected());
    Ok((read(&way.source)?, read(&way.destination)?))
}

fn show(output: &Output, line: impl FnOnce() -> String) -> Result<(), Failure> {
    if output.is_json() {
        Ok(())
    } else {
        output.text(&line())
    }
}

fn way_for_people(way: &ProtectedWay) -> String {
    let took = Duration::from_micros(way.took_us).as_secs_f64() * 1e3;
    let found = match way.found {
        WayFound::Record => "known by its record".to_owned(),
        WayFound::Search => format!("found by a key search in {took:.1} ms"),
        WayFound::SearchBefore => "found by a key search before".to_owned(),
    };
    format!(
        "ping {} (terminal {} at {}) from {}: {}, {}, {found}",
        way.destination,
        way.terminal,
        way.endpoint,
        way.source,
        key_of(way),
        way.suite
    )
}

fn key_of(way: &ProtectedWay) -> String {
    format!(
        "group {}, epoch {} generation {}",
        way.group, way.epoch, way.generation
    )
}

/// One echo request, and how long its echo took.
#[derive(Serialize)]
struct Echo {
    seq: u32,
    /// Milliseconds; none where it was lost.
    ms: Option<f64>,
}

/// What came of the echo requests.
#[derive(Default)]
struct Echoes {
    /// Of those that the system took.
    sent: Vec<Echo>,
    /// Why it did not take another.
    not_sent: Option<String>,
}

/// Sends echo requests and shows a line for each.
async fn measure(
    args: &PingArgs,
    ends: (IpAddr, IpAddr),
    output: &Output,
) -> Result<Echoes, Failure> {
    let socket = EchoSocket::open(ends)?;
    let mut stopped = pin!(interrupted()?);
    let mut ticks = interval(args.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting: BTreeMap<u32, Instant> = BTreeMap::new();
    let mut echoes = Echoes::default();
    let mut sent = 0;
    let mut packet = vec![0; 65_536];
    loop {
        let more = args.count == 0 || sent < args.count;
        if !more && waiting.is_empty() {
            break;
        }
        let first = waiting.values().next().copied();
        let late = first.unwrap_or_else(Instant::now) + args.timeout;
        tokio::select! {
            () = &mut stopped => break,
            _ = ticks.tick(), if more => {
                sent += 1;
                match socket.send(sent, args.size).await {
                    Ok(()) => drop(waiting.insert(sent, Instant::now())),
                    Err(error) => {
                        show(output, || format!("seq {sent}  not sent: {error}"))?;
                        echoes.not_sent = Some(error.to_string());
                    }
                }
            }
            seq = socket.receive(&mut packet) => {
                // Only 16 bits of the number travel.
                let came = waiting.keys().copied().find(|&it| Some(it & 0xffff) == seq);
                if let Some(seq) = came
                    && let Some(since) = waiting.remove(&seq)
                {
                    let ms = since.elapsed().as_secs_f64() * 1e3;
                    show(output, || format!("seq {seq}  {ms:.3} ms"))?;
                    echoes.sent.push(Echo { seq, ms: Some(round(ms)) });
                }
            }
            () = sleep_until(late.into()), if first.is_some() => {
                if let Some((seq, _)) = waiting.pop_first() {
                    show(output, || format!("seq {seq}  lost"))?;
                    echoes.sent.push(Echo { seq, ms: None });
                }
            }
        }
    }
    echoes.sent.sort_by_key(|echo| echo.seq);
    Ok(echoes)
}

/// Echo requests to one address.
struct EchoSocket {
    socket: tokio::net::UdpSocket,
    v6: bool,
    /// Everything of ICMP comes, for IPv4 with the header of IP.
    raw: bool,
    /// Knows our own echoes from those of others.
    mark: [u8; 8],
}

impl EchoSocket {
    /// Without privilege where the system allows that.
    fn open((source, destination): (IpAddr, IpAddr)) -> Result<Self, Failure> {
        let v6 = destination.is_ipv6();
        let (domain, protocol) = if v6 {
            (Domain::IPV6, Protocol::ICMPV6)
        } else {
            (Domain::IPV4, Protocol::ICMPV4)
        };
        let open = |kind| {
            let socket = Socket::new(domain, kind, Some(protocol))?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            socket.connect(&SocketAddr::new(destination, 0).into())?;
            socket.set_nonblocking(true)?;
            tokio::net::UdpSocket::from_std(UdpSocket::from(socket))
        };
        let opened = match open(Type::DGRAM) {
            Ok(socket) => Ok((socket, false)),
            Err(_) => open(Type::RAW).map(|socket| (socket, true)),
        };
        let (socket, raw) = opened.map_err(|error| {
            let sentence = format!(
                "there is no socket for echo requests: {error}; run it as root, or allow it with \
                 `sysctl net.ipv4.ping_group_range='0 2147483647'`"
            );
            Failure::new(Code::NoEchoSocket, sentence)
        })?;
        Ok(Self {
            socket,
            v6,
            raw,
            mark: octets(&mut OsRandom),
        })
    }

    async fn send(&self, seq: u32, size: u16) -> std::io::Result<()> {
        let [.., high, low] = seq.to_be_bytes();
        let mut payload = vec![0x5a; usize::from(size)];
        payload[..8].copy_from_slice(&self.mark);
        let id = u16::from_be_bytes([self.mark[0], self.mark[1]]);
        let mut packet = if self.v6 {
            // The system writes the checksum.
            vec![
                ECHO_REQUEST_V6,
                0,
                0,
                0,
                self.mark[0],
                self.mark[1],
                high,
                low,
            ]
        } else {
            let seq = u16::from_be_bytes([high, low]);
            let kind = Icmpv4Type::EchoRequest(IcmpEchoHeader { id, seq });
            Icmpv4Header::with_checksum(kind, &payload)
                .to_bytes()
                .to_vec()
        };
        packet.extend(payload);
        // What an earlier packet met is told once, at the next call.
        match self.socket.send(&packet).await {
            Err(_) => self.socket.send(&packet).await.map(drop),
            Ok(_) => Ok(()),
        }
    }

    /// The number of an echo of ours; `None`: something else came.
    async fn receive(&self, packet: &mut [u8]) -> Option<u32> {
        let length = self.socket.recv(packet).await.ok()?;
        let mut message = &packet[..length];
        if self.raw && !self.v6 {
            message = message.get(usize::from(message.first()? & 0xf) * 4..)?;
        }
        let [kind, 0, _, _, _, _, high, low, payload @ ..] = message else {
            return None;
        };
        let reply = if self.v6 {
            ECHO_REPLY_V6
        } else {
            ECHO_REPLY_V4
        };
        let ours = *kind == reply && payload.starts_with(&self.mark);
        ours.then(|| u32::from(u16::from_be_bytes([*high, *low])))
    }
}

/// All of it, for scripts.
#[derive(Serialize)]
struct Pinged {
    /// Where no echo came back, or one that did not go through the tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sentence: Option<String>,
    way: ProtectedWay,
    /// The way at the end, where its key is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<ProtectedWay>,
    echoes: Vec<Echo>,
    /// Why the system did not take some of the requests, which are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_sent: Option<String>,
    sent: usize,
    received: usize,
    /// 0 to 1.
    loss: f64,
    min_ms: Option<f64>,
    median_ms: Option<f64>,
    max_ms: Option<f64>,
    /// Packets that the tunnel sealed for this way meanwhile, others' with them; none where it is not
    /// known.
    sealed: Option<u64>,
}

impl Pinged {
    fn of(way: ProtectedWay, after: Option<ProtectedWay>, came: Echoes) -> Self {
        let echoes = came.sent;
        let mut times: Vec<_> = echoes.iter().filter_map(|echo| echo.ms).collect();
        times.sort_by(f64::total_cmp);
        let (sent, received) = (echoes.len(), times.len());
        let key = |way: &ProtectedWay| (way.group, way.epoch, way.generation, way.terminal);
        let packets = after.as_ref().and_then(|after| after.packets);
        let sealed = packets.and_then(|now| now.checked_sub(way.packets.unwrap_or(0)));
        let mut pinged = Self {
            code: None,
            sentence: None,
            changed: after.filter(|after| key(after) != key(&way)),
            way,
            sent,
            received,
            loss: round((sent - received) as f64 / sent.max(1) as f64),
            min_ms: times.first().copied(),
            median_ms: median(&times),
            max_ms: times.last().copied(),
            sealed,
            not_sent: came.not_sent,
            echoes,
        };
        pinged.sentence = pinged.fault();
        pinged.code = pinged.sentence.as_ref().map(|_| Code::NoEcho.text());
        pinged
    }

    fn summary(&self) -> String {
        let mut text = format!(
            "{} sent, {} received, {:.0} % lost",
            self.sent,
            self.received,
            self.loss * 100.0
        );
        if let (Some(min), Some(median), Some(max)) = (self.min_ms, self.median_ms, self.max_ms) {
            text += &format!("; min/median/max {min:.3}/{median:.3}/{max:.3} ms");
        }
        if let Some(mtu) = self.way.mtu {
            text += &format!("; packets of up to {mtu} octets");
            if let Some(path) = self.way.path_mtu {
                text += &format!(", path MTU outside {path}");
            }
        }
        if let Some(after) = &self.changed {
            text += &format!("\nmeanwhile the key has changed: {}", key_of(after));
        }
        text
    }

    fn verdict(&self, output: &Output) -> Result<(), Failure> {
        let Some(sentence) = &self.sentence else {
            return Ok(());
        };
        Err(if output.is_json() {
            Failure::told(Code::NoEcho)
        } else {
            Failure::new(Code::NoEcho, sentence)
        })
    }

    /// Whether no echo came back, or one that did not go through the tunnel.
    fn fault(&self) -> Option<String> {
        let (received, to) = (self.received, &self.way.destination);
        // What was lost may have waited for a key search in vain; an echo came by some way.
        let past = self.sealed.filter(|&sealed| sealed < received as u64);
        Some(match (past, &self.not_sent) {
            (Some(sealed), _) => format!(
                "{received} echoes came back, and the tunnel sealed {sealed} requests: the system's routes \
                 to {to} lead past it, look at `ip rule` and `ip route get {to}`"
            ),
            (None, _) if received > 0 => return None,
            (None, Some(why)) if self.sent == 0 => {
                format!("no echo request could be sent to {to}: {why}; try another --size")
            }
            (None, _) => format!(
                "{to} answers no echo request: name a host there that answers pings; where one should, \
                 `keyfall terminal status` on the other side shows what was dropped"
            ),
        })
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(round(f64::midpoint(sorted[middle - 1], upper)))
}

/// To a thousandth.
fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text
        .parse()
        .ok()
        .filter(|it| (0.001..=3_600.0).contains(it));
    number
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "seconds are a number from 0.001 to 3600".to_owned())
}

const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn way(generation: u32, packets: Option<u64>) -> ProtectedWay {
        ProtectedWay {
            source: "10.10.1.1".to_owned(),
            destination: "10.10.2.7".to_owned(),
            terminal: 2,
            endpoint: "192.0.2.2:4500".to_owned(),
            tun: "keyfall0".to_owned(),
            group: 3,
            epoch: 1,
            generation,
            suite: "AES-256-GCM".to_owned(),
            found: WayFound::Search,
            took_us: 12_345,
            mtu: Some(1_418),
            path_mtu: Some(1_500),
            packets,
        }
    }

    fn echo(seq: u32, ms: Option<f64>) -> Echo {
        Echo { seq, ms }
    }

    #[test]
    fn the_first_line_says_who_protects_it_and_how_it_was_found() {
        assert_eq!(
            way_for_people(&way(4, None)),
            "ping 10.10.2.7 (terminal 2 at 192.0.2.2:4500) from 10.10.1.1: group 3, epoch 1 \
             generation 4, AES-256-GCM, found by a key search in 12.3 ms"
        );
    }

    #[test]
    fn the_summary_counts_losses_and_tells_of_a_change_of_keys() {
        let sent = vec![
            echo(1, Some(3.0)),
            echo(2, None),
            echo(3, Some(1.0)),
            echo(4, Some(2.0)),
        ];
        let echoes = Echoes {
            sent,
            not_sent: None,
        };
        let pinged = Pinged::of(way(4, Some(10)), Some(way(5, Some(14))), echoes);
        assert_eq!((pinged.sent, pinged.received), (4, 3));
        assert_eq!(pinged.sealed, Some(4));
        let text = pinged.summary();
        assert!(
            text.starts_with("4 sent, 3 received, 25 % lost; min/median/max 1.000/2.000/3.000 ms")
        );
        assert!(text.contains("packets of up to 1418 octets, path MTU outside 1500"));
        assert!(
            text.ends_with("changed: group 3, epoch 1 generation 5"),
            "{text}"
        );
        assert!(pinged.verdict(&Output::new(false)).is_ok());
    }

    #[test]
    fn silence_and_echoes_past_the_tunnel_are_failures() {
        let verdict = |packets, ms| fault(packets, &[ms], None).map_or(Ok(()), Err);
        let silent = verdict(Some(11), None).unwrap_err();
        assert!(silent.contains("answers no echo request"));
        let past = verdict(Some(10), Some(1.0)).unwrap_err();
        assert!(past.contains("lead past it"));
        assert!(verdict(None, Some(1.0)).is_ok());
    }

    /// Requests that the system did not take, or that waited for a key search in vain, were once said to
    /// go past the tunnel.
    #[test]
    fn what_was_lost_did_not_go_past_the_tunnel() {
        let lost_two = [None, None, Some(1.0), Some(1.0), Some(1.0)];
        assert_eq!(fault(Some(13), &lost_two, Some("too long")), None);
        let none = fault(Some(10), &[], Some("too long")).unwrap();
        assert!(none.contains("could be sent to 10.10.2.7: too long; try another --size"));
    }

    /// Scripts read the code, as of any failure.
    #[test]
    fn a_fault_has_its_code_in_the_document() {
        let document = |ms| {
            let sent = vec![echo(1, ms)];
            let echoes = Echoes {
                sent,
                not_sent: None,
            };
            let pinged = Pinged::of(way(4, Some(10)), Some(way(4, Some(11))), echoes);
            serde_json::to_value(&pinged).unwrap()
        };
        let silent = document(None);
        assert_eq!(silent["code"], "KF-3128");
        let sentence = silent["sentence"].as_str().unwrap();
        assert!(sentence.contains("answers no echo request"));
        let came = document(Some(1.0));
        assert!(came.get("code").is_none() && came.get("sentence").is_none());
    }

    fn fault(
        packets: Option<u64>,
        times: &[Option<f64>],
        not_sent: Option<&str>,
    ) -> Option<String> {
        let sent = times.iter().map(|&ms| echo(1, ms)).collect();
        let not_sent = not_sent.map(str::to_owned);
        let echoes = Echoes { sent, not_sent };
        Pinged::of(way(4, Some(10)), Some(way(4, packets)), echoes).fault()
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0, 2.0, 4.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 4.0, 5.0]), Some(3.0));
    }

    #[test]
    fn seconds_are_a_number() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(seconds("0").is_err());
        assert!(seconds("soon").is_err());
    }
}
