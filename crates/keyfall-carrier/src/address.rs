//! Where a carrier is: the text that stands in configurations and enrolment packages.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;

/// A UDP multicast group, the interface towards it, and how far frames travel.
///
/// As text: `udp://239.255.70.77:47700?if=127.0.0.1&ttl=1`. The interface is always named, because
/// without it the system would choose one, and on a machine with several it is the wrong one that
/// is noticed last. `ttl` may be left out and is then 1: the local network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CarrierAddress {
    group: SocketAddrV4,
    interface: Ipv4Addr,
    /// Routers that a frame may pass, plus one; 0 keeps it inside this machine.
    ttl: u8,
}

impl CarrierAddress {
    /// The group `group`, reached by the interface that has the address `interface`.
    ///
    /// # Errors
    /// Where `group` is not multicast, has port 0, or `interface` names none.
    pub fn new(group: SocketAddrV4, interface: Ipv4Addr, ttl: u8) -> Result<Self, AddressError> {
        if !group.ip().is_multicast() {
            return Err(AddressError::NotMulticast(*group.ip()));
        }
        if group.port() == 0 {
            return Err(AddressError::NoPort);
        }
        if interface.is_unspecified() || interface.is_multicast() || interface.is_broadcast() {
            return Err(AddressError::NotAnInterface(interface));
        }
        Ok(Self {
            group,
            interface,
            ttl,
        })
    }

    /// Group address and port.
    #[must_use]
    pub const fn group(&self) -> SocketAddrV4 {
        self.group
    }

    /// The address of the interface on this machine.
    #[must_use]
    pub const fn interface(&self) -> Ipv4Addr {
        self.interface
    }

    /// The time to live of what is sent.
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// The same group by another interface: what a terminal does whose own address is not the
    /// one in its enrolment package.
    ///
    /// # Errors
    /// Where `interface` names none.
    pub fn by_interface(self, interface: Ipv4Addr) -> Result<Self, AddressError> {
        Self::new(self.group, interface, self.ttl)
    }
}

impl FromStr for CarrierAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = text.strip_prefix("udp://").ok_or(AddressError::NotUdp)?;
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let group = parse_group(place)?;
        let mut interface = None;
        let mut ttl = None;
        for parameter in parameters
            .split('&')
            .filter(|parameter| !parameter.is_empty())
        {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let given_before = match name {
                "if" => interface.replace(parse_interface(value)?).is_some(),
                "ttl" => ttl.replace(parse_ttl(value)?).is_some(),
                _ => return Err(AddressError::UnknownParameter(name.to_owned())),
            };
            if given_before {
                return Err(AddressError::GivenTwice(name.to_owned()));
            }
        }
        // The group first: who wrote a unicast address has more to mend than the interface.
        let interface_given = interface.unwrap_or(Ipv4Addr::LOCALHOST);
        let address = Self::new(group, interface_given, ttl.unwrap_or(DEFAULT_TTL))?;
        interface.map(|_| address).ok_or(AddressError::NoInterface)
    }
}

impl fmt::Display for CarrierAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "udp://{}?if={}&ttl={}",
            self.group, self.interface, self.ttl
        )
    }
}

/// Why a text is not the address of a carrier. Each says in one sentence what to write instead.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    #[error("a carrier address begins with udp://, as in {EXAMPLE}")]
    NotUdp,
    #[error("{0:?} is not an IPv4 address and port, as in {EXAMPLE}")]
    NotIpv4(String),
    #[error("{0} is not a multicast group: write one from 224.0.0.0 to 239.255.255.255")]
    NotMulticast(Ipv4Addr),
    #[error("the port is missing: write it after the group, as in {EXAMPLE}")]
    NoPort,
    #[error("{0:?} is not a port: write a number from 1 to 65535")]
    NotAPort(String),
    #[error(
        "the interface is missing: add if= and the address of one of this machine's interfaces"
    )]
    NoInterface,
    #[error("{0:?} is not the IPv4 address of an interface: write it as in if=127.0.0.1")]
    InterfaceNotIpv4(String),
    #[error("{0} names no single interface: write the address of one of this machine's")]
    NotAnInterface(Ipv4Addr),
    #[error("{0:?} is not a time to live: write a number from 0 to 255, as in ttl=1")]
    NotATtl(String),
    #[error("{0:?} is not a parameter of a carrier address: there are if and ttl")]
    UnknownParameter(String),
    #[error("{0:?} is given twice: write it once")]
    GivenTwice(String),
}

fn parse_group(place: &str) -> Result<SocketAddrV4, AddressError> {
    match place.parse() {
        Ok(SocketAddr::V4(group)) => return Ok(group),
        Ok(SocketAddr::V6(_)) => return Err(AddressError::NotIpv4(place.to_owned())),
        Err(_) => {}
    }
    let (ip, port) = place
        .split_once(':')
        .map_or((place, None), |(ip, port)| (ip, Some(port)));
    if ip.parse::<Ipv4Addr>().is_err() {
        return Err(AddressError::NotIpv4(place.to_owned()));
    }
    Err(match port {
        None | Some("") => AddressError::NoPort,
        Some(port) => AddressError::NotAPort(port.to_owned()),
    })
}

