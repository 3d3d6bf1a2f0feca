//! Live changes as clients see them: each view is a client of the daemon, as any other would be.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::path::Path;

use tokio::task::JoinSet;

use crate::cli::tail::client::Client;
use crate::cli::tail::client::ClientError;
use crate::cli::tail::client::Progress;
use crate::cli::tail::client::Settings;
use crate::cli::tail::client::TokenSource;
use crate::cli::tail::frame::Content;
use crate::cli::tail::print::Colours;
use crate::cli::tail::print::Printer;

use super::people::Person;

/// Who, which table, which columns. Few columns: a line per change is to fit the terminal.
const VIEWS: &[(&str, &str, &[&str])] = &[
    ("admin", "orders", &["id", "status", "total", "note"]),
    ("admin", "sessions", &["id", "status", "topic", "agent"]),
    ("admin", "messages", &["id", "order_id", "sender_role", "body", "read_at"]),
    ("customer", "locations", &["driver_id", "latitude", "longitude"]),
    ("driver", "orders", &["id", "status"]),
];

/// Prints what the people see, until `url` is gone for good or a client is refused.
///
/// # Errors
///
/// [`ClientError`] of the first view that ends.
pub async fn show(url: &str, people: &[Person]) -> Result<(), ClientError> {
    let mut views = JoinSet::new();
    for (role, table, columns) in VIEWS {
        let Some(person) = people.iter().find(|person| person.role == *role) else { continue };
        let client = Client::new(settings(url, &person.token_file, table, columns))?;
        views.spawn(follow(client, format!("{role:<8} {table:<9}")));
    }
    while let Some(view) = views.join_next().await {
        // A view that panicked has said so itself.
        view.unwrap_or(Ok(()))?;
    }
    Ok(())
}

fn settings(url: &str, token_file: &Path, table: &str, columns: &[&str]) -> Settings {
    Settings {
        url: url.to_owned(),
        token: TokenSource::File(token_file.to_owned()),
        table: table.to_owned(),
        condition: None,
        filter: None,
        columns: columns.iter().copied().map(str::to_owned).collect(),
        events: Vec::new(),
        since: None,
        snapshot: false,
    }
}

async fn follow(mut client: Client, label: String) -> Result<(), ClientError> {
    let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut printer = Printer::new(if coloured { Colours::On } else { Colours::Off });
    loop {
        // At the start the daemon is not there yet, and in the end no more: nothing to tell.
        let Progress::Frame(frame) = client.next().await? else { continue };
        match &frame.content {
            Content::Subscribed { columns, key, .. } => printer.describe(columns, key),
            Content::Row(row) => {
                let line = printer.line(row);
                if writeln!(io::stdout().lock(), "{label} {line}").is_err() {
                    return Ok(());
                }
            }
            Content::Welcome { .. }
            | Content::Authenticated { .. }
            | Content::Synced { .. }
            | Content::Resync { .. }
            | Content::Heartbeat { .. }
            | Content::Restart { .. }
            | Content::Error { .. }
            | Content::Other => {}
        }
    }
}
