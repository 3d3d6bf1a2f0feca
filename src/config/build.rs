//! Section by section: values into the structs of [`Config`], and the rules that concern more than
//! one value.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::ask;
use crate::config::gate;
use crate::config::operate;
use crate::config::read::Reader;
use crate::config::rls;
use crate::config::tokens;
use crate::config::{
    Access, Admin, Config, Database, Layers, Limits, Listen, Ring, TablePolicy, Values, Window,
};
use crate::ingest::budget;
use crate::ingest::budget::OverBudget;
use crate::logging;
use crate::rule::parse_where;

/// Fills everything in. What could not be read is in the reader's mistakes, and then the result is
/// good for nothing.
pub(super) fn config(reader: &mut Reader) -> Config {
    Config {
        database: database(reader),
        window: Window {
            bytes: reader.integer("window.bytes"),
            age: Duration::from_secs(reader.integer("window.seconds")),
        },
        wal: wal(reader),
        ring: Ring {
            bytes_max: reader.size("ring.bytes_max"),
            age_max: Duration::from_secs(reader.integer("ring.seconds_max")),
        },
        listen: listen(reader),
        admin: admin(reader),
        auth: tokens::settings(reader),
        settings: tokens::made_of_claims(reader),
        limits: limits(reader),
        gate: gate::limits(reader),
        snapshot: ask::Settings {
            connections: reader.size("snapshot.connections"),
            waiting_max: reader.size("snapshot.waiting_max"),
            rows_max: reader.size("snapshot.rows_max"),
            bytes_max: reader.size("snapshot.bytes_max"),
            cell_bytes_max: reader.size("limits.frame_bytes_max"),
            held_bytes_max: reader.size("snapshot.held_bytes_max"),
            timeout: Duration::from_secs(reader.integer("snapshot.timeout_seconds")),
            verdicts: rls::verdicts(reader),
        },
        row_security: rls::row_security(reader),
        replicas: rls::replicas(reader),
        console: operate::console(reader),
        drain: Duration::from_secs(reader.integer("drain.seconds")),
        watch: reader.boolean("reload.watch"),
        log: log(reader),
        otlp: operate::otlp(reader),
        tables: tables(reader),
        warnings: Vec::new(),
        values: Values::default(),
        layers: Layers::default(),
    }
}

/// What is logged.
fn log(reader: &mut Reader) -> String {
    let levels = reader.text("log.level").unwrap_or_default();
    if logging::filter(&levels).is_err() {
        let expected =
            "error, warn, info, debug or trace, or by module: info,walcast::ingest=debug";
        reader.wrong::<()>("log.level", expected);
    }
    levels
}

fn database(reader: &mut Reader) -> Database {
    let url = reader.required("database.url", "postgres://walcast@localhost/app");
    check_url(reader, "database.url", &url);
    let password = reader.secret("database.password_file");
    let separate = reader.is_given("database.ask_url");
    let ask_url = reader.text("database.ask_url").unwrap_or_else(|| url.clone());
    if separate {
        check_url(reader, "database.ask_url", &ask_url);
    } else {
        let message = "database.ask_url: not given, so questions are asked as the role that may \
                       read every table's log; give it a role without REPLICATION";
        reader.warnings.push(message.to_owned());
    }
    let own_password = reader.secret("database.ask_password_file");
    let ask_password = if separate { own_password } else { own_password.or(password.clone()) };
    let slot = reader.required("database.slot", "walcast");
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !slot.is_empty() && (slot.len() > 63 || !slot.bytes().all(allowed)) {
        reader.wrong::<()>("database.slot", "at most 63 of a-z, 0-9 and _");
    }
    let publication = reader.required("database.publication", "walcast");
    if publication.len() > 63 {
        reader.wrong::<()>("database.publication", "at most 63 bytes");
    }
    Database {
        url,
        ask_url,
        password,
        ask_password,
        tls_ca_file: readable(reader, "database.tls_ca_file"),
        slot,
        publication,
        create_slot: reader.boolean("database.create_slot"),
    }
}

