//! The server machine: store before send, orders judged by what is stored, numbers that never
//! come twice.

mod desk;
mod model;
mod scheduling;
mod sending;
mod storing;
