//! A statement's text becomes a [`Statement`], or a refusal that says what would be right.

use crate::console::answer::Field;
use crate::console::answer::Of;
use crate::console::answer::Refused;
use crate::console::polite;
use crate::console::polite::Constant;
use crate::console::split::Word;
use crate::console::split::words;
use crate::console::statement::EXPLAIN;
use crate::console::statement::STATEMENTS;
use crate::console::statement::SUBSCRIBE;
use crate::console::statement::Spec;
use crate::console::statement::find;
use crate::console::statement::showing;
use crate::console::users::Level;
use crate::dialect::sql;
use crate::dialect::sql::StatementError;
use crate::dialect::sql::explain::Explain;
use crate::dialect::sql::statement::Subscription;

/// Rows of a list where no limit is given.
const ROWS: usize = 1000;
/// Rows of a list at the most.
const ROWS_MAX: usize = 1_000_000;

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Statement {
    /// A table of what there is.
    Show {
        spec: &'static Spec,
        limit: usize,
    },
    /// Something is to be done.
    Order {
        spec: &'static Spec,
        order: Order,
    },
    /// Changes are to be followed, as rows.
    Subscribe(Box<Subscription>),
    /// The same as the data of a COPY.
    Copy(Box<Subscription>),
    /// A delivery is to be explained.
    Explain(Box<Explain>),
    /// What every server of Postgres can say.
    Constant(Constant),
    /// A query of psql's own for the catalogue.
    Catalogue(polite::Catalogue),
    /// Accepted, and without effect here: the word that answers it.
    Accepted(&'static str),
    Begin,
    /// COMMIT or ROLLBACK.
    End(&'static str),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Check,
    Kill(u64),
    KillUser(String),
    Pause,
    Resume,
    Reload,
    Drain,
    Shutdown,
}

impl Statement {
    /// Who may ask.
    pub(crate) fn level(&self) -> Level {
        match self {
            Statement::Explain(_) => Level::Admin,
            Statement::Show { spec, .. } | Statement::Order { spec, .. } => spec.level,
            _ => Level::Stats,
        }
    }

    /// The columns of the answer; none where there are no rows.
    pub(crate) fn fields(&self) -> Vec<Field> {
        match self {
            Statement::Show { spec, .. } | Statement::Order { spec, .. } => fields_of(spec.form),
            Statement::Subscribe(_) => fields_of(SUBSCRIBE),
            Statement::Explain(_) => fields_of(EXPLAIN),
            Statement::Constant(constant) => {
                vec![Field { name: constant.name.clone().into(), of: constant.of() }]
            }
            Statement::Catalogue(catalogue) => {
                let field = |name: &String| Field { name: name.clone().into(), of: Of::Text };
                catalogue.columns.iter().map(field).collect()
            }
            Statement::Copy(_) | Statement::Accepted(_) | Statement::Begin | Statement::End(_) => {
                Vec::new()
            }
        }
    }

    /// The word before the number of rows in the answer.
    pub(crate) const fn tag(&self) -> &'static str {
        match self {
            Statement::Show { .. } => "SHOW",
            Statement::Order { order: Order::Reload, .. } => "RELOAD",
            Statement::Order { .. } => "CHECK",
            Statement::Explain(_) => "EXPLAIN",
            _ => "SELECT",
        }
    }
}

/// The columns of the statement that is written like this.
fn fields_of(form: &str) -> Vec<Field> {
    let columns = find(form).map(|spec| spec.columns).unwrap_or_default();
    columns.iter().map(|it| Field { name: it.name.into(), of: it.of }).collect()
}

/// Reads one statement.
pub(crate) fn parse(text: &str) -> Result<Statement, Refused> {
    let of_deliveries = sql::parse(text).map_err(|error| {
        let StatementError { position, message, hint } = error;
        let refused = Refused::syntax(message).at(position);
        Refused { hint, ..refused }
    })?;
    match of_deliveries {
        Some(sql::Statement::Subscribe(of)) => return Ok(Statement::Subscribe(Box::new(of))),
        Some(sql::Statement::Copy(of)) => return Ok(Statement::Copy(Box::new(of))),
        Some(sql::Statement::Explain(of)) => return Ok(Statement::Explain(Box::new(of))),
        None => {}
    }
    let words = words(text);
    let Some(Word::Bare(first)) = words.first() else { return Err(unknown(text)) };
    let rest = words.get(1..).unwrap_or_default();
    match first.to_ascii_uppercase().as_str() {
        "SHOW" => show(rest),
        "KILL" => kill(rest),
        "CHECK" => alone("CHECK", Order::Check, rest),
        "PAUSE" => alone("PAUSE", Order::Pause, rest),
        "RESUME" => alone("RESUME", Order::Resume, rest),
        "RELOAD" => alone("RELOAD", Order::Reload, rest),
        "DRAIN" => alone("DRAIN", Order::Drain, rest),
        "SHUTDOWN" => alone("SHUTDOWN", Order::Shutdown, rest),
        "SELECT" | "WITH" | "VALUES" | "TABLE" => polite::select(text, rest),
        "BEGIN" | "START" => Ok(Statement::Begin),
        "COMMIT" | "END" => Ok(Statement::End("COMMIT")),
        "ROLLBACK" | "ABORT" => Ok(Statement::End("ROLLBACK")),
        "SET" => Ok(Statement::Accepted("SET")),
        "RESET" => Ok(Statement::Accepted("RESET")),
        "DISCARD" => Ok(Statement::Accepted("DISCARD ALL")),
        "DEALLOCATE" => Ok(Statement::Accepted("DEALLOCATE")),
        "UNLISTEN" => Ok(Statement::Accepted("UNLISTEN")),
        "CLOSE" => Ok(Statement::Accepted("CLOSE CURSOR")),
        _ => Err(unknown(first)),
    }
}

fn show(rest: &[Word<'_>]) -> Result<Statement, Refused> {
    let (name, rest) = match rest {
        [Word::Bare(name), rest @ ..] => (*name, rest),
        [] => ("HELP", rest),
        _ => return Err(unknown("SHOW")),
    };
    if let Some(spec) = showing(name) {
        let limited = spec.form.ends_with("[LIMIT n]");
        let limit = match rest {
            [] => Some(ROWS),
            [word, Word::Bare(count)] if limited && word.is("limit") => {
                count.parse().ok().filter(|count| *count <= ROWS_MAX)
            }
            _ => None,
        };
        let Some(limit) = limit else { return Err(misread(spec)) };
        return Ok(Statement::Show { spec, limit });
    }
    let parts: Vec<&str> = std::iter::once(name)
        .chain(rest.iter().filter_map(|word| match word {
            Word::Bare(word) => Some(*word),
            _ => None,
        }))
        .collect();
    match polite::setting(&parts.join("_").to_ascii_lowercase()) {
        Some(constant) => Ok(Statement::Constant(constant)),
        None => Err(unknown(&format!("SHOW {name}"))),
    }
}

fn kill(rest: &[Word<'_>]) -> Result<Statement, Refused> {
    let form = |form| find(form).expect("it is in the table of statements");
    match rest {
        [word, Word::Bare(subject)] if word.is("user") => {
            let order = Order::KillUser((*subject).to_owned());
            Ok(Statement::Order { spec: form("KILL USER 'subject'"), order })
        }
        [word, Word::Text(subject) | Word::Quoted(subject)] if word.is("user") => {
            let order = Order::KillUser(subject.clone());
            Ok(Statement::Order { spec: form("KILL USER 'subject'"), order })
        }
        [Word::Bare(id)] => {
            let spec = form("KILL id");
            let id = id.parse().map_err(|_| misread(spec))?;
            Ok(Statement::Order { spec, order: Order::Kill(id) })
        }
        _ => Err(misread(form("KILL id"))),
    }
}

fn alone(form: &'static str, order: Order, rest: &[Word<'_>]) -> Result<Statement, Refused> {
    let spec = find(form).expect("it is in the table of statements");
    if rest.is_empty() { Ok(Statement::Order { spec, order }) } else { Err(misread(spec)) }
}

fn misread(spec: &Spec) -> Refused {
    Refused::syntax(format!("this is not how {} is written", keywords(spec.form)))
        .hint(format!("It is: {}", spec.form))
}

/// Nothing begins like this here.
fn unknown(written: &str) -> Refused {
    let shown: String = written.chars().take(40).collect();
    let refused = Refused::syntax(format!("walcast's console does not know \"{shown}\""));
    let upper = shown.to_ascii_uppercase();
    let likeness = |spec: &&Spec| strsim::jaro_winkler(&upper, &keywords(spec.form));
    let best = STATEMENTS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best.filter(|spec| likeness(spec) > 0.85) {
        Some(spec) => refused.hint(format!("Perhaps {}? SHOW HELP tells all.", spec.form)),
        None => refused.hint("This is not a database: SHOW HELP tells what can be asked."),
    }
}

/// The words in capitals at the beginning.
fn keywords(form: &str) -> String {
    let capital = |word: &&str| word.chars().all(|it| it.is_ascii_uppercase());
    form.split(' ').take_while(capital).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::statement::COPY;

    #[test]
    fn every_statement_of_the_table_is_read() {
        let deliveries = [SUBSCRIBE, COPY, EXPLAIN];
        for spec in STATEMENTS.iter().filter(|spec| !deliveries.contains(&spec.form)) {
            let text = spec.form.replace(" [LIMIT n]", "").replace(" id", " 7");
            for text in [text.clone(), text.to_ascii_lowercase(), format!("  {text} -- so")] {
                let (Statement::Show { spec: found, .. } | Statement::Order { spec: found, .. }) =
                    parse(&text).unwrap()
                else {
                    panic!("{text}")
                };
                assert_eq!(found.form, spec.form);
            }
            assert!(parse(&format!("{text} nonsense more")).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_would_be_right() {
        let hint = |text: &str| parse(text).unwrap_err().hint.unwrap();
        assert_eq!(hint("show client"), "Perhaps SHOW CLIENTS [LIMIT n]? SHOW HELP tells all.");
        assert_eq!(hint("kil 3"), "Perhaps KILL id? SHOW HELP tells all.");
        assert_eq!(hint("kill -3"), "It is: KILL id");
        assert_eq!(hint("show clients limit x"), "It is: SHOW CLIENTS [LIMIT n]");
        assert!(hint("insert into t values (1)").starts_with("This is not a database"));
        assert!(hint("'").starts_with("This is not a database"));
    }

    #[test]
    fn who_may_only_see_changes_nothing() {
        for spec in STATEMENTS {
            let changes = spec.shows().is_none() && ![SUBSCRIBE, COPY].contains(&spec.form);
            assert_eq!(spec.level == Level::Admin, changes, "{}", spec.form);
        }
    }
}
