//! `admin group set`: how a group's key is changed while the group is at work.

use std::path::Path;

use clap::{ArgGroup, Args, ValueEnum};
use keyfall_api::admin as api;
use keyfall_protocol::keys::EspSuite;

use crate::admin::client::{post, segment};
use crate::admin::{Why, words};
use crate::output::{Failure, Output};

/// Say how a group's key is changed, or make it a packet group and say what is routed into it.
///
/// How a key is changed counts for members that can answer; who only hears the carousel moves by the
/// clock in any case. A packet group protects IP packets between addresses of its members, which
/// `keyfall admin terminal set` names; who becomes one gets a fresh key.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  keyfall admin group set ops --change barrier --stragglers wait --dir fleet\n  \
                  keyfall admin group set ops --change hitless --dry-run --dir fleet\n  \
                  keyfall admin group set net --packets --network 10.77.0.0/16 --priority 5 --mtu 1380 \
                  --dir fleet",
    group(ArgGroup::new("what").required(true).multiple(true)
        .args(["change", "stragglers", "legacy_sharing", "packets", "no_packets", "priority", "mtu",
               "suite", "networks", "no_network"])),
    group(ArgGroup::new("of_packets").multiple(true).conflicts_with("of_keys")
        .args(["packets", "no_packets", "priority", "mtu", "suite", "networks", "no_network"])),
    group(ArgGroup::new("of_keys").multiple(true)
        .args(["change", "stragglers", "legacy_sharing", "dry_run"]))
)]
pub(super) struct SetArgs {
    /// The group, by name or number.
    group: String,
    /// hitless: receive with the new key first, send with it later; barrier: all stop, then all
    /// start again under the new key.
    #[arg(long, value_name = "MODE", value_enum)]
    change: Option<Change>,
    /// Members that do not answer in time: follow: the others go on without them; wait: the others
    /// wait, an hour at the most; leave-out: they are taken out of the group.
    #[arg(long, value_name = "POLICY", value_enum)]
    stragglers: Option<Stragglers>,
    /// Whether rsa-misty1, which is weak, may carry this group's key.
    #[arg(long, value_name = "WHETHER", value_enum)]
    legacy_sharing: Option<Switch>,
    /// Make it a packet group.
    #[arg(long, conflicts_with = "no_packets")]
    packets: bool,
    /// It is no packet group any more.
    #[arg(long, conflicts_with_all = ["priority", "mtu", "suite", "networks", "no_network"])]
    no_packets: bool,
    #[command(flatten)]
    settings: PacketFlags,
    /// Every destination is routed into it.
    #[arg(long, conflicts_with = "networks")]
    no_network: bool,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Change {
    Hitless,
    Barrier,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stragglers {
    Follow,
    Wait,
    LeaveOut,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Switch {
    On,
    Off,
}

pub(super) fn run(dir: &Path, args: SetArgs, output: &Output) -> Result<(), Failure> {
    let of_keys = args.change.is_some() || args.stragglers.is_some();
    if !of_keys && args.legacy_sharing.is_none() {
        return set_packets(dir, args, output);
    }
    let order = api::SetGroup {
        change: args.change.map(|change| match change {
            Change::Hitless => api::ChangeMode::Hitless,
            Change::Barrier => api::ChangeMode::Barrier,
        }),
        stragglers: args.stragglers.map(|stragglers| match stragglers {
            Stragglers::Follow => api::Stragglers::Follow,
            Stragglers::Wait => api::Stragglers::Wait,
            Stragglers::LeaveOut => api::Stragglers::LeaveOut,
        }),
        legacy_sharing: args.legacy_sharing.map(|switch| switch == Switch::On),
        dry_run: args.dry_run,
        why: args.why.into(),
    };
    let path = format!("/v1/groups/{}/policy", segment(&args.group));
    let set: api::GroupSet = post(dir, &path, &order)?;
    output.result(&set, words::group_set)
}

fn set_packets(dir: &Path, args: SetArgs, output: &Output) -> Result<(), Failure> {
    let PacketFlags {
        priority,
        mtu,
        suite,
        networks,
    } = args.settings;
    let named = !networks.is_empty() || args.no_network;
    let order = api::SetPackets {
        packets: (args.packets || args.no_packets).then_some(args.packets),
        priority,
        mtu: mtu.map(|Mtu(octets)| octets),
        suite: suite.map(Suite::name),
        networks: named.then_some(networks),
        why: args.why.into(),
    };
    let path = format!("/v1/groups/{}/packets", segment(&args.group));
    let set: api::PacketsSet = post(dir, &path, &order)?;
    output.result(&set, words::packets_set)
}

/// What a packet group is.
#[derive(Args, Debug)]
pub(super) struct PacketFlags {
    /// Of several packet groups that two members share the one with the highest protects: 0 to 255.
    #[arg(long, value_name = "N")]
    pub(super) priority: Option<u8>,
    /// Octets of the longest packet that goes into it, or path: as the way has it.
    #[arg(long, value_name = "OCTETS", value_parser = mtu)]
    pub(super) mtu: Option<Mtu>,
    /// The suite of ESP that its members protect packets with; without it aes-256-gcm.
    #[arg(long, value_name = "SUITE", value_enum)]
    pub(super) suite: Option<Suite>,
    /// What is routed into it, as ADDRESS/LENGTH; may be given several times. Without it: every
    /// destination.
    #[arg(long = "network", value_name = "PREFIX")]
    pub(super) networks: Vec<String>,
}

/// chacha20-poly1305 is for machines without AES instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Suite {
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    #[value(name = "aes-128-gcm")]
    Aes128Gcm,
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Suite {
    pub(super) fn name(self) -> String {
        let suite = match self {
            Self::Aes256Gcm => EspSuite::Aes256Gcm,
            Self::Aes128Gcm => EspSuite::Aes128Gcm,
            Self::ChaCha20Poly1305 => EspSuite::ChaCha20Poly1305,
        };
        suite.name().to_owned()
    }
}

/// 0: as the way has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mtu(pub(super) u16);

impl Mtu {
    pub(super) fn octets(self) -> Option<u16> {
        (self.0 > 0).then_some(self.0)
    }
}

fn mtu(text: &str) -> Result<Mtu, String> {
    if text == "path" {
        return Ok(Mtu(0));
    }
    let octets = text.parse().ok().filter(|&octets| octets > 0);
    let octets = octets.ok_or_else(|| format!("{text:?} is no MTU: write octets, or path"));
    octets.map(Mtu)
}
