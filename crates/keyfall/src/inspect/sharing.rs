//! The datagrams of key sharing as they are shown: what anybody on the path reads, and what is sealed.

use keyfall_protocol::command::{HaltKind, Unverified, UnverifiedRecord};
use keyfall_protocol::error::DecodeError;
use keyfall_protocol::search::message::SearchMessage;
use keyfall_protocol::sharing::message::{
    AckStatus, Cookie, KeyDis, KeyReq, Message, Part, Reference, RequestHash, message_in,
};
use keyfall_protocol::sharing::pair::SignedGrant;
use keyfall_protocol::sharing::{Bundle, Confirmation, SharingSuite, rsa_misty1};

use super::message::{Fields, Shown, hex, show_frame, show_record};
use super::search::show_search;

/// A datagram of key sharing or key search; or why it is none.
pub(super) fn show_datagram(datagram: &[u8]) -> Result<Shown, DecodeError> {
    let octets = datagram.len();
    if let Ok(one) = Confirmation::decode(datagram) {
        return Ok(show_confirmation(&one, octets));
    }
    if let Ok(bundle) = Bundle::decode(datagram) {
        return Ok(show_bundle(&bundle, octets));
    }
    if let Ok(read) = SearchMessage::decode(datagram) {
        return Ok(show_search(&read, octets));
    }
    let message = message_in(datagram)?;
    Message::decode(message).map(|read| show_message(&read, message, octets))
}

/// A message that was put together of its parts, which is no datagram.
pub(super) fn show_whole(message: &[u8]) -> Shown {
    let octets = message.len();
    match Message::decode(message) {
        Ok(read) => show_message(&read, message, octets),
        Err(error) => Shown::unknown(octets, &format!("no message of key sharing ({error})")),
    }
}

/// `octets` is the length that is shown.
fn show_message(read: &Message<'_>, message: &[u8], octets: usize) -> Shown {
    let mut fields = Fields::default();
    let mut inside = None;
    match read {
        Message::KeyReq { request, cookie } => {
            suite(&mut fields, request.suite());
            reference(&mut fields, RequestHash::of(message).reference());
            show_request(request, &mut fields);
            show_cookie(*cookie, &mut fields);
        }
        Message::Cookie {
            suite: asked,
            reference: answers,
            cookie,
            frame,
        } => {
            suite(&mut fields, *asked);
            reference(&mut fields, *answers);
            show_cookie(Some(*cookie), &mut fields);
            inside = frame.map(carried);
        }
        Message::KeyDis {
            reference: answers,
            distribution,
        } => show_distribution(*answers, *distribution, &mut fields),
        Message::Ack {
            suite: asked,
            reference: answers,
            status,
            mac,
        } => {
            suite(&mut fields, *asked);
            reference(&mut fields, *answers);
            let number = status.number();
            fields.add("status", format!("{number}: {}", status_in_words(*status)));
            fields.add("HMAC-SHA-256", hex(mac));
        }
        Message::Part(part) => show_part(part, &mut fields),
        Message::Command { frame } => inside = Some(carried(frame)),
        Message::Hello { piece, pad } => {
            fields.add("asks for", format!("piece {piece} of the introduction"));
            fields.add("padding", format!("{pad} zeros"));
        }
        Message::Introduction {
            piece,
            pieces,
            hash,
            octets,
        } => {
            fields.add("piece", format!("{piece}, of {pieces} from 0"));
            fields.add("SHA-256", format!("{} of the whole", hex(hash)));
            let what = "octets, in the clear: root, KEYSET and public KEM keys";
            fields.add("content", format!("{} {what}", octets.len()));
        }
    }
    Shown {
        inside: inside.map(Box::new),
        ..Shown::new(read.name(), octets, fields)
    }
}

fn show_request(request: &KeyReq<'_>, fields: &mut Fields) {
    match request {
        KeyReq::Psk(ask) => {
            fields.add("key-req-id", hex(&ask.id));
            fields.add("G", ask.g);
            fields.add("IV", hex(&ask.iv));
            let what = "under the device key: terminal, nonce, time, what it holds";
            sealed(fields, ask.ct, what);
        }
        KeyReq::Hpke { enc, ct, .. } => {
            encapsulated(fields, enc);
            let what = "to the server's KEM key: the request of the pair, with who asks";
            sealed(fields, ct, what);
        }
        KeyReq::RsaMisty1(octets) => {
            if let Some(name) = rsa_misty1::sealed_for(octets) {
                fields.add("server's key", name);
            }
            sealed(fields, octets, "to the server's RSA key, header included");
        }
    }
}

