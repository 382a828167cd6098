//! `server sign-keys`: the next online keys. The root signs them here, or on a machine that has
//! never seen the server.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use keyfall_api::admin as api;
use keyfall_protocol::command::{Body, Command, KeySet, SigningKey, Suites, Unverified};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::rsa_misty1::RsaSize;
use keyfall_server::{Stopped, StoppedError, key_file};
use serde::Serialize;

use crate::admin::client::{code_of, get, post};
use crate::explain::Code;
use crate::output::{Failure, Output, utc};
use crate::server::{Dir, any_suites, run_failure, signer_life};
use crate::terminal::legacy_key::rsa_size;

/// Make the next online keys and have the root sign them, whether the server runs or not.
///
/// Where the root key is on another machine: --draft FILE here, --sign FILE --root FILE there,
/// --install FILE here. The root key never comes to the server.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall server sign-keys fleet --root /media/usb/root.key\n  \
                  keyfall server sign-keys fleet --root /media/usb/root.key --stolen 0123456789abcdef\n  \
                  keyfall server sign-keys fleet --root /media/usb/root.key --suites hpke-pq,psk\n  \
                  keyfall server sign-keys fleet --root root.key --clear 198.51.100.0/24\n\n\
                  With a root that stays elsewhere:\n  keyfall server sign-keys fleet --draft next.keyset\n  \
                  keyfall server sign-keys --sign next.keyset --root root.key\n  \
                  keyfall server sign-keys fleet --install next.keyset"
)]
pub(super) struct SignKeysArgs {
    #[command(flatten)]
    dir: Dir,
    /// The root key.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["draft", "install"])]
    root: Option<PathBuf>,
    /// A listed key that somebody else may hold, by its name in `keyfall admin keys`: it is listed
    /// no more, what it did is undone, and every group gets a fresh key; may be given several times.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["sign", "install"])]
    stolen: Vec<String>,
    /// How long the online keys live: 1h to 30d.
    #[arg(
        long,
        value_name = "SPAN",
        default_value = "30d",
        value_parser = signer_life,
        conflicts_with_all = ["sign", "install"]
    )]
    life: u32,
    /// How terminals may ask for keys, in order of preference: hpke, hpke-pq, psk, separated by
    /// commas. Before them rsa-misty1, which is weak: for terminals with an RSA key, in groups that
    /// allow it. Without it: as before.
    #[arg(
        long,
        value_name = "SUITES",
        value_parser = any_suites,
        conflicts_with_all = ["sign", "install"]
    )]
    suites: Option<Suites>,
    /// Packets to there go unprotected, as ADDRESS/LENGTH; may be given several times. In place of those
    /// before; without it: as before. Everything else is protected or dropped.
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["sign", "install"])]
    clear: Vec<String>,
    /// Nothing goes unprotected.
    #[arg(long, conflicts_with_all = ["clear", "sign", "install"])]
    no_clear: bool,
    /// Bits of the server's RSA key, which is made where --suites names rsa-misty1: 2048, 3072, 4096
    /// or 8192. The more, the dearer each answer.
    #[arg(long, value_name = "BITS", requires = "suites", value_parser = rsa_size)]
    rsa_bits: Option<RsaSize>,
    /// Only write to this file what the root is to sign.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root", "sign", "install"])]
    draft: Option<PathBuf>,
    /// Only sign this file; no server is needed.
    #[arg(
        long,
        value_name = "FILE",
        requires = "root",
        conflicts_with = "install"
    )]
    sign: Option<PathBuf>,
    /// Only put in force what the root has signed in this file.
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    install: Option<PathBuf>,
    /// Why, in words for the audit log.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The ticket that asks for it, for the audit log.
    #[arg(long, value_name = "TEXT")]
    ticket: Option<String>,
}

pub(super) fn run(args: &SignKeysArgs, output: &Output) -> Result<(), Failure> {
    if let Some(file) = &args.draft {
        let dir = args.dir.resolve()?;
        return write_draft(args, &dir, file, output);
    }
    let root = args.root.as_deref().map(read_root).transpose()?;
    if let (Some(file), Some(root)) = (&args.sign, &root) {
        return sign_file(file, root, output);
    }
    let dir = args.dir.resolve()?;
    let mut server = Place::reach(&dir)?;
    let frame = match (&args.install, &root) {
        (Some(file), _) => read_signed(file)?,
        (None, Some(root)) => {
            is_root(root, &server.root())?;
            let draft = server.draft(&args.wanted())?;
            root.sign(&command_of(&draft.command)?)
        }
        (None, None) => return Err(no_root()),
    };
    let order = api::InstallKeySet {
        frame: hex(&frame),
        why: args.why(),
    };
    let installed = server.install(&order)?;
    let sent = server.is_running();
    output.result(&installed, |installed| installed_text(installed, sent))
}

