//! Our half of `interop/esp` and `interop/kernel`: seals and opens packets for other people's ESP, as
//! it is told line by line on standard input. Each line is answered by one.
//!
//! ```text
//! session SUITE GENERATION SENDER SESSION   a sender and a receiver; answers SPI KEY‖SALT
//! pinned SUITE SPI RANDOM                   a receiver of a stock sender; answers SPI KEY‖SALT
//! ip-xfrm SOURCE DESTINATION                the newest of both for `ip`
//! wireshark SOURCE DESTINATION              the newest of both for Wireshark
//! seal PACKET                               answers the ESP packet
//! open PACKET                               answers SEQUENCE INNER, or `refused: …`
//! ```
//!
//! Octets are hexadecimal. The master key is made up, and nobody uses it.

use std::error::Error;
use std::io::{self, BufRead, Write};

use keyfall_plane::{EspExport, EspReceiver, EspSender, esp_len};
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber};
use keyfall_protocol::keys::{EspKeys, EspSuite, MasterKey, PinnedSpi, Secret};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let mut peer = Peer::default();
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split_whitespace().collect();
        let answer = peer.answer(&words)?;
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

#[derive(Default)]
struct Peer {
    sender: Option<EspSender>,
    receiver: Option<EspReceiver>,
    newest: Option<(u32, EspKeys)>,
}

impl Peer {
    fn answer(&mut self, words: &[&str]) -> Result<String, Failure> {
        match *words {
            ["session", suite, generation, sender, session] => {
                let suite = suite_of(suite)?;
                let key = master_key(generation.parse()?)?;
                let sender = TerminalNumber::new(sender.parse()?).ok_or("sender")?;
                let session = octets(session)?.try_into();
                let session = EspSession::new(session.map_err(|_| "session")?);
                let ours = EspSender::new(suite, &key, sender, session);
                self.receiver = Some(EspReceiver::new(suite, &key, sender, session));
                let spi = ours.spi().get();
                self.sender = Some(ours);
                Ok(self.hold(spi, key.derive_esp(suite, sender, session)))
            }
            ["pinned", suite, spi, random] => {
                let spi = PinnedSpi::new(spi.parse()?).ok_or("SPI")?;
                let random = octets(random)?.try_into().map_err(|_| "random")?;
                let keys = master_key(0)?.derive_esp_pinned(suite_of(suite)?, spi, random);
                self.receiver = Some(EspReceiver::pinned(&keys, spi, 0));
                Ok(self.hold(spi.get(), keys))
            }
            ["ip-xfrm", source, destination] => {
                Ok(self.export(source, destination)?.ip_xfrm().to_string())
            }
            ["wireshark", source, destination] => {
                let line = self.export(source, destination)?.wireshark();
                Ok(line.ok_or("not known to Wireshark")?.to_string())
            }
            ["seal", packet] => {
                let inner = octets(packet)?;
                let mut out = vec![0; esp_len(inner.len())];
                let sender = self.sender.as_mut().ok_or("no session")?;
                sender.seal_from(&inner, &mut out)?;
                Ok(hex(&out))
            }
            ["open", packet] => {
                let packet = octets(packet)?;
                let mut out = vec![0; packet.len()];
                let receiver = self.receiver.as_mut().ok_or("no receiver")?;
                Ok(match receiver.open_into(&packet, &mut out) {
                    Ok((len, sequence)) => format!("{sequence} {}", hex(&out[..len])),
                    Err(refused) => format!("refused: {refused}"),
                })
            }
            _ => Err(format!("no such line: {words:?}").into()),
        }
    }

    fn hold(&mut self, spi: u32, keys: EspKeys) -> String {
        let shown = format!("{spi} {}", hex(keys.key_and_salt()));
        self.newest = Some((spi, keys));
        shown
    }

    fn export(&self, source: &str, destination: &str) -> Result<EspExport<'_>, Failure> {
        let (spi, keys) = self.newest.as_ref().ok_or("no key")?;
        Ok(EspExport {
            keys,
            spi: *spi,
            source: source.parse()?,
            destination: destination.parse()?,
            port: 4500,
        })
    }
}

fn suite_of(number: &str) -> Result<EspSuite, Failure> {
    Ok(EspSuite::from_number(number.parse()?).ok_or("suite")?)
}

/// Of group 7, epoch 22774400.
fn master_key(generation: u32) -> Result<MasterKey, Failure> {
    let group = GroupNumber::new(7).ok_or("group")?;
    let first = "2b2e39f6cd5f4f4b28e0f8c4a8e4b2f3b1c4d6e8f0a2b4c6d8e0f2a4b6c8dae0";
    let bytes = Secret::from_slice(&octets(first)?).ok_or("key")?;
    let key = MasterKey::new(group, KeyEpoch::new(22_774_400), Generation::ZERO, bytes);
    Ok(key.renew_to(Generation::new(generation).ok_or("generation")?))
}

fn octets(hex: &str) -> Result<Vec<u8>, Failure> {
    let digits = hex.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)?;
        Ok(u8::from_str_radix(pair, 16)?)
    });
    pairs.collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
