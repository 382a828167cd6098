//! Security and robustness of the terminal machine, against what a server would sign and what
//! nobody should.

mod fixture;
mod stored;
mod trials;
