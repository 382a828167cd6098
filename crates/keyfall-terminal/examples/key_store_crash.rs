//! The key store alone, for the crash sweep: `e2e/key-store-crash` kills this at every system call.
//!
//! `create DIR LEN TAG [PASSPHRASE]` and `commit DIR LEN TAG [PASSPHRASE]` store LEN octets of TAG
//! in both compartments; `insist DIR LEN TAG` commits again where that fails; `show DIR
//! [PASSPHRASE]` prints LEN and TAG of what is in force in the device and the user compartment, and
//! the tries that are left before PASSPHRASE; `try DIR PASSPHRASE` unlocks; `protect DIR OLD NEW`
//! changes the passphrase (an empty one is none); `erase DIR` erases the keys; `initialize DIR ROOT`
//! erases everything, ROOT too, and prints what could not be removed.
#![expect(clippy::print_stdout, reason = "the script reads it")]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use keyfall_api::control::DeletionCause;
use keyfall_terminal::OsRandom;
use keyfall_terminal::key_store::{Erasure, Guard, KeyStore, Protection, TRY_LIMIT};

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
    let rng = &mut OsRandom;
    match arguments[..] {
        ["create", dir, len, tag, ref passphrase @ ..] => {
            let snapshot = snapshot(len, tag)?;
            let protection = passphrase.first().map(|it| protection(it)).transpose()?;
            KeyStore::create(
                Path::new(dir),
                rng,
                &snapshot,
                &snapshot,
                protection.flatten().as_ref(),
            )?;
        }
        ["commit", dir, len, tag, ref passphrase @ ..] => {
            let (mut store, _) = KeyStore::open(Path::new(dir))?;
            if let Some(passphrase) = passphrase.first() {
                store.unlock(passphrase)?;
            }
            let snapshot = snapshot(len, tag)?;
            store.commit(rng, &snapshot, Some(&snapshot))?;
        }
        ["insist", dir, len, tag] => {
            let (mut store, _) = KeyStore::open(Path::new(dir))?;
            let snapshot = snapshot(len, tag)?;
            store
                .commit(rng, &snapshot, Some(&snapshot))
                .or_else(|_| store.commit(rng, &snapshot, Some(&snapshot)))?;
        }
        ["show", dir, ref passphrase @ ..] => show(dir, passphrase.first())?,
        ["try", dir, passphrase] => {
            KeyStore::open(Path::new(dir))?.0.unlock(passphrase)?;
            println!("opened");
        }
        ["protect", dir, old, new] => {
            let (mut store, _) = KeyStore::open(Path::new(dir))?;
            store.set_protection(rng, old, protection(new)?.as_ref())?;
        }
        ["erase", dir] => {
            let (mut store, _) = KeyStore::open(Path::new(dir))?;
            store.erase(&Erasure::of_keys(DeletionCause::Delete))?;
        }
        ["initialize", dir, root] => {
            let (mut store, _) = KeyStore::open(Path::new(dir))?;
            let deleted = store.erase(&Erasure {
                everything: true,
                wipe_roots: vec![root.to_owned()],
                ..Erasure::of_keys(DeletionCause::Initialize)
            })?;
            for left in deleted.not_removed {
                println!("{left}");
            }
        }
        _ => return Err("create|commit|insist|show|try|protect|erase|initialize DIR ...".into()),
    }
    Ok(())
}

fn show(dir: &str, passphrase: Option<&&str>) -> Result<(), Box<dyn Error>> {
    let (mut store, opened) = KeyStore::open(Path::new(dir))?;
    let tries = match store.guard()? {
        Guard::Machine => "-".to_owned(),
        Guard::Passphrase { tries_left, .. } => tries_left.to_string(),
    };
    let user = match (opened.user, passphrase) {
        (Some(user), _) => shown(&user)?,
        (None, Some(passphrase)) => shown(&store.unlock(passphrase)?)?,
        (None, None) => "locked".to_owned(),
    };
    println!("{} {user} {tries}", shown(&opened.device)?);
    Ok(())
}

fn shown(snapshot: &[u8]) -> Result<String, Box<dyn Error>> {
    let tag = snapshot.first().copied().unwrap_or(b'-');
    if snapshot.iter().any(|octet| *octet != tag) {
        return Err("a snapshot of two kinds of octets".into());
    }
    Ok(format!("{} {}", snapshot.len(), char::from(tag)))
}

fn snapshot(len: &str, tag: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let tag = *tag.as_bytes().first().ok_or("an empty tag")?;
    Ok(vec![tag; len.parse()?])
}

fn protection(passphrase: &str) -> Result<Option<Protection>, Box<dyn Error>> {
    if passphrase.is_empty() {
        return Ok(None);
    }
    let passphrase = passphrase.to_owned().into();
    Ok(Some(Protection::new(passphrase, None, TRY_LIMIT)?))
}
