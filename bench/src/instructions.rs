//! Instructions for one command, counted by callgrind: the same on a busy machine (F-14).

use std::process::Command;

use anyhow::Context as _;

use crate::renewal::ONLY_MAX;
use crate::rounds::{Report, Table, Timing};

pub fn run() -> anyhow::Result<Report> {
    let mut timings = Vec::new();
    let here = Command::new("valgrind").arg("--version").output().is_ok();
    if !here {
        eprintln!("bench: valgrind is not here: no instructions are counted");
    }
    for (name, work) in [
        ("RENEW verified and applied", "verify"),
        ("KEYDIST for others, filtered", "filter"),
    ] {
        if here {
            let (few, many) = (ONLY_MAX / 3, ONLY_MAX);
            let each = (count(work, many)? - count(work, few)?) / f64::from(many - few);
            timings.push(Timing {
                name,
                best: each,
                median: each,
            });
        }
    }
    let title = "instructions for one command (callgrind; read ns as instructions)".to_owned();
    let reference = "RENEW verified and applied";
    let tables = vec![Table {
        title,
        timings,
        reference,
    }];
    Ok(Report {
        group: "instructions",
        tables,
        limits: Vec::new(),
    })
}

/// All instructions of a process that does `work` `n` times.
fn count(work: &str, n: u32) -> anyhow::Result<f64> {
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["only", work, &n.to_string()])
        .output()
        .context("valgrind does not start")?;
    let told = String::from_utf8_lossy(&out.stderr);
    told.lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, count)| count.trim().parse().ok())
        .with_context(|| format!("valgrind counted nothing: {told}"))
}
