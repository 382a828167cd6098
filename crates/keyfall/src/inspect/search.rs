//! Probes and answers of key search as they are shown: what anybody on the path reads of them.

use keyfall_protocol::command::UnverifiedRecord;
use keyfall_protocol::search::message::{Answer, Probe, SearchMessage};

use super::message::{Fields, Shown, hex, show_record};

/// `octets` is the length of the datagram.
pub(super) fn show_search(read: &SearchMessage<'_>, octets: usize) -> Shown {
    let mut fields = Fields::default();
    let record = match read {
        SearchMessage::Probe(probe) => show_probe(probe, &mut fields),
        SearchMessage::Answer(answer) => show_answer(answer, &mut fields),
    };
    let inside = match UnverifiedRecord::decode(record) {
        Ok(read) => show_record(&read, record.len()),
        Err(error) => Shown::unknown(record.len(), &format!("no protection record ({error})")),
    };
    Shown {
        inside: Some(Box::new(inside)),
        ..Shown::new(read.name(), octets, fields)
    }
}

fn show_probe<'b>(probe: &Probe<'b>, fields: &mut Fields) -> &'b [u8] {
    fields.add("nonce", hex(&probe.nonce));
    fields.add("source", probe.source);
    fields.add("destination", probe.destination);
    for handle in &probe.handles {
        let value = format!(
            "of a group at epoch {} generation {}",
            handle.epoch, handle.generation
        );
        fields.add("handle", value);
    }
    probe.record
}

fn show_answer<'b>(answer: &Answer<'b>, fields: &mut Fields) -> &'b [u8] {
    fields.add("nonce", hex(&answer.nonce));
    fields.add("answer nonce", hex(&answer.answer_nonce));
    fields.add("epoch", answer.epoch);
    fields.add("generation", answer.generation);
    answer.record
}
