//! What is known of flows: from this inner source to that inner destination, whereto and under which
//! group.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use keyfall_protocol::DropReason;
use keyfall_protocol::ids::{GroupNumber, TerminalNumber};

use crate::packet_path::keyed_hash::KeyedHash;

/// Inner source and destination.
pub(super) type Ends = (IpAddr, IpAddr);

/// What happens to the packets of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FlowWay {
    /// Asked, and not answered yet.
    Searching,
    Protect {
        group: GroupNumber,
        /// `None`: to all members at once.
        peer: Option<TerminalNumber>,
        to: SocketAddr,
    },
    Drop(DropReason),
}

/// One flow.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) way: FlowWay,
    /// When the driver is asked again; meanwhile the way holds.
    until: Instant,
    /// It was asked.
    asked: bool,
    pub(super) used: Instant,
    /// Packets that wait for the answer.
    pub(super) waiting: u16,
    pub(super) packets: u64,
    pub(super) octets: u64,
}

impl Flow {
    /// The question could not be put: the next packet tries again.
    pub(super) fn asked_not(&mut self) {
        self.asked = false;
    }
}

/// All flows, bounded.
#[derive(Default)]
pub(super) struct Flows {
    flows: HashMap<Ends, Flow, KeyedHash>,
    /// When room was looked for.
    looked: Option<Instant>,
}

impl Flows {
    /// The flow, and whether the driver has to be asked about it. `None`: there are too many.
    pub(super) fn find(&mut self, ends: Ends, now: Instant) -> Option<(&mut Flow, bool)> {
        if self.flows.len() >= FLOWS_MAX && !self.flows.contains_key(&ends) {
            self.make_room(now);
            if self.flows.len() >= FLOWS_MAX {
                return None;
            }
        }
        let flow = self.flows.entry(ends).or_insert(Flow {
            way: FlowWay::Searching,
            until: now,
            asked: false,
            used: now,
            waiting: 0,
            packets: 0,
            octets: 0,
        });
        flow.used = now;
        let ask = !flow.asked && flow.until <= now;
        flow.asked |= ask;
        Some((flow, ask))
    }

    /// What waits is tried again, and counted anew.
    pub(super) fn none_wait(&mut self) {
        for flow in self.flows.values_mut() {
            flow.waiting = 0;
        }
    }

    /// The driver answered.
    pub(super) fn set(&mut self, ends: Ends, way: FlowWay, until: Instant) {
        if let Some(flow) = self.flows.get_mut(&ends) {
            (flow.way, flow.until) = (way, until);
            // Whoever searches tells by itself when it is over.
            flow.asked = way == FlowWay::Searching;
            if way != FlowWay::Searching {
                flow.waiting = 0;
            }
        }
    }

    /// Ways may be others: the next packet of each asks, and what is known holds meanwhile.
    pub(super) fn ask_again(&mut self, now: Instant, which: impl Fn(&Ends, &FlowWay) -> bool) {
        for (ends, flow) in &mut self.flows {
            if which(ends, &flow.way) {
                (flow.until, flow.asked) = (now, false);
                if matches!(flow.way, FlowWay::Drop(_)) {
                    flow.way = FlowWay::Searching;
                }
            }
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let used = |flow: &Flow| now.saturating_duration_since(flow.used) < IDLE_MAX;
        self.flows.retain(|_, flow| used(flow));
    }

    pub(super) fn clear(&mut self) {
        self.flows.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Ends, &Flow)> {
        self.flows.iter()
    }

    /// Those go first that protect nothing: a scan of addresses must not push out what works.
    fn make_room(&mut self, now: Instant) {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.looked.is_some_and(|at| since(at) < LOOK_EVERY) {
            return;
        }
        self.looked = Some(now);
        let fresh = |flow: &Flow| since(flow.used) < SHORT;
        self.flows.retain(|_, flow| {
            matches!(flow.way, FlowWay::Protect { .. }) || (flow.waiting > 0 && fresh(flow))
        });
        if self.flows.len() >= FLOWS_MAX {
            self.flows.retain(|_, flow| fresh(flow));
        }
    }
}

const FLOWS_MAX: usize = 16_384;
/// REQUIREMENTS A-26.
const IDLE_MAX: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_secs(3);
/// To look through all of them takes as long as thousands of packets.
const LOOK_EVERY: Duration = Duration::from_millis(100);
