//! The key store alone, for the crash sweep: `e2e/key-store-crash` kills this at every system call.
//!
//! `create DIR LEN TAG` and `commit DIR LEN TAG` store LEN octets of TAG; `insist DIR LEN TAG`
//! commits again where that fails; `show DIR` prints LEN and TAG of what is in force.
#![expect(clippy::print_stdout, reason = "the script reads it")]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use keyfall_protocol::rng::Random;
use keyfall_terminal::key_store::KeyStore;

struct System(SystemRandom);

impl Random for System {
    fn fill(&mut self, into: &mut [u8]) {
        self.0.fill(into).expect("the system has randomness");
    }
}

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rng = &mut System(SystemRandom::new());
    match arguments[..] {
        ["create", dir, len, tag] => {
            KeyStore::create(Path::new(dir), rng, &snapshot(len, tag)?)?;
        }
        ["commit", dir, len, tag] => {
            let (mut store, _) = KeyStore::open(Path::new(dir))?;
            store.commit(rng, &snapshot(len, tag)?)?;
        }
        ["insist", dir, len, tag] => {
            let (mut store, _) = KeyStore::open(Path::new(dir))?;
            let snapshot = snapshot(len, tag)?;
            store
                .commit(rng, &snapshot)
                .or_else(|_| store.commit(rng, &snapshot))?;
        }
        ["show", dir] => {
            let (_, snapshot) = KeyStore::open(Path::new(dir))?;
            let tag = snapshot.first().copied().unwrap_or(b'-');
            if snapshot.iter().any(|octet| *octet != tag) {
                return Err("a snapshot of two kinds of octets".into());
            }
            println!("{} {}", snapshot.len(), char::from(tag));
        }
        _ => return Err("create|commit|insist DIR LEN TAG, show DIR".into()),
    }
    Ok(())
}

fn snapshot(len: &str, tag: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let tag = *tag.as_bytes().first().ok_or("an empty tag")?;
    Ok(vec![tag; len.parse()?])
}
