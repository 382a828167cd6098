//! Deterministic CBOR, strictly (RFC 8949 section 4.2).
//!
//! A message is read into its closed type and written again; what does not give the same octets
//! was not deterministic and is refused. So there is one reading of every message, and unsorted or
//! double keys, long forms and indefinite lengths need no rule of their own.

use minicbor::data::{Tag, Type};
use minicbor::{Decoder, Encoder};

use crate::error::DecodeError;
use crate::ids::{Generation, GroupNumber, KeyEpoch, KeyId, KeyName, TerminalNumber, UnixSeconds};

/// Writes into a vector; cannot fail.
pub(crate) type Writer<'a> = Encoder<&'a mut Vec<u8>>;

/// The error type of a [`Writer`]: never happens, and `?` keeps the encoders short.
pub(crate) type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// The octets that `write` writes.
pub(crate) fn encode(write: impl FnOnce(&mut Writer<'_>) -> Written) -> Vec<u8> {
    let mut octets = Vec::with_capacity(512);
    encode_into(&mut octets, write);
    octets
}

/// As [`encode`], into a buffer whose capacity the caller chose (so that secrets are not left
/// behind by a reallocation).
pub(crate) fn encode_into(octets: &mut Vec<u8>, write: impl FnOnce(&mut Writer<'_>) -> Written) {
    write(&mut Encoder::new(octets)).expect("writing to a vector does not fail");
}

/// A reader that knows which field it stands at, for the error.
pub(crate) struct Reader<'b> {
    decoder: Decoder<'b>,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(octets: &'b [u8]) -> Self {
        Self {
            decoder: Decoder::new(octets),
        }
    }

    /// Nothing may follow.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.decoder.position() == self.decoder.input().len() {
            Ok(())
        } else {
            Err(DecodeError::TrailingOctets)
        }
    }

    /// An array of exactly `len` items.
    pub(crate) fn array(&mut self, what: &'static str, len: u64) -> Result<(), DecodeError> {
        match self.decoder.array() {
            Ok(Some(found)) if found == len => Ok(()),
            _ => Err(DecodeError::Unexpected { what }),
        }
    }

    /// An array of `min..=max` items; returns how many.
    pub(crate) fn array_between(
        &mut self,
        what: &'static str,
        min: u64,
        max: u64,
    ) -> Result<u64, DecodeError> {
        match self.decoder.array() {
            Ok(Some(found)) if (min..=max).contains(&found) => Ok(found),
            Ok(Some(_)) => Err(DecodeError::OutOfRange { what }),
            _ => Err(DecodeError::Unexpected { what }),
        }
    }

    /// A map; returns how many pairs.
    pub(crate) fn map(&mut self, what: &'static str) -> Result<MapReader, DecodeError> {
        match self.decoder.map() {
            Ok(Some(pairs)) if pairs <= 16 => Ok(MapReader { left: pairs }),
            _ => Err(DecodeError::Unexpected { what }),
        }
    }

    pub(crate) fn tag(&mut self, what: &'static str, tag: u64) -> Result<(), DecodeError> {
        match self.decoder.tag() {
            Ok(found) if found == Tag::new(tag) => Ok(()),
            _ => Err(DecodeError::Unexpected { what }),
        }
    }

    /// One of several tags.
    pub(crate) fn tag_of(&mut self, what: &'static str, tags: &[u64]) -> Result<u64, DecodeError> {
        let found = self.decoder.tag().map(|tag| tag.as_u64());
        match found {
            Ok(found) if tags.contains(&found) => Ok(found),
            _ => Err(DecodeError::Unexpected { what }),
        }
    }

    pub(crate) fn uint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.decoder
            .u64()
            .map_err(|_| DecodeError::Unexpected { what })
    }

    pub(crate) fn uint32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.uint(what)?).map_err(|_| DecodeError::OutOfRange { what })
    }

    pub(crate) fn int(&mut self, what: &'static str, expected: i64) -> Result<(), DecodeError> {
        match self.decoder.i64() {
            Ok(found) if found == expected => Ok(()),
            _ => Err(DecodeError::Unexpected { what }),
        }
    }

    pub(crate) fn bytes(&mut self, what: &'static str) -> Result<&'b [u8], DecodeError> {
        self.decoder
            .bytes()
            .map_err(|_| DecodeError::Unexpected { what })
    }

    pub(crate) fn octets<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        self.bytes(what)?
            .try_into()
            .map_err(|_| DecodeError::OutOfRange { what })
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<&'b str, DecodeError> {
        self.decoder
            .str()
            .map_err(|_| DecodeError::Unexpected { what })
    }

    /// CBOR null, or what `read` reads.
    pub(crate) fn nullable<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.decoder.datatype() {
            Ok(Type::Null) => self.null(what).map(|()| None),
            Ok(_) => read(self).map(Some),
            Err(_) => Err(DecodeError::Unexpected { what }),
        }
    }

    /// CBOR null, where a later version may have something.
    pub(crate) fn null(&mut self, what: &'static str) -> Result<(), DecodeError> {
        self.decoder
            .null()
            .map_err(|_| DecodeError::Unexpected { what })
    }

    /// CBOR true.
    pub(crate) fn yes(&mut self, what: &'static str) -> Result<(), DecodeError> {
        match self.decoder.bool() {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(DecodeError::Unexpected { what }),
        }
    }

    pub(crate) fn boolean(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        self.decoder
            .bool()
            .map_err(|_| DecodeError::Unexpected { what })
    }

    pub(crate) fn terminal(&mut self) -> Result<TerminalNumber, DecodeError> {
        TerminalNumber::new(self.uint32("terminal")?)
            .ok_or(DecodeError::OutOfRange { what: "terminal" })
    }

    pub(crate) fn group(&mut self) -> Result<GroupNumber, DecodeError> {
        GroupNumber::new(self.uint32("group")?).ok_or(DecodeError::OutOfRange { what: "group" })
    }

    pub(crate) fn key_name(&mut self) -> Result<KeyName, DecodeError> {
        self.octets("key name").map(KeyName::new)
    }

    pub(crate) fn time(&mut self, what: &'static str) -> Result<UnixSeconds, DecodeError> {
        self.uint32(what).map(UnixSeconds::new)
    }

    pub(crate) fn key_id(&mut self) -> Result<KeyId, DecodeError> {
        KeyId::new(self.uint("key id")?).ok_or(DecodeError::OutOfRange { what: "key id" })
    }

    pub(crate) fn epoch(&mut self) -> Result<KeyEpoch, DecodeError> {
        self.uint32("epoch").map(KeyEpoch::new)
    }

    pub(crate) fn generation(&mut self) -> Result<Generation, DecodeError> {
        Generation::new(self.uint32("generation")?)
            .ok_or(DecodeError::OutOfRange { what: "generation" })
    }
}