fn parse_interface(value: &str) -> Result<Ipv4Addr, AddressError> {
    if value.is_empty() {
        return Err(AddressError::NoInterface);
    }
    value
        .parse()
        .map_err(|_| AddressError::InterfaceNotIpv4(value.to_owned()))
}

fn parse_ttl(value: &str) -> Result<u8, AddressError> {
    value
        .parse()
        .map_err(|_| AddressError::NotATtl(value.to_owned()))
}

const DEFAULT_TTL: u8 = 1;
const EXAMPLE: &str = "udp://239.255.70.77:47700?if=127.0.0.1&ttl=1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_is_read() {
        let address: CarrierAddress = EXAMPLE.parse().expect("the example");
        assert_eq!(
            address.group(),
            "239.255.70.77:47700".parse().expect("a socket address")
        );
        assert_eq!(address.interface(), Ipv4Addr::LOCALHOST);
        assert_eq!(address.ttl(), 1);
        assert_eq!(address.to_string(), EXAMPLE);
        let shuffled = "udp://239.255.70.77:47700?ttl=1&if=127.0.0.1".parse();
        assert_eq!(shuffled, Ok(address));
        assert_eq!(
            "udp://239.255.70.77:47700?if=127.0.0.1".parse(),
            Ok(address)
        );
    }

    #[test]
    fn another_interface_keeps_the_group() {
        let address: CarrierAddress = EXAMPLE.parse().expect("the example");
        let moved = address
            .by_interface(Ipv4Addr::new(10, 0, 0, 2))
            .expect("an interface");
        assert_eq!(
            moved.to_string(),
            "udp://239.255.70.77:47700?if=10.0.0.2&ttl=1"
        );
        let nowhere = address.by_interface(Ipv4Addr::UNSPECIFIED);
        assert_eq!(
            nowhere,
            Err(AddressError::NotAnInterface(Ipv4Addr::UNSPECIFIED))
        );
    }

    #[test]
    fn each_mistake_has_its_sentence() {
        let begin = "a carrier address begins with udp://, as in \
                     udp://239.255.70.77:47700?if=127.0.0.1&ttl=1";
        let port = "the port is missing: write it after the group, as in \
                    udp://239.255.70.77:47700?if=127.0.0.1&ttl=1";
        let interface = "the interface is missing: add if= and the address of one of this \
                         machine's interfaces";
        for (text, sentence) in [
            ("", begin),
            ("239.1.1.1:5000", begin),
            ("http://239.1.1.1:5000", begin),
            ("udp://239.1.1.1?if=127.0.0.1", port),
            ("udp://239.1.1.1:?if=127.0.0.1", port),
            ("udp://239.1.1.1:0?if=127.0.0.1", port),
            (
                "udp://239.1.1.1:70000?if=127.0.0.1",
                "\"70000\" is not a port: write a number from 1 to 65535",
            ),
            (
                "udp://192.168.1.9:5000",
                "192.168.1.9 is not a multicast group: write one from 224.0.0.0 to \
                 239.255.255.255",
            ),
            (
                "udp://[ff02::1]:5000",
                "\"[ff02::1]:5000\" is not an IPv4 address and port, as in \
                 udp://239.255.70.77:47700?if=127.0.0.1&ttl=1",
            ),
            (
                "udp://radio:5000",
                "\"radio:5000\" is not an IPv4 address and port, as in \
                 udp://239.255.70.77:47700?if=127.0.0.1&ttl=1",
            ),
            ("udp://239.1.1.1:5000", interface),
            ("udp://239.1.1.1:5000?", interface),
            ("udp://239.1.1.1:5000?if=", interface),
            ("udp://239.1.1.1:5000?ttl=3", interface),
            (
                "udp://239.1.1.1:5000?if=eth0",
                "\"eth0\" is not the IPv4 address of an interface: write it as in if=127.0.0.1",
            ),
            (
                "udp://239.1.1.1:5000?if=0.0.0.0",
                "0.0.0.0 names no single interface: write the address of one of this machine's",
            ),
            (
                "udp://239.1.1.1:5000?if=127.0.0.1&ttl=256",
                "\"256\" is not a time to live: write a number from 0 to 255, as in ttl=1",
            ),
            (
                "udp://239.1.1.1:5000?if=127.0.0.1&ttl=-1",
                "\"-1\" is not a time to live: write a number from 0 to 255, as in ttl=1",
            ),
            (
                "udp://239.1.1.1:5000?if=127.0.0.1&loop=1",
                "\"loop\" is not a parameter of a carrier address: there are if and ttl",
            ),
            (
                "udp://239.1.1.1:5000?if=127.0.0.1&if=127.0.0.2",
                "\"if\" is given twice: write it once",
            ),
        ] {
            let error = text.parse::<CarrierAddress>().expect_err(text);
            assert_eq!(error.to_string(), sentence, "{text}");
        }
    }
}
