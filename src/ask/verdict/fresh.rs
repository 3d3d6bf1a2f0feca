//! Sessions in which a setting was never set.
//!
//! `current_setting('app.x', true)` is NULL until a session sets it for the first time, and an empty text
//! from then on, even after a rollback. So whoever looks at a setting that their claims don't set may be
//! shown other rows by a new session than by one that was used. Such a name is asked for twice, in both,
//! at one moment, and sees what both let it see.
//!
//! # Invariants
//!
//! - On a connection of this file nothing is set but what was noted, and nobody is asked for on it who
//!   looks at any of that without setting it.

use std::collections::BTreeSet;
use std::future::Future;

use crate::ask::AskError;
use crate::ask::query::Connection;
use crate::ask::query::QueryError;
use crate::ask::verdict::Case;
use crate::ask::verdict::Inquiry;
use crate::ask::verdict::Name;
use crate::ask::verdict::Word;
use crate::ask::verdict::pass::Pass;
use crate::ask::verdict::pass::Passed;
use crate::ask::verdict::script;
use crate::ask::verdict::script::Unset;
use crate::metrics::VerdictMeter;

/// Connections that one worker keeps: different claims set different names.
const KEPT_MAX: usize = 2;

/// A worker's connections.
#[derive(Debug, Default)]
pub(super) struct Fresh(Vec<Session>);

/// One of them, with the names of all that was ever set on it.
#[derive(Debug)]
struct Session {
    connection: Connection,
    set: BTreeSet<Box<str>>,
}

impl Session {
    /// Whether somebody finds everything unset that they don't set themselves.
    fn is_fresh_for(&self, name: &Name) -> bool {
        let Some(unset) = &name.unset else { return true };
        let is_own =
            |known: &str| name.settings.iter().any(|(own, _)| own.eq_ignore_ascii_case(known));
        let is_read = |known: &str| unset.names.iter().any(|it| it.eq_ignore_ascii_case(known));
        !self.set.iter().any(|known| is_read(known) || (unset.others && !is_own(known)))
    }
}

impl Fresh {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Asks once more for those who look at what they don't set, as of another session's moment, and
    /// leaves of the words only those that are said twice.
    pub(super) async fn ask<F>(
        &mut self,
        (inquiry, meter): (&Inquiry, &VerdictMeter),
        moment: &str,
        words: &mut [Result<Box<[Word]>, AskError>],
        open: impl Fn() -> F,
    ) -> Result<Vec<(Box<str>, tokio_postgres::Error)>, QueryError>
    where
        F: Future<Output = Result<Connection, QueryError>>,
    {
        let mut open_cases: Vec<usize> = (0..inquiry.cases.len()).collect();
        open_cases.retain(|at| inquiry.cases.get(*at).is_some_and(|it| it.name.unset.is_some()));
        let mut errors = Vec::new();
        while let Some(first) = open_cases.first().and_then(|at| inquiry.cases.get(*at)) {
            let mut session = self.take(&first.name, &open).await?;
            let mut taken: Vec<usize> = Vec::new();
            open_cases.retain(|at| {
                let Some(case) = inquiry.cases.get(*at) else { return false };
                if !session.is_fresh_for(&case.name) {
                    return true;
                }
                let names = case.name.settings.iter().map(|(name, _)| name.to_ascii_lowercase());
                session.set.extend(names.map(Box::from));
                taken.push(*at);
                false
            });
            let cases: Vec<&Case> = taken.iter().filter_map(|at| inquiry.cases.get(*at)).collect();
            let client = session.connection.client();
            let pass = Pass { client, inquiry, unset: Unset::Null, meter };
            let begin = script::join(inquiry, moment).ok_or(QueryError::Malformed)?;
            // Where this fails the session is closed: nobody is to find it within a transaction.
            let Passed { words: again, errors: more, .. } = pass.run(&begin, &cases).await?;
            client.batch_execute(script::END).await?;
            errors.extend(more);
            for (at, again) in taken.into_iter().zip(again) {
                if let Some(words) = words.get_mut(at) {
                    both(words, again);
                }
            }
            self.keep(session);
        }
        Ok(errors)
    }

    async fn take<F>(&mut self, name: &Name, open: impl Fn() -> F) -> Result<Session, QueryError>
    where
        F: Future<Output = Result<Connection, QueryError>>,
    {
        if let Some(at) = self.0.iter().position(|session| session.is_fresh_for(name)) {
            let session = self.0.swap_remove(at);
            if !session.connection.client().is_closed() {
                return Ok(session);
            }
        }
        Ok(Session { connection: open().await?, set: BTreeSet::new() })
    }

    fn keep(&mut self, session: Session) {
        if self.0.len() >= KEPT_MAX {
            self.0.remove(0);
        }
        self.0.push(session);
    }
}

/// What both say.
fn both(words: &mut Result<Box<[Word]>, AskError>, again: Result<Box<[Word]>, AskError>) {
    match (words, again) {
        (Ok(words), Ok(again)) => {
            for (word, again) in words.iter_mut().zip(again) {
                if *word == Word::Seen {
                    *word = again;
                }
            }
        }
        (words @ Ok(_), Err(error)) => *words = Err(error),
        (Err(_), _) => {}
    }
}