/// How much log the slot may keep. The window is a small part of it, or it would be shed at once.
fn wal(reader: &mut Reader) -> budget::Settings {
    let given = |bytes: u64| Some(bytes).filter(|bytes| *bytes > 0);
    let warn_bytes = given(reader.integer("wal.warn_bytes"));
    let budget_bytes = given(reader.integer("wal.budget_bytes"));
    if let (Some(warn), Some(budget)) = (warn_bytes, budget_bytes)
        && warn > budget
    {
        reader.wrong::<()>("wal.warn_bytes", "not more than wal.budget_bytes");
    }
    if budget_bytes.is_some_and(|budget| reader.integer("window.bytes") > budget / 4) {
        let message = "window.bytes: more than a quarter of wal.budget_bytes, so a quarter of that \
                       is held back";
        reader.warnings.push(message.to_owned());
    }
    let over = match reader.text("wal.over_budget").as_deref() {
        Some("keep") | None => OverBudget::Keep,
        Some("let_go") => OverBudget::LetGo,
        Some(_) => reader.wrong("wal.over_budget", "keep or let_go").unwrap_or_default(),
    };
    budget::Settings { warn_bytes, budget_bytes, over }
}

/// A file that can be read, for someone who reads it later.
fn readable(reader: &mut Reader, name: &str) -> Option<PathBuf> {
    reader.content(name)?;
    reader.file(name)
}

fn check_url(reader: &mut Reader, name: &str, url: &str) {
    if url.is_empty() {
        return;
    }
    // libpq has more modes than the parser knows.
    let known = url.replace("sslmode=verify-full", "sslmode=require");
    let known = known.replace("sslmode=verify-ca", "sslmode=require");
    match known.replace("sslmode=allow", "sslmode=prefer").parse::<tokio_postgres::Config>() {
        Ok(parsed) if parsed.get_password().is_some() => {
            let file = name.replace("url", "password_file");
            let message = format!("a password does not belong here; put it into a file, {file}");
            reader.mistake(name, message);
        }
        Ok(parsed) if parsed.get_hosts().is_empty() => {
            reader.wrong::<()>(name, "a host (or a folder with a socket) in it");
        }
        Ok(parsed) if parsed.get_user().is_none() => {
            reader.wrong::<()>(name, "a user in it, as in postgres://walcast@host:5432/app");
        }
        Ok(_) => {}
        Err(_) => {
            let expected = "a connection string: postgres://walcast@host:5432/app, or \
                            host=/run/postgresql user=walcast dbname=app";
            reader.wrong::<()>(name, expected);
        }
    }
}

fn listen(reader: &mut Reader) -> Listen {
    let text = reader.required("listen.address", "127.0.0.1:4480");
    let address = text.parse().ok().or_else(|| {
        reader.wrong("listen.address", "an address and a port, as in 127.0.0.1:4480 or [::]:4480")
    });
    let address = address.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    let shards = reader.size("listen.shards");
    let origins = reader.texts("listen.origins");
    if !origins.iter().all(|origin| is_origin(origin)) {
        reader.wrong::<()>("listen.origins", "origins, as in https://app.example.com, or *");
    }
    let origins = origins.iter().map(|origin| origin.to_ascii_lowercase()).collect();
    Listen {
        address,
        shards: Some(shards).filter(|shards| *shards > 0),
        origins,
        tls: gate::tls(reader),
    }
}

fn admin(reader: &mut Reader) -> Admin {
    let text = reader.required("admin.address", "127.0.0.1:4481");
    let address = match text.as_str() {
        "off" => None,
        text => text.parse().ok().or_else(|| {
            let expected = "an address and a port, as in 127.0.0.1:4481 or [::1]:4481, or off";
            reader.wrong("admin.address", expected)
        }),
    };
    Admin { address, metrics: reader.boolean("admin.metrics") }
}

