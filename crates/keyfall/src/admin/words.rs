//! Answers of the admin API in words. "Sent" is what left the server; nothing here says "received".

mod group;
mod loss;
mod packets;

use keyfall_api::admin as api;

use crate::output::utc;
pub(super) use group::{group, group_set, groups};
pub(super) use loss::{
    erase_issued, excluded, exposure, group_rekeyed, member_removed, receipt_taken,
};
pub(super) use packets::{addresses_set, packets_set};

pub(super) fn terminals(all: &api::Terminals) -> String {
    if all.terminals.is_empty() {
        return "no terminals yet: keyfall admin terminal add NAME".to_owned();
    }
    let mut rows = vec![row([
        "NUMBER",
        "NAME",
        "ADDED",
        "PACKAGE OR TOKEN GOOD UNTIL",
        "STATE",
    ])];
    rows.extend(all.terminals.iter().map(|terminal| {
        vec![
            terminal.number.to_string(),
            terminal.name.clone(),
            utc(terminal.added_at),
            utc(terminal.package_expires),
            loss::state(terminal),
        ]
    }));
    table(&rows)
}

pub(super) fn terminal(shown: &api::TerminalShown) -> String {
    let terminal = &shown.terminal;
    let groups: Vec<_> = shown.groups.iter().map(named).collect();
    let wipe_roots = if terminal.wipe_roots.is_empty() {
        String::new()
    } else {
        format!(
            "\ninitialize wipes {}, too",
            terminal.wipe_roots.join(" and ")
        )
    };
    let legacy = terminal
        .legacy_key
        .as_ref()
        .map_or_else(String::new, |key| {
            let (name, bits) = (&key.name, key.bits);
            format!("\nanswered in rsa-misty1 under RSA key {name} of {bits} bits")
        });
    let addresses = terminal.addresses.as_ref();
    let speaks = addresses.map_or_else(String::new, packets::addresses)
        + &terminal
            .record
            .as_ref()
            .map_or_else(String::new, packets::record);
    format!(
        "{}: terminal {}, added {}, {} good until {}\nstate: {}{wipe_roots}{legacy}{speaks}\nmember of {}\n{}",
        terminal.name,
        terminal.number,
        utc(terminal.added_at),
        if terminal.token.is_some() {
            "token"
        } else {
            "package"
        },
        utc(terminal.package_expires),
        loss::state(terminal),
        if groups.is_empty() {
            "no group".to_owned()
        } else {
            groups.join(", ")
        },
        key_table(&shown.keys)
    )
}

pub(super) fn group_created(created: &api::GroupCreated) -> String {
    let api::GroupCreated {
        name,
        number,
        epoch,
        members,
        ..
    } = created;
    let warning = created
        .warning
        .as_ref()
        .map_or_else(String::new, |w| format!("\nNote: {w}."));
    format!(
        "{name}: group {number}, epoch {epoch}, generation 0, {members} members\n\
         Its key is stored and is being sent: {}. One way, nobody knows who heard it.{warning}\n\
         Terminals know it by its number: keyfall media send --group {number} …",
        distribution(&created.distribution)
    )
}

pub(super) fn member_added(added: &api::MemberAdded) -> String {
    format!(
        "{} is a member of {} from generation {} on, active at {}, and reads nothing from before\n\
         The key is stored and is being sent to {} members: {}",
        added.terminal.name,
        named(&added.group),
        added.generation,
        utc(added.activate_at),
        added.members,
        distribution(&added.distribution)
    )
}

pub(super) fn group_renewed(renewed: &api::GroupRenewed) -> String {
    let api::GroupRenewed {
        epoch,
        generation,
        octets,
        members,
        ..
    } = renewed;
    let (group, at) = (named(&renewed.group), utc(renewed.activate_at));
    let (stored, is_sent) = stored_and_sent(renewed.dry_run);
    format!(
        "{group}: generation {generation} of epoch {epoch}, active at {at}, {stored}\n\
         RENEW of {octets} octets {is_sent}, the same for any number of members; \
         it reaches {members} members where it is heard\n\
         Renewing never excludes anyone."
    )
}

