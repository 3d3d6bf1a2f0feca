//! Who sees it: subscriptions become groups, changes become frames, frames go into outboxes.
//!
//! ```text
//! ring feed ──▶ shard: match_pass ──▶ index ──▶ decide ──▶ encode ──▶ flush ──▶ outbox ──▶ wire
//!                      read_behind ─▶ ring ───▶ decide ──▶ encode ──▶ outbox ─▶ wire
//! ```
//!
//! A developer who asks why a client did not get a row reads `plan` (may it ask for this at all?),
//! `index`, `decide`, `pass` and `outbox`, in this order.
//!
//! # Invariants
//!
//! - This module alone decides who sees what; sessions are handed frames, never a change.
//! - A frame is made only of a [`decide::Visible`], and only `decide` makes one.
//! - A subscription gets an unbroken run of its changes, or a `resync`.
//! - The shard never waits for a session.

pub mod subscription;
pub mod policy;
pub mod plan;
mod admit;
pub mod asked;
pub mod projection;
mod image;
pub mod decide;
pub mod explain;
pub mod lookup;
pub mod encode;
mod reduce;
mod throttle;
mod conflation;
mod distance;
mod group;
mod body;
mod groups;
mod index;
mod watch;
mod scope;
pub mod budget;
pub mod outbox;
pub mod session;
pub mod shard;
mod subscribe;
mod replan;
mod question;
mod handover;
mod rows;
mod payload;
mod pass;
mod metered;
mod parked;
mod paced;
mod pause;
pub mod expiry;
mod slices;
mod member;
mod behind;
mod drain;
pub mod inspect;
pub mod run;

#[cfg(test)]
mod tests;
