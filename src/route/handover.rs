//! From a snapshot to the stream, without a gap and without a repetition.
//!
//! ```text
//! asking ──answer──▶ reader: its rows ─▶ the ring, less what the answer saw ─▶ synced, live
//!    ▲                          └──────── waiting, until the stream is there ────▲
//!    └──────────── what it did not see was evicted, or the subscription judged anew
//! ```
//!
//! A query does not see what is committed a moment later, and the stream may have brought it a
//! moment before. So the answer says which transactions it saw (`change::visibility`), the ring is
//! looked back through for the first one that it did not see, and from there on a transaction is
//! delivered exactly where it was not seen. That goes on until everything was passed that ended
//! before the answer: whatever comes after was not seen.
//!
//! # Invariants
//!
//! - A subscription is live only when its shard has passed the log's end as it was after the query.
//! - Before `synced` no frame has a cursor: who is cut off begins again.
//! - What the answer did not see is in the ring when it is accepted, and the reader stands there.

use std::rc::Rc;
use std::sync::Arc;

use crate::ask::Answer;
use crate::ask::AskError;
use crate::ask::Question;
use crate::ask::Select;
use crate::ask::Told;
use crate::auth::Claims;
use crate::change::cursor::Position;
use crate::change::lsn::Lsn;
use crate::change::visibility::Visibility;
use crate::ring::Gap;
use crate::route::encode::Notice;
use crate::route::plan::Plan;
use crate::route::plan::Refusal;
use crate::route::question;
use crate::route::session::Reader;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;
use crate::route::subscription::Request;
use crate::route::subscription::SnapshotRequest;

/// Answers that a shard waits for at once.
pub(crate) const ASKED_MAX: usize = 4096;
/// How often a subscription asks until it gets an answer that it can go on from.
const TRIES_MAX: u8 = 5;
/// Evicted transactions of which it is not known whether every query sees them, from which on it
/// is asked what is visible.
const UNSETTLED_MAX: u64 = 1 << 16;

/// A subscription that waits for its rows.
#[derive(Debug)]
pub(crate) struct Asking {
    key: SessionKey,
    id: Rc<str>,
    /// Absent where it asks again at the next tick.
    ticket: Option<u64>,
    tries: u8,
}

/// What a reader of a snapshot must know.
#[derive(Debug)]
pub(crate) struct Handover {
    /// The rows, and the next one to deliver; absent when all are.
    pub(crate) rows: Option<(Arc<Answer>, usize)>,
    pub(crate) visibility: Arc<Visibility>,
    insert_lsn: Lsn,
    tries: u8,
}

impl Handover {
    /// What the rows hold already, and where the log stood then.
    pub(crate) fn seen(&self) -> (Arc<Visibility>, Lsn) {
        (Arc::clone(&self.visibility), self.insert_lsn)
    }
}

/// A subscription that has read everything and waits until the stream is where the answer was.
#[derive(Debug)]
pub(crate) struct Waiting {
    key: SessionKey,
    reader: Reader,
}

impl Shard {
    /// Whether a subscription that is not there yet may begin with a snapshot.
    ///
    /// # Errors
    ///
    /// [`Refusal`] where it may not.
    pub(crate) fn may_ask(
        &self,
        claims: &Claims,
        request: &Request,
        snapshot: &SnapshotRequest,
        plan: &Plan,
    ) -> Result<Select, Refusal> {
        let catalog = self.shared.catalog.current();
        let context = self.shared.context(&catalog);
        let rows_max = self.shared.asker.rows_max();
        let select = question::question(context, claims, (request, snapshot), plan, rows_max)?;
        let stream = self.ring.as_ref().map(|ring| (ring.source(), ring.begin()));
        Ok(Select { stream, ..select })
    }

    /// Writes the question for a subscription as it is now.
    fn question(&self, key: SessionKey, id: &str) -> Result<Option<Select>, Refusal> {
        let Some(session) = self.session(key) else { return Ok(None) };
        let Some(subscription) = session.subscription(id) else { return Ok(None) };
        let Some(snapshot) = &subscription.snapshot else { return Ok(None) };
        let claims = session.claims.clone().ok_or(Refusal::Unauthenticated)?;
        let plan = self.plan(&claims, &subscription.request)?;
        self.may_ask(&claims, &subscription.request, snapshot, &plan).map(Some)
    }