pub(super) fn devices_renewed(renewed: &api::DevicesRenewed) -> String {
    let api::DevicesRenewed {
        generation,
        octets,
        terminals,
        distributions,
        ..
    } = renewed;
    let (stored, is_sent) = stored_and_sent(renewed.dry_run);
    format!(
        "device keys: G {generation}, {stored}\n\
         RENEW of {octets} octets {is_sent}, the same for any number of terminals; \
         it reaches {terminals} terminals where it is heard\n\
         {distributions} standing KEYDIST messages are made anew under it.\n\
         Renewing never excludes anyone."
    )
}

fn stored_and_sent(dry_run: bool) -> (&'static str, &'static str) {
    if dry_run {
        ("not ordered: this was a dry run", "would be sent")
    } else {
        ("stored", "is being sent")
    }
}

pub(super) fn device_renewed(renewed: &api::DeviceRenewed) -> String {
    let (stored, is_sent) = stored_and_sent(renewed.dry_run);
    format!(
        "{}: device key at generation {}, G + {}, {stored}\n\
         RENEW of {} octets {is_sent}; standing KEYDIST messages to it are made anew under it.\n\
         Renewing never excludes anyone.",
        named(&renewed.terminal),
        renewed.generation,
        renewed.offset,
        renewed.octets
    )
}

pub(super) fn keys(all: &api::Keys) -> String {
    let mut rows = vec![row(["SIGNING KEY", "CLASS", "FROM", "UNTIL", "HERE"])];
    rows.extend(all.signers.iter().map(|signer| {
        vec![
            signer.name.clone(),
            signer.class.clone(),
            utc(signer.not_before),
            utc(signer.expires),
            if signer.in_use { "in use" } else { "-" }.to_owned(),
        ]
    }));
    format!(
        "G {}\n{}\n\n{}{}",
        all.fleet_generation,
        key_table(&all.keys),
        table(&rows),
        warning_lines(&all.warnings)
    )
}

pub(super) fn audit(log: &api::Audit) -> String {
    let mut rows = vec![row([
        "ENTRY", "AT", "WHO", "WHAT", "TO", "OUTCOME", "REASON", "TICKET",
    ])];
    rows.extend(log.entries.iter().map(|entry| {
        vec![
            entry.entry.to_string(),
            utc(entry.at),
            entry.actor.clone(),
            entry.action.clone(),
            entry.subject.clone(),
            entry.outcome.clone(),
            entry.reason.clone().unwrap_or_default(),
            entry.ticket.clone().unwrap_or_default(),
        ]
    }));
    table(&rows)
}

pub(super) fn audit_verified(verdict: &api::AuditVerified) -> String {
    match (verdict.broken_at, &verdict.link) {
        (None, Some(link)) => format!(
            "{} entries, each hangs on the one before\n\
             Last link: {link}\n\
             Written down elsewhere, it later proves that nothing up to here was changed.",
            verdict.entries
        ),
        (at, _) => format!(
            "entry {} was changed, or entries were removed there: {} before it are whole\n\
             Keep the database as it is and compare it with a copy; see `keyfall explain KF-3214`.",
            at.unwrap_or(verdict.entries + 1),
            verdict.entries
        ),
    }
}

pub(super) fn carousel(report: &api::Carousel) -> String {
    let mut rows = vec![row([
        "CLASS",
        "ITEMS",
        "OCTETS",
        "CYCLE",
        "SENT",
        "PREDICTED",
    ])];
    rows.extend(report.classes.iter().map(|class| {
        vec![
            class.class.clone(),
            class.items.to_string(),
            class.octets.to_string(),
            format!("{:.1} s", class.cycle_seconds),
            class.sent.to_string(),
            format!("{:.0} s", class.predicted_seconds),
        ]
    }));
    format!(
        "{}\nPredicted: {} turns until a statement is missed by one in a million, if {} % of the \
         frames are lost, each by itself. Nobody has confirmed anything.\n\
         Up to {} bit/s on each carrier:\n{}",
        table(&rows),
        report.turns,
        report.loss * 100.0,
        report.bits_per_second,
        carriers(&report.carriers)
    )
}

