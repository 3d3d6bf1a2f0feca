//! Who judges: a few connections, the inquiries that wait for one, and how often it is asked.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Duration;
use tokio::time::Instant;
use tokio::time::sleep_until;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::SimpleQueryRow;
use tokio_postgres::error::DbError;
use tokio_postgres::error::SqlState;

use crate::ask::AskError;
use crate::ask::query::Connection;
use crate::ask::query::QueryError;
use crate::ask::query::late;
use crate::ask::query::moment;
use crate::ask::verdict::Case;
use crate::ask::verdict::Inquiry;
use crate::ask::verdict::Ruled;
use crate::ask::verdict::Ruling;
use crate::ask::verdict::Settings;
use crate::ask::verdict::Task;
use crate::ask::verdict::Word;
use crate::ask::verdict::script;
use crate::catalog::dial::Dial;
use crate::metrics::Metrics;

/// How long all questions of an inquiry may take, where one may not take longer.
const INQUIRY_MAX: Duration = Duration::from_secs(30);
/// Kinds of errors that were told to the operator and are not told again.
const TOLD_MAX: usize = 1000;

/// Judges until nobody can ask any more.
#[derive(Debug)]
pub(in crate::ask) struct Judge {
    tasks: mpsc::Receiver<Task>,
    settings: watch::Receiver<crate::ask::Settings>,
    waiting: VecDeque<Task>,
    workers: JoinSet<Done>,
    idle: Vec<Connection>,
    /// Before this nothing more is asked.
    not_before: Instant,
    told: HashSet<(u32, Box<str>, String)>,
    office: Office,
}

/// What every worker has.
#[derive(Clone, Debug)]
struct Office {
    dial: Dial,
    settings: crate::ask::Settings,
    metrics: Arc<Metrics>,
}

/// A worker's result.
#[derive(Debug)]
struct Done {
    connection: Option<Connection>,
    task: Task,
    result: Result<Judged, QueryError>,
}

/// What an inquiry came to.
#[derive(Debug)]
struct Judged {
    ruling: Ruling,
    errors: Vec<(Box<str>, tokio_postgres::Error)>,
}

impl Judge {
    pub(in crate::ask) fn new(
        tasks: mpsc::Receiver<Task>,
        settings: watch::Receiver<crate::ask::Settings>,
        dial: Dial,
        metrics: Arc<Metrics>,
    ) -> Judge {
        let office = Office { dial, settings: *settings.borrow(), metrics };
        Judge {
            tasks,
            settings,
            waiting: VecDeque::new(),
            workers: JoinSet::new(),
            idle: Vec::new(),
            not_before: Instant::now(),
            told: HashSet::new(),
            office,
        }
    }

    /// Answers until the last inquirer is gone.
    pub(in crate::ask) async fn run(mut self) {
        loop {
            let free = self.workers.len() < self.settings().connections;
            let waits = free && !self.waiting.is_empty();
            tokio::select! {
                task = self.tasks.recv() => match task {
                    Some(task) => self.waiting.push_back(task),
                    None => return,
                },
                Some(done) = self.workers.join_next() => {
                    if let Ok(done) = done {
                        self.done(done);
                    }
                }
                () = sleep_until(self.not_before), if waits => self.start(),
                Ok(()) = self.settings.changed() => {
                    self.office.settings = *self.settings.borrow_and_update();
                }
            }
            self.office.metrics.verdicts.waiting.set_len(self.waiting.len());
        }
    }

    const fn settings(&self) -> Settings {
        self.office.settings.verdicts
    }

    /// Gives the next inquiry to a connection. What it asks is the measure of when the next may begin.
    fn start(&mut self) {
        let Some(task) = self.waiting.pop_front() else { return };
        let questions = u32::try_from(task.inquiry.cases.len()).unwrap_or(u32::MAX);
        let pause = Duration::from_secs(u64::from(questions)) / self.settings().per_second.max(1);
        self.not_before = self.not_before.max(Instant::now()) + pause;
        let (office, connection) = (self.office.clone(), self.idle.pop());
        self.workers.spawn(office.work(task, connection));
    }

    fn done(&mut self, done: Done) {
        let Done { connection, task, result } = done;
        self.idle.extend(connection);
        let meter = &self.office.metrics.verdicts;
        let ruling = match result {
            Ok(Judged { ruling, errors }) => {
                for (role, error) in errors {
                    self.report(&task.inquiry, &role, &error);
                }
                Ok(ruling)
            }
            Err(error) => {
                let told = error.told(&self.office.settings);
                meter.failed.one(told.word());
                if told == AskError::Failed {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "Postgres could not be asked who may see a change");
                }
                Err(told)
            }
        };
        let _gone = task.tell.try_send(Ruled { ticket: task.ticket, ruling });
    }

    /// Tells the operator of an error of a policy, once for each kind. What PostgreSQL says may hold
    /// values of a row, so only what is about names is repeated.
    fn report(&mut self, inquiry: &Inquiry, role: &str, error: &tokio_postgres::Error) {
        let code = error.code().map_or("", |code| code.code()).to_owned();
        let relation = &inquiry.matter.relation;
        let kind = (relation.id.0, role.into(), code.clone());
        if self.told.len() >= TOLD_MAX || !self.told.insert(kind) {
            return;
        }
        let named = error.as_db_error().filter(|_| code.starts_with("42"));
        let message = named.map(DbError::message).unwrap_or_default();
        let relation = format!("{}.{}", relation.schema, relation.name);
        tracing::warn!(
            relation,
            role,
            code,
            message,
            "a policy raises an error, so the role does not see the row"
        );
    }
}

