//! Security and robustness of the terminal machine, against what a server would sign and what
//! nobody should.

mod answers;
mod asking;
mod clock;
mod datagrams;
mod driven;
mod exclusion;
mod fixture;
mod halting;
mod handing;
mod holding;
mod insiders;
mod locked;
mod net;
mod notices;
mod orders;
mod outdated;
mod packets;
mod per_session;
mod records;
mod renewing;
mod replay;
mod search;
mod search_attacks;
mod search_model;
mod stored;
mod theft;
mod trials;
