//! Our half of `interop/srtp`: packets as lines of hexadecimal digits, for and from another SRTP.
//!
//! ```text
//! interop_srtp seal             prints plain and sealed packets, with the keys that open them
//! interop_srtp plan             prints plain packets, with the keys to seal them under
//! interop_srtp open < LINES     opens what the other side sealed by that plan
//! ```
//!
//! Lines: `stream SUITE SSRC`, then `key MKI KEY‖SALT`..., then `rtp|rtcp MKI PLAIN [SEALED]`...; the
//! MKI is `-` where packets carry none.

use std::error::Error;
use std::io::{self, BufRead, Write};

use keyfall_plane::{Mki, Refused, SrtpReceiver, SrtpSender, SrtpStream, StaticReceiver, Stretch};
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SessionId, TerminalNumber};
use keyfall_protocol::keys::{MasterKey, Secret, SrtpMaster, SrtpSuite};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let out = &mut io::BufWriter::new(io::stdout().lock());
    match std::env::args().nth(1).as_deref() {
        Some("seal") => CASES.iter().try_for_each(|case| case.seal(out))?,
        Some("plan") => CASES.iter().try_for_each(|case| case.plan(out))?,
        Some("open") => open(&mut io::stdin().lock(), out)?,
        _ => return Err("usage: interop_srtp seal|plan|open".into()),
    }
    Ok(out.flush()?)
}

/// One stream: with an MKI and a stretch of 2^j, or static and without.
struct Case {
    suite: SrtpSuite,
    j: Option<u8>,
    ssrc: u32,
}

const CASES: &[Case] = &[
    Case {
        suite: SrtpSuite::AeadAes256Gcm,
        j: Some(10),
        ssrc: 0x0101_0a0a,
    },
    Case {
        suite: SrtpSuite::AeadAes256Gcm,
        j: Some(16),
        ssrc: 0x0202_1010,
    },
    Case {
        suite: SrtpSuite::AeadAes256Gcm,
        j: None,
        ssrc: 0x0303_0000,
    },
    Case {
        suite: SrtpSuite::AeadAes128Gcm,
        j: Some(16),
        ssrc: 0x0404_1010,
    },
    Case {
        suite: SrtpSuite::AeadAes128Gcm,
        j: None,
        ssrc: 0x0505_0000,
    },
    Case {
        suite: SrtpSuite::AesCm128HmacSha1Tag80,
        j: Some(16),
        ssrc: 0x0606_1010,
    },
    Case {
        suite: SrtpSuite::AesCm128HmacSha1Tag80,
        j: None,
        ssrc: 0x0707_0000,
    },
];

/// A plain packet, when it is sent and under which generation.
struct Planned {
    rtcp: bool,
    index: u64,
    generation: u32,
    plain: Vec<u8>,
}

impl Case {
    fn stream(&self) -> SrtpStream {
        SrtpStream {
            suite: self.suite,
            sender: TerminalNumber::new(0x00c0_ffee).expect("within 24 bits"),
            session: SessionId::new(*b"stretc"),
            ssrc: self.ssrc,
        }
    }

    /// Some 1,100 packets across 65,536, 14 stretches of 1,024 and, where there is an MKI, one
    /// renewal of the group's key. With j = 10 that is 15 keys; libsrtp takes 16.
    fn packets(&self) -> Vec<Planned> {
        let mut planned = Vec::new();
        let mut index = 59 * 1024;
        while index < 73 * 1024 {
            let generation = if self.j.is_some() && index >= 67_000 {
                6
            } else {
                5
            };
            let plain = self.rtp(index);
            planned.push(Planned {
                rtcp: false,
                index,
                generation,
                plain,
            });
            if planned.len().is_multiple_of(10) {
                let plain = self.rtcp();
                planned.push(Planned {
                    rtcp: true,
                    index,
                    generation,
                    plain,
                });
            }
            index += 1 + index * 7 % 23;
        }
        planned
    }

