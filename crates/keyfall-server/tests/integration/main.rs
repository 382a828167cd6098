//! A whole server: its directory, its socket, its carrier, its ends.

mod audit;
mod changing;
mod crash;
mod loss;
mod meeting;
mod orders;
mod packets;
mod peers;
mod refusals;
mod secrets;
mod served;
mod signing;