    /// Asks for the subscription's rows; where that is refused, the subscription ends.
    pub(crate) fn begin_snapshot(&mut self, key: SessionKey, id: &Rc<str>) {
        self.ask_again(Asking { key, id: Rc::clone(id), ticket: None, tries: 0 });
    }

    /// Begins again with a subscription that is not live and missed changes. One that was in the
    /// middle of a snapshot waits a moment, and gives up at some time: the next one would hardly
    /// fare better, and the database has to read all of it for each.
    pub(crate) fn renew_snapshot(&mut self, key: SessionKey, id: &Rc<str>, reason: Gap) {
        let concerns = |reader: &&Reader| reader.ids.contains(id);
        let reader = self.session(key).and_then(|it| it.readers.iter().find(concerns));
        let handover = reader.and_then(|reader| reader.handover.as_deref());
        let tries = handover.map_or(0, |handover| handover.tries);
        if let Some(session) = self.session_mut(key) {
            session.forget_reader_of(id);
        }
        self.forget_snapshot(key, id);
        if tries == 0 || reason == Gap::Restarted {
            self.begin_snapshot(key, id);
        } else if tries >= TRIES_MAX {
            self.refuse(key, id, &Refusal::SnapshotOvertaken);
        } else {
            self.asking.push(Asking { key, id: Rc::clone(id), ticket: None, tries });
        }
    }

    fn ask_again(&mut self, mut asking: Asking) {
        let (key, id) = (asking.key, Rc::clone(&asking.id));
        let asked = if asking.tries >= TRIES_MAX {
            Err(Refusal::SnapshotOvertaken)
        } else {
            self.question(key, &id)
        };
        let asked = match asked {
            Ok(None) => return,
            Ok(Some(select)) => self.ask(Question::Rows(Box::new(select))),
            Err(refusal) => Err(refusal),
        };
        match asked {
            Ok(ticket) => {
                (asking.ticket, asking.tries) = (Some(ticket), asking.tries + 1);
                self.asking.push(asking);
            }
            Err(refusal) => self.refuse(key, &id, &refusal),
        }
    }

    /// Asks; the answer comes under the number that is returned.
    pub(crate) fn ask(&mut self, question: Question) -> Result<u64, Refusal> {
        if self.outstanding >= ASKED_MAX {
            return Err(Refusal::Snapshot(AskError::Busy));
        }
        self.tickets += 1;
        let asked = self.shared.asker.ask(question, self.tickets, &self.tell);
        asked.map_err(Refusal::Snapshot)?;
        self.outstanding += 1;
        Ok(self.tickets)
    }

    /// Ends a subscription that can't go on, and says so.
    pub(crate) fn refuse(&mut self, key: SessionKey, id: &Rc<str>, refusal: &Refusal) {
        self.end_subscription(key, id);
        self.shared.metrics.refused(refusal.code());
        self.notify(key, &Notice::Refused { id, refusal });
    }

    /// Takes an answer.
    pub(crate) fn take_answer(&mut self, told: Told) {
        self.outstanding = self.outstanding.saturating_sub(1);
        let asking = self.asking.iter().position(|it| it.ticket == Some(told.ticket));
        let Some(asking) = asking.map(|at| self.asking.swap_remove(at)) else {
            // Who has asked is gone, or it was asked only what is visible.
            if let (Ok(answer), Some(ring)) = (told.answer, self.ring.as_mut()) {
                let _unseen = ring.first_unseen(&answer.visibility);
            }
            return;
        };
        match told.answer {
            Ok(answer) => self.accept(asking, answer),
            // The catalogue is read again by then.
            Err(AskError::Changed) => self.asking.push(Asking { ticket: None, ..asking }),
            Err(error) => self.refuse(asking.key, &asking.id, &Refusal::Snapshot(error)),
        }
    }

    /// Lets a subscription read its rows, and then the ring from where they don't tell.
    fn accept(&mut self, asking: Asking, answer: Arc<Answer>) {
        let Some(ring) = self.ring.as_mut() else { return };
        let Ok(place) = ring.first_unseen(&answer.visibility) else {
            return self.ask_again(asking);
        };
        let Asking { key, id, tries, .. } = asking;
        let (visibility, insert_lsn) = (Arc::clone(&answer.visibility), answer.insert_lsn);
        let rows = (!answer.rows.is_empty()).then_some((answer, 0));
        let handover = Some(Box::new(Handover { rows, visibility, insert_lsn, tries }));
        if let Some(paced) = self.paced_mut(key, &id) {
            (paced.catching_up, paced.in_snapshot) = (true, true);
        }
        let reader = Reader { place, ids: smallvec::smallvec![id], announce: true, handover };
        if let Some(session) = self.session_mut(key) {
            session.readers.push(reader);
        }
        self.schedule(key);
    }

