//! One connection's stream: the loop that everything passes through.
//!
//! Arms in their order: stop; what is asked of us; the time has come to tell the server something; room at the shards;
//! frames. While a shard has no room, too much is in flight, or we are to rest, no frame is read. A shape that is
//! new is asked for inside the last arm, with the first two still served.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::sleep_until;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::change::cursor::Position;
use crate::change::lsn::Lsn;
use crate::change::transaction::Timestamp;
use crate::change::transaction::Transaction;
use crate::ingest::Settings;
use crate::ingest::assemble::Assembler;
use crate::ingest::assemble::Step;
use crate::ingest::error::IngestError;
use crate::ingest::run::Ingest;
use crate::ingest::walsender::Frame;
use crate::ingest::walsender::Status;
use crate::ingest::walsender::Walsender;
use crate::ingest::walsender::WalsenderError;
use crate::metrics::health::BEAT_EVERY;
use crate::ring::feed::Feed;

mod rules;

/// The longest time between two statuses; a third of the server's own limit where that is less.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// The same while changes come, so that the window is kept.
const STATUS_EVERY_BUSY: Duration = Duration::from_secs(1);
/// The same while catching up: the server says how far it is when it is asked.
const STATUS_EVERY_CATCHING_UP: Duration = Duration::from_millis(50);
/// How often a quiet database's position goes to the shards.
const ADVANCE_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether the shards have routed, while too much is in flight.
const ROUTED_EVERY: Duration = Duration::from_millis(1);
/// A stream that has lasted this long is not one more failed attempt.
const SETTLED: Duration = Duration::from_secs(10);

/// One connection.
pub(crate) struct Stream {
    walsender: Walsender,
    assembler: Assembler,
    status_every: Duration,
    /// What the server's own patience allows.
    status_every_max: Duration,
    began_at: Instant,
    told_at: Instant,
    heard_at: Instant,
    /// Whether the server wants a status at once.
    reply_due: bool,
    /// Whether changes came since the last status.
    busy: bool,
    /// A position that the shards were not told yet.
    advance: Option<Lsn>,
    advanced_at: Instant,
    beat_at: Instant,
    /// Whether a transaction was handed over since the last beat.
    has_handed_over: bool,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    GoesOn,
    Stopped,
}

/// How often the server is told where we are: often enough for the window's age.
fn status_every(most: Duration, settings: &Settings) -> Duration {
    most.min((settings.window.age / 4).max(Duration::from_millis(100)))
}

impl Stream {
    /// A connection that has just begun to stream. Where the one before broke in the middle of a
    /// transaction, `left_before` is how far that was handed over.
    pub(crate) fn new(
        walsender: Walsender,
        settings: &Settings,
        sender_timeout_ms: Option<u64>,
        left_before: Option<Position>,
    ) -> Stream {
        let limit =
            sender_timeout_ms.map_or(STATUS_EVERY, |limit| Duration::from_millis(limit / 3));
        let status_every_max = STATUS_EVERY.min(limit);
        let now = Instant::now();
        Stream {
            walsender,
            assembler: Assembler::new(settings.part_bytes, left_before),
            status_every: status_every(status_every_max, settings),
            status_every_max,
            began_at: now,
            told_at: now,
            heard_at: now,
            // Says at once where we are, and asks where the server is.
            reply_due: true,
            busy: false,
            advance: None,
            advanced_at: now,
            beat_at: now,
            has_handed_over: false,
        }
    }

