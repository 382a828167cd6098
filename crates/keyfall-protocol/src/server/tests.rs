//! The server machine: store before send, orders judged by what is stored, numbers that never
//! come twice.

mod changing;
mod confirming;
mod crowd;
mod desk;
mod erasing;
mod exclusion;
mod exposing;
mod leaving;
mod model;
mod owners;
mod protecting;
mod restoring;
mod scheduling;
mod sending;
mod signing;
mod storing;
