//! Keeps the log that the slot holds within its budget: looks at the server each second, warns, and
//! asks the stage to shed the window or to let go.
//!
//! What the levels mean and when letting go helps is in `ingest::budget`; nothing is let go but by
//! `wal.over_budget = "let_go"`.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;

use crate::catalog::Catalog;
use crate::catalog::slot::SlotFacts;
use crate::change::lsn::Lsn;
use crate::config::Config;
use crate::daemon::Daemon;
use crate::daemon::reload::Revision;
use crate::ingest::Standing;
use crate::ingest::State;
use crate::ingest::budget::Decision;
use crate::ingest::budget::Level;
use crate::ingest::budget::Report;
use crate::ingest::budget::Settings;
use crate::ingest::orders::Orders;
use crate::logging::notice;
use crate::metrics::Metrics;

/// How often the server is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long an order to let go is waited for before it is given again.
const LET_GO_TAKES: Duration = Duration::from_mins(1);

/// Who looks.
pub(super) struct Watcher {
    catalog: Arc<Catalog>,
    slot: Box<str>,
    revisions: watch::Receiver<Arc<Revision>>,
    /// What holds at this look.
    settings: Settings,
    orders: Orders,
    metrics: Arc<Metrics>,
    standing: watch::Receiver<Standing>,
    report: watch::Sender<Report>,
    /// When the log was let go last.
    let_go_at: Option<Instant>,
    /// Whether it was said that letting go does not help.
    useless_said: bool,
}

impl Watcher {
    /// Who looks after the daemon's slot, and says what was seen on `report`.
    pub(super) fn new(
        config: &Config,
        catalog: Arc<Catalog>,
        daemon: &Daemon,
        report: watch::Sender<Report>,
    ) -> Watcher {
        Watcher {
            catalog,
            slot: config.database.slot.as_str().into(),
            revisions: daemon.revisions(),
            settings: config.wal,
            orders: daemon.orders.clone(),
            metrics: Arc::clone(&daemon.metrics),
            standing: daemon.standing(),
            report,
            let_go_at: None,
            useless_said: false,
        }
    }

    /// Looks for ever.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Whoever waits for the database tries already.
            if self.catalog.current().generation == 0 {
                continue;
            }
            self.settings = self.revisions.borrow().config.wal;
            let asked = self.catalog.slot(&self.slot).await;
            self.orders.database_gone(asked.is_err());
            match asked {
                Ok(facts) => self.judge(facts),
                Err(error) => {
                    let why = error.chain().into();
                    self.report.send_modify(|report| report.failed = Some(why));
                }
            }
        }
    }

    fn judge(&mut self, slot: Option<SlotFacts>) {
        let before = self.report.borrow().level;
        let bounds = self.settings.bounds(slot.as_ref().and_then(|slot| slot.keep_bytes));
        let retained = slot.as_ref().map_or(0, SlotFacts::retained_bytes);
        let mut level = bounds.level(retained, before);
        // Postgres has promised the rest of it to nobody.
        if slot.as_ref().is_some_and(|slot| slot.wal_status.as_deref() == Some("unreserved")) {
            level = level.max(Level::Shed);
        }
        let keep_bytes = slot.as_ref().and_then(|slot| slot.keep_bytes);
        self.metrics.slot.keep_bytes.set(keep_bytes.unwrap_or(0));
        let now = SystemTime::now();
        self.report.send_modify(|report| {
            (report.at, report.failed, report.bounds) = (now, None, bounds);
            report.slot = slot;
            if level != before {
                (report.level, report.since) = (level, now);
                report.sheds += u64::from(level >= Level::Shed && before < Level::Shed);
            }
            // Who waits for the report finds the same in the metrics.
            tell(&self.metrics, report);
        });
        self.orders.shed(level >= Level::Shed);
        if level != before {
            self.say(level, before);
        }
        if level < Level::Over {
            self.useless_said = false;
        } else {
            self.over_budget();
        }
    }

    fn say(&self, level: Level, before: Level) {
        let report = self.report.borrow();
        let (level, before, retained) = (level.name(), before.name(), report.retained_bytes());
        let (warn, budget) = (report.bounds.warn_bytes, report.bounds.budget_bytes);
        let oldest = report.slot.as_ref().and_then(|slot| slot.oldest.as_deref());
        let oldest = oldest.unwrap_or("none");
        let state = self.standing.borrow().state.name();
        let code = notice::WAL_BUDGET;
        let text = match report.level {
            Level::Good => {
                tracing::info!(code, level, before, retained, "the slot keeps little log again");
                return;
            }
            Level::Warned => "the slot keeps much log",
            Level::Shed => "the slot keeps much log: nothing is held back for clients any more",
            Level::Over => {
                let text = "the slot keeps more log than its budget";
                tracing::error!(
                    code, level, before, retained, warn, budget, oldest, state, "{text}"
                );
                return;
            }
        };
        tracing::warn!(code, level, before, retained, warn, budget, oldest, state, "{text}");
    }

    fn over_budget(&mut self) {
        let routed = Lsn::new(self.metrics.ingest.routed_lsn.get());
        let report = self.report.borrow().clone();
        let Some(slot) = &report.slot else { return };
        match self.settings.decide(slot, report.bounds, routed) {
            Decision::Useless if !self.useless_said => {
                self.useless_said = true;
                let oldest = slot.oldest.as_deref().unwrap_or("none");
                let retained = report.retained_bytes();
                tracing::error!(
                    code = notice::WAL_BUDGET,
                    retained,
                    oldest,
                    "the slot keeps more log than its budget, and letting go would not free it: it \
                     is kept for transactions that are open, or freed at a checkpoint soon"
                );
            }
            Decision::Keep | Decision::Useless => {}
            Decision::LetGo => self.let_go(report.retained_bytes(), report.bounds.budget_bytes),
        }
    }

    fn let_go(&mut self, retained: u64, budget: u64) {
        let reads = matches!(
            self.standing.borrow().state,
            State::CatchingUp | State::Streaming | State::Paused
        );
        let ordered = self.let_go_at.is_some_and(|at| at.elapsed() < LET_GO_TAKES);
        if ordered || !reads {
            return;
        }
        self.let_go_at = Some(Instant::now());
        self.report.send_modify(|report| report.let_goes += 1);
        let why = format!("the slot keeps {retained} bytes, more than the budget of {budget}");
        let code = notice::WAL_BUDGET;
        tracing::error!(code, retained, budget, "the log is let go, as wal.over_budget says");
        self.orders.let_go(why.into());
    }
}

/// Tells whoever asks how it is.
fn tell(metrics: &Metrics, report: &Report) {
    let (slot, retained) = (&metrics.slot, report.retained_bytes());
    slot.retained_bytes.set(retained);
    slot.budget_bytes.set(report.bounds.budget_bytes);
    slot.sheds.set(report.sheds);
    slot.let_goes.set(report.let_goes);
    if report.level == Level::Good {
        metrics.health.clear("wal_budget");
    } else {
        let budget = report.bounds.budget_bytes;
        let message = format!("the slot keeps {retained} bytes of log, of {budget}");
        metrics.health.warn("wal_budget", message);
    }
}
