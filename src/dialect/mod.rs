//! How it looks: the only modules that know the clients' JSON.
//!
//! A dialect reads requests and writes frames; it decides nothing.

pub mod native;
pub mod json;
pub mod frame;