    /// Whether the session's first reader, which has read everything there is, must wait; then it
    /// does.
    pub(crate) fn wait_for_stream(&mut self, key: SessionKey) -> bool {
        let matched = self.matched;
        let Some(session) = self.session_mut(key) else { return false };
        let ahead = session.readers.first().and_then(|reader| reader.handover.as_deref());
        if ahead.is_none_or(|handover| Position::after(handover.insert_lsn) <= matched) {
            return false;
        }
        let reader = session.readers.remove(0);
        self.waiting.push(Waiting { key, reader });
        true
    }

    /// Lets those go on for whom the stream has come far enough.
    pub(crate) fn settle_waiting(&mut self) {
        let matched = self.matched;
        let reached = |waiting: &mut Waiting| {
            let handover = waiting.reader.handover.as_deref();
            handover.is_none_or(|handover| Position::after(handover.insert_lsn) <= matched)
        };
        let reached: Vec<Waiting> = self.waiting.extract_if(.., reached).collect();
        for Waiting { key, reader } in reached {
            if let Some(session) = self.session_mut(key) {
                session.readers.push(reader);
            }
            self.schedule(key);
        }
    }

    /// A second has passed.
    pub(crate) fn tick_snapshots(&mut self) {
        let again = self.asking.extract_if(.., |asking| asking.ticket.is_none());
        for asking in again.collect::<Vec<_>>() {
            self.ask_again(asking);
        }
        // On a quiet server nobody else makes the stream go on.
        if !self.waiting.is_empty() {
            let _later = self.ask(Question::Flush(Lsn::new(u64::MAX)));
        }
        let unsettled = self.ring.as_ref().map_or(0, crate::ring::Ring::evicted_unsettled);
        if unsettled > UNSETTLED_MAX {
            let _later = self.ask(Question::Visible);
        }
    }

    /// A subscription that is not live was judged anew: rows that were asked for before are not
    /// what it wants.
    pub(crate) fn restart_snapshot(&mut self, key: SessionKey, id: &Rc<str>) {
        let asking = |it: &Asking| it.key == key && it.id == *id;
        if let Some(at) = self.asking.iter().position(asking) {
            self.asking.swap_remove(at);
            self.begin_snapshot(key, id);
            return;
        }
        let concerns = |reader: &Reader| reader.handover.is_some() && reader.ids.contains(id);
        let reading = self.session(key).is_some_and(|it| it.readers.iter().any(concerns))
            || self.is_asked_in_snapshot(key, id);
        if reading || self.waiting.iter().any(|it| it.key == key && concerns(&it.reader)) {
            self.resync(key, id, Gap::Restarted);
        }
    }

    /// Whether a subscription has not had its snapshot whole.
    pub(crate) fn is_in_snapshot(&self, key: SessionKey, id: &Rc<str>) -> bool {
        let concerns = |reader: &Reader| reader.handover.is_some() && reader.ids.contains(id);
        self.is_asked_in_snapshot(key, id)
            || self.asking.iter().any(|it| it.key == key && it.id == *id)
            || self.waiting.iter().any(|it| it.key == key && concerns(&it.reader))
            || self.session(key).is_some_and(|it| it.readers.iter().any(concerns))
    }

    /// Asks again for whatever the session waits for, under the claims that it has now.
    pub(crate) fn restart_asking(&mut self, key: SessionKey) {
        let asking = self.asking.extract_if(.., |asking| asking.key == key);
        for Asking { key, id, .. } in asking.collect::<Vec<_>>() {
            self.begin_snapshot(key, &id);
        }
    }

    /// Forgets a subscription that is in the middle of its snapshot.
    pub(crate) fn forget_snapshot(&mut self, key: SessionKey, id: &str) {
        self.asking.retain(|asking| asking.key != key || &*asking.id != id);
        let concerns = |reader: &Reader| reader.ids.iter().any(|known| &**known == id);
        self.waiting.retain(|waiting| waiting.key != key || !concerns(&waiting.reader));
    }
}
