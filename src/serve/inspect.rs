//! Questions to the shards, from other threads.
//!
//! ```text
//! console ──Inspector──▶ a mailbox for each shard ──▶ answered on the shard's thread, between passes
//!         ◀──────────────── oneshot ─────────────────
//! ```
//!
//! A question is a closure that runs where the shard lives, so what is asked and what is answered
//! stand in one place. It must be short: clients wait for it. A list is therefore asked for in parts
//! ([`route::inspect`](crate::route::inspect)).
//!
//! # Invariants
//!
//! - A shard is asked only between two passes, and never waits for whoever asked.
//! - Whoever asks waits [`PATIENCE`] at the most.

use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::route::inspect::GroupRow;
use crate::route::inspect::Part;
use crate::route::inspect::RingRow;
use crate::route::inspect::SessionRow;
use crate::route::inspect::SubscriptionRow;
use crate::route::shard::Shard;
use crate::serve::Front;

/// Questions that may wait for one shard.
const QUESTIONS_MAX: usize = 16;
/// How long an answer is waited for.
pub const PATIENCE: Duration = Duration::from_secs(2);

type Question = Box<dyn FnOnce(&Rc<Front>) + Send>;

/// Asks all shards. Cheap to clone, and used from any thread.
#[derive(Clone, Debug)]
pub struct Inspector {
    shards: Arc<[mpsc::Sender<Question>]>,
}

/// One shard's mailbox.
#[derive(Debug)]
pub struct Mailbox(mpsc::Receiver<Question>);

/// A shard did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shard {shard} did not answer within {} s", PATIENCE.as_secs())]
pub struct Unanswered {
    /// Which.
    pub shard: usize,
}

/// A list over all shards.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    /// The rows, each with its shard.
    pub rows: Vec<(usize, T)>,
    /// Whether there are more than were wanted.
    pub more: bool,
}

/// An inspector of so many shards, and what each of them is to be given.
#[must_use]
pub fn inspector(shards: usize) -> (Inspector, Vec<Mailbox>) {
    let (senders, mailboxes): (Vec<_>, Vec<_>) = (0..shards)
        .map(|_| {
            let (sender, receiver) = mpsc::channel(QUESTIONS_MAX);
            (sender, Mailbox(receiver))
        })
        .unzip();
    (Inspector { shards: senders.into() }, mailboxes)
}

/// Answers what comes in. Never returns: it ends with its shard.
pub async fn answer(front: &Rc<Front>, mut mailbox: Mailbox) {
    while let Some(question) = mailbox.0.recv().await {
        question(front);
    }
    pending::<()>().await;
}

impl Inspector {
    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Asks one shard. The answer is made on its thread.
    ///
    /// # Errors
    ///
    /// [`Unanswered`] where there is no such shard, it has ended, or it is too busy.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        shard: usize,
        question: impl FnOnce(&Rc<Front>) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let unanswered = Unanswered { shard };
        let mailbox = self.shards.get(shard).ok_or(unanswered)?;
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |front| {
            let _nobody_waits = reply.send(question(front));
        });
        let asked = async {
            mailbox.send(question).await.map_err(|_| unanswered)?;
            answer.await.map_err(|_| unanswered)
        };
        timeout(PATIENCE, asked).await.unwrap_or(Err(unanswered))
    }

    /// The sessions, at most about `max` of them.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub async fn sessions(&self, max: usize) -> Result<Listed<SessionRow>, Unanswered> {
        self.list(max, Shard::list_sessions).await
    }

    /// The subscriptions, at most about `max` of them.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub async fn subscriptions(&self, max: usize) -> Result<Listed<SubscriptionRow>, Unanswered> {
        self.list(max, Shard::list_subscriptions).await
    }

    /// The groups, at most about `max` of them.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub async fn groups(&self, max: usize) -> Result<Listed<GroupRow>, Unanswered> {
        self.list(max, Shard::list_groups).await
    }

    /// The rings.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub async fn rings(&self) -> Result<Vec<(usize, RingRow)>, Unanswered> {
        let mut rings = Vec::new();
        for shard in 0..self.shards() {
            let ring = self.ask(shard, |front| front.shard.borrow().show_ring()).await?;
            rings.extend(ring.map(|ring| (shard, ring)));
        }
        Ok(rings)
    }

    /// Ends a session; `false` where there is none of this number.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub async fn kill(&self, id: u64) -> Result<bool, Unanswered> {
        let Some((shard, number)) = self.place_of(id) else { return Ok(false) };
        self.ask(shard, move |front| front.shard.borrow_mut().kill(number)).await
    }

    /// Ends all sessions of a subject; returns how many.
    ///
    /// # Errors
    ///
    /// [`Unanswered`]; those of other shards may have been ended.
    pub async fn kill_subject(&self, subject: &str) -> Result<usize, Unanswered> {
        let mut killed = 0;
        for shard in 0..self.shards() {
            let subject = subject.to_owned();
            killed += self
                .ask(shard, move |front| front.shard.borrow_mut().kill_subject(&subject))
                .await?;
        }
        Ok(killed)
    }

    /// The one number by which operators name a session of a shard.
    #[must_use]
    pub fn id_of(&self, shard: usize, number: u32) -> u64 {
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        u64::from(number) * wide(self.shards()) + wide(shard)
    }

    fn place_of(&self, id: u64) -> Option<(usize, u32)> {
        let shards = u64::try_from(self.shards()).ok()?;
        let shard = usize::try_from(id.checked_rem(shards)?).ok()?;
        Some((shard, u32::try_from(id.checked_div(shards)?).ok()?))
    }

    async fn list<T: Send + 'static>(
        &self,
        max: usize,
        part: fn(&Shard, usize) -> Part<T>,
    ) -> Result<Listed<T>, Unanswered> {
        let mut rows = Vec::new();
        for shard in 0..self.shards() {
            let mut next = Some(0);
            while let Some(from) = next {
                if rows.len() >= max {
                    return Ok(Listed { rows, more: true });
                }
                let part = self.ask(shard, move |front| part(&front.shard.borrow(), from)).await?;
                rows.extend(part.rows.into_iter().map(|row| (shard, row)));
                next = part.next;
            }
        }
        Ok(Listed { rows, more: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_s_number_tells_its_shard() {
        let (inspector, _mailboxes) = inspector(3);
        let mut seen = Vec::new();
        for shard in 0..3 {
            for number in [1, 2, u32::MAX] {
                let id = inspector.id_of(shard, number);
                assert_eq!(inspector.place_of(id), Some((shard, number)));
                seen.push(id);
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 9);
        assert_eq!(inspector.place_of(u64::MAX), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_does_not_answer_is_named() {
        let (inspector, mailboxes) = inspector(2);
        assert_eq!(inspector.ask(1, |_| ()).await, Err(Unanswered { shard: 1 }));
        assert_eq!(inspector.ask(2, |_| ()).await, Err(Unanswered { shard: 2 }));
        drop(mailboxes);
        assert_eq!(inspector.ask(0, |_| ()).await, Err(Unanswered { shard: 0 }));
    }
}
