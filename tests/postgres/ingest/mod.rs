//! Ingest against real servers: what the shards are fed, and what the slot is told.

#![expect(clippy::panic, reason = "a test may panic")]

mod changes;
mod interruptions;
mod parts;
mod positions;
mod recordings;
mod refusals;
mod replicas;
mod stage;
