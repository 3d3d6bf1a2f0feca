//! The stage's outer loop: connect, stream, and connect again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::change::cursor::Position;
use crate::change::cursor::Source;
use crate::change::lsn::Lsn;
use crate::ingest::Settings;
use crate::ingest::Stage;
use crate::ingest::State;
use crate::ingest::assemble::AssembleError;
use crate::ingest::downstream::Downstream;
use crate::ingest::error::IngestError;
use crate::ingest::error::NextStep;
use crate::ingest::error::next_step;
use crate::ingest::orders::Held;
use crate::ingest::orders::Orders;
use crate::ingest::orders::Wanted;
use crate::ingest::progress::Progress;
use crate::ingest::progress::Window;
use crate::ingest::slot;
use crate::ingest::slot::Slot;
use crate::ingest::slot::SlotError;
use crate::ingest::state::Board;
use crate::ingest::stream::Stream;
use crate::ingest::walsender;
use crate::ingest::walsender::WalsenderError;
use crate::logging::notice;
use crate::metrics::Metrics;
use crate::metrics::health::Beat;
use crate::metrics::ingest::IngestMeter;
use crate::replica;
use crate::ring::feed::Feed;
use crate::trace::span;
use crate::trace::traced;

/// Streams until the stage is stopped, over as many connections as it takes.
pub(crate) async fn run(stage: Stage) -> Result<(), IngestError> {
    let stop = stage.stop.clone();
    let mut ingest = Ingest::new(stage);
    loop {
        let Err(error) = ingest.connect_and_stream(&stop).await else {
            ingest.enter(State::Stopped { why: None });
            return Ok(());
        };
        let why: Arc<str> = error.chain().into();
        if matches!(error, IngestError::Assemble(AssembleError::Torn { .. })) {
            // What the shards have of it has no end: a new history begins.
            ingest.source = None;
        }
        let after = match ingest.next_step(&error) {
            NextStep::Reconnect { after } => {
                ingest.enter(match &error {
                    IngestError::Slot(SlotError::Busy { pid, .. }) => {
                        State::Busy { pid: pid.as_str().into() }
                    }
                    _ => State::Interrupted { why: Arc::clone(&why) },
                });
                after
            }
            NextStep::Replace { after } if ingest.settings.slot.create || error.is_let_go() => {
                ingest.enter(State::Lost { why: Arc::clone(&why) });
                ingest.replace = Some(Arc::clone(&why));
                after
            }
            NextStep::Replace { .. } | NextStep::Stop => {
                ingest.enter(State::Stopped { why: Some(why) });
                return Err(error);
            }
        };
        tracing::debug!(error = &*why, "trying again in {after:?}");
        ingest.attempts += 1;
        ingest.interrupt()?;
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                ingest.enter(State::Stopped { why: None });
                return Ok(());
            }
            () = ingest.beat.while_waiting(tokio::time::sleep(after)) => {}
        }
    }
}

/// What outlives a connection.
pub(crate) struct Ingest {
    pub(crate) settings: Settings,
    pub(crate) downstream: Downstream,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) replicas: Arc<replica::Store>,
    pub(crate) progress: Progress,
    /// Attempts that failed since something new came.
    pub(crate) attempts: usize,
    /// How far a transaction was handed over of which more is to come; absent between two.
    pub(crate) left: Option<Position>,
    board: Board,
    metrics: Arc<Metrics>,
    /// Its sign of life.
    pub(crate) beat: Arc<Beat>,
    /// Whose history is fed; absent before the first, and where that can't go on.
    source: Option<Source>,
    /// Whether a history was ever begun.
    begun: bool,
    /// What has to be reached before clients may come; absent once it was.
    target: Option<Lsn>,
    interrupted: bool,
    orders: Orders,
    /// What is wanted, to be woken by.
    pub(crate) asked: watch::Receiver<Wanted>,
    /// What was wanted last.
    pub(crate) wanted: Wanted,
    /// The window, as far as the server has room for it.
    window: Window,
    /// What the server keeps for a slot, as far as it has a bound.
    keep_bytes: Option<u64>,
    /// Why the slot is to be given up; absent where it is not.
    replace: Option<Arc<str>>,
}