pub(super) fn status(status: &api::Status) -> String {
    let mut text = format!(
        "{}: stream {}, root {}, KEYSET {}\n\
         {} terminals, {} groups, G {} until {}\n\
         online keys end at {}; sealed by a {} beside the database\n\
         audit: {} entries; order journal: {} entries, in step\n{}",
        status.fleet,
        status.stream,
        status.root,
        status.key_set,
        status.terminals,
        status.groups,
        status.fleet_generation,
        utc(status.fleet_renews_at),
        utc(status.signers_expire),
        status.seal,
        status.audit.entries,
        status.journal.entries,
        carriers(&status.carriers)
    );
    text.push_str(&status.desk.as_ref().map_or_else(one_way, desk));
    text.push_str(&warning_lines(&status.warnings));
    text
}

fn one_way() -> String {
    "\nterminals cannot ask: it listens nowhere".to_owned()
}

fn desk(desk: &api::Desk) -> String {
    let places = |places: &[String], none: &str| match places {
        [] => none.to_owned(),
        some => some.join(" and "),
    };
    format!(
        "\nlistens at {}; packages say {}; suites {}\n  {} requests, {} answered, {} confirmed; {} in a \
         suite that is not listed, {} by silence",
        places(&desk.listen, "no address of its own"),
        places(&desk.servers, "no address"),
        desk.suites.join(", "),
        desk.requests,
        desk.answers,
        desk.acks,
        desk.downgrades,
        desk.silent
    )
}

fn warning_lines(warnings: &[String]) -> String {
    let lines = warnings.iter();
    lines
        .map(|warning| format!("\nwarning: {warning}"))
        .collect()
}

fn carriers(carriers: &[api::Carrier]) -> String {
    let lines: Vec<_> = carriers
        .iter()
        .map(|carrier| {
            let last = carrier.last_sent.map_or_else(|| "never".to_owned(), utc);
            let fault = carrier.fault.as_ref();
            let fault = fault.map_or_else(String::new, |fault| format!("; does not send: {fault}"));
            format!(
                "  {}: {} frames sent, {} refused, last at {last}{fault}",
                carrier.address, carrier.sent, carrier.failed
            )
        })
        .collect();
    lines.join("\n")
}

fn distribution(distribution: &api::Distribution) -> String {
    let api::Distribution {
        messages,
        octets,
        recipients,
    } = distribution;
    let messages = match messages {
        1 => "1 message".to_owned(),
        n => format!("{n} self-contained messages"),
    };
    format!("KEYDIST of {messages}, {octets} octets, for {recipients} recipients")
}

fn key_table(keys: &[api::Key]) -> String {
    let head = [
        "KEY",
        "RANK",
        "KIND",
        "OF",
        "EPOCH",
        "GENERATION",
        "RENEWS",
        "FRESH",
        "LEASE",
        "FINGERPRINT",
    ];
    let mut rows = vec![row(head)];
    rows.extend(keys.iter().map(|key| {
        let kind = match key.kind {
            api::KeyKind::Obey => "obey",
            api::KeyKind::Wrap => "wrap",
            api::KeyKind::Master => "master",
        };
        vec![
            key.id.to_string(),
            key.rank.to_string(),
            kind.to_owned(),
            key.of.clone(),
            key.epoch.to_string(),
            match key.offset {
                Some(offset) => format!("{} (G + {offset})", key.generation),
                None => key.generation.to_string(),
            },
            renews(key),
            key.fresh_at.map_or_else(|| "-".to_owned(), utc),
            key.lease
                .map_or_else(|| "-".to_owned(), |lease| format!("{} h", lease / 3600)),
            key.fingerprint.clone(),
        ]
    }));
    table(&rows)
}

fn renews(key: &api::Key) -> String {
    match (key.overdue_since, key.renews_at) {
        (Some(since), _) => format!("overdue since {}", utc(since)),
        (None, Some(at)) => utc(at),
        (None, None) => "-".to_owned(),
    }
}

fn named(named: &api::Named) -> String {
    format!("{} ({})", named.name, named.number)
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

/// Columns as wide as their widest cell, two spaces apart.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let cells: Vec<_> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}
