//! The other transports: they deliver what the WebSocket delivers, and a cursor of one is good on
//! every other.

mod events;
mod origins;
mod stop;

use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::http::Http;

/// A table that everybody sees.
pub(super) async fn open(set: &[&str]) -> Deployment {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, body text, extra json)";
    let tables = "[[table]]\nname = 'public.notes'\nopen = true\n";
    Deployment::start(Plan { schema, tables, set, ..Plan::default() }).await
}

pub(super) async fn http(deployment: &Deployment) -> Http {
    Http::connect(deployment.daemon.address()).await
}
