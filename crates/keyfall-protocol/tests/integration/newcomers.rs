//! Those who come with a token, beside the terminals of a [`Pair`].

use core::net::SocketAddr;

use keyfall_protocol::ids::Tick;
use keyfall_protocol::terminal::{ContactInput, ContactOutput, FirstContact, FirstContactError};
use keyfall_protocol::token::Token;

use crate::sharing::{Asker, Pair, Way};

/// Somebody with a token.
pub(crate) struct Newcomer {
    pub(crate) contact: FirstContact,
    pub(crate) address: SocketAddr,
    pub(crate) ended: Option<FirstContactError>,
    pub(crate) wake: Option<Tick>,
}

impl Pair {
    /// Somebody comes with a token, from a port of his own.
    pub(crate) fn arrive(&mut self, token: &Token, port: u16) {
        let token = Token::parse(&token.text()).expect("it reads");
        self.newcomers.push(Newcomer {
            contact: FirstContact::new(token, self.now, &mut self.rng),
            address: SocketAddr::from(([192, 0, 2, 1], port)),
            ended: None,
            wake: None,
        });
        self.drain_newcomer(self.newcomers.len() - 1);
    }

    pub(crate) fn tell_newcomer(&mut self, place: usize, datagram: &[u8]) {
        self.feed_newcomer(place, ContactInput::FromServer(datagram));
    }

    pub(crate) fn feed_newcomer(&mut self, place: usize, input: ContactInput<'_>) {
        let newcomer = &mut self.newcomers[place];
        newcomer
            .contact
            .handle_input(self.now, &mut self.rng, input);
        self.drain_newcomer(place);
    }

    fn drain_newcomer(&mut self, place: usize) {
        loop {
            let newcomer = &mut self.newcomers[place];
            let address = newcomer.address;
            match newcomer.contact.poll_output() {
                ContactOutput::ToServer(octets) => self.send(Way::Up(address), octets),
                ContactOutput::Ended(error) => newcomer.ended = Some(error),
                ContactOutput::Brought(terminal) => {
                    self.askers.push(Asker {
                        machine: *terminal,
                        address,
                        device: Vec::new(),
                        user: Vec::new(),
                        ended: Vec::new(),
                        wake: None,
                    });
                    self.drain_asker(self.askers.len() - 1);
                }
                ContactOutput::Timeout { at } => {
                    newcomer.wake = at;
                    return;
                }
            }
        }
    }
}