    /// Streams until `stop` completes.
    pub(crate) async fn run(
        mut self,
        ingest: &mut Ingest,
        stop: &CancellationToken,
    ) -> Result<(), IngestError> {
        loop {
            let clear = ingest.downstream.is_clear();
            let fits = fits(ingest);
            let reads = clear && fits && !ingest.wanted.paused;
            if !reads {
                // What is not read can't be heard.
                self.heard_at = Instant::now();
            }
            let wake_at = self.wake_at(ingest);
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.finish(ingest).await,
                Ok(()) = ingest.asked.changed() => self.obey(ingest, reads)?,
                () = sleep_until(self.beat_at) => self.beat(ingest),
                () = sleep_until(wake_at) => self.tell(ingest).await?,
                room = ingest.downstream.room(), if !clear => {
                    room?;
                    ingest.downstream.flush()?;
                }
                () = sleep(ROUTED_EVERY), if clear && !fits => {}
                filled = self.walsender.fill(), if reads => {
                    filled?;
                    if self.take(ingest, stop).await? == Flow::Stopped {
                        return self.finish(ingest).await;
                    }
                }
            }
        }
    }

    /// Does what is wanted now; a status follows at once.
    fn obey(&mut self, ingest: &mut Ingest, reads: bool) -> Result<(), IngestError> {
        let was_gone = ingest.wanted.database_gone;
        ingest.obey()?;
        self.status_every = status_every(self.status_every_max, &ingest.settings);
        self.assembler.make_parts_of(ingest.settings.part_bytes);
        // A server that shuts down waits for whoever does not read, and says so only in the stream.
        if ingest.wanted.database_gone && !was_gone && !reads {
            return Err(IngestError::Unanswered);
        }
        self.reply_due = true;
        Ok(())
    }

    /// Takes what has come, as far as the shards have room for it.
    async fn take(
        &mut self,
        ingest: &mut Ingest,
        stop: &CancellationToken,
    ) -> Result<Flow, IngestError> {
        let now = Instant::now();
        self.heard_at = now;
        while ingest.downstream.is_clear() {
            let taken = self.walsender.take();
            let step = match taken.map_err(|error| stream_error(error, &ingest.settings))? {
                None => break,
                Some(Frame::Data { payload }) => {
                    ingest.meter().received(payload.len());
                    self.assembler.push(payload)?
                }
                Some(Frame::Keepalive { wal_end, reply }) => {
                    self.reply_due |= reply;
                    ingest.meter().received(0);
                    self.keepalive(ingest, wal_end, now)?;
                    continue;
                }
                Some(Frame::Notice) => continue,
            };
            match step {
                Step::More => {}
                Step::Made(transaction) => {
                    self.hand_over(ingest, transaction, now)?;
                    if !fits(ingest) {
                        break;
                    }
                }
                Step::Resolve(description) => {
                    let resolved = self.resolve(ingest, &description, stop).await?;
                    let Some(relation) = resolved else { return Ok(Flow::Stopped) };
                    self.assembler.learn(relation);
                }
                Step::Reread => {
                    if self.reread(ingest, stop).await? == Flow::Stopped {
                        return Ok(Flow::Stopped);
                    }
                }
            }
        }
        Ok(Flow::GoesOn)
    }

    fn keepalive(
        &mut self,
        ingest: &mut Ingest,
        wal_end: Lsn,
        now: Instant,
    ) -> Result<(), IngestError> {
        ingest.progress.receive(wal_end);
        // The rest of a transaction of which a part was handed over is still to come.
        if self.assembler.is_open() || ingest.left.is_some() {
            return Ok(());
        }
        self.quiet_until(ingest, wal_end, now)
    }

    /// Nothing that anybody wants ended up to `lsn`.
    fn quiet_until(
        &mut self,
        ingest: &mut Ingest,
        lsn: Lsn,
        now: Instant,
    ) -> Result<(), IngestError> {
        if lsn > ingest.progress.head() {
            ingest.progress.idle(lsn, now);
            ingest.replicas.advance(lsn);
            self.advance = Some(lsn);
        }
        ingest.note_reached()
    }

    fn hand_over(
        &mut self,
        ingest: &mut Ingest,
        transaction: Transaction,
        now: Instant,
    ) -> Result<(), IngestError> {
        self.busy = true;
        let (end_lsn, last) = (transaction.end_lsn, u64::from(transaction.end_lsn.is_some()));
        // What began to commit before the head has ended there.
        if transaction.commit_lsn < ingest.progress.head() {
            ingest.meter().repeated.add_alone(last);
            return Ok(());
        }
        ingest.attempts = 0;
        if let Some(end_lsn) = end_lsn.filter(|_| transaction.is_empty()) {
            return self.quiet_until(ingest, end_lsn, now);
        }
        ingest.left = end_lsn.is_none().then(|| transaction.ends_at());
        self.has_handed_over = true;
        let meter = ingest.meter();
        meter.transactions.add_alone(last);
        meter.changes.add_alone(u64::try_from(transaction.len()).unwrap_or(u64::MAX));
        meter.handed_over(unix_micros(transaction.committed_at), SystemTime::now());
        self.advance = None;
        // Before any shard judges by it.
        ingest.replicas.apply(&transaction);
        ingest.progress.hand_over(end_lsn, transaction.bytes(), now);
        ingest.downstream.push(Feed::Transaction(Arc::new(transaction)))?;
        ingest.note_reached()
    }

    /// Notes that the loop turns, and whether anything came since it was noted last.
    fn beat(&mut self, ingest: &mut Ingest) {
        self.beat_at = Instant::now() + BEAT_EVERY;
        ingest.beat.tick();
        route(ingest);
        tell_positions(ingest);
        let is_busy = std::mem::take(&mut self.has_handed_over);
        if !is_busy && ingest.progress.in_flight_bytes() == 0 && ingest.is_live() {
            ingest.meter().quiet(SystemTime::now());
        }
    }

    /// When the server or the shards must be told something next.
    fn wake_at(&self, ingest: &Ingest) -> Instant {
        if self.reply_due {
            return self.told_at;
        }
        let every = if !ingest.is_live() {
            STATUS_EVERY_CATCHING_UP.min(self.status_every)
        } else if self.busy {
            STATUS_EVERY_BUSY.min(self.status_every)
        } else {
            self.status_every
        };
        let status = self.told_at + every;
        match self.advance {
            Some(_) if ingest.downstream.is_clear() => status.min(self.advanced_at + ADVANCE_EVERY),
            _ => status,
        }
    }

    /// Tells the shards how far a quiet database is, and the server how far we are.
    async fn tell(&mut self, ingest: &mut Ingest) -> Result<(), IngestError> {
        let now = Instant::now();
        if ingest.downstream.is_clear()
            && now.duration_since(self.advanced_at) >= ADVANCE_EVERY
            && let Some(lsn) = self.advance.take()
        {
            self.advanced_at = now;
            ingest.downstream.push(Feed::Advance(lsn))?;
        }
        if now.duration_since(self.began_at) >= SETTLED {
            ingest.attempts = 0;
        }
        // A large row keeps coming for a while before it can be taken.
        self.heard_at = self.heard_at.max(self.walsender.heard_at().unwrap_or(self.heard_at));
        let silence = now.duration_since(self.heard_at);
        if silence > ingest.settings.silence_max {
            return Err(WalsenderError::Silent { silence }.into());
        }
        let reply = !ingest.is_live() || self.heard_at <= self.told_at;
        self.send_status(ingest, now, reply).await
    }

    /// Sends the position to confirm, where there is a new one, and at once takes it back: see
    /// `progress`.
    async fn send_status(
        &mut self,
        ingest: &mut Ingest,
        now: Instant,
        reply: bool,
    ) -> Result<(), IngestError> {
        route(ingest);
        let confirmed = ingest.progress.confirm(now);
        let write = ingest.progress.received();
        let unknown = Status { write, flush: Lsn::ZERO, reply };
        match confirmed {
            Some(flush) => {
                let confirmed = Status { write, flush, reply: false };
                self.walsender.send(&[confirmed, unknown]).await?;
            }
            None => self.walsender.send(&[unknown]).await?,
        }
        (self.told_at, self.reply_due, self.busy) = (now, false, false);
        tell_positions(ingest);
        Ok(())
    }

    /// Ends the stream in good order.
    async fn finish(mut self, ingest: &mut Ingest) -> Result<(), IngestError> {
        let patience = ingest.settings.patience;
        let ended = async {
            self.send_status(ingest, Instant::now(), false).await?;
            Ok::<(), IngestError>(self.walsender.end().await?)
        };
        match timeout(patience, ended).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = error.chain(), "stream not ended in order"),
            Err(_) => tracing::debug!("stream not ended in time"),
        }
        Ok(())
    }
}

