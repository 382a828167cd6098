//! Our half of `interop/misty1`: lines of hexadecimal digits, for another MISTY1 and another `rsa-misty1`.
//!
//! ```text
//! interop_misty1 seal < LINES      KEY IV PLAIN     prints each line and CIPHER
//! interop_misty1 open < LINES      KEY IV CIPHER    prints each line and PLAIN
//! interop_misty1 answer < LINES    SERVER TERMINAL KEY-REQ KEY-DIS ACK
//!                                  prints ID-INFORMATION KEYS STATUS ACK
//! ```
//!
//! Key and IV have 16 and 8 octets; texts are whole blocks, in CBC mode. SERVER and TERMINAL are PKCS #8.
//! ID information and keys stand as in the messages; the last ACK is the one that we would send. A line
//! with a message that we refuse gets `refused` and the name of the first such message.

use std::error::Error;
use std::io::{self, BufRead, Write};

use keyfall_protocol::keys::Secret;
use keyfall_protocol::sharing::misty1::Misty1;
use keyfall_protocol::sharing::rsa_misty1::{Request, RsaSecret, open_key_dis, open_key_req};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let work = match std::env::args().nth(1).as_deref() {
        Some("seal") => seal,
        Some("open") => open,
        Some("answer") => answer,
        _ => return Err("usage: interop_misty1 seal|open|answer".into()),
    };
    let out = &mut io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let line = line?;
        let fields: Option<Vec<_>> = line.split(' ').map(from_hex).collect();
        writeln!(out, "{}", work(&line, &fields.ok_or("no hex")?)?)?;
    }
    Ok(out.flush()?)
}

fn seal(line: &str, fields: &[Vec<u8>]) -> Result<String, Failure> {
    let (mut misty1, iv, mut text) = under_key(fields)?;
    misty1.encrypt(iv, &mut text)?;
    Ok(format!("{line} {}", hex(&text)))
}

fn open(line: &str, fields: &[Vec<u8>]) -> Result<String, Failure> {
    let (mut misty1, iv, mut text) = under_key(fields)?;
    misty1.decrypt(iv, &mut text)?;
    Ok(format!("{line} {}", hex(&text)))
}

fn under_key(fields: &[Vec<u8>]) -> Result<(Misty1, [u8; 8], Vec<u8>), Failure> {
    let [key, iv, text] = fields else {
        return Err("a line has three fields".into());
    };
    let misty1 = Misty1::new(&Secret::from_slice(key).ok_or("a key has 16 octets")?);
    Ok((misty1, iv[..].try_into()?, text.clone()))
}

fn answer(_: &str, fields: &[Vec<u8>]) -> Result<String, Failure> {
    let [server, terminal, key_req, key_dis, ack] = fields else {
        return Err("a line has five fields".into());
    };
    let own = |pkcs8| RsaSecret::from_pkcs8(pkcs8).ok_or("no private key");
    let Some(id) = open_key_req(&own(server)?, key_req) else {
        return Ok("refused KEY-REQ".to_owned());
    };
    let nonce = id.nonce;
    let Some(opened) = open_key_dis(&own(terminal)?, Request { key_req, nonce }, key_dis) else {
        return Ok("refused KEY-DIS".to_owned());
    };
    let Some(status) = opened.exchange.check_ack(ack) else {
        return Ok("refused ACK".to_owned());
    };
    let mut keys = Vec::new();
    for key in &opened.keys {
        let numbers = [key.group().get(), key.epoch().get(), key.generation().get()];
        keys.extend(numbers.map(u32::to_be_bytes).concat());
        keys.extend(key.secret().expose());
    }
    Ok(format!(
        "{:08x}{}{:08x} {} {status} {}",
        id.terminal.get(),
        hex(&id.nonce),
        id.time.get(),
        if keys.is_empty() {
            "-".to_owned()
        } else {
            hex(&keys)
        },
        hex(&opened.exchange.make_ack(status))
    ))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let octet = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(octet).collect()
}
