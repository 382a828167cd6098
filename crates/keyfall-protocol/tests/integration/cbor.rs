//! CBOR as a tree, to take messages apart and put them together wrongly on purpose.

use keyfall_protocol::ids::{Generation, TerminalNumber};
use keyfall_protocol::keys::{Secret, WrapKey};
use minicbor::Decoder;
use minicbor::data::Type;

/// One data item; [`Item::Raw`] is whatever octets a test wants to stand there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Item {
    Uint(u64),
    /// The argument: −1 − it is the number.
    Nint(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Tag(u64, Box<Self>),
    Null,
    Raw(Vec<u8>),
}

impl Item {
    pub(crate) fn decode(octets: &[u8]) -> Self {
        let mut decoder = Decoder::new(octets);
        let item = Self::read(&mut decoder);
        assert_eq!(
            decoder.position(),
            octets.len(),
            "one item and nothing else"
        );
        item
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "no message of ours holds the others"
    )]
    fn read(d: &mut Decoder<'_>) -> Self {
        match d.datatype().unwrap() {
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => Self::Uint(d.u64().unwrap()),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => {
                Self::Nint(u64::try_from(-1 - d.i64().unwrap()).unwrap())
            }
            Type::Bytes => Self::Bytes(d.bytes().unwrap().to_vec()),
            Type::String => Self::Text(d.str().unwrap().to_owned()),
            Type::Array => {
                let len = d.array().unwrap().unwrap();
                Self::Array((0..len).map(|_| Self::read(d)).collect())
            }
            Type::Map => {
                let len = d.map().unwrap().unwrap();
                Self::Map((0..len).map(|_| (Self::read(d), Self::read(d))).collect())
            }
            Type::Tag => {
                let tag = d.tag().unwrap().as_u64();
                Self::Tag(tag, Box::new(Self::read(d)))
            }
            Type::Null => {
                d.null().unwrap();
                Self::Null
            }
            Type::Bool => Self::Raw(vec![if d.bool().unwrap() { 0xf5 } else { 0xf4 }]),
            other => panic!("no message of ours holds {other}"),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Uint(number) => head(out, 0, *number),
            Self::Nint(argument) => head(out, 1, *argument),
            Self::Bytes(octets) => {
                head(out, 2, octets.len() as u64);
                out.extend_from_slice(octets);
            }
            Self::Text(text) => {
                head(out, 3, text.len() as u64);
                out.extend_from_slice(text.as_bytes());
            }
            Self::Array(items) => {
                head(out, 4, items.len() as u64);
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(pairs) => {
                head(out, 5, pairs.len() as u64);
                for (key, value) in pairs {
                    key.write(out);
                    value.write(out);
                }
            }
            Self::Tag(tag, item) => {
                head(out, 6, *tag);
                item.write(out);
            }
            Self::Null => out.push(0xf6),
            Self::Raw(octets) => out.extend_from_slice(octets),
        }
    }

    /// What stands at `path`: places in arrays, keys in maps; a tag is passed through.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others hold nothing")]
    pub(crate) fn at(&mut self, path: &[u64]) -> &mut Self {
        if let Self::Tag(_, inside) = self {
            return inside.at(path);
        }
        let Some((&step, rest)) = path.split_first() else {
            return self;
        };
        match self {
            Self::Array(items) => items[usize::try_from(step).unwrap()].at(rest),
            Self::Map(pairs) => pairs
                .iter_mut()
                .find(|(key, _)| *key == Self::Uint(step))
                .map(|(_, value)| value)
                .unwrap()
                .at(rest),
            other => panic!("{other:?} has no inside"),
        }
    }

    pub(crate) fn pairs(&mut self) -> &mut Vec<(Self, Self)> {
        let Self::Map(pairs) = self else {
            panic!("{self:?} is no map");
        };
        pairs
    }

    pub(crate) fn items(&mut self) -> &mut Vec<Self> {
        let Self::Array(items) = self else {
            panic!("{self:?} is no array");
        };
        items
    }

    /// The same values in encodings that are not deterministic, one difference each: a number or
    /// length in a longer form, an indefinite length, a map out of order.
    pub(crate) fn other_encodings(&self) -> Vec<Self> {
        let mut found = Vec::new();
        let own = self.encode();
        if let Some(longer) = longer_head(&own) {
            found.push(Self::Raw(longer));
        }
        match self {
            Self::Bytes(octets) => found.push(indefinite(0x5f, &[&Self::Bytes(octets.clone())])),
            Self::Text(text) => found.push(indefinite(0x7f, &[&Self::Text(text.clone())])),
            Self::Array(items) => {
                found.push(indefinite(0x9f, &items.iter().collect::<Vec<_>>()));
                for (place, item) in items.iter().enumerate() {
                    for other in item.other_encodings() {
                        let mut items = items.clone();
                        items[place] = other;
                        found.push(Self::Array(items));
                    }
                }
            }
            Self::Map(pairs) => {
                let flat: Vec<_> = pairs.iter().flat_map(|(key, value)| [key, value]).collect();
                found.push(indefinite(0xbf, &flat));
                if pairs.len() > 1 {
                    let mut turned = pairs.clone();
                    turned.rotate_left(1);
                    found.push(Self::Map(turned));
                }
                for (place, (key, value)) in pairs.iter().enumerate() {
                    for other in key.other_encodings() {
                        let mut pairs = pairs.clone();
                        pairs[place].0 = other;
                        found.push(Self::Map(pairs));
                    }
                    for other in value.other_encodings() {
                        let mut pairs = pairs.clone();
                        pairs[place].1 = other;
                        found.push(Self::Map(pairs));
                    }
                }
            }
            Self::Tag(tag, inside) => {
                for other in inside.other_encodings() {
                    found.push(Self::Tag(*tag, Box::new(other)));
                }
            }
            Self::Uint(_) | Self::Nint(_) | Self::Null | Self::Raw(_) => {}
        }
        found
    }
}

fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let mut e = minicbor::Encoder::new(out);
    match major {
        0 => e.u64(argument).map(drop),
        1 => e
            .int(minicbor::data::Int::try_from(-1 - i128::from(argument)).unwrap())
            .map(drop),
        4 => e.array(argument).map(drop),
        5 => e.map(argument).map(drop),
        6 => e.tag(minicbor::data::Tag::new(argument)).map(drop),
        // A string's head is that of a number with another major type.
        _ => {
            e.u64(argument).unwrap();
            let out = e.into_writer();
            let at = out.len() - head_len(argument);
            out[at] |= major << 5;
            return;
        }
    }
    .unwrap();
}

fn head_len(argument: u64) -> usize {
    match argument {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// The item with its argument in the next longer form; `None` where there is none.
fn longer_head(octets: &[u8]) -> Option<Vec<u8>> {
    let (major, info) = (octets[0] & 0xe0, octets[0] & 0x1f);
    if major == 0xe0 {
        return None;
    }
    let rest = &octets[1..];
    Some(match info {
        0..=23 => [&[major | 24, info][..], rest].concat(),
        24 => [&[major | 25, 0][..], rest].concat(),
        25 => [&[major | 26, 0, 0][..], rest].concat(),
        26 => [&[major | 27, 0, 0, 0, 0][..], rest].concat(),
        _ => return None,
    })
}

fn indefinite(first: u8, items: &[&Item]) -> Item {
    let mut out = vec![first];
    for item in items {
        out.extend_from_slice(&item.encode());
    }
    out.push(0xff);
    Item::Raw(out)
}

/// Of a package's contents `[identity, obey key, wrap key, generation, issued-at, expires]`.
pub(crate) fn wrap_in(package: &[u8]) -> WrapKey {
    let mut d = Decoder::new(package);
    assert_eq!(d.array().expect("contents"), Some(6));
    assert_eq!(d.array().expect("identity"), Some(10));
    let number = TerminalNumber::new(d.u32().expect("a number")).expect("not 0");
    for _ in 1..10 {
        d.skip().expect("the rest of who it is");
    }
    d.skip().expect("the obey key");
    let octets = Secret::from_slice(d.bytes().expect("a key")).expect("32 octets");
    let generation = Generation::new(d.u32().expect("a number")).expect("in range");
    WrapKey::new(number, generation, octets)
}
