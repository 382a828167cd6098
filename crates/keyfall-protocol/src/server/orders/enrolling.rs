//! New terminals and names.

use crate::enrolment::{EnrolmentCode, EnrolmentPackage, Identity, is_wipe_root};
use crate::keys::{ObeyKey, Secret, WrapKey};
use crate::rng::Random;
use crate::server::orders::Prepared;
use crate::server::{
    Batch, By, Change, Done, JournalEntry, PackageSealing, Refusal, SealedFor, Server,
    TerminalRecord,
};

impl Server {
    pub(super) fn add_terminal(
        &self,
        name: &str,
        sealing: &PackageSealing,
        wipe_roots: Vec<String>,
        by: By,
        rng: &mut dyn Random,
    ) -> Prepared {
        check_name(name)?;
        if self.terminal_names.contains_key(name) {
            return Err(Refusal::NameTaken(name.to_owned()));
        }
        check_wipe_roots(&wipe_roots)?;
        let number = self.next_terminal().ok_or(Refusal::NumbersUsedUp)?;
        let obey = ObeyKey::new(number, Secret::init_with(|into| rng.fill(into)));
        let fresh = Secret::init_with(|into| rng.fill(into));
        let wrap = WrapKey::new(number, self.fleet.fleet_generation, fresh);
        let wall = self.at.wall;
        let expires = wall.plus(PACKAGE_LIFE);
        let package = EnrolmentPackage {
            identity: Identity {
                number,
                name: name.to_owned(),
                fleet: self.fleet.name.clone(),
                root: self.fleet.root,
                key_set_frame: self.fleet.key_set_frame.clone(),
                streams: vec![self.fleet.stream],
                carriers: self.fleet.carriers.clone(),
                servers: self.fleet.servers.clone(),
                keep_time: self.fleet.keep_time,
                wipe_roots: wipe_roots.clone(),
            },
            obey: obey.duplicate(),
            wrap: wrap.duplicate(),
            issued_at: wall,
            expires,
        };
        let (sealed_package, sealed) = match sealing {
            PackageSealing::ToRequest(request) => {
                let octets = package
                    .seal_to(request, rng)
                    .map_err(|_| Refusal::BadRequestKey)?;
                (octets, SealedFor::Request)
            }
            PackageSealing::UnderCode => {
                let code = EnrolmentCode::random(rng);
                (
                    package.seal_under(&code, rng),
                    SealedFor::Code(code.shown()),
                )
            }
        };
        let record = TerminalRecord {
            number,
            name: name.to_owned(),
            obey,
            wrap,
            added_at: wall,
            package_expires: expires,
            wipe_roots,
            mixed_at: None,
            legacy_key: None,
            excluded_at: None,
            memberships: Vec::new(),
            orders: Vec::new(),
        };
        let batch = Batch {
            changes: vec![Change::Terminal(record)],
            audit: Some(self.audit(by, "terminal add", name, format!("terminal {number}"))),
            journal: Some(JournalEntry::Enrolment {
                terminal: number,
                name: name.to_owned(),
            }),
        };
        let done = Done::Terminal {
            number,
            package: sealed_package,
            sealed,
            expires,
        };
        Ok((batch, done))
    }
}

/// Names are words for people and parts of file names.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    let good = (1..=64).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        && !name.starts_with(['.', '-'])
        && !name.chars().all(|c| c.is_ascii_digit());
    if good {
        Ok(())
    } else {
        Err(Refusal::BadName(name.chars().take(80).collect()))
    }
}

fn check_wipe_roots(wipe_roots: &[String]) -> Result<(), Refusal> {
    if wipe_roots.len() > WIPE_ROOTS_MAX {
        return Err(Refusal::TooManyWipeRoots(wipe_roots.len()));
    }
    match wipe_roots.iter().find(|root| !is_wipe_root(root)) {
        None => Ok(()),
        Some(root) => Err(Refusal::BadWipeRoot(root.chars().take(200).collect())),
    }
}

/// As many as a package holds.
pub const WIPE_ROOTS_MAX: usize = 8;
/// A package expires after seven days.
const PACKAGE_LIFE: u32 = 7 * 86_400;
