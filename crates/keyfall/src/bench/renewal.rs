//! Messages and octets of one renewal of a group's key, against its size: the methods that the
//! papers weigh, and this one (REQUIREMENTS F-10, R-110 to ).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use keyfall_protocol::server::{Class, Input, Item, Order};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_sim::keys_for_a_year;
use serde::Serialize;

use super::fleet::{Fleet, STEPS_MAX};

/// One method with a group of that many terminals.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Renewal {
    pub(super) method: &'static str,
    /// Where its octets come from.
    pub(super) basis: &'static str,
    pub(super) terminals: u64,
    /// On the air, both ways.
    pub(super) messages: u64,
    pub(super) octets: u64,
    /// Keys that the whole group has to keep for it.
    pub(super) keys: u64,
}

/// What was measured, of one group.
struct Measured {
    renew: u64,
    key_dists: u64,
    key_dist_octets: u64,
    members: u64,
    /// KEY-REQ, KEY-DIS and ACK of one terminal.
    shared: (u64, u64),
}

pub(super) fn compare(members: u32, sizes: &[u64]) -> anyhow::Result<Vec<Renewal>> {
    let measured = measure(members)?;
    let mut rows = Vec::new();
    for &terminals in sizes {
        rows.extend(measured.methods(terminals));
    }
    Ok(rows)
}

fn measure(members: u32) -> anyhow::Result<Measured> {
    let mut fleet = Fleet::found(&[SharingSuite::Psk], members)?;
    let group = fleet.group;
    let renewed = on_the_air(&mut fleet, Order::RenewGroup { group })?;
    let renew = renewed.get(&Item::Group(group)).context("a RENEW")?;
    let (renew, mut key_dists) = (*renew, Vec::new());
    let rekeyed = on_the_air(&mut fleet, Order::RekeyGroup { group })?;
    for (item, octets) in rekeyed {
        match item.class() {
            Class::KeyDist => key_dists.push(octets),
            Class::Time
            | Class::KeySet
            | Class::Exclude
            | Class::Erase
            | Class::Renew
            | Class::Change
            | Class::Record => {}
        }
    }
    fleet.make_current()?;
    Ok(Measured {
        renew,
        key_dists: key_dists.len() as u64,
        key_dist_octets: key_dists.iter().sum(),
        members: members.into(),
        shared: share(&mut fleet)?,
    })
}

/// Octets of every frame that follows an order within a few seconds, each counted once.
fn on_the_air(fleet: &mut Fleet, order: Order) -> anyhow::Result<BTreeMap<Item, u64>> {
    fleet.desk.let_pass(60);
    let until = fleet.desk.clock.now.plus(LONG);
    let mut served = fleet.desk.begin(order)?;
    let mut frames = BTreeMap::new();
    while fleet.desk.clock.now < until {
        let heard = served.frames.iter();
        frames.extend(heard.map(|(item, frame)| (*item, frame.len() as u64)));
        fleet.desk.move_to(served.due.unwrap_or(until));
        served = fleet.desk.serve(Input::Timeout)?;
    }
    Ok(frames)
}

/// Messages and octets with which one terminal fetches one key.
fn share(fleet: &mut Fleet) -> anyhow::Result<(u64, u64)> {
    fleet.desk.let_pass(2);
    let group = fleet.group;
    fleet.desk.order(Order::RekeyGroup { group })?;
    let from = fleet.terminals[0].address;
    let mut asked = fleet.ask(0)?;
    let (mut messages, mut octets) = (0, 0);
    let mut count = |datagrams: &[Vec<u8>]| {
        messages += datagrams.len() as u64;
        octets += datagrams.iter().map(|it| it.len() as u64).sum::<u64>();
    };
    for _ in 0..STEPS_MAX {
        count(&asked);
        let replies = fleet.desk.answer(from, asked)?;
        count(&replies);
        asked = fleet.take(0, &replies)?;
    }
    anyhow::ensure!(fleet.is_current(0), "a terminal did not get its key");
    Ok((messages, octets))
}

impl Measured {
    fn methods(&self, n: u64) -> [Renewal; 6] {
        let each = |octets: u64| octets * n / self.members;
        let (messages, octets) = self.shared;
        let pairs = n * (n - 1) / 2;
        let row = |method, basis, (messages, octets), keys| Renewal {
            method,
            basis,
            terminals: n,
            messages,
            octets,
            keys,
        };
        [
            row(
                "preloaded keys",
                "a year of hourly keys of 32 octets in each terminal",
                (0, 0),
                keys_for_a_year(3600) as u64,
            ),
            row(
                "agreement of each pair",
                MIKEY,
                (2 * pairs, pairs * (MIKEY_I + MIKEY_V)),
                pairs,
            ),
            row(
                "agreement with one of them",
                MIKEY,
                (2 * (n - 1), (n - 1) * (MIKEY_I + MIKEY_V)),
                n - 1,
            ),
            row(
                "a key distribution centre",
                "measured: KEY-REQ, KEY-DIS and ACK of suite psk",
                (messages * n, octets * n),
                n,
            ),
            row(
                "wrapped for each",
                "measured: KEYDIST of all members",
                (each(self.key_dists).max(1), each(self.key_dist_octets)),
                n,
            ),
            row("ours", "measured: one RENEW", (1, self.renew), 1),
        ]
    }
}

/// Octets of a MIKEY I_MESSAGE in RSA mode with a key and a signature of 2048 bits: HDR 19, T 10, RAND 18,
/// IDi 12, KEMAC 70, PKE 260, SIGN 258.
const MIKEY_I: u64 = 647;
/// Of the verification message that answers: HDR 19, T 10, IDr 12, V 22.
const MIKEY_V: u64 = 63;
const MIKEY: &str = "reckoned: RFC 3830 section 6, RSA mode, 2048 bits, without certificates";
/// A carousel says within this all that is new.
const LONG: Duration = Duration::from_secs(10);
