//! What a change is: positions, tables, row images, values, transactions.
//!
//! Ground floor: no I/O, no clock, and nothing here knows who reads it.

pub mod lsn;
pub mod id;
pub mod cursor;
pub mod types;
pub mod relation;
pub mod tuple;
pub mod value;
pub mod transaction;
pub mod visibility;