impl SignKeysArgs {
    fn wanted(&self) -> api::DraftKeySet {
        api::DraftKeySet {
            stolen: self.stolen.clone(),
            life: Some(self.life),
            suites: self.suites.as_ref().map(names),
            rsa_bits: self.rsa_bits.map(RsaSize::bits),
            clear: (!self.clear.is_empty() || self.no_clear).then(|| self.clear.clone()),
            why: self.why(),
        }
    }

    fn why(&self) -> api::Why {
        api::Why {
            reason: self.reason.clone(),
            ticket: self.ticket.clone(),
        }
    }
}

/// A server that runs, or one that is opened here because nobody runs it.
enum Place {
    Running { dir: PathBuf, root: String },
    Stopped(Box<Stopped>),
}

impl Place {
    fn reach(dir: &Path) -> Result<Self, Failure> {
        match get::<api::Status>(dir, "/v1/status") {
            Ok(status) => Ok(Self::Running {
                dir: dir.to_owned(),
                root: status.root,
            }),
            Err(failure) if failure.code() == Code::ServerNotRunning => {
                let actor = format!("uid {}", rustix::process::getuid().as_raw());
                let stopped = Stopped::open(dir, actor).map_err(|error| run_failure(&error))?;
                Ok(Self::Stopped(Box::new(stopped)))
            }
            Err(failure) => Err(failure),
        }
    }

    fn draft(&mut self, wanted: &api::DraftKeySet) -> Result<api::KeySetDraft, Failure> {
        match self {
            Self::Running { dir, .. } => post(dir, "/v1/key-set/draft", wanted),
            Self::Stopped(stopped) => stopped.draft_key_set(wanted).map_err(stopped_failure),
        }
    }

    fn install(&mut self, order: &api::InstallKeySet) -> Result<api::KeySetInstalled, Failure> {
        match self {
            Self::Running { dir, .. } => post(dir, "/v1/key-set/install", order),
            Self::Stopped(stopped) => stopped.install_key_set(order).map_err(stopped_failure),
        }
    }

    /// Name of the root that it obeys.
    fn root(&self) -> String {
        match self {
            Self::Running { root, .. } => root.clone(),
            Self::Stopped(stopped) => stopped.root().to_string(),
        }
    }

