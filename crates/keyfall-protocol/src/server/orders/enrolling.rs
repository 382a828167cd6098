//! New terminals and names.

use crate::calendar::Utc;
use crate::enrolment::{EnrolmentCode, EnrolmentPackage, Identity, is_wipe_root};
use crate::keys::{ObeyKey, Secret, WrapKey};
use crate::rng::Random;
use crate::server::orders::Prepared;
use crate::server::{
    Addresses, Batch, By, Change, Done, JournalEntry, PackageSealing, Refusal, SealedFor, Server,
    TerminalRecord,
};
use crate::token::{Token, TokenRecord};

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
        let mut record = TerminalRecord {
            number,
            name: name.to_owned(),
            obey,
            wrap,
            added_at: wall,
            package_expires: wall.plus(PACKAGE_LIFE),
            wipe_roots,
            token: None,
            mixed_at: None,
            legacy_key: None,
            addresses: Addresses::default(),
            record: None,
            excluded_at: None,
            memberships: Vec::new(),
            orders: Vec::new(),
        };
        let package = self.package_of(&record);
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
            PackageSealing::ByToken { life } => {
                self.may_give_token(*life)?;
                let token = Token::random(&self.fleet.root, rng);
                record.token = Some(TokenRecord::new(&token));
                record.package_expires = wall.plus(*life);
                (Vec::new(), SealedFor::Token(token.text()))
            }
        };
        let expires = record.package_expires;
        let outcome = match sealed {
            SealedFor::Request | SealedFor::Code(_) => format!("terminal {number}"),
            SealedFor::Token(_) => {
                format!("terminal {number}, by a token good until {}", Utc(expires))
            }
        };
        let batch = Batch {
            changes: vec![Change::Terminal(record)],
            audit: Some(self.audit(by, "terminal add", name, outcome)),
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

impl Server {
    /// What a terminal gets at enrolment, now.
    pub(in crate::server) fn package_of(&self, record: &TerminalRecord) -> EnrolmentPackage {
        EnrolmentPackage {
            identity: Identity {
                number: record.number,
                name: record.name.clone(),
                fleet: self.fleet.name.clone(),
                root: self.fleet.root,
                key_set_frame: self.fleet.key_set_frame.clone(),
                streams: vec![self.fleet.stream],
                carriers: self.fleet.carriers.clone(),
                servers: self.fleet.servers.clone(),
                keep_time: self.fleet.keep_time,
                wipe_roots: record.wipe_roots.clone(),
            },
            obey: record.obey.duplicate(),
            wrap: record.wrap.duplicate(),
            issued_at: self.at.wall,
            expires: record.package_expires,
        }
    }

    /// Whether a terminal could use one.
    fn may_give_token(&self, life: u32) -> Result<(), Refusal> {
        if !(TOKEN_LIFE_MIN..=TOKEN_LIFE_MAX).contains(&life) {
            return Err(Refusal::BadTokenLife(life));
        }
        if self.fleet.listen.is_empty() {
            return Err(Refusal::NotListening);
        }
        // No other is asked in, whatever else is held.
        let kem = self.fleet.key_set.token_kem();
        let mut held = [&self.fleet.kem, &self.fleet.kem_pq].into_iter().flatten();
        let spoken = held.any(|key| Some(key.public().suite()) == kem);
        spoken.then_some(()).ok_or(Refusal::NoSuiteForToken)
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
/// Seconds for which a token is good, where nobody says otherwise, and between what.
pub const TOKEN_LIFE: u32 = 86_400;
pub const TOKEN_LIFE_MIN: u32 = 60;
pub const TOKEN_LIFE_MAX: u32 = 30 * 86_400;
/// A package expires after seven days.
const PACKAGE_LIFE: u32 = 7 * 86_400;