/// Whether more may be in flight; asks the shards only where it is not so.
fn fits(ingest: &mut Ingest) -> bool {
    let max = ingest.settings.in_flight_bytes_max;
    if ingest.progress.in_flight_bytes() >= max {
        route(ingest);
    }
    ingest.progress.in_flight_bytes() < max
}

/// Tells the operator how far we are.
fn tell_positions(ingest: &Ingest) {
    let (meter, progress) = (ingest.meter(), &ingest.progress);
    meter.received_lsn.set(progress.received().bytes());
    meter.routed_lsn.set(progress.routed().bytes());
    meter.confirmed_lsn.set(progress.confirmed().bytes());
    meter.in_flight_bytes.set_len(progress.in_flight_bytes());
}

/// A commit's time since 1970; PostgreSQL counts from 2000.
fn unix_micros(committed_at: Timestamp) -> u64 {
    const EPOCH_US: i64 = 946_684_800_000_000;
    u64::try_from(committed_at.0.saturating_add(EPOCH_US)).unwrap_or(0)
}

fn route(ingest: &mut Ingest) {
    ingest.progress.route(ingest.downstream.routed());
}

fn stream_error(error: WalsenderError, settings: &Settings) -> IngestError {
    match error {
        WalsenderError::Stream(error) if error.code == "42704" => IngestError::PublicationYounger,
        WalsenderError::Stream(source) if source.is_too_large() => {
            IngestError::Unsendable { slot: settings.slot.name.to_string(), source }
        }
        error => error.into(),
    }
}
