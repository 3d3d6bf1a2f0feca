//! walcast: every committed row change of a Postgres database, pushed to the clients that asked
//! for it and may see it.
//!
//! Modules in reading order, from Postgres to the client; ARCHITECTURE.md has the map.

// Plain comments: a doc comment here would make rustdoc look up a module's own links in this file.

// What a change is: positions, tables, row images, values, transactions.
pub mod change;
// What is true of a row: filters and policies, exactly as Postgres would answer.
pub mod rule;
// Who asks: token in, claims out.
pub mod auth;
// Whom we believe to be the database.
pub mod tls;
// What takes time and happens seldom, for a collector of traces.
pub mod trace;
// The log.
pub mod logging;
// What the daemon counts, and whether it does its work.
pub mod metrics;
// Metrics and health over HTTP.
pub mod admin;
// Sockets that systemd opened and holds.
pub mod inherit;
// Orders to the running daemon.
pub mod control;
// How many clients, and how often: limits by address and subject.
pub mod gate;

// What just happened: recent transactions by position.
pub mod ring;
// What Postgres says of itself: types, tables, grants.
pub mod catalog;
// Rows, asked of Postgres in the name of a client's role.
pub mod ask;
// What is the case: tables that policies read, as they were at each commit.
pub mod replica;
// Who sees it: subscriptions, groups, decisions, outboxes.
pub mod route;
// How it looks: the clients' JSON.
pub mod dialect;

// From Postgres: the slot's stream becomes transactions.
pub mod ingest;
// Sockets: listeners, handshakes, sessions.
pub mod serve;
// The operator: psql to walcast.
pub mod console;

// The file, the environment and the flags become every component's settings.
pub mod config;
// Builds the stages, owns their threads, stops them in order.
pub mod daemon;
// The commands.
pub mod cli;
