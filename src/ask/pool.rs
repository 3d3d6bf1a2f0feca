//! Who answers: a few connections, and the questions that wait for one.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::Id;
use tokio::task::JoinError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::sleep_until;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;
use tracing::Span;

use crate::ask::Answer;
use crate::ask::AskError;
use crate::ask::Asker;
use crate::ask::Job;
use crate::ask::Listener;
use crate::ask::Question;
use crate::ask::Settings;
use crate::ask::query::Connection;
use crate::ask::query::QueryError;
use crate::ask::query::late;
use crate::ask::verdict::Inquirer;
use crate::ask::verdict::Judge;
use crate::catalog::dial::Dial;
use crate::change::lsn::Lsn;
use crate::metrics::Metrics;
use crate::trace::failed;
use crate::trace::span;

/// Memory is counted in units of this many bytes.
const UNIT: usize = 1024;
/// Questions between the shards and the pool, which takes them at once.
const JOBS_MAX: usize = 1024;
/// How long the database has to flush its log by itself: where there is any traffic, it does.
const FLUSH_PAUSE: Duration = Duration::from_millis(20);

/// Answers questions until nobody can ask any more. A pool of its own, because its part in the
/// work is what the usual ones don't have: equal questions share an answer, and the memory of
/// answers is reserved before they are asked for.
#[derive(Debug)]
pub struct Pool {
    jobs: mpsc::Receiver<Job>,
    settings: watch::Receiver<Settings>,
    asked: HashMap<Arc<Question>, Vec<Listener>>,
    waiting: VecDeque<(Instant, Arc<Question>)>,
    workers: JoinSet<Done>,
    /// What each worker asks.
    running: HashMap<Id, Arc<Question>>,
    idle: Vec<Connection>,
    /// Up to where the log must be flushed for those who were answered, and when to look.
    flush: Option<(Instant, Lsn)>,
    office: Office,
    /// Who answers the other kind of question; taken when the pool begins.
    judge: Option<Judge>,
}

/// What every worker has.
#[derive(Clone, Debug)]
struct Office {
    settings: Settings,
    dial: Dial,
    memory: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// A worker's result.
#[derive(Debug)]
struct Done {
    connection: Option<Connection>,
    answer: Result<Arc<Answer>, AskError>,
}

impl Pool {
    /// A pool without connections yet, and the way to ask it.
    #[must_use]
    pub fn new(settings: Settings, dial: Dial, metrics: Arc<Metrics>) -> (Asker, Pool) {
        let (inquirer, tasks) = Inquirer::new();
        let (asker, jobs) = Asker::with(settings, JOBS_MAX, inquirer);
        let judge = Judge::new(tasks, asker.settings(), dial.clone(), Arc::clone(&metrics));
        let units = settings.held_bytes_max.max(settings.bytes_max).div_ceil(UNIT);
        let memory = Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)));
        let pool = Pool {
            jobs,
            settings: asker.settings(),
            asked: HashMap::new(),
            waiting: VecDeque::new(),
            workers: JoinSet::new(),
            running: HashMap::new(),
            idle: Vec::new(),
            flush: None,
            office: Office { settings, dial, memory, metrics },
            judge: Some(judge),
        };
        (asker, pool)
    }

    /// Answers until the last asker is gone.
    pub async fn run(mut self) {
        let judge = self.judge.take();
        let _judging =
            judge.map(|judge| AbortOnDropHandle::new(Handle::current().spawn(judge.run())));
        loop {
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(job) => self.take(job),
                    None => return,
                },
                Some(done) = self.workers.join_next_with_id() => self.done(done),
                lsn = flush_due(self.flush) => self.flush(lsn),
                Ok(()) = self.settings.changed() => {
                    self.office.settings = *self.settings.borrow_and_update();
                }
            }
            self.start();
            let meter = &self.office.metrics.snapshots;
            meter.waiting.set_len(self.waiting.len());
            meter.running.set_len(self.workers.len());
        }
    }

    fn take(&mut self, job: Job) {
        let Job { question, listener } = job;
        if let Some(listeners) = self.asked.get_mut(&question) {
            self.office.metrics.snapshots.shared.one();
            listeners.push(listener);
            return;
        }
        if self.waiting.len() >= self.office.settings.waiting_max {
            tell(&[listener], &Err(AskError::Busy));
            return;
        }
        let question = Arc::new(question);
        self.asked.insert(Arc::clone(&question), vec![listener]);
        self.waiting.push_back((Instant::now(), question));
    }

    /// Gives questions to connections, as far as there are any.
    fn start(&mut self) {
        while self.workers.len() < self.office.settings.connections {
            let Some((since, question)) = self.waiting.pop_front() else { return };
            if since.elapsed() > self.office.settings.timeout {
                self.tell(&question, &Err(AskError::Busy));
                continue;
            }
            let (office, connection) = (self.office.clone(), self.idle.pop());
            let running = Arc::clone(&question);
            let worker = self.workers.spawn(office.work(question, connection));
            self.running.insert(worker.id(), running);
        }
    }

    fn done(&mut self, done: Result<(Id, Done), JoinError>) {
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(question) = self.running.remove(&id) else { return };
        let (connection, answer) = match done {
            Ok((_, Done { connection, answer })) => (connection, answer),
            Err(_panicked) => (None, Err(AskError::Failed)),
        };
        self.idle.extend(connection);
        if let (Question::Rows(_), Ok(answer)) = (&*question, &answer) {
            let (at, lsn) = self.flush.unwrap_or((Instant::now() + FLUSH_PAUSE, Lsn::ZERO));
            self.flush = Some((at, lsn.max(answer.insert_lsn)));
        }
        self.tell(&question, &answer);
    }

    /// Who was answered waits until the stream has come to the answer's end of the log.
    fn flush(&mut self, lsn: Lsn) {
        self.flush = None;
        let question = Arc::new(Question::Flush(lsn));
        self.asked.entry(Arc::clone(&question)).or_default();
        self.waiting.push_front((Instant::now(), question));
    }

    fn tell(&mut self, question: &Arc<Question>, answer: &Result<Arc<Answer>, AskError>) {
        tell(&self.asked.remove(question).unwrap_or_default(), answer);
    }
}

