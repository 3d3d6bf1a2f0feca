//! The tables of what there is. Each is made when it is asked for.

mod clients;
mod database;
mod process;

use crate::catalog::CatalogError;
use crate::console::Console;
use crate::console::answer::Answer;
use crate::console::answer::Refused;
use crate::console::statement::Spec;
use crate::control::ControlError;
use crate::serve::inspect::Unanswered;

/// The answer to `SHOW …`.
pub(super) async fn show(console: &Console, spec: &Spec, limit: usize) -> Result<Answer, Refused> {
    let view = &console.view;
    let table = match spec.shows().unwrap_or_default() {
        "HELP" => process::help(),
        "VERSION" => process::version(),
        "STATE" => process::state(console),
        "CONFIG" => process::config(view).await?,
        "SLOTS" => database::slots(view).await?,
        "PUBLICATIONS" => database::publications(view).await?,
        "TABLES" => database::tables(view),
        "CLIENTS" => clients::clients(view, limit).await?,
        "SUBSCRIPTIONS" => clients::subscriptions(view, limit).await?,
        "GROUPS" => clients::groups(view, limit).await?,
        "LAG" => clients::lag(view).await?,
        "RING" => clients::ring(view).await?,
        "REPLICAS" => database::replicas(view),
        "LIMITS" => process::limits(view).await?,
        "ERRORS" => process::errors(view),
        "STATS" => process::stats(view),
        "MEM" => process::mem(view).await?,
        "FDS" => process::fds(),
        _ => return Err(Refused::new("0A000", "this is not shown yet")),
    };
    Ok(Answer::Rows(table))
}

impl From<Unanswered> for Refused {
    fn from(error: Unanswered) -> Refused {
        Refused::new("57014", error.to_string())
    }
}

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Refused {
        match error {
            ControlError::Stopping => Refused::new("57P03", error.to_string()),
            ControlError::Refused { mistakes } => {
                let message = "the configuration was not reloaded; what held before holds";
                Refused { detail: Some(mistakes.join("\n")), ..Refused::new("F0000", message) }
            }
        }
    }
}

impl From<CatalogError> for Refused {
    fn from(error: CatalogError) -> Refused {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let message = format!("the database does not answer: {error}");
        Refused { detail: cause, ..Refused::new("08006", message) }
    }
}
