//! Operators give orders, and sign where offline keys are asked for.

use keyfall_protocol::command::OrderKind;
use keyfall_protocol::ids::{GroupNumber, Tick};
use keyfall_protocol::receipt::Receipt;
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{Done, KeySetDraft, Order, OrderId, Refusal};

use crate::station::StationId;
use crate::world::{FAR, Happening, World};

/// What an operator wants.
#[derive(Clone, Debug)]
pub enum Errand {
    Order(Order),
    /// DELETE, INIT, LOCK or UNLOCK: drafted by the server, signed by the erase key, issued.
    Erase {
        station: StationId,
        kind: OrderKind,
        receipt_wanted: bool,
    },
    /// `server sign-keys`: drafted by the server, signed by the root, installed.
    SignKeys(Box<KeySetDraft>),
}

impl From<Order> for Errand {
    fn from(order: Order) -> Self {
        Self::Order(order)
    }
}

impl World {
    /// Creates a group and returns its number.
    pub fn create_group(
        &mut self,
        name: &str,
        members: &[StationId],
        cadence: Option<Cadence>,
    ) -> GroupNumber {
        let order = Order::CreateGroup {
            packets: None,
            name: name.to_owned(),
            members: members
                .iter()
                .map(|id| self.stations[id.0].number)
                .collect(),
            cadence,
        };
        match self.order(order) {
            Ok(Done::Group { number, .. }) => number,
            other => panic!("{name} was not created: {other:?}"),
        }
    }

    /// Shuts stations out.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn exclude(&mut self, stations: &[StationId]) -> Result<Done, Refusal> {
        let number = |id: &StationId| self.stations[id.0].number;
        let terminals = stations.iter().map(number).collect();
        self.order(Order::Exclude { terminals })
    }

    /// Sends DELETE, INIT, LOCK or UNLOCK, with a receipt wanted of a DELETE.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn send_order(&mut self, station: StationId, kind: OrderKind) -> Result<Done, Refusal> {
        self.order(Errand::Erase {
            station,
            kind,
            receipt_wanted: kind == OrderKind::Delete,
        })
    }

    /// Signs the next online keys.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn sign_keys(&mut self, wanted: KeySetDraft) -> Result<Done, Refusal> {
        self.order(Errand::SignKeys(Box::new(wanted)))
    }

    /// The receipt that a station left, where it left one.
    #[must_use]
    pub fn receipt(&self, id: StationId) -> Option<Receipt> {
        self.stations[id.0].erasure()?.receipt
    }

    /// Gives an order and waits for its end.
    ///
    /// # Errors
    /// The server's refusal.
    pub fn order(&mut self, errand: impl Into<Errand>) -> Result<Done, Refusal> {
        let id = self.order_at(self.now(), errand);
        loop {
            if let Some(outcome) = self.done.remove(&id) {
                return outcome;
            }
            assert!(self.step(FAR), "the server never answered");
        }
    }

    /// Plans an order. What came of it: [`Self::outcome`].
    pub fn order_at(&mut self, at: Tick, errand: impl Into<Errand>) -> OrderId {
        self.orders += 1;
        let id = OrderId(self.orders);
        self.clock
            .plan(at, Happening::OrderComes(id, errand.into()));
        id
    }

    /// The end of an order; `None` while it has not ended, or where the server crashed before.
    #[must_use]
    pub fn outcome(&self, id: OrderId) -> Option<&Result<Done, Refusal>> {
        self.done.get(&id)
    }

    /// The order itself, signed by the offline keys where it has to be; `None` while the server is
    /// down.
    pub(super) fn carry(&mut self, errand: Errand) -> Option<Result<Order, Refusal>> {
        let server = self.server.as_mut()?;
        Some(match errand {
            Errand::Order(order) => Ok(order),
            Errand::Erase {
                station,
                kind,
                receipt_wanted,
            } => {
                let number = self.stations[station.0].number;
                server
                    .draft_order(number, kind, receipt_wanted, &mut self.rng)
                    .map(|command| Order::Issue {
                        frame: self.erase.sign(&command),
                    })
            }
            Errand::SignKeys(wanted) => {
                server
                    .draft_key_set(*wanted, &mut self.rng)
                    .map(|command| Order::InstallKeys {
                        frame: self.root.sign(&command),
                    })
            }
        })
    }
}