/// Whether a browser could name an origin so: a scheme, a host, perhaps a port, and nothing after
/// them; or `null`, as it does for files and sandboxes.
fn is_origin(text: &str) -> bool {
    let is_host = |rest: &str| {
        !rest.is_empty() && !rest.contains(|it: char| "/?#@".contains(it) || it.is_whitespace())
    };
    text == "*" || text == "null" || text.split_once("://").is_some_and(|(_, rest)| is_host(rest))
}

fn limits(reader: &mut Reader) -> Limits {
    let limits = Limits {
        subscriptions_per_session: reader.size("limits.subscriptions_per_session"),
        request_bytes_max: reader.size("limits.request_bytes_max"),
        outbox_bytes_max: reader.size("limits.outbox_bytes_max"),
        frame_bytes_max: reader.size("limits.frame_bytes_max"),
        outbox_total_bytes_max: reader.size("limits.outbox_total_bytes_max"),
        handshake: Duration::from_secs(reader.integer("limits.handshake_seconds")),
        ping: Duration::from_secs(reader.integer("limits.ping_seconds")),
        silence: Duration::from_secs(reader.integer("limits.silence_seconds")),
    };
    if limits.outbox_total_bytes_max < limits.outbox_bytes_max {
        reader.wrong::<()>(
            "limits.outbox_total_bytes_max",
            &format!("at least limits.outbox_bytes_max, which is {}", limits.outbox_bytes_max),
        );
    }
    if limits.silence <= limits.ping {
        reader.wrong::<()>(
            "limits.silence_seconds",
            &format!("more than limits.ping_seconds, which is {}", limits.ping.as_secs()),
        );
    }
    limits
}

fn tables(reader: &mut Reader) -> Vec<TablePolicy> {
    let mut tables: Vec<TablePolicy> = Vec::new();
    for index in 0..reader.entries.count("table") {
        let key = |leaf: &str| format!("table.{index}.{leaf}");
        let text = reader.required(&key("name"), "public.orders");
        let named = table_name(&text);
        if named.is_none() && !text.is_empty() {
            reader.wrong::<()>(&key("name"), "schema.table, or table in the schema public");
        }
        let access = access(reader, &key("policy"), &key("open"));
        let undecided = rls::undecided(reader, &key("undecided"));
        let Some((schema, name)) = named else { continue };
        if tables.iter().any(|other| other.schema == schema && other.name == name) {
            reader.mistake(&key("name"), "this table was named before".to_owned());
        }
        tables.push(TablePolicy { schema, name, access, undecided });
    }
    if tables.is_empty() {
        let message = "table: no table is listed, so clients are refused every one without \
                       row-level security of its own";
        reader.warnings.push(message.to_owned());
    }
    tables
}

fn access(reader: &mut Reader, policy: &str, open: &str) -> Access {
    match (reader.text(policy), reader.boolean(open)) {
        (Some(text), false) => match parse_where(&text) {
            Ok(parsed) => return Access::Policy(parsed),
            Err(error) => {
                let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                reader.mistake(policy, format!("{error}{hint}"));
            }
        },
        (Some(_), true) => {
            reader.mistake(open, "a table has a policy or is open, not both".to_owned());
        }
        (None, false) if !reader.is_given(policy) => {
            let message = "missing; say who sees which rows, or open = true for everybody";
            reader.mistake(policy, message.to_owned());
        }
        (None, _) => {}
    }
    Access::Open
}

/// Splits `schema.table`; a part in double quotes may hold a dot, and two quotes for one.
fn table_name(text: &str) -> Option<(String, String)> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let last = parts.last_mut()?;
        match (character, quoted) {
            ('"', true) if characters.next_if_eq(&'"').is_some() => last.push('"'),
            ('"', _) => quoted = !quoted,
            ('.', false) => parts.push(String::new()),
            (other, _) => last.push(other),
        }
    }
    if quoted || parts.iter().any(|part| part.is_empty() || part.len() > 63) {
        return None;
    }
    match parts.as_slice() {
        [name] => Some(("public".to_owned(), name.clone())),
        [schema, name] => Some((schema.clone(), name.clone())),
        _ => None,
    }
}
