//! `keyfall-bench [GROUP...] [--json]`: measures each group, prints ratios and holds the best of
//! five rounds against the limits. Exit code 1 where a limit is missed, 2 for wrong usage.
//! `keyfall-bench short-rsa`: JSON for the chart of `keyfall bench sharing`.

mod instructions;
mod renewal;
mod rounds;
mod server;
mod short_rsa;
mod srtp;

use std::process::ExitCode;

use rounds::Report;

/// Every group by name; a further one is a further file and a line here.
const GROUPS: &[(&str, Run)] = &[
    ("renewal", renewal::run),
    ("instructions", instructions::run),
    ("srtp", srtp::run),
    ("server", server::run),
];

type Run = fn() -> anyhow::Result<Report>;

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let [only, work, n] = &words[..]
        && only == "only"
    {
        renewal::only(work, n.parse()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if words == ["short-rsa"] {
        println!("{}", short_rsa::measure()?);
        return Ok(ExitCode::SUCCESS);
    }
    let (flags, names): (Vec<_>, Vec<_>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with("--"));
    let unknown = flags.iter().find(|flag| *flag != "--json").or_else(|| {
        names
            .iter()
            .find(|name| GROUPS.iter().all(|(group, _)| group != name))
    });
    if let Some(unknown) = unknown {
        let known: Vec<_> = GROUPS.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "bench: {unknown} is neither --json nor one of: {}",
            known.join(", ")
        );
        return Ok(ExitCode::from(2));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);

    let mut reports = Vec::new();
    for (_, run) in GROUPS.iter().filter(|(name, _)| wanted(name)) {
        let report = run()?;
        if flags.is_empty() {
            report.print();
        }
        reports.push(report);
    }
    let met = reports.iter().all(Report::met);
    if flags.is_empty() {
        println!(
            "bench: {}",
            if met {
                "ok, every limit is met"
            } else {
                "a limit is MISSED"
            }
        );
    } else {
        let groups: Vec<_> = reports.iter().map(Report::json).collect();
        println!("{}", serde_json::json!({"ok": met, "groups": groups}));
    }
    Ok(if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
