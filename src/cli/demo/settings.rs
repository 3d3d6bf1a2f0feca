//! The demo's configuration: a `walcast.toml` like any other, for its private server.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::config::Config;
use crate::config::ConfigError;
use crate::config::Layers;

use super::database;
use super::people::write_private;
use super::postgres::PrivateServer;

/// Who sees what: the part that belongs to the schema.
const TABLES: &str = include_str!("../../../fixtures/demo/walcast.toml");

/// Writes the configuration into `folder`, and the secret that signs tokens beside it; gives the
/// path.
///
/// # Errors
///
/// When a file can't be written.
pub fn write(
    folder: &Path,
    server: &PrivateServer,
    port: u16,
    secret: &str,
) -> io::Result<PathBuf> {
    let secret_file = folder.join("token_secret");
    write_private(&secret_file, secret)?;
    let path = folder.join("walcast.toml");
    write_private(&path, &text(server, port, &secret_file))?;
    Ok(path)
}

fn text(server: &PrivateServer, port: u16, secret_file: &Path) -> String {
    let replication = server.connection_string_as("walcast_replication", database::NAME);
    let asking = server.connection_string_as("walcast_asking", database::NAME);
    let mut text = String::from("# The demo's configuration. It goes when the demo ends.\n\n");
    let mut section = |name: &str, keys: &[(&str, toml::Value)]| {
        let _infallible = writeln!(text, "{name}");
        for (key, value) in keys {
            let _infallible = writeln!(text, "{key} = {value}");
        }
        text.push('\n');
    };
    let strings = |list: &[&str]| list.iter().copied().map(toml::Value::from).collect();
    section("[database]", &[("url", replication.into()), ("ask_url", asking.into())]);
    section("[replicas]", &[("role", "walcast_tables".into())]);
    section("[listen]", &[("address", format!("127.0.0.1:{port}").into())]);
    // Beside it; any port where any was asked for.
    let admin = if port == 0 { 0 } else { port.saturating_add(1) };
    section("[admin]", &[("address", format!("127.0.0.1:{admin}").into())]);
    let roles = toml::Value::Array(strings(&["customer", "driver", "merchant", "admin"]));
    section("[auth]", &[("roles", roles)]);
    let secret_file = secret_file.display().to_string();
    section("[[auth.keys]]", &[("algorithm", "HS256".into()), ("secret_file", secret_file.into())]);
    text.push_str(TABLES);
    text
}

/// Reads it; the environment does not count.
///
/// # Errors
///
/// [`ConfigError`], which would be a mistake in this program.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    Config::load(&Layers { file: Some(path.to_owned()), ..Layers::default() })
}