impl Office {
    async fn work(self, task: Task, connection: Option<Connection>) -> Done {
        let began_at = Instant::now();
        let patience = self.settings.verdicts.timeout;
        let questions = u32::try_from(task.inquiry.cases.len()).unwrap_or(u32::MAX);
        let all = patience.saturating_mul(questions).min(INQUIRY_MAX).max(patience * 2);
        let asking = Box::pin(timeout(all, self.ask(&task.inquiry, connection)));
        let (connection, result) = match asking.await {
            Ok((connection, result)) => (connection, result),
            // The connection is dropped; the server has a time limit of its own.
            Err(_) => (None, Err(late(patience).into())),
        };
        self.metrics.verdicts.asked.one();
        self.metrics.verdicts.duration.observe(began_at.elapsed(), 1);
        Done { connection, task, result }
    }

    /// Asks on a connection that stands, else on a new one.
    async fn ask(
        &self,
        inquiry: &Inquiry,
        connection: Option<Connection>,
    ) -> (Option<Connection>, Result<Judged, QueryError>) {
        let mut connection = connection;
        loop {
            let fresh = connection.is_none();
            let standing = match connection.take() {
                Some(connection) => connection,
                None => match self.open().await {
                    Ok(connection) => connection,
                    Err(error) => return (None, Err(error)),
                },
            };
            let result = self.judge(standing.client(), inquiry).await;
            match result {
                Err(error) if error.was_closed() && !fresh => {}
                Err(error) => {
                    let keep = error.keeps_connection()
                        && standing.client().batch_execute(script::END).await.is_ok();
                    return (keep.then_some(standing), Err(error));
                }
                Ok(judged) => return (Some(standing), Ok(judged)),
            }
        }
    }

    async fn open(&self) -> Result<Connection, QueryError> {
        let timeout = self.settings.verdicts.timeout;
        let settings = crate::ask::Settings { timeout, ..self.settings };
        Connection::open(&self.dial, &settings).await
    }

    /// One round trip for all names, and more only for those of whose images some raise errors.
    async fn judge(&self, client: &Client, inquiry: &Inquiry) -> Result<Judged, QueryError> {
        let meter = &self.metrics.verdicts;
        let begin = script::begin(inquiry).ok_or(QueryError::Malformed)?;
        let mut role = None;
        let mut scripts = Vec::with_capacity(inquiry.cases.len());
        for case in &inquiry.cases {
            let discard = role.replace(&case.name.role) != Some(&case.name.role);
            scripts.push(script::ask(inquiry, case, None, discard).ok_or(QueryError::Malformed)?);
        }
        let (began, asked) = tokio::join!(
            biased;
            client.simple_query(&begin),
            join_all(scripts.iter().map(|script| client.simple_query(script))),
        );
        let began = began?;
        let row = rows(&began, 1).next().ok_or(QueryError::Malformed)?;
        if row.get(2) != Some("t") {
            return Err(AskError::Changed.into());
        }
        let (visibility, insert_lsn) = moment(row)?;
        let (mut words, mut errors) = (Vec::with_capacity(asked.len()), Vec::new());
        for (case, messages) in inquiry.cases.iter().zip(asked) {
            let count = case.count(inquiry);
            meter.questions.one();
            meter.words.add(u64::try_from(count).unwrap_or(u64::MAX));
            let found = match messages {
                Ok(messages) => Ok(read(&messages, count)?),
                Err(error) if error.is_closed() => return Err(error.into()),
                Err(error) => {
                    meter.errors.one();
                    let found = self.one_by_one(client, (inquiry, case), &error).await;
                    errors.push((case.name.role.clone(), error));
                    found?
                }
            };
            words.push(found);
        }
        let ended = client.simple_query(&script::end(&inquiry.matter)).await?;
        // A table was truncated, or rewritten, while it was asked: once more, by a later snapshot.
        if rows(&ended, 1).any(|row| row.get(0) == Some("f")) {
            return Err(AskError::Busy.into());
        }
        let visibility = Arc::new(visibility);
        Ok(Judged { ruling: Ruling { visibility, insert_lsn, words }, errors })
    }

    /// Whether an error came from what was asked, and not from asking in the role's name.
    async fn may_act(
        &self,
        client: &Client,
        role: &str,
        first: &tokio_postgres::Error,
    ) -> Result<bool, QueryError> {
        let refused = [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::INVALID_PARAMETER_VALUE];
        if !first.code().is_some_and(|code| refused.contains(code)) {
            return Ok(true);
        }
        match client.batch_execute(&script::act(role)).await {
            Ok(()) => Ok(true),
            Err(error) if error.as_db_error().is_some() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// After an error: halves are asked, and halves of those, until each image that raises one is
    /// alone. An error that is not about a value is every image's.
    async fn one_by_one(
        &self,
        client: &Client,
        (inquiry, case): (&Inquiry, &Case),
        first: &tokio_postgres::Error,
    ) -> Result<Result<Box<[Word]>, AskError>, QueryError> {
        if !self.may_act(client, &case.name.role, first).await? {
            return Ok(Err(AskError::Forbidden));
        }
        let count = case.count(inquiry);
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
            let script = script::ask(inquiry, case, Some(some), true);
            let script = script.ok_or(QueryError::Malformed)?;
            self.metrics.verdicts.questions.one();
            match client.simple_query(&script).await {
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
fn rows(messages: &[SimpleQueryMessage], at: usize) -> impl Iterator<Item = &SimpleQueryRow> {
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
