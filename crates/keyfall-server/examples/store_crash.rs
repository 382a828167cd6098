//! The server's store and machine alone, in one thread, for the crash sweep: `e2e/server-crash`
//! kills this at every writing system call.
//!
//! `init DIR` founds a server; `order DIR` enrols a terminal, makes a group, renews both keys,
//! excludes an older terminal, has it delete and proves that, replaces the online keys of which one
//! was stolen, and says each when it is stored; `show DIR` prints what is in force as JSON, after it
//! has verified the audit log.
#![expect(clippy::print_stdout, reason = "the script reads it")]

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keyfall_protocol::command::{OrderKind, SigningKey};
use keyfall_protocol::enrolment::RequestKey;
use keyfall_protocol::ids::{TerminalNumber, Tick, UnixSeconds};
use keyfall_protocol::keys::Secret;
use keyfall_protocol::receipt::{Receipt, frame_hash};
use keyfall_protocol::server::{
    AuditEntry, By, Done, Founding, Input, KeySetDraft, Moment, Order, OrderId, Output,
    PackageSealing, Server,
};
use keyfall_server::journal::{Entry, replay};
use keyfall_server::store::{AuditReader, Store, Verdict};
use keyfall_server::{Directory, OsRandom, key_file};
use serde_json::json;

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
    match arguments[..] {
        ["init", dir] => {
            keyfall_server::init(Path::new(dir), Founding::default(), "sweep".to_owned())?;
            println!("founded");
            Ok(())
        }
        ["order", dir] => order(Path::new(dir)),
        ["show", dir] => show(Path::new(dir)),
        _ => Err("init DIR, order DIR, show DIR".into()),
    }
}

fn order(dir: &Path) -> Result<(), Box<dyn Error>> {
    let directory = Directory::open(dir)?;
    let (store, _) = Store::open(&directory)?;
    let state = store.load()?;
    let at = moment(0)?;
    let machine = state.start(at);
    let mut sweep = Sweep {
        machine,
        store,
        orders: 0,
    };
    let terminals = sweep.machine.terminals().count();
    let request = RequestKey::from_seed(Secret::init_with(|seed| seed.fill(1)));
    sweep.order(Order::AddTerminal {
        name: format!("t{terminals}"),
        sealing: PackageSealing::ToRequest(request.public()),
        wipe_roots: Vec::new(),
    })?;
    let trusted: Vec<_> = sweep
        .machine
        .terminals()
        .filter(|terminal| terminal.excluded_at.is_none())
        .map(|terminal| terminal.number)
        .collect();
    sweep.order(Order::CreateGroup {
        packets: None,
        name: format!("g{terminals}"),
        members: trusted.clone(),
        cadence: None,
    })?;
    let newest = sweep.machine.groups().last().ok_or("it was made")?.number;
    sweep.order(Order::RenewGroup { group: newest })?;
    sweep.order(Order::RenewDevices)?;
    if let [oldest, _, ..] = trusted[..] {
        sweep.lose(&directory, oldest)?;
    }
    sweep.replace_keys(&directory)
}

struct Sweep {
    machine: Server,
    store: Store,
    orders: u64,
}

impl Sweep {
    /// Excludes a terminal, has it delete, and brings its receipt.
    fn lose(
        &mut self,
        directory: &Directory,
        terminal: TerminalNumber,
    ) -> Result<(), Box<dyn Error>> {
        self.order(Order::Exclude {
            terminals: vec![terminal],
        })?;
        println!("excluded {terminal}");
        let erase = key_file::read(&directory.erase_key(1))?;
        let draft = self
            .machine
            .draft_order(terminal, OrderKind::Delete, true, &mut OsRandom)?;
        let frame = erase.sign(&draft);
        let hash = frame_hash(&frame);
        self.order(Order::Issue { frame })?;
        println!("issued {terminal}");
        let record = self.machine.terminal_named(&terminal.to_string());
        let obey = &record.ok_or("it is there")?.obey;
        let receipt = Receipt::make(terminal, hash, obey);
        self.order(Order::Receipt { receipt })?;
        println!("proved {terminal}");
        Ok(())
    }

    /// Drafts, keeps the draft, has the root sign it, and installs what it lists.
    fn replace_keys(&mut self, directory: &Directory) -> Result<(), Box<dyn Error>> {
        let wanted = KeySetDraft {
            stolen: vec![self.machine.fleet().keys.public().name()],
            ..KeySetDraft::default()
        };
        let command = self.machine.draft_key_set(wanted, &mut OsRandom)?;
        let noted = AuditEntry {
            at: moment(0)?.wall,
            actor: "sweep".to_owned(),
            action: "sign-keys",
            subject: "online keys".to_owned(),
            outcome: "drafted".to_owned(),
            reason: None,
            ticket: None,
        };
        let drafted = self.machine.drafted().ok_or("it was drafted")?;
        self.store.keep_draft(drafted, &noted, &mut OsRandom)?;
        let root = key_file::read(&directory.root_key())?;
        let frame = root.sign(&command);
        self.order(Order::InstallKeys { frame })
    }

