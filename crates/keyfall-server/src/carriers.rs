//! Every carrier of the fleet, each opened again where it cannot send.

use std::time::Duration;

use keyfall_carrier::{CarrierAddress, MulticastSender};
use keyfall_protocol::ids::{Tick, UnixSeconds};
use keyfall_protocol::server::Moment;

/// All ways out. A frame goes by each of them.
#[derive(Debug)]
pub(crate) struct Carriers(Vec<Carrier>);

/// One way out.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) address: String,
    /// The checked form; a text that is none never sends, and `fault` says so.
    checked: Option<CarrierAddress>,
    sender: Option<MulticastSender>,
    /// Not before this is it opened again.
    open_again: Tick,
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) last_sent: Option<UnixSeconds>,
    /// What is wrong now, in one sentence.
    pub(crate) fault: Option<String>,
}

impl Carriers {
    /// Opens those that can be opened. That the others cannot is said, and they are tried again.
    pub(crate) fn open(addresses: &[String], at: Moment) -> Self {
        let mut carriers: Vec<_> = addresses.iter().map(|text| Carrier::new(text)).collect();
        for carrier in &mut carriers {
            carrier.open(at);
        }
        Self(carriers)
    }

    /// Hands `frame` to every carrier.
    pub(crate) fn send(&mut self, frame: &[u8], at: Moment) {
        for carrier in &mut self.0 {
            carrier.send(frame, at);
        }
    }

    pub(crate) fn all(&self) -> &[Carrier] {
        &self.0
    }
}

impl Carrier {
    fn new(address: &str) -> Self {
        let (checked, fault) = match address.parse::<CarrierAddress>() {
            Ok(checked) => (Some(checked), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self {
            address: address.to_owned(),
            checked,
            sender: None,
            open_again: Tick::default(),
            sent: 0,
            failed: 0,
            last_sent: None,
            fault,
        }
    }

    fn open(&mut self, at: Moment) {
        let Some(address) = &self.checked else {
            return;
        };
        match MulticastSender::open(address) {
            Ok(sender) => {
                tracing::info!(address = %self.address, "a carrier is open");
                self.sender = Some(sender);
                self.fault = None;
            }
            Err(error) => self.fail(error.to_string(), at),
        }
    }

    fn send(&mut self, frame: &[u8], at: Moment) {
        if self.sender.is_none() && at.now >= self.open_again {
            self.open(at);
        }
        let Some(sender) = &self.sender else {
            self.failed += 1;
            return;
        };
        match sender.send(frame) {
            Ok(()) => {
                self.sent += 1;
                self.last_sent = Some(at.wall);
            }
            Err(error) => {
                self.failed += 1;
                self.sender = None;
                self.fail(error.to_string(), at);
            }
        }
    }

    /// Says it once, until another fault comes or it sends again.
    fn fail(&mut self, fault: String, at: Moment) {
        self.open_again = at.now.plus(OPEN_PAUSE);
        if self.fault.as_ref() != Some(&fault) {
            tracing::error!(address = %self.address, error = %fault, "a carrier does not send");
        }
        self.fault = Some(fault);
    }
}

const OPEN_PAUSE: Duration = Duration::from_secs(2);