    const fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

fn stopped_failure(error: StoppedError) -> Failure {
    match error {
        StoppedError::Refused(problem) => Failure::new(code_of(problem.code), problem.sentence),
        StoppedError::Misuse(_) => Failure::new(Code::ServerFault, error.to_string()),
    }
}

#[derive(Serialize)]
struct DraftDocument {
    schema: u32,
    ok: bool,
    /// What the root is to sign.
    file: String,
    version: u32,
    /// Name of the root key.
    root: String,
    expires: u32,
    next: String,
}

fn write_draft(
    args: &SignKeysArgs,
    dir: &Path,
    file: &Path,
    output: &Output,
) -> Result<(), Failure> {
    if file.exists() {
        let file = file.display();
        let sentence = format!("{file} is there already: name a new file, or remove that one");
        return Err(Failure::new(Code::BadInput, sentence));
    }
    let draft = Place::reach(dir)?.draft(&args.wanted())?;
    let command = command_of(&draft.command)?;
    write_whole(file, &command.encode())?;
    let document = DraftDocument {
        schema: api::SCHEMA,
        ok: true,
        file: file.display().to_string(),
        version: draft.version,
        root: draft.root,
        expires: draft.expires,
        next: format!(
            "keyfall server sign-keys --sign {} --root root.key",
            file.display()
        ),
    };
    output.result(&document, |made| {
        format!(
            "KEYSET {} waits in {} for root {}; its online keys end at {}\n\
             Next, where the root key is: {}",
            made.version,
            made.file,
            made.root,
            utc(made.expires),
            made.next
        )
    })
}

#[derive(Serialize)]
struct SignedDocument {
    schema: u32,
    ok: bool,
    file: String,
    version: u32,
    /// Class, name and end of each key that is listed.
    keys: Vec<ListedKey>,
    stolen: Vec<String>,
    /// So many erase keys must sign what deletes.
    erase_signatures: u8,
    /// How terminals may ask for keys, in order of preference.
    suites: Vec<String>,
    /// To where packets go unprotected.
    clear: Vec<String>,
    /// Unix seconds; by it terminals judge how late it is at the least.
    issued_at: u32,
    /// Seconds.
    longest_lease: u32,
    dead_man: u32,
    next: String,
}

#[derive(Serialize)]
struct ListedKey {
    class: &'static str,
    name: String,
    expires: u32,
}

fn sign_file(file: &Path, root: &SigningKey, output: &Output) -> Result<(), Failure> {
    let octets = read_file(file)?;
    if Unverified::decode(&octets).is_ok() {
        let sentence = format!(
            "{} is signed already: bring it back with `keyfall server sign-keys DIR --install {}`",
            file.display(),
            file.display()
        );
        return Err(Failure::new(Code::BadDraft, sentence));
    }
    let not_one = || not_a_draft(file);
    let command = Command::decode(&octets).map_err(|_| not_one())?;
    let key_set = key_set_of(&command).ok_or_else(not_one)?;
    refuse_the_future(key_set.issued_at.get())?;
    write_whole(file, &root.sign(&command))?;
    let document = SignedDocument {
        schema: api::SCHEMA,
        ok: true,
        file: file.display().to_string(),
        version: key_set.version,
        keys: key_set
            .keys
            .iter()
            .map(|key| ListedKey {
                class: key.class.name(),
                name: key.public.name().to_string(),
                expires: key.expires.get(),
            })
            .collect(),
        stolen: key_set.stolen.iter().map(ToString::to_string).collect(),
        erase_signatures: key_set.limits.erase_signatures,
        suites: names(&key_set.limits.suites),
        clear: key_set
            .limits
            .clear
            .iter()
            .map(ToString::to_string)
            .collect(),
        issued_at: key_set.issued_at.get(),
        longest_lease: key_set.limits.longest_lease,
        dead_man: key_set.limits.dead_man,
        next: format!("keyfall server sign-keys DIR --install {}", file.display()),
    };
    output.result(&document, signed_text)
}

/// The root's word on the time is the one that wipes: a KEYSET from next year ends every terminal.
fn refuse_the_future(issued_at: u32) -> Result<(), Failure> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    if u64::from(issued_at) <= now + DAY {
        return Ok(());
    }
    let sentence = format!(
        "the draft says that it is {}, more than a day ahead of this machine's clock; terminals \
         wipe themselves by what the root says of the time: set the clock that is wrong, and draft again",
        utc(issued_at)
    );
    Err(Failure::new(Code::BadDraft, sentence))
}

/// Seconds.
const DAY: u64 = 86_400;

fn signed_text(signed: &SignedDocument) -> String {
    let mut text = format!(
        "KEYSET {} of {} is signed; longest lease {} h, a terminal that hears nothing wipes itself {} days \
         later; it lists:",
        signed.version,
        utc(signed.issued_at),
        signed.longest_lease / 3600,
        signed.dead_man / 86_400
    );
    for key in &signed.keys {
        text.push_str(&format!(
            "\n  {:6} {} until {}",
            key.class,
            key.name,
            utc(key.expires)
        ));
    }
    if signed
        .suites
        .iter()
        .any(|suite| suite == SharingSuite::RsaMisty1.name())
    {
        text.push_str(
            "\n  WEAK: terminals with an RSA key ask in rsa-misty1, without forward secrecy; leave it \
             out unless a device knows no other",
        );
    }
    if !signed.clear.is_empty() {
        text.push_str(&format!(
            "\n  packets to {} go UNPROTECTED",
            signed.clear.join(" ")
        ));
    }
    for name in &signed.stolen {
        text.push_str(&format!("\n  stolen {name}: what it signed is void"));
    }
    format!(
        "{text}\n  {} of the erase keys must sign what deletes; terminals may ask by {}\n\
         Next, where the server is: {}",
        signed.erase_signatures,
        signed.suites.join(", "),
        signed.next
    )
}

