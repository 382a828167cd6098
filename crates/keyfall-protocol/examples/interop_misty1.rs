//! Our half of `interop/misty1`: texts under MISTY1, as lines of hexadecimal digits, for another MISTY1.
//!
//! ```text
//! interop_misty1 seal < LINES     KEY IV PLAIN     prints each line and CIPHER
//! interop_misty1 open < LINES     KEY IV CIPHER    prints each line and PLAIN
//! ```
//!
//! Key and IV have 16 and 8 octets; texts are whole blocks, in CBC mode.

use std::error::Error;
use std::io::{self, BufRead, Write};

use keyfall_protocol::keys::Secret;
use keyfall_protocol::sharing::misty1::Misty1;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let direction = std::env::args().nth(1);
    let out = &mut io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let line = line?;
        let fields: Vec<_> = line
            .split(' ')
            .map(from_hex)
            .collect::<Option<_>>()
            .ok_or("no hex")?;
        let [key, iv, text] = &fields[..] else {
            return Err("a line has three fields".into());
        };
        let mut misty1 = Misty1::new(&Secret::from_slice(key).ok_or("a key has 16 octets")?);
        let (iv, mut text) = (iv[..].try_into()?, text.clone());
        match direction.as_deref() {
            Some("seal") => misty1.encrypt(iv, &mut text)?,
            Some("open") => misty1.decrypt(iv, &mut text)?,
            _ => return Err("usage: interop_misty1 seal|open".into()),
        }
        let text: String = text.iter().map(|octet| format!("{octet:02x}")).collect();
        writeln!(out, "{line} {text}")?;
    }
    Ok(out.flush()?)
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let octet = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(octet).collect()
}
