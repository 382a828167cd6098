//! Whether a message opens with a terminal's keys, in words, without obeying it.

use keyfall_api::control::Inspected;
use keyfall_plane::{Arrival, SrtpReceiver, Stretch};
use keyfall_protocol::command::{OrderContents, Unverified};
use keyfall_protocol::keys::SrtpSuite;
use keyfall_protocol::terminal::{SealedVerdict, SignatureVerdict, Terminal};

/// Looks at a frame or a media packet, written in hexadecimal; `stretch` is the j of media.
///
/// # Errors
/// A sentence, where the octets are nothing that this terminal could know.
pub fn inspect(
    terminal: &Terminal,
    hexadecimal: &str,
    stretch: Option<u8>,
) -> Result<Inspected, String> {
    let octets = from_hex(hexadecimal).ok_or("the octets are not hexadecimal")?;
    let stretch = match stretch {
        None => Stretch::default(),
        Some(j) => Stretch::new(j).ok_or("j of a stretch is from 10 to 16")?,
    };
    match Unverified::decode(&octets) {
        Ok(frame) => Ok(inspect_frame(terminal, frame)),
        Err(error) => inspect_media(terminal, &octets, stretch).ok_or_else(|| {
            format!("this is no command ({error}), and no SRTP or SRTCP packet with an MKI")
        }),
    }
}

fn inspect_frame(terminal: &Terminal, frame: Unverified<'_>) -> Inspected {
    let verdict = terminal.look_at(frame);
    let signature = match verdict.signature {
        SignatureVerdict::Valid => "valid",
        SignatureVerdict::WrongClass => "a key that may not sign this",
        SignatureVerdict::Bad => "bad",
        SignatureVerdict::UnknownSigner => "unknown signer",
    };
    let (opens, sentence) = match verdict.sealed {
        SealedVerdict::Nothing => (None, "nothing in it is sealed".to_owned()),
        SealedVerdict::Opens {
            group,
            epoch,
            generation,
            fingerprint,
        } => (
            Some(true),
            format!(
                "opens: group {group} epoch {epoch} generation {generation} fingerprint \
                 {fingerprint}"
            ),
        ),
        SealedVerdict::Order(contents) => (Some(true), opened_order(&contents)),
        SealedVerdict::Locked => (
            None,
            "this terminal is locked and cannot tell: unlock it first".to_owned(),
        ),
        SealedVerdict::NotAddressed => (Some(false), "not addressed to this terminal".to_owned()),
        SealedVerdict::Wiped => (
            Some(false),
            "does not open: the wrap key of its time is wiped".to_owned(),
        ),
    };
    Inspected {
        signature: Some(signature.to_owned()),
        opens,
        sentence,
    }
}

fn opened_order(contents: &OrderContents) -> String {
    let version = contents.version;
    let version = version.map_or_else(String::new, |version| format!(" version {version}"));
    let receipt = if contents.receipt_wanted {
        ", a receipt is wanted"
    } else {
        ""
    };
    let (kind, terminal) = (contents.kind.name(), contents.terminal);
    format!("opens: {kind}{version} for terminal {terminal}{receipt}")
}

/// `None` where it is no media packet in any suite.
fn inspect_media(terminal: &Terminal, octets: &[u8], stretch: Stretch) -> Option<Inspected> {
    let rtcp = matches!(octets.get(1), Some(192..=223));
    let mut is_media = false;
    for suite in SrtpSuite::ALL {
        let arrival = if rtcp {
            Arrival::of_srtcp(suite, octets)
        } else {
            Arrival::of_srtp(suite, octets)
        };
        let Ok(arrival) = arrival else {
            continue;
        };
        is_media = true;
        for key in terminal.keys_that_fit(arrival.mki.tag()) {
            let mut receiver = SrtpReceiver::new(arrival.stream(suite), stretch);
            let mut plain = Vec::new();
            let opened = if rtcp {
                receiver.try_rtcp(&key, octets, &mut plain).map(u64::from)
            } else {
                receiver.try_rtp(&key, octets, &mut plain)
            };
            if let Ok(index) = opened {
                let sentence = format!(
                    "opens: group {} epoch {} generation {} suite {} index {index}, {} octets \
                     plain",
                    key.group(),
                    key.epoch(),
                    key.generation(),
                    suite.name(),
                    plain.len()
                );
                return Some(Inspected {
                    signature: None,
                    opens: Some(true),
                    sentence,
                });
            }
        }
    }
    is_media.then(|| Inspected {
        signature: None,
        opens: Some(false),
        sentence: "does not open with any key that this terminal holds".to_owned(),
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|value| u8::try_from(value).ok())
        })
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}
