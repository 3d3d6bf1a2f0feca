//! Running the scripts as the DBA's own role, in one transaction.

use std::io::Write;
use std::path::PathBuf;

use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;

use crate::catalog;
use crate::catalog::CatalogError;
use crate::catalog::dial::Dial;
use crate::cli::setup::SetupError;
use crate::cli::setup::script::Script;
use crate::cli::setup::script::Step;
use crate::cli::setup::script::Variables;
use crate::tls::TlsMode;

/// Where to run them.
pub(super) struct Target<'a> {
    pub(super) url: &'a str,
    pub(super) password: Option<String>,
    pub(super) tls_ca_file: Option<PathBuf>,
}

/// Runs the scripts, and says on `out` what was run. Nothing stays of it when one statement fails.
pub(super) async fn apply(
    target: Target<'_>,
    scripts: &[(Script, Variables)],
    out: &mut impl Write,
) -> Result<(), SetupError> {
    let client = connect(target).await?;
    let begin = "BEGIN; SET LOCAL client_min_messages = warning";
    client.batch_execute(begin).await.map_err(|source| SetupError::failed("BEGIN", source))?;
    let database = rows(&client, "SELECT current_database()").await?.concat().concat();
    for (script, variables) in scripts {
        writeln!(out, "{}:", script.name).map_err(SetupError::Output)?;
        let mut variables = variables.clone();
        variables.insert("DBNAME", database.clone());
        for step in script.steps(&variables) {
            match step {
                Step::Generate(query) => {
                    for statement in rows(&client, &query).await?.concat() {
                        run(&client, &statement, out).await?;
                    }
                }
                Step::Run(statement) => run(&client, &statement, out).await?,
            }
        }
    }
    client.batch_execute("COMMIT").await.map_err(|source| SetupError::failed("COMMIT", source))
}

async fn connect(target: Target<'_>) -> Result<Client, SetupError> {
    let (rest, tls_mode) = TlsMode::take_from(target.url).map_err(SetupError::Tls)?;
    let mut connection: tokio_postgres::Config = rest.parse().map_err(SetupError::Url)?;
    if let Some(password) = target.password {
        connection.password(password);
    }
    connection.application_name("walcast setup");
    let settings = catalog::Settings {
        connection,
        tls_mode,
        tls_ca_file: target.tls_ca_file,
        publication: "".into(),
        roles: Vec::new(),
        tables: Vec::new(),
    };
    let opened = async { Dial::new(&settings)?.open().await };
    let (client, driver) =
        opened.await.map_err(|error: CatalogError| SetupError::Connect(error.chain()))?;
    #[expect(clippy::disallowed_methods, reason = "the task ends with the client")]
    tokio::spawn(driver);
    Ok(client)
}

/// Runs a statement and says so; of a question, what it answers.
async fn run(client: &Client, statement: &str, out: &mut impl Write) -> Result<(), SetupError> {
    let answer = rows(client, statement).await?;
    if !statement.starts_with("SELECT ") {
        let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        writeln!(out, "  {line};").map_err(SetupError::Output)?;
    }
    for row in answer {
        writeln!(out, "  -- {}", row.join(": ")).map_err(SetupError::Output)?;
    }
    Ok(())
}

/// The cells of an answer, row by row; NULL is left out.
async fn rows(client: &Client, statement: &str) -> Result<Vec<Vec<String>>, SetupError> {
    let answer = client.simple_query(statement).await;
    let answer = answer.map_err(|source| SetupError::failed(statement, source))?;
    let cells = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let cells = (0..row.len()).filter_map(|index| row.get(index).map(str::to_owned));
            Some(cells.collect())
        }
        _ => None,
    });
    Ok(cells.collect())
}
