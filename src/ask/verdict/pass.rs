//! All questions of an inquiry on one connection: one round trip for all names, and more only for those
//! of whose images some raise errors.

use futures_util::future::join_all;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::SimpleQueryRow;
use tokio_postgres::error::SqlState;

use crate::ask::AskError;
use crate::ask::query::QueryError;
use crate::ask::verdict::Case;
use crate::ask::verdict::Inquiry;
use crate::ask::verdict::Word;
use crate::ask::verdict::script;
use crate::ask::verdict::script::Unset;
use crate::metrics::VerdictMeter;

/// What is asked, and of whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass<'a> {
    pub(super) client: &'a Client,
    pub(super) inquiry: &'a Inquiry,
    /// What a setting is that nobody has set.
    pub(super) unset: Unset,
    pub(super) meter: &'a VerdictMeter,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Passed {
    /// What the beginning of the transaction told.
    pub(super) began: Vec<SimpleQueryMessage>,
    /// For each case a word for each of its images; or why there is none.
    pub(super) words: Vec<Result<Box<[Word]>, AskError>>,
    /// The roles that got errors.
    pub(super) errors: Vec<(Box<str>, tokio_postgres::Error)>,
}

impl Pass<'_> {
    /// Begins the transaction, and asks for these cases; the transaction stays open.
    pub(super) async fn run(self, begin: &str, cases: &[&Case]) -> Result<Passed, QueryError> {
        let mut role = None;
        let mut scripts = Vec::with_capacity(cases.len());
        for case in cases {
            let discard = role.replace(&case.name.role) != Some(&case.name.role);
            let script = script::ask(self.inquiry, case, None, (discard, self.unset));
            scripts.push(script.ok_or(QueryError::Malformed)?);
        }
        let (began, asked) = tokio::join!(
            biased;
            self.client.simple_query(begin),
            join_all(scripts.iter().map(|script| self.client.simple_query(script))),
        );
        let began = began?;
        let (mut words, mut errors) = (Vec::with_capacity(asked.len()), Vec::new());
        for (case, messages) in cases.iter().zip(asked) {
            let count = case.count(self.inquiry);
            self.meter.questions.one();
            self.meter.words.add(u64::try_from(count).unwrap_or(u64::MAX));
            let found = match messages {
                Ok(messages) => Ok(read(&messages, count)?),
                Err(error) if error.is_closed() => return Err(error.into()),
                Err(error) => {
                    self.meter.errors.one();
                    let found = self.one_by_one(case, &error).await;
                    errors.push((case.name.role.clone(), error));
                    found?
                }
            };
            words.push(found);
        }
        Ok(Passed { began, words, errors })
    }

    /// Whether an error came from what was asked, and not from asking in the role's name.
    async fn may_act(self, role: &str, first: &tokio_postgres::Error) -> Result<bool, QueryError> {
        let refused = [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::INVALID_PARAMETER_VALUE];
        if !first.code().is_some_and(|code| refused.contains(code)) {
            return Ok(true);
        }
        match self.client.batch_execute(&script::act(role)).await {
            Ok(()) => Ok(true),
            Err(error) if error.as_db_error().is_some() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// After an error: halves are asked, and halves of those, until each image that raises one is
    /// alone. An error that is not about a value is every image's.
    async fn one_by_one(
        self,
        case: &Case,
        first: &tokio_postgres::Error,
    ) -> Result<Result<Box<[Word]>, AskError>, QueryError> {
        if !self.may_act(&case.name.role, first).await? {
            return Ok(Err(AskError::Forbidden));
        }
        let count = case.count(self.inquiry);
        let all: Vec<usize> = match &case.images {
            Some(images) => images.to_vec(),
            None => (0..count).collect(),
        };
        match kind(first) {
            Kind::EveryImage => return Ok(Ok(vec![Word::Fails; count].into())),
            Kind::NoAnswer(error) => return Ok(Err(error)),
            Kind::SomeImage => {}
        }
        let mut words = vec![Word::Fails; count];
        let mut open = if count > 1 { halves(0..count) } else { Vec::new() };
        while let Some(range) = open.pop() {
            let some = all.get(range.clone()).unwrap_or_default();
            let script = script::ask(self.inquiry, case, Some(some), (true, self.unset));
            let script = script.ok_or(QueryError::Malformed)?;
            self.meter.questions.one();
            match self.client.simple_query(&script).await {
                Ok(messages) => {
                    let found = read(&messages, some.len())?;
                    for (place, word) in words.iter_mut().skip(range.start).zip(found) {
                        *place = word;
                    }
                }
                Err(error) if error.is_closed() => return Err(error.into()),
                Err(error) => match kind(&error) {
                    Kind::NoAnswer(error) => return Ok(Err(error)),
                    _ if range.len() > 1 => open.extend(halves(range)),
                    _ => {}
                },
            }
        }
        Ok(Ok(words.into()))
    }
}

/// What an error says of the images.
enum Kind {
    /// Some image raises it.
    SomeImage,
    /// Every image does.
    EveryImage,
    /// Nothing.
    NoAnswer(AskError),
}

fn kind(error: &tokio_postgres::Error) -> Kind {
    let code = error.code().map_or("", |code| code.code());
    match (code, code.get(..2).unwrap_or_default()) {
        ("57014", _) => Kind::NoAnswer(AskError::Late { seconds: 0 }),
        (_, "42" | "0A" | "3F" | "54") => Kind::EveryImage,
        (_, "" | "08" | "25" | "40" | "53" | "55" | "57" | "58" | "XX") => {
            Kind::NoAnswer(AskError::Failed)
        }
        _ => Kind::SomeImage,
    }
}

fn halves(range: std::ops::Range<usize>) -> Vec<std::ops::Range<usize>> {
    let middle = range.start.midpoint(range.end);
    vec![range.start..middle, middle..range.end]
}

/// The rows of one statement of a script.
pub(super) fn rows(
    messages: &[SimpleQueryMessage],
    at: usize,
) -> impl Iterator<Item = &SimpleQueryRow> {
    let results = messages.split(|it| matches!(it, SimpleQueryMessage::CommandComplete(_)));
    results.skip(at).take(1).flatten().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

/// The words of a script's last statement.
fn read(messages: &[SimpleQueryMessage], count: usize) -> Result<Box<[Word]>, QueryError> {
    let complete = |it: &&SimpleQueryMessage| matches!(it, SimpleQueryMessage::CommandComplete(_));
    let statements = messages.iter().filter(complete).count();
    let word = |row: &SimpleQueryRow| match row.get(1) {
        Some("t") => Word::Seen,
        _ => Word::Hidden,
    };
    let words: Box<[Word]> = rows(messages, statements.saturating_sub(1)).map(word).collect();
    if words.len() == count { Ok(words) } else { Err(QueryError::Malformed) }
}
