//! walcast: every committed row change of a Postgres database, pushed to the clients that asked
//! for it and may see it.
//!
//! Modules in reading order, from Postgres to the client; ARCHITECTURE.md has the map.

pub mod change;