fn show_distribution(answers: Reference, distribution: KeyDis<'_>, fields: &mut Fields) {
    match distribution {
        KeyDis::Psk {
            suite: asked,
            signed,
        } => {
            suite(fields, asked);
            reference(fields, answers);
            match SignedGrant::decode(distribution) {
                Ok(grant) => fields.add("signer", grant.signer()),
                Err(error) => fields.add("signer", format!("cannot be read ({error})")),
            }
            let what = "under the device key, with a signature in the clear: keys";
            sealed(fields, signed, what);
        }
        KeyDis::Hpke {
            suite: asked,
            enc,
            ct,
        } => {
            suite(fields, asked);
            reference(fields, answers);
            encapsulated(fields, enc);
            let what = "to the fresh key of the request: the signed answer of the pair, with keys";
            sealed(fields, ct, what);
        }
        KeyDis::RsaMisty1(octets) => {
            suite(fields, SharingSuite::RsaMisty1);
            reference(fields, answers);
            let what = "by RSA and MISTY1, header included: one message key, and keys under it";
            sealed(fields, octets, what);
        }
    }
}

fn show_part(part: &Part<'_>, fields: &mut Fields) {
    let (index, count) = (part.index, part.count);
    fields.add("message", hex(&part.whole));
    fields.add("part", format!("{index}, of {count} from 0"));
    show_cookie(part.cookie, fields);
    fields.add("content", format!("{} octets of it", part.octets.len()));
}

fn show_confirmation(one: &Confirmation, octets: usize) -> Shown {
    let mut fields = Fields::default();
    fields.add("key-req-id", hex(&one.id));
    fields.add("group", one.group);
    fields.add("transaction", one.transaction);
    fields.add("epoch", one.epoch);
    fields.add("generation", one.generation);
    fields.add("HMAC-SHA-256", hex(&one.mac));
    Shown::new(confirmation_name(one.kind), octets, fields)
}

fn show_bundle(bundle: &Bundle, octets: usize) -> Shown {
    let mut fields = Fields::default();
    for one in &bundle.confirmations {
        let value = format!(
            "of {}: group {} transaction {} epoch {} generation {}",
            hex(&one.id),
            one.group,
            one.transaction,
            one.epoch,
            one.generation
        );
        fields.add(confirmation_name(one.kind), value);
    }
    Shown::new("BUNDLE", octets, fields)
}

/// A signed command within another message.
fn carried(frame: &[u8]) -> Shown {
    match Unverified::decode(frame) {
        Ok(read) => show_frame(&read),
        Err(error) => match UnverifiedRecord::decode(frame) {
            Ok(record) => show_record(&record, frame.len()),
            Err(_) => Shown::unknown(frame.len(), &format!("no command ({error})")),
        },
    }
}

pub(super) const fn confirmation_name(kind: HaltKind) -> &'static str {
    match kind {
        HaltKind::Stop => "STOP-ACK",
        HaltKind::Start => "START-ACK",
    }
}

pub(super) const fn status_in_words(status: AckStatus) -> &'static str {
    match status {
        AckStatus::All => "all is taken",
        AckStatus::OutOfBounds => "something was out of bounds",
        AckStatus::NotStored => "it could not be stored",
        AckStatus::Locked => "locked",
    }
}

fn suite(fields: &mut Fields, suite: SharingSuite) {
    fields.add("suite", suite.name());
}

fn reference(fields: &mut Fields, reference: Reference) {
    fields.add("reference", reference);
}

fn show_cookie(cookie: Option<Cookie>, fields: &mut Fields) {
    fields.add(
        "cookie",
        cookie.map_or_else(|| "none".to_owned(), |it| hex(&it)),
    );
}

fn encapsulated(fields: &mut Fields, enc: &[u8]) {
    fields.add("encapsulated key", format!("{} octets", enc.len()));
}

fn sealed(fields: &mut Fields, octets: &[u8], what: &str) {
    fields.add("sealed", format!("{} octets {what}", octets.len()));
}
