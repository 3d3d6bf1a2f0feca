//! Every metric, in the order in which they are served and documented: from Postgres to the client.
//!
//! Names are what alert rules and dashboards are written against: one that is there is not changed.

mod stream;
mod routing;
mod delivery;
mod service;

use crate::metrics::family::Family;

/// The families, under their headings.
pub const SECTIONS: &[(&str, &[Family])] = &[
    ("From Postgres", stream::FAMILIES),
    ("Routing", routing::FAMILIES),
    ("Delivery", delivery::FAMILIES),
    ("Who asks, and the process", service::FAMILIES),
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Family> {
    SECTIONS.iter().flat_map(|(_, families)| *families)
}