/// Walks a map whose keys are small integers in rising order.
pub(crate) struct MapReader {
    left: u64,
}

impl MapReader {
    /// The next key must be `key`.
    pub(crate) fn key(
        &mut self,
        reader: &mut Reader<'_>,
        key: u64,
        what: &'static str,
    ) -> Result<(), DecodeError> {
        if self.key_if(reader, key)? {
            Ok(())
        } else {
            Err(DecodeError::Missing { what })
        }
    }

    /// Takes `key` where it is next; an optional field.
    pub(crate) fn key_if(
        &mut self,
        reader: &mut Reader<'_>,
        key: u64,
    ) -> Result<bool, DecodeError> {
        if self.left == 0 {
            return Ok(false);
        }
        let next = reader
            .decoder
            .probe()
            .u64()
            .map_err(|_| DecodeError::Unexpected { what: "map key" })?;
        if next != key {
            return Ok(false);
        }
        reader.uint("map key")?;
        self.left -= 1;
        Ok(true)
    }

    /// No key may be left: an unknown field makes the whole message unknown.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.left == 0 {
            Ok(())
        } else {
            Err(DecodeError::UnknownField)
        }
    }
}

/// Refuses octets that are not what `written` writes.
pub(crate) fn deterministic(octets: &[u8], written: &[u8]) -> Result<(), DecodeError> {
    if octets == written {
        Ok(())
    } else {
        Err(DecodeError::NotDeterministic)
    }
}
