//! How it looks: the only modules that know the clients' JSON, and the statements that stand for it.
//!
//! A dialect reads requests and writes frames; it decides nothing.

pub mod native;
pub mod sql;
pub mod json;
pub mod frame;
