//! `walcast setup`: what a DBA applies, for the tables at hand; printed, or run as the DBA's own
//! role. The daemon's roles never run any of it.

mod apply;
mod script;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::{CliError, ConfigArguments};
use crate::config::Config;
use crate::tls::TlsError;
use script::Script;
use script::Variables;

/// Prints the SQL that makes what walcast needs in the database; with --apply runs it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    walcast setup --tables public.orders,public.sessions --role customer | psql -d app\n  \
    walcast setup --config walcast.toml             tables, names and roles from there\n  \
    walcast setup --tables orders --role customer --apply --url postgres://dba@localhost/app\n  \
    walcast setup --remove | psql -d app            giving walcast up\n\n\
    It is what the files of sql/ contain, can be applied again at any time, and only adds. With\n\
    --apply all of it is one transaction.")]
pub struct Setup {
    #[command(flatten)]
    config: ConfigArguments,

    /// Tables to publish and to let the client roles read, as in SQL [default: those of --config]
    #[arg(long, value_name = "TABLE", value_delimiter = ',')]
    tables: Vec<String>,

    /// Roles that tokens name [default: auth.roles of --config]
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<String>,

    /// The publication [default: walcast, or that of --config]
    #[arg(long, value_name = "NAME")]
    publication: Option<String>,

    /// The slot, which --remove drops [default: walcast, or that of --config]
    #[arg(long, value_name = "NAME")]
    slot: Option<String>,

    /// The role that reads the log [default: `walcast_replication`, or that of `database.url`]
    #[arg(long, value_name = "ROLE")]
    replication_role: Option<String>,

    /// The role that asks [default: `walcast_asking`, or that of `database.ask_url`]
    #[arg(long, value_name = "ROLE")]
    asking_role: Option<String>,

    /// Leaves out the replication role, for which it takes a superuser; it is there already
    #[arg(long)]
    without_replication_role: bool,

    /// Leaves out the event trigger that makes changes of functions and schemas count at once. Only a
    /// superuser makes it; for others nothing is made, and a note says so
    #[arg(long)]
    without_fence: bool,

    /// Runs it, instead of printing it
    #[arg(long, requires = "url", conflicts_with = "remove")]
    apply: bool,

    /// Where to run it and as whom: a role that may, never one of walcast's
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// The password for --url; one line end after it is dropped
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// Authorities that the server's certificate must descend from, in PEM
    #[arg(long, value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,

    /// Prints how to drop the slot, the publication, the roles and the event trigger
    #[arg(long)]
    remove: bool,
}