    fn order(&mut self, order: Order) -> Result<(), Box<dyn Error>> {
        self.orders += 1;
        let by = By {
            actor: "sweep".to_owned(),
            reason: None,
            ticket: None,
        };
        let mut next = Some(Input::Order {
            id: OrderId(self.orders),
            order,
            by,
        });
        let mut outcome = None;
        while let Some(input) = next.take() {
            let at = moment(self.orders)?;
            self.machine.handle_input(at, &mut OsRandom, input)?;
            loop {
                match self.machine.poll_output() {
                    Output::Store(id) => {
                        let batch = self.machine.batch(id).ok_or("it was asked for")?;
                        next = Some(match self.store.commit(batch, at.wall, &mut OsRandom) {
                            Ok(()) => Input::Stored(id),
                            Err(error) => {
                                eprintln!("{error}");
                                Input::NotStored(id)
                            }
                        });
                    }
                    Output::Done { outcome: done, .. } => outcome = Some(done),
                    Output::Transmit { .. } | Output::Send { .. } | Output::Work(_) => {}
                    Output::Timeout { .. } => break,
                }
            }
        }
        match outcome.ok_or("the order was never answered")?? {
            Done::Terminal { number, .. } => println!("terminal {number}"),
            Done::Group { number, epoch } => println!("group {number} {epoch}"),
            Done::Renewed {
                group, generation, ..
            } => println!("renewed {group} {generation}"),
            Done::FleetRenewed { generation } => println!("fleet {generation}"),
            // Whom they are about, the caller says.
            Done::Excluded { .. } | Done::Issued { .. } | Done::Proved { .. } => {}
            Done::KeysInstalled { version, .. } => println!("keys {version}"),
            Done::Nothing
            | Done::Scheduled { .. }
            | Done::Member { .. }
            | Done::Removed { .. }
            | Done::Rekeyed { .. }
            | Done::GroupSet { .. }
            | Done::PacketsSet { .. }
            | Done::AddressesSet { .. }
            | Done::DeviceRenewed { .. }
            | Done::Confirmed { .. } => return Err("nobody ordered that".into()),
        }
        self.store.settle()?;
        Ok(())
    }
}

fn show(dir: &Path) -> Result<(), Box<dyn Error>> {
    let directory = Directory::open(dir)?;
    let (store, recovered) = Store::open(&directory)?;
    let state = store.load()?;
    let verdict = AuditReader::open(&directory.database())?.verify()?;
    let Verdict::Whole { entries, .. } = verdict else {
        return Err("the audit log is broken".into());
    };
    let wraps = state
        .terminals
        .iter()
        .map(|terminal| terminal.wrap.generation().get());
    let groups = state.groups.iter().map(|group| {
        let master = &group.master;
        (
            group.number.get(),
            master.epoch().get(),
            master.generation().get(),
            group.members.len(),
        )
    });
    let listed = |key: &SigningKey| {
        let key = state.fleet.key_set.key(key.public().name());
        key.is_some_and(|key| key.expires > state.fleet.key_set.issued_at)
    };
    let excluded = state.terminals.iter().filter(|t| t.excluded_at.is_some());
    let orders = state.terminals.iter().filter(|t| t.erasure().is_some());
    let proved = orders
        .clone()
        .filter(|t| t.orders.iter().any(|order| order.proved_at.is_some()));
    let members = state.groups.iter().flat_map(|group| &group.members);
    let of_exclusions = state.exclusions.iter().flat_map(|it| &it.terminals);
    let journalled = store.journalled().entries;
    drop(store);
    let journal = replay(&directory.journal())?;
    let mut known: BTreeSet<TerminalNumber> = BTreeSet::new();
    let mut key_set_in_journal = None;
    for line in &journal.lines {
        if let Entry::Exclusion { terminals, .. } = &line.entry {
            known.extend(terminals);
        } else if let Entry::KeySet { version, .. } = &line.entry {
            key_set_in_journal = Some(*version);
        }
    }
    println!(
        "{}",
        json!({
            "terminals": state.terminals.iter().map(|t| t.number.get()).collect::<Vec<_>>(),
            "wraps": wraps.collect::<Vec<_>>(),
            "groups": groups.collect::<Vec<_>>(),
            "members": members.map(|t| t.get()).collect::<BTreeSet<_>>(),
            "fleet": state.fleet.fleet_generation.get(),
            "sequence": state.fleet.sequence_reserved.get(),
            "excluded": excluded.map(|t| t.number.get()).collect::<Vec<_>>(),
            "exclusions": of_exclusions.map(|t| t.get()).collect::<Vec<_>>(),
            "excluded_in_journal": known.iter().map(|t| t.get()).collect::<Vec<_>>(),
            "issued": orders.map(|t| t.number.get()).collect::<Vec<_>>(),
            "proved": proved.map(|t| t.number.get()).collect::<Vec<_>>(),
            "key_set": state.fleet.key_set.version,
            "key_set_in_journal": key_set_in_journal,
            "signs": listed(&state.fleet.beat) && listed(&state.fleet.keys),
            "audit": entries,
            "journal": journalled,
            "void": recovered.void,
            "torn": recovered.torn.map(|torn| torn.number),
        })
    );
    Ok(())
}

/// The wall clock, and a monotonic one that gives the store's pause no chance to be felt.
fn moment(step: u64) -> Result<Moment, Box<dyn Error>> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Moment {
        now: Tick::default().plus(Duration::from_secs(2 * step)),
        wall: UnixSeconds::new(u32::try_from(since.as_secs())?),
    })
}