impl Ingest {
    fn new(stage: Stage) -> Ingest {
        let Stage { settings, catalog, replicas, feeds, routed, board, orders, metrics, stop: _ } =
            stage;
        let (asked, window) = (orders.watch(), settings.window);
        Ingest {
            downstream: Downstream::new(feeds, routed),
            catalog,
            replicas,
            progress: Progress::new(window, Lsn::ZERO),
            settings,
            attempts: 0,
            left: None,
            board,
            beat: Arc::new(metrics.health.stage("ingest")),
            metrics,
            source: None,
            begun: false,
            target: None,
            interrupted: false,
            asked,
            wanted: orders.wanted(),
            orders,
            window,
            keep_bytes: None,
            replace: None,
        }
    }

    /// Counts a look at the catalogue that the stream had to wait for.
    pub(crate) fn count_fence(&self, looked: bool) {
        if looked {
            self.metrics.catalog.fences.one();
        }
    }

    async fn connect_and_stream(&mut self, stop: &CancellationToken) -> Result<(), IngestError> {
        if self.attempts == 0 {
            self.enter(State::Connecting);
        }
        let beat = Arc::clone(&self.beat);
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            stream = beat.while_waiting(traced(
                span!("ingest.connect", slot = %self.settings.slot.name),
                self.open(),
            )) => stream?,
        };
        self.meter().connections.add_alone(1);
        self.catalog.stream_begins();
        tracing::info!(lsn = %self.progress.head(), "the stream begins");
        self.enter_reading();
        stream.run(self, stop).await
    }

    /// Connects, finds the slot and begins its stream.
    async fn open(&mut self) -> Result<Stream, IngestError> {
        self.take_settings();
        let mut commands = walsender::connect(&self.settings).await?;
        let system = commands.identify().await?;
        if let Some(why) = self.orders.take_let_go() {
            self.replace = Some(why);
        }
        if self.replace.is_some() {
            slot::give_up(&mut commands, &self.settings.slot).await?;
        }
        let slot = slot::find_or_create(&mut commands, &self.settings.slot).await?;
        if slot.created {
            let (code, name) = (notice::SLOT_CREATED, &self.settings.slot.name);
            tracing::info!(code, slot = %name, lsn = %slot.confirmed_lsn, "the slot was made");
        }
        let replaced = self.replace.take();
        let options = self.settings.slot.options(commands.parameter("server_version"));
        self.keep_bytes = slot.budget_bytes;
        self.hold_back();
        let goes_on = self.goes_on(system.source, slot);
        if !goes_on {
            if self.begun {
                self.renew(system.source, slot, replaced);
            }
            // Fed before anything of it comes; void if the stream does not begin after all.
            self.begin(system.source, slot)?;
            // What comes meanwhile would only have to wait.
            self.replicas.settled().await;
            self.target = self.target.max(Some(self.replicas.settles_at()));
        }
        let name = self.settings.slot.name.quoted();
        let started = commands.start(&name, self.progress.head(), &options).await;
        let walsender = started.map_err(|error| self.start_error(error))?;
        if self.interrupted && goes_on {
            self.downstream.push(Feed::Resumed)?;
        }
        self.interrupted = false;
        Ok(Stream::new(walsender, &self.settings, slot.sender_timeout_ms, self.left))
    }

    /// Holds back the window of the settings, but at most a quarter of what Postgres keeps for a
    /// slot: it counts from an older position than the confirmed one, and somebody who is late
    /// needs room, too.
    fn hold_back(&mut self) {
        let (wanted, budget_bytes) = (self.settings.window, self.keep_bytes);
        let bytes = budget_bytes.map_or(wanted.bytes, |budget| wanted.bytes.min(budget / 4));
        if bytes < wanted.bytes {
            tracing::warn!(
                bytes,
                wanted = wanted.bytes,
                "the window is a quarter of max_slot_wal_keep_size, which is too small for it"
            );
        }
        self.meter().window_bytes.set(bytes);
        self.metrics.slot.keep_bytes.set(budget_bytes.unwrap_or(0));
        self.window = Window { bytes, ..wanted };
        self.set_window();
    }

    /// Takes up what is wanted now.
    ///
    /// # Errors
    ///
    /// [`IngestError::LetGo`], which ends the stream: the log is let go between two connections.
    pub(crate) fn obey(&mut self) -> Result<(), IngestError> {
        self.wanted = self.asked.borrow_and_update().clone();
        if let Some(why) = self.orders.take_let_go() {
            return Err(IngestError::LetGo { why });
        }
        if self.take_settings() {
            self.hold_back();
        } else {
            self.set_window();
        }
        self.enter_reading();
        Ok(())
    }

    /// Takes up settings that came after the start; whether they are others.
    fn take_settings(&mut self) -> bool {
        let Some(Held { window, part_bytes }) = self.orders.wanted().held else { return false };
        let differs = (self.settings.window, self.settings.part_bytes) != (window, part_bytes);
        (self.settings.window, self.settings.part_bytes) = (window, part_bytes);
        differs
    }

    fn set_window(&mut self) {
        let nothing = Window { bytes: 0, age: Duration::ZERO };
        self.progress.set_window(if self.wanted.shed { nothing } else { self.window });
    }

    /// The state of a stream that stands.
    fn enter_reading(&self) {
        self.enter(match (self.wanted.paused, self.is_live()) {
            (true, _) => State::Paused,
            (false, true) => State::Streaming,
            (false, false) => State::CatchingUp,
        });
    }

    /// Whether what comes from this slot follows on what was fed. Not so after a failover, where
    /// the slot was made anew (it begins later), and where the log was rewound (it ends earlier).
    fn goes_on(&self, source: Source, slot: Slot) -> bool {
        let head = self.progress.head();
        self.source == Some(source) && slot.confirmed_lsn <= head && head <= slot.flushed_lsn
    }

    /// Says why what clients have is void.
    fn renew(&self, source: Source, slot: Slot, replaced: Option<Arc<str>>) {
        let made = replaced.is_some() || slot.created;
        let why = replaced.unwrap_or_else(|| match self.source {
            _ if slot.created => "the slot was dropped".into(),
            Some(before) if before != source => "the server has another history".into(),
            Some(_) => "the slot and what was read of it do not fit together".into(),
            None => "a transaction was cut off and did not come again".into(),
        });
        if made {
            self.enter(State::Recreated { why: Arc::clone(&why) });
        }
        self.board.renew(why);
    }

    fn begin(&mut self, source: Source, slot: Slot) -> Result<(), IngestError> {
        let tail = slot.confirmed_lsn;
        (self.source, self.begun) = (Some(source), true);
        self.left = None;
        self.progress.begin(tail);
        self.replicas.begin(tail);
        self.target = Some(reachable(slot.flushed_lsn));
        self.downstream.push(Feed::Start { source, tail })
    }

    fn start_error(&self, error: WalsenderError) -> IngestError {
        match error {
            WalsenderError::Command { error, .. } if error.code == "55006" => {
                let pid = error.message.rsplit(' ').find_map(|word| word.parse::<u32>().ok());
                let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                SlotError::Busy { name: self.settings.slot.name.to_string(), pid }.into()
            }
            error => error.into(),
        }
    }

    /// Whether clients may come.
    pub(crate) const fn is_live(&self) -> bool {
        self.target.is_none()
    }

    /// Notes that clients may come, where the head has reached what was there at the start.
    pub(crate) fn note_reached(&mut self) -> Result<(), IngestError> {
        if self.target.is_some_and(|target| self.progress.head() >= target) {
            self.target = None;
            self.downstream.push(Feed::Live)?;
            self.enter_reading();
        }
        Ok(())
    }

    /// What it counts.
    pub(crate) fn meter(&self) -> &IngestMeter {
        &self.metrics.ingest
    }

    fn enter(&self, state: State) {
        self.board.enter(state);
    }

    fn next_step(&self, error: &IngestError) -> NextStep {
        // Nothing was ever read: what only the settings or a certificate can mend is said at once.
        if !self.begun && error.is_distrust() {
            return NextStep::Stop;
        }
        next_step(error, self.attempts)
    }

    fn interrupt(&mut self) -> Result<(), IngestError> {
        self.meter().interruptions.add_alone(1);
        if !self.interrupted && self.source.is_some() {
            self.interrupted = true;
            self.downstream.push(Feed::Interrupted)?;
        }
        Ok(())
    }
}

/// The position that decoding reaches when the log is flushed to `flushed`: where that is just
/// behind a page's header, decoding stays at the page's beginning.
fn reachable(flushed: Lsn) -> Lsn {
    const PAGE: u64 = 8192;
    const HEADER_MAX: u64 = 40;
    let into = flushed.bytes() % PAGE;
    if into <= HEADER_MAX { Lsn::new(flushed.bytes() - into) } else { flushed }
}
