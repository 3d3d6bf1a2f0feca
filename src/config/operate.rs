//! The operator's sections.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::read::Reader;
use crate::console::settings::Settings;
use crate::console::settings::Tls;
use crate::console::users::Users;
use crate::trace::Endpoint;

/// Section `console`.
pub(super) fn console(reader: &mut Reader) -> Settings {
    let address = reader.text("console.address").and_then(|text| {
        text.parse().ok().or_else(|| {
            reader.wrong("console.address", "an address and a port, as in 127.0.0.1:4482")
        })
    });
    let socket = reader.text("console.socket").and_then(|text| {
        let path = PathBuf::from(text);
        if is_socket(&path) {
            return Some(path);
        }
        let expected = "an absolute path that ends as psql looks for it, in .s.PGSQL. and a number";
        reader.wrong("console.socket", expected)
    });
    let users = users(reader);
    let tls = tls(reader);
    if let Some(address) = address {
        let mut missing = users.without_verifier().collect::<Vec<_>>();
        missing.sort_unstable();
        if users.is_empty() {
            let message = "nobody could log in: console.users_file has no verifier of anybody in \
                           console.admin_users or console.stats_users";
            reader.mistake("console.address", message.to_owned());
        } else if !missing.is_empty() {
            let missing = missing.join(", ");
            let warning = format!(
                "console.users_file: no verifier of {missing}, so they can't log in by a password"
            );
            reader.warnings.push(warning);
        }
        if tls.is_none() && !std::net::SocketAddr::ip(&address).is_loopback() {
            let warning = "console.address: reached from other machines, and without TLS what is \
                           said there can be read on the way (console.tls_cert_file)";
            reader.warnings.push(warning.to_owned());
        }
    }
    Settings {
        address,
        socket,
        users: Arc::new(users),
        tls,
        connections_max: reader.size("console.connections_max"),
        startup: Duration::from_secs(reader.integer("console.login_seconds")),
        idle: Duration::from_secs(reader.integer("console.idle_seconds")),
    }
}

/// Section `otlp`.
pub(super) fn otlp(reader: &mut Reader) -> Option<Endpoint> {
    let text = reader.text("otlp.endpoint")?;
    if cfg!(not(feature = "otlp")) {
        let message = "this program was built without the feature otlp, so it can't send traces; \
                       leave the key out, or build it with `cargo build --release --features otlp`";
        reader.mistake("otlp.endpoint", message.to_owned());
        return None;
    }
    Endpoint::parse(&text).or_else(|| {
        let expected = "an address of scheme http or https, as in http://127.0.0.1:4318";
        reader.wrong("otlp.endpoint", expected)
    })
}

fn users(reader: &mut Reader) -> Users {
    let names = |names: Vec<String>| names.into_iter().map(Into::into).collect();
    let admins = names(reader.texts("console.admin_users"));
    let stats = names(reader.texts("console.stats_users"));
    let file = reader.secret("console.users_file");
    let file = file.map(|file| String::from_utf8_lossy(file.expose()).into_owned());
    match Users::new(&file.unwrap_or_default(), admins, stats) {
        Ok(users) => users,
        Err(error) => {
            reader.mistake("console.users_file", error.to_string());
            Users::default()
        }
    }
}

fn tls(reader: &mut Reader) -> Option<Tls> {
    let certificates = reader.content("console.tls_cert_file");
    let key = reader.secret("console.tls_key_file");
    let tls = match (&certificates, &key) {
        (Some(certificates), Some(key)) => Tls::new(certificates, key.expose()),
        (None, None) => return None,
        (Some(_), None) => Err("tls_key_file is missing".to_owned()),
        (None, Some(_)) => Err("tls_cert_file is missing".to_owned()),
    };
    tls.map_err(|wrong| reader.mistake("console.tls_cert_file", wrong)).ok()
}

/// Whether psql finds a socket there.
fn is_socket(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let port = name.strip_prefix(".s.PGSQL.").unwrap_or_default();
    path.is_absolute() && !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit())
}