async fn flush_due(flush: Option<(Instant, Lsn)>) -> Lsn {
    match flush {
        Some((at, lsn)) => {
            sleep_until(at).await;
            lsn
        }
        None => std::future::pending().await,
    }
}

fn tell(listeners: &[Listener], answer: &Result<Arc<Answer>, AskError>) {
    for listener in listeners {
        listener.tell(answer.clone());
    }
}

impl Office {
    async fn work(self, question: Arc<Question>, connection: Option<Connection>) -> Done {
        let (patience, began_at) = (self.settings.timeout, Instant::now());
        let span = span_of(&question);
        let asking = self.ask(&question, connection).instrument(span.clone());
        let asking = Box::pin(timeout(patience * 2, asking));
        let (connection, answer) = match asking.await {
            Ok((connection, answer)) => (connection, answer),
            // The connection is dropped; the server has a time limit of its own.
            Err(_) => (None, Err(late(patience).into())),
        };
        if matches!(*question, Question::Rows(_)) {
            self.metrics.snapshots.asked.one();
            self.metrics.snapshots.duration.observe(began_at.elapsed(), 1);
        }
        let answer = answer.map(Arc::new).map_err(|error| {
            failed(&span, &error);
            let told = error.told(&self.settings);
            self.metrics.snapshots.failed.one(told.word());
            if told == AskError::Failed {
                report(&question, &error);
            }
            told
        });
        Done { connection, answer }
    }

    /// Asks on a connection that stands, else on a new one.
    async fn ask(
        &self,
        question: &Question,
        connection: Option<Connection>,
    ) -> (Option<Connection>, Result<Answer, QueryError>) {
        let mut held = None;
        if matches!(question, Question::Rows(_)) {
            let units = u32::try_from(self.settings.bytes_max.div_ceil(UNIT)).unwrap_or(u32::MAX);
            let memory = Arc::clone(&self.memory).acquire_many_owned(units);
            match timeout(self.settings.timeout, memory).await {
                Ok(Ok(permit)) => held = Some(permit),
                _ => return (connection, Err(AskError::Busy.into())),
            }
        }
        // Only a new session tells what is seen where nothing was ever set.
        let is_fresh = matches!(question, Question::Rows(select) if select.unset.is_some());
        let mut connection = connection.filter(|_| !is_fresh);
        loop {
            let fresh = connection.is_none();
            let standing = match connection.take() {
                Some(connection) => connection,
                None => match Connection::open(&self.dial, &self.settings).await {
                    Ok(connection) => connection,
                    Err(error) => return (None, Err(error)),
                },
            };
            match standing.ask(question, &self.settings).await {
                Ok(mut answer) => {
                    self.metrics
                        .snapshots
                        .rows
                        .add(answer.rows.len().try_into().unwrap_or(u64::MAX));
                    let used = answer.rows.bytes().div_ceil(UNIT);
                    if let Some(permit) = &mut held {
                        let rest = permit.num_permits().saturating_sub(used);
                        drop(permit.split(rest));
                    }
                    answer._held = held;
                    return (Some(standing), Ok(answer));
                }
                Err(error) if error.was_closed() && !fresh => {}
                Err(error) => {
                    let keep = error.keeps_connection();
                    return (keep.then_some(standing), Err(error));
                }
            }
        }
    }
}

/// What the question is about, for who traces it.
fn span_of(question: &Question) -> Span {
    match question {
        Question::Rows(select) => {
            let (relation, role) = (&select.relation, &select.role);
            let (schema, name) = (&*relation.schema, &*relation.name);
            span!("ask.rows", schema = schema, relation = name, role = %role)
        }
        Question::Visible => span!("ask.visible"),
        Question::Flush(_) => span!("ask.flush"),
    }
}

/// Tells the operator, with the table and the role and nothing of the rows.
fn report(question: &Question, error: &QueryError) {
    let error: &dyn std::error::Error = error;
    match question {
        Question::Rows(select) => {
            let (relation, role) = (&select.relation, &select.role);
            let relation = format!("{}.{}", relation.schema, relation.name);
            tracing::warn!(relation, %role, error, "a snapshot could not be read");
        }
        Question::Visible | Question::Flush(_) => {
            tracing::warn!(error, "it could not be asked what is visible");
        }
    }
}
