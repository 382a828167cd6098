//! What can be wrong, by who is at fault: bytes ([`DecodeError`]) or our caller ([`ApiMisuse`]).
//! A datagram that a machine refuses is neither: it is a counted [`DropReason`](crate::DropReason).

use thiserror::Error;

/// Bytes that are not a message of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DecodeError {
    /// Longer than a carrier frame may be.
    #[error("{len} octets are more than the {max} that a frame may have")]
    TooLong { len: usize, max: usize },
    /// Something else stands where `what` belongs.
    #[error("{what} is not there or has another form")]
    Unexpected { what: &'static str },
    /// A field that must be there is not.
    #[error("{what} is missing")]
    Missing { what: &'static str },
    /// A number or length outside its bounds.
    #[error("{what} is out of range")]
    OutOfRange { what: &'static str },
    /// A field that this version does not know.
    #[error("there is a field that this version does not know")]
    UnknownField,
    /// A command type that this version does not know.
    #[error("command type {0} is not known to this version")]
    UnknownType(u64),
    /// Octets after the end of the message.
    #[error("there are octets after the end of the message")]
    TrailingOctets,
    /// The same content in another than the one allowed encoding.
    #[error("the encoding is not deterministic (RFC 8949 section 4.2)")]
    NotDeterministic,
}

/// The driver broke the drive contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ApiMisuse {
    /// `Input::Stored` for something that was not handed out, or out of order.
    #[error("Stored({got}) was reported, but {expected:?} is the oldest that is open")]
    NotStoring { got: u64, expected: Option<u64> },
    /// `Input::Unlock` for a terminal that is open, erased, or locked by the server.
    #[error("this terminal may not be unlocked now")]
    MayNotUnlock,
    /// `Input::Unlock` with something else than this terminal's user compartment.
    #[error("that is not the user compartment of this terminal")]
    NotTheUserCompartment,
}