    /// Lengths from 0, every third with a CSRC, every fifth with a header extension.
    fn rtp(&self, index: u64) -> Vec<u8> {
        let mut packet = vec![0x80, 96];
        packet.extend_from_slice(&(index as u16).to_be_bytes());
        packet.extend_from_slice(&(index as u32).wrapping_mul(160).to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        if index.is_multiple_of(3) {
            packet[0] |= 1;
            packet.extend_from_slice(b"csrc");
        }
        if index.is_multiple_of(5) {
            packet[0] |= 0x10;
            packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x10, 0xaa, 0, 0]);
        }
        packet.extend((0..index * 31 % 400).map(|octet| octet as u8));
        packet
    }

    /// A sender report and a source description.
    fn rtcp(&self) -> Vec<u8> {
        let mut packet = vec![0x80, 200, 0, 6];
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(&[0x42; 20]);
        packet.extend_from_slice(&[0x81, 202, 0, 3]);
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(b"\x01\x05alice\0");
        packet
    }

    fn n(&self, index: u64) -> u16 {
        self.j.map_or(0, |j| (index >> j) as u16)
    }

    fn mki(&self, generation: u32, n: u16) -> Option<Mki> {
        let SrtpStream {
            sender, session, ..
        } = self.stream();
        self.j
            .map(|_| Mki::new(group_key(generation).tag(), sender, session, n))
    }

    fn master(&self, generation: u32, n: u16) -> SrtpMaster {
        let SrtpStream {
            suite,
            sender,
            session,
            ssrc,
        } = self.stream();
        group_key(generation).derive_srtp(suite, sender, session, n, ssrc)
    }

    fn print_head(&self, out: &mut dyn Write) -> Result<(), Failure> {
        writeln!(out, "stream {} {:08x}", self.suite.name(), self.ssrc)?;
        let mut keys = Vec::new();
        for Planned {
            index, generation, ..
        } in self.packets()
        {
            let key = (generation, self.n(index));
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        for (generation, n) in keys {
            let master = self.master(generation, n);
            let octets = [master.key(), master.salt()].concat();
            writeln!(
                out,
                "key {} {}",
                mki_text(self.mki(generation, n)),
                hex(&octets)
            )?;
        }
        Ok(())
    }

    fn plan(&self, out: &mut dyn Write) -> Result<(), Failure> {
        self.print_head(out)?;
        for Planned {
            rtcp,
            index,
            generation,
            plain,
        } in self.packets()
        {
            let mki = mki_text(self.mki(generation, self.n(index)));
            writeln!(out, "{} {mki} {}", kind(rtcp), hex(&plain))?;
        }
        Ok(())
    }

    fn seal(&self, out: &mut dyn Write) -> Result<(), Failure> {
        self.print_head(out)?;
        let mut sender = match self.j {
            Some(j) => SrtpSender::new(self.stream(), stretch(j)),
            None => SrtpSender::new_static(self.stream(), 0, false),
        };
        for Planned {
            rtcp,
            index,
            generation,
            plain,
        } in self.packets()
        {
            let key = group_key(generation);
            let mut sealed = plain.clone();
            if rtcp {
                sender.protect_rtcp(&key, &mut sealed)?;
            } else {
                assert_eq!(sender.protect_rtp(&key, &mut sealed)?, index);
            }
            let mki = mki_text(self.mki(generation, self.n(index)));
            writeln!(out, "{} {mki} {} {}", kind(rtcp), hex(&plain), hex(&sealed))?;
        }
        Ok(())
    }
}

/// Either of our receivers.
enum Receiver {
    Keyed(SrtpReceiver),
    Static(StaticReceiver),
}

impl Receiver {
    fn for_case(case: &Case) -> Self {
        match case.j {
            Some(j) => Self::Keyed(SrtpReceiver::new(case.stream(), stretch(j))),
            None => Self::Static(StaticReceiver::new(&case.master(5, 0), case.ssrc, 0)),
        }
    }

