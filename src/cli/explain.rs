//! `walcast explain`: why somebody gets a row, or does not.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::ValueEnum;
use serde_json::json;

use crate::auth::AuthError;
use crate::auth::Claims;
use crate::auth::TokenError;
use crate::auth::Verifier;
use crate::catalog::Catalog;
use crate::catalog::CatalogError;
use crate::catalog::TableName;
use crate::catalog::dial::Dial;
use crate::cli::CliError;
use crate::cli::ConfigArguments;
use crate::config::Config;
use crate::daemon::settings;
use crate::daemon::settings::SettingsError;
use crate::dialect::sql::StatementError;
use crate::dialect::sql::explain::parse_key;
use crate::dialect::sql::explained::Explained;
use crate::dialect::sql::explained::notes;
use crate::dialect::sql::explained::to_json;
use crate::route::lookup;
use crate::route::lookup::Asked;
use crate::route::lookup::FindError;
use crate::route::lookup::Found;
use crate::route::lookup::Known;
use crate::route::plan::Context;
use crate::route::subscription::Filter;
use crate::route::subscription::Request;

/// Says why somebody gets a row, or does not: grant, policies, filter, and what decided
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    walcast explain --table orders --key id=1 --claims '{\"role\":\"customer\",\"sub\":\"7\"}'\n  \
    walcast explain --table orders --key id=1 --token token.txt --where \"status = 'open'\"\n  \
    walcast explain --table orders --row '{\"id\":1,\"status\":\"open\"}' --format json\n\n\
    The row is read as the asking role, where that may read it, and in the name of the client's\n\
    role, so that Postgres's own answer stands beside walcast's. Nothing is changed. What became of\n\
    a change that was already delivered is told by the console: EXPLAIN DELIVERY AT 'cursor' …")]
pub struct Explain {
    #[command(flatten)]
    config: ConfigArguments,

    /// The table: schema.table, or a table of public
    #[arg(long, value_name = "TABLE")]
    table: String,

    /// Which row: the columns of a key, as in --key "id=1" or --key "id=1, part='a'"
    #[arg(long, value_name = "COLUMN=VALUE", required_unless_present = "row")]
    key: Option<String>,

    /// A row as it might be, as a JSON object, instead of one that is there
    #[arg(long, value_name = "JSON", conflicts_with = "key")]
    row: Option<String>,

    /// The condition that the client asks with
    #[arg(long = "where", value_name = "CONDITION")]
    filter: Option<String>,

    /// For whom: claims as a JSON object; without claims or token, for a client without a token
    #[arg(long, value_name = "JSON", conflicts_with = "token")]
    claims: Option<String>,

    /// For whom: a file that holds a token
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,

    /// Reads the row over this connection, where the asking role may not
    #[arg(long, value_name = "URL", env = "WALCAST_EXPLAIN_URL", hide_env_values = true)]
    reading_url: Option<String>,

    /// How the answer is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people
    Text,
    /// One JSON object
    Json,
}

/// Why nothing was explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The settings can't be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A key of the settings can't be used.
    #[error("section auth")]
    Auth(#[from] AuthError),
    /// The database does not answer.
    #[error("the database does not answer")]
    Catalog(#[from] CatalogError),
    /// `--key` is not one.
    #[error("--key: {0} (expected as in --key \"id=1\")")]
    Key(StatementError),
    /// The token's file can't be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nobody is let in with these claims, or this token.
    #[error("nobody is let in so")]
    Token(#[from] TokenError),
    /// A client without a token is not let in.
    #[error("a client without a token is not let in (expected --claims or --token)")]
    Nobody,
    /// There is no such row, or table.
    #[error(transparent)]
    Find(#[from] FindError),
}

impl Explain {
    pub(super) fn run(self) -> Result<ExitCode, CliError> {
        let config = self.config.load()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CliError::Process)?;
        let found = runtime.block_on(self.found(&config))?;
        let text = match self.format {
            Format::Text => format!("{}{}", Explained(&found.explanation), notes(&found)),
            Format::Json => {
                let mut json = to_json(&found.explanation);
                if let Some(object) = json.as_object_mut() {
                    object.insert("postgres_shows_it".to_owned(), json!(found.shown));
                }
                format!("{json}\n")
            }
        };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)?;
        Ok(ExitCode::SUCCESS)
    }

    async fn found(&self, config: &Config) -> Result<Found, ExplainError> {
        let claims = self.claims(config)?;
        let policies = settings::policies(config);
        let asking = settings::catalog(config)?;
        let dial = Dial::new(&asking)?;
        let reading = self.reading_url.as_deref().map(|url| {
            let settings = settings::catalog_over(config, url)?;
            Ok::<_, ExplainError>(Dial::new(&settings)?)
        });
        let reading = reading.transpose()?;
        let catalog = Catalog::connect(asking).await?.current();
        let context = Context { catalog: &catalog, policies: &policies, replicas: None };
        let TableName { schema, name } = TableName::parse(&self.table);
        let filter = self.filter.as_deref().map(|text| Filter::Where(text.into()));
        let request = Request::whole(&schema, &name, filter);
        if let Some(row) = &self.row {
            let explanation =
                Box::pin(lookup::of_row(&dial, context, &claims, &request, row)).await?;
            return Ok(Found { explanation, known: Known::Whole, shown: None });
        }
        let key = self.key.as_deref().unwrap_or_default();
        let key = parse_key(key).map_err(ExplainError::Key)?;
        let asked = Asked { asking: &dial, reading: reading.as_ref() };
        Ok(Box::pin(lookup::of_key(asked, context, &claims, &request, &key)).await?)
    }

    fn claims(&self, config: &Config) -> Result<Claims, ExplainError> {
        let verifier = Verifier::new(config.auth.clone())?;
        if let Some(claims) = &self.claims {
            return Ok(verifier.assume(claims)?);
        }
        let Some(path) = &self.token else {
            return verifier.anonymous().ok_or(ExplainError::Nobody);
        };
        let unreadable = |source| ExplainError::Unreadable { path: path.clone(), source };
        let token = std::fs::read_to_string(path).map_err(unreadable)?;
        Ok(verifier.verify(token.trim())?)
    }
}
