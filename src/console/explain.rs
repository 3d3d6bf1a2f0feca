//! `EXPLAIN DELIVERY`: why somebody gets a row or a change, or does not.

use crate::catalog::TableName;
use crate::console::Console;
use crate::console::answer::Answer;
use crate::console::answer::Refused;
use crate::console::answer::Table;
use crate::console::follow::claims;
use crate::console::login::Login;
use crate::dialect::sql::explain::About;
use crate::dialect::sql::explain::Explain;
use crate::dialect::sql::explained::Explained;
use crate::dialect::sql::explained::notes;
use crate::dialect::sql::explained::to_json;
use crate::route::explain::Lookup;
use crate::route::lookup;
use crate::route::lookup::Asked;
use crate::route::lookup::FindError;
use crate::route::lookup::Found;
use crate::route::lookup::Known;
use crate::route::plan::Context;
use crate::route::subscription::Filter;
use crate::route::subscription::Request;
use crate::serve::inside::InsideError;

/// Explains, in lines or as one JSON object.
pub(super) async fn explain(
    console: &Console,
    explain: &Explain,
    login: &Login,
) -> Result<Answer, Refused> {
    let claims = claims(console, login, &explain.identity)?;
    let view = &console.view;
    let filter = explain.filter.clone().map(Filter::Where);
    let request = |table: &TableName| {
        let columns = explain.columns.clone();
        Request { columns, ..Request::whole(&table.schema, &table.name, filter.clone()) }
    };
    let catalog = view.catalog.current();
    let policies = (view.judging)().policies;
    let context = Context { catalog: &catalog, policies: &policies, replicas: None };
    let found = match &explain.about {
        About::Change(cursor) => {
            let lookup = Lookup { cursor: *cursor, claims, filter };
            whole(view.inspector.explain(lookup).await?)
        }
        About::Row { table, row } => {
            let request = request(table);
            let asking = &view.asking;
            whole(Box::pin(lookup::of_row(asking, context, &claims, &request, row)).await?)
        }
        About::Key { table, key } => {
            let asked = Asked { asking: &view.asking, reading: None };
            Box::pin(lookup::of_key(asked, context, &claims, &request(table), key)).await?
        }
    };
    let text = if explain.json {
        let mut json = to_json(&found.explanation);
        if let Some(object) = json.as_object_mut() {
            object.insert("postgres_shows_it".to_owned(), found.shown.into());
        }
        json.to_string()
    } else {
        format!("{}{}", Explained(&found.explanation), notes(&found))
    };
    Ok(Answer::Rows(Table::of(text.lines().map(|line| vec![line.into()]).collect())))
}

fn whole(explanation: crate::route::explain::Explanation) -> Found {
    Found { explanation, known: Known::Whole, shown: None }
}

impl From<FindError> for Refused {
    fn from(error: FindError) -> Refused {
        let code = match &error {
            FindError::Refused(_) => "42P01",
            FindError::Row(_) => "55000",
            FindError::NotARow { .. } => "22023",
        };
        Refused::new(code, error.to_string())
    }
}

impl From<InsideError> for Refused {
    fn from(error: InsideError) -> Refused {
        let refused = Refused::new("55000", error.to_string());
        match error {
            InsideError::Lookup(_) => refused.hint("The ring holds recent changes: SHOW RING."),
            _ => refused,
        }
    }
}