    fn open(&mut self, rtcp: bool, sealed: &[u8]) -> Result<Vec<u8>, Refused> {
        let mut plain = Vec::new();
        match (self, rtcp) {
            (Self::Static(receiver), false) => {
                receiver.unprotect_rtp(sealed, &mut plain)?;
            }
            (Self::Static(receiver), true) => {
                receiver.unprotect_rtcp(sealed, &mut plain)?;
            }
            (Self::Keyed(receiver), false) => {
                receiver
                    .unprotect_rtp(sealed, &mut plain)
                    .or_else(|refused| {
                        [5, 6]
                            .iter()
                            .find_map(|g| receiver.try_rtp(&group_key(*g), sealed, &mut plain).ok())
                            .ok_or(refused)
                    })?;
            }
            (Self::Keyed(receiver), true) => {
                receiver
                    .unprotect_rtcp(sealed, &mut plain)
                    .or_else(|refused| {
                        [5, 6]
                            .iter()
                            .find_map(|g| {
                                receiver.try_rtcp(&group_key(*g), sealed, &mut plain).ok()
                            })
                            .ok_or(refused)
                    })?;
            }
        }
        Ok(plain)
    }
}

/// Each packet is given three times: with one bit changed, as it is, and again.
fn open(lines: &mut dyn BufRead, out: &mut dyn Write) -> Result<(), Failure> {
    let mut receiver = None;
    let (mut rtp, mut rtcp) = (0, 0);
    for (number, line) in lines.lines().enumerate() {
        let line = line?;
        let at = |what: String| format!("line {}: {what}", number + 1);
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["stream", _, ssrc] => {
                let ssrc = u32::from_str_radix(ssrc, 16)?;
                let case = CASES.iter().find(|case| case.ssrc == ssrc);
                receiver = case.map(Receiver::for_case);
            }
            ["key", ..] => {}
            [word @ ("rtp" | "rtcp"), _, plain, sealed] => {
                let receiver = receiver.as_mut().ok_or_else(|| at("no stream".into()))?;
                let (plain, sealed) = (unhex(plain)?, unhex(sealed)?);
                let is_rtcp = word == "rtcp";
                let mut bad = sealed.clone();
                let place = number % bad.len();
                bad[place] ^= 1;
                if receiver.open(is_rtcp, &bad).is_ok() {
                    return Err(at(format!("opened with octet {place} changed")).into());
                }
                let opened = receiver
                    .open(is_rtcp, &sealed)
                    .map_err(|why| at(why.to_string()))?;
                if opened != plain {
                    return Err(at("opened to something else".into()).into());
                }
                if receiver.open(is_rtcp, &sealed) != Err(Refused::Replayed) {
                    return Err(at("a replay was not refused".into()).into());
                }
                *if is_rtcp { &mut rtcp } else { &mut rtp } += 1;
            }
            _ => return Err(at(format!("not understood: {line:.40}")).into()),
        }
    }
    writeln!(out, "{rtp} SRTP and {rtcp} SRTCP packets")?;
    let expected: usize = CASES.iter().map(|case| case.packets().len()).sum();
    if rtp + rtcp != expected {
        return Err(format!("{} packets, expected {expected}", rtp + rtcp).into());
    }
    Ok(())
}

fn group_key(generation: u32) -> MasterKey {
    let group = GroupNumber::new(7).expect("7 is a group number");
    let bytes = Secret::init_with(|out| out.fill(0x77));
    MasterKey::new(group, KeyEpoch::new(9), Generation::ZERO, bytes)
        .renew_to(Generation::new(generation).expect("small"))
}

fn stretch(j: u8) -> Stretch {
    Stretch::new(j).expect("10 to 16")
}

fn kind(rtcp: bool) -> &'static str {
    if rtcp { "rtcp" } else { "rtp" }
}

fn mki_text(mki: Option<Mki>) -> String {
    mki.map_or_else(|| "-".into(), |mki| hex(mki.as_bytes()))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn unhex(digits: &str) -> Result<Vec<u8>, Failure> {
    let pair = |at| {
        u8::from_str_radix(digits.get(at..at + 2).ok_or("odd digits")?, 16).map_err(Failure::from)
    };
    (0..digits.len()).step_by(2).map(pair).collect()
}
