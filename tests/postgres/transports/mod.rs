//! The other transports: they deliver what the WebSocket delivers, and a cursor of one is good on
//! every other.

mod changes;
mod events;
mod https;
mod node;
mod origins;
mod rows;
mod stop;
mod switching;

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::http::Http;

/// A table that everybody sees.
pub(super) async fn open(set: &[&str]) -> Deployment {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, body text, extra json)";
    let tables = "[[table]]\nname = 'public.notes'\nopen = true\n\
                  [[table]]\nname = 'public.accounts'\nopen = true\n";
    Deployment::start(Plan { schema, tables, set, ..Plan::default() }).await
}

pub(super) async fn http(deployment: &Deployment) -> Http {
    Http::connect(deployment.daemon.address()).await
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
