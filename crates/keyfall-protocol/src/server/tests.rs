//! The server machine: store before send, orders judged by what is stored, numbers that never
//! come twice.

mod desk;
mod model;
mod sending;
mod storing;