fn installed_text(installed: &api::KeySetInstalled, running: bool) -> String {
    let sent = if running {
        "is being sent; who heard it is not known"
    } else {
        "will be sent when the server runs"
    };
    let mut text = format!(
        "KEYSET {}: the new online keys are in force here, and their list of {} octets {sent}\n\
         The online keys end at {}.",
        installed.version,
        installed.octets,
        utc(installed.expires)
    );
    if !installed.stolen.is_empty() {
        text.push_str(&format!(
            "\nStolen: {}. What they signed is void where this KEYSET is heard; G is {}, and {} groups \
             got fresh keys.",
            installed.stolen.join(", "),
            installed.fleet_generation,
            installed.fresh_epochs
        ));
    }
    if let Some(warning) = &installed.warning {
        text.push_str(&format!("\nNote: {warning}."));
    }
    for order in &installed.order_again {
        text.push_str(&format!(
            "\nToo few listed keys have signed {order}: order it again."
        ));
    }
    text
}

fn read_root(file: &Path) -> Result<SigningKey, Failure> {
    key_file::read(file).map_err(|error| Failure::new(Code::KeyFile, error.to_string()))
}

/// Nothing is drafted for a key that is not the root.
fn is_root(key: &SigningKey, root: &str) -> Result<(), Failure> {
    let name = key.public().name().to_string();
    if name == root {
        return Ok(());
    }
    let sentence = format!(
        "that is the key {name} and not this fleet's root {root}: take the root.key that `keyfall \
         server init` wrote for this fleet"
    );
    Err(Failure::new(Code::NotTheRoot, sentence))
}

fn names(suites: &Suites) -> Vec<String> {
    suites.iter().map(|suite| suite.name().to_owned()).collect()
}

/// What the server drafted, as long as it is a KEYSET: the root signs nothing else.
fn command_of(text: &str) -> Result<Command, Failure> {
    let unread = || {
        let sentence = "the server drafted something else than a KEYSET; nothing was signed";
        Failure::new(Code::AdminSocket, sentence)
    };
    let octets = unhex(text).ok_or_else(unread)?;
    let command = Command::decode(&octets).map_err(|_| unread())?;
    key_set_of(&command).ok_or_else(unread)?;
    Ok(command)
}

fn key_set_of(command: &Command) -> Option<&KeySet> {
    match &command.body {
        Body::KeySet(key_set) => Some(key_set),
        Body::Time(_)
        | Body::Renew(_)
        | Body::KeyDist(_)
        | Body::Order(_)
        | Body::Exclude(_)
        | Body::Stop(_)
        | Body::Start(_)
        | Body::Notify(_) => None,
    }
}

fn read_signed(file: &Path) -> Result<Vec<u8>, Failure> {
    let octets = read_file(file)?;
    if Unverified::decode(&octets).is_ok() {
        return Ok(octets);
    }
    if Command::decode(&octets).is_ok() {
        let sentence = format!(
            "{} is not signed yet: `keyfall server sign-keys --sign {} --root FILE` where the root \
             key is",
            file.display(),
            file.display()
        );
        return Err(Failure::new(Code::BadDraft, sentence));
    }
    Err(not_a_draft(file))
}

fn read_file(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| {
        let sentence = format!("cannot read {}: {error}", file.display());
        Failure::new(Code::BadInput, sentence)
    })
}

/// Replaces the file in one step, so that no half of it is ever carried away.
fn write_whole(file: &Path, octets: &[u8]) -> Result<(), Failure> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let written = fs::File::create(&beside)
        .and_then(|mut made| {
            made.write_all(octets)?;
            made.sync_all()
        })
        .and_then(|()| fs::rename(&beside, file));
    written.map_err(|error| {
        let sentence = format!("cannot write {}: {error}", file.display());
        Failure::new(Code::Output, sentence)
    })
}

fn not_a_draft(file: &Path) -> Failure {
    let sentence = format!(
        "{} holds no KEYSET: make it with `keyfall server sign-keys DIR --draft FILE`",
        file.display()
    );
    Failure::new(Code::BadDraft, sentence)
}

fn no_root() -> Failure {
    let sentence = "which root key signs? Give its file with --root";
    Failure::new(Code::BadArguments, sentence)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let octet = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    };
    text.as_bytes().chunks(2).map(octet).collect()
}
