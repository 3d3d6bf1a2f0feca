//! Who judges: a few connections, the inquiries that wait for one, and how often it is asked.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Duration;
use tokio::time::Instant;
use tokio::time::sleep_until;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::DbError;

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
use crate::ask::verdict::fresh::Fresh;
use crate::ask::verdict::pass::Pass;
use crate::ask::verdict::pass::Passed;
use crate::ask::verdict::pass::rows;
use crate::ask::verdict::script;
use crate::ask::verdict::script::Unset;
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
    /// Connections on which little was ever set; as many workers have some as there are workers.
    fresh: Vec<Fresh>,
    /// Before this nothing more is asked.
    not_before: Instant,
    told: HashSet<(u32, Box<str>, String)>,
    office: Office,
}

/// What every worker has.
#[derive(Clone, Debug)]
pub(super) struct Office {
    pub(super) dial: Dial,
    pub(super) settings: crate::ask::Settings,
    pub(super) metrics: Arc<Metrics>,
}

/// A worker's result.
#[derive(Debug)]
struct Done {
    connection: Option<Connection>,
    fresh: Fresh,
    task: Task,
    result: Result<Judged, QueryError>,
}

/// What an inquiry came to.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) ruling: Ruling,
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
            fresh: Vec::new(),
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
        let twice = task.inquiry.cases.iter().any(|case| case.name.unset.is_some());
        let fresh = if twice { self.fresh.pop().unwrap_or_default() } else { Fresh::default() };
        self.workers.spawn(office.work(task, connection, fresh));
    }

    fn done(&mut self, done: Done) {
        let Done { connection, fresh, task, result } = done;
        self.idle.extend(connection);
        if !fresh.is_empty() {
            self.fresh.push(fresh);
        }
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
    async fn work(self, task: Task, connection: Option<Connection>, fresh: Fresh) -> Done {
        let mut fresh = fresh;
        let began_at = Instant::now();
        let patience = self.settings.verdicts.timeout;
        let questions = u32::try_from(task.inquiry.cases.len()).unwrap_or(u32::MAX);
        let all = patience.saturating_mul(questions).min(INQUIRY_MAX).max(patience * 2);
        let asking = Box::pin(timeout(all, self.ask(&task.inquiry, connection, &mut fresh)));
        let (connection, result) = match asking.await {
            Ok((connection, result)) => (connection, result),
            // The connection is dropped; the server has a time limit of its own.
            Err(_) => {
                fresh = Fresh::default();
                (None, Err(late(patience).into()))
            }
        };
        self.metrics.verdicts.asked.one();
        self.metrics.verdicts.duration.observe(began_at.elapsed(), 1);
        Done { connection, fresh, task, result }
    }

    /// Asks on a connection that stands, else on a new one.
    pub(super) async fn ask(
        &self,
        inquiry: &Inquiry,
        connection: Option<Connection>,
        fresh: &mut Fresh,
    ) -> (Option<Connection>, Result<Judged, QueryError>) {
        let mut connection = connection;
        loop {
            let is_new = connection.is_none();
            let standing = match connection.take() {
                Some(connection) => connection,
                None => match self.open().await {
                    Ok(connection) => connection,
                    Err(error) => return (None, Err(error)),
                },
            };
            let result = self.judge(standing.client(), fresh, inquiry).await;
            match result {
                Err(error) if error.was_closed() && !is_new => {}
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

    /// All of an inquiry, at one moment.
    async fn judge(
        &self,
        client: &Client,
        fresh: &mut Fresh,
        inquiry: &Inquiry,
    ) -> Result<Judged, QueryError> {
        let twice = inquiry.cases.iter().any(|case| case.name.unset.is_some());
        let begin = script::begin(inquiry, twice).ok_or(QueryError::Malformed)?;
        let meter = &self.metrics.verdicts;
        let pass = Pass { client, inquiry, unset: Unset::Empty, meter };
        let cases: Vec<&Case> = inquiry.cases.iter().collect();
        let Passed { began, mut words, mut errors } = pass.run(&begin, &cases).await?;
        let row = rows(&began, 1).next().ok_or(QueryError::Malformed)?;
        if row.get(2) != Some("t") {
            return Err(AskError::Changed.into());
        }
        let (visibility, insert_lsn) = moment(row)?;
        if twice {
            let moment = row.get(3).ok_or(QueryError::Malformed)?;
            let open = || self.open();
            errors.extend(fresh.ask((inquiry, meter), moment, &mut words, open).await?);
        }
        let ended = client.simple_query(&script::end(&inquiry.matter)).await?;
        // A table was truncated, or rewritten, while it was asked: once more, by a later snapshot.
        if rows(&ended, 1).any(|row| row.get(0) == Some("f")) {
            return Err(AskError::Busy.into());
        }
        let visibility = Arc::new(visibility);
        Ok(Judged { ruling: Ruling { visibility, insert_lsn, words }, errors })
    }
}
