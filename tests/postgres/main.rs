//! The Postgres ring: what walcast does, against real servers that it starts for itself.
//!
//! One `mod` line per topic. `WALCAST_TEST_PG_BIN` names the folder of the server programs to use;
//! absent, the newest that is installed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, reason = "a test may panic; JSON is read by index")]

mod access;
mod admin;
mod catalog;
mod check;
mod commands;
mod console;
mod crowd;
mod dead;
mod delivery;
mod demo;
mod demo_command;
mod deployment;
mod drain;
mod guides;
mod explain;
mod fence;
mod hostile;
mod http;
mod images;
mod inside;
mod install;
mod ingest;
mod inherit;
mod large;
mod membership;
mod limits;
mod lost;
mod policies;
mod rules;
mod program;
mod proxies;
#[path = "../simulation/random.rs"]
mod random;
mod reload;
mod replicas;
mod revoked;
mod server;
mod setup;
mod shutdown;
mod slow;
mod snapshot;
mod stalled;
mod sql;
mod support;
mod throttle;
mod tls;
mod tokens;
mod transports;
mod unseen;
mod values;
mod waiting;
mod wal;