/// Why nothing was set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Nobody said which tables.
    #[error(
        "no table is named: --tables public.orders,public.sessions, or --config with [[table]]"
    )]
    NoTables,
    /// The `sslmode` of the connection string.
    #[error("--url")]
    Tls(#[source] TlsError),
    /// The connection string.
    #[error("--url is not a connection string")]
    Url(#[source] tokio_postgres::Error),
    /// The file of the password.
    #[error("--password-file")]
    Password(#[source] std::io::Error),
    /// There is no connection.
    #[error("the database does not answer: {0}")]
    Connect(String),
    /// A statement was refused.
    #[error("nothing was changed: {statement} was refused")]
    Refused {
        /// The statement, on one line.
        statement: String,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Standard output can't be written.
    #[error("standard output cannot be written")]
    Output(#[source] std::io::Error),
}

impl SetupError {
    fn failed(statement: &str, source: tokio_postgres::Error) -> SetupError {
        let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        SetupError::Refused { statement, source }
    }
}

/// Every name that is needed, from the command line, the configuration, or by default.
struct Names {
    tables: String,
    roles: String,
    publication: String,
    slot: String,
    replication_role: String,
    asking_role: String,
}

impl Setup {
    pub(super) fn run(self) -> Result<ExitCode, CliError> {
        let config = if self.config.is_given() { Some(self.config.load()?) } else { None };
        let names = self.names(config.as_ref());
        let mut out = std::io::stdout().lock();
        if self.remove {
            let fence = Variables::from([("remove", "yes".to_owned())]);
            print(&[(script::REMOVE, names.of_removal()), (script::FENCE, fence)], &mut out)?;
            return Ok(ExitCode::SUCCESS);
        }
        if names.tables.is_empty() {
            return Err(SetupError::NoTables.into());
        }
        let scripts = self.scripts(&names);
        match &self.url {
            Some(url) if self.apply => {
                let password = self.password().map_err(SetupError::Password)?;
                let tls_ca_file = self.tls_ca_file.clone();
                let target = apply::Target { url, password, tls_ca_file };
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(CliError::Process)?;
                runtime.block_on(apply::apply(target, &scripts, &mut out))?;
            }
            _ => print(&scripts, &mut out)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn scripts(&self, names: &Names) -> Vec<(Script, Variables)> {
        let of = |pairs: &[(&'static str, &String)]| {
            pairs.iter().map(|(name, value)| (*name, (*value).clone())).collect::<Variables>()
        };
        let publication = of(&[("publication", &names.publication), ("tables", &names.tables)]);
        let mut scripts = vec![(script::PUBLICATION, publication)];
        if !self.without_replication_role {
            let role = of(&[("replication_role", &names.replication_role)]);
            scripts.push((script::REPLICATION_ROLE, role));
        }
        let asking_role = ("asking_role", &names.asking_role);
        scripts.push((script::ASKING_ROLE, of(&[asking_role])));
        if !names.roles.is_empty() {
            let roles = of(&[("roles", &names.roles), ("tables", &names.tables), asking_role]);
            scripts.push((script::CLIENT_ROLES, roles));
        }
        if !self.without_fence {
            scripts.push((script::FENCE, Variables::new()));
        }
        scripts
    }

    fn names(&self, config: Option<&Config>) -> Names {
        let given = |given: &Option<String>, configured: Option<String>, usual: &str| {
            given.clone().or(configured).unwrap_or_else(|| usual.to_owned())
        };
        let user = |url: Option<&String>| {
            let (rest, _) = crate::tls::TlsMode::take_from(url?).ok()?;
            Some(rest.parse::<tokio_postgres::Config>().ok()?.get_user()?.to_owned())
        };
        let database = config.map(|config| &config.database);
        let mut tables = self.tables.clone();
        let mut roles = self.roles.clone();
        if let Some(config) = config {
            if tables.is_empty() {
                let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
                let named = config.tables.iter();
                tables = named
                    .map(|it| format!("{}.{}", quoted(&it.schema), quoted(&it.name)))
                    .collect();
            }
            if roles.is_empty() {
                let auth = &config.auth;
                roles = auth
                    .roles
                    .iter()
                    .chain(&auth.default_role)
                    .chain(&auth.anonymous_role)
                    .cloned()
                    .collect();
                roles.sort_unstable();
                roles.dedup();
            }
        }
        Names {
            tables: tables.join(", "),
            roles: roles.join(", "),
            publication: given(
                &self.publication,
                database.map(|it| it.publication.clone()),
                "walcast",
            ),
            slot: given(&self.slot, database.map(|it| it.slot.clone()), "walcast"),
            replication_role: given(
                &self.replication_role,
                user(database.map(|it| &it.url)),
                "walcast_replication",
            ),
            asking_role: given(
                &self.asking_role,
                user(database.map(|it| &it.ask_url)),
                "walcast_asking",
            ),
        }
    }

    fn password(&self) -> Result<Option<String>, std::io::Error> {
        let Some(file) = &self.password_file else { return Ok(None) };
        let text = std::fs::read_to_string(file)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
    }
}

impl Names {
    fn of_removal(&self) -> Variables {
        Variables::from([
            ("slot", self.slot.clone()),
            ("publication", self.publication.clone()),
            ("replication_role", self.replication_role.clone()),
            ("asking_role", self.asking_role.clone()),
        ])
    }
}

fn print(scripts: &[(Script, Variables)], out: &mut impl Write) -> Result<(), SetupError> {
    for (script, variables) in scripts {
        writeln!(out, "{}", script.with(variables)).map_err(SetupError::Output)?;
    }
    out.flush().map_err(SetupError::Output)
}
