//! How much log the slot may keep in Postgres, and what is done about it.
//!
//! ```text
//!  Good ──warn──▶ Warned ──3/4 of the budget──▶ Shed ──budget──▶ Over ──▶ keep, or let go
//! ```
//!
//! Pure: facts of the server in, a level and a decision out. `daemon` polls and orders.
//!
//! Letting go is the last thing, and only where it helps. What a slot keeps is three things: what
//! was routed and is held back (given up when the window is shed), what was not routed yet (given up
//! with a new history), and what is kept because a transaction is open that began there. The last
//! only its end gives up, whatever the slot does.

use std::sync::Arc;
use std::time::SystemTime;

use crate::catalog::slot::SlotFacts;
use crate::change::lsn::Lsn;

/// The budget where neither the settings nor Postgres have one: what a small disk can bear.
const BUDGET: u64 = 10 << 30;

/// What is done where the budget is exceeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverBudget {
    /// The log is kept: nothing is lost, as long as the disk lasts or Postgres gives the slot up.
    #[default]
    Keep,
    /// The log is let go: every client has to start again.
    LetGo,
}

/// The settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// From how many bytes on it is warned; absent: half of the budget.
    pub warn_bytes: Option<u64>,
    /// How many bytes it may be; absent: three quarters of what Postgres keeps for a slot
    /// (`max_slot_wal_keep_size`), or 10 GiB where that has no bound.
    pub budget_bytes: Option<u64>,
    /// What is done beyond.
    pub over: OverBudget,
}

/// The settings, with what Postgres says put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// From here on it is warned.
    pub warn_bytes: u64,
    /// From here on the window is shed.
    pub shed_bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
}

/// How much is kept, by the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    #[default]
    Good,
    /// More than `wal.warn_bytes`.
    Warned,
    /// Near the budget: nothing is held back any more.
    Shed,
    /// More than the budget.
    Over,
}

/// What was seen of the slot last, and what is done about it: for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// When the server was asked last.
    pub at: SystemTime,
    /// What it said; absent where there is no slot, or nothing was asked yet.
    pub slot: Option<SlotFacts>,
    /// Why it did not answer; `slot` is what it said before.
    pub failed: Option<Arc<str>>,
    /// The bounds that hold.
    pub bounds: Bounds,
    /// What is done beyond the budget.
    pub over: OverBudget,
    /// How much is kept, by the bounds.
    pub level: Level,
    /// Since when.
    pub since: SystemTime,
    /// How often the window was shed.
    pub sheds: u64,
    /// How often the log was let go.
    pub let_goes: u64,
}

/// What to do beyond the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keep the log, as the settings say.
    Keep,
    /// Let go of it.
    LetGo,
    /// Nothing: letting go would not free it. It is kept for open transactions, or about to be freed.
    Useless,
}

impl Report {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(settings: Settings) -> Report {
        let now = SystemTime::now();
        Report {
            at: now,
            slot: None,
            failed: None,
            bounds: settings.bounds(None),
            over: settings.over,
            level: Level::Good,
            since: now,
            sheds: 0,
            let_goes: 0,
        }
    }

    /// How many bytes of log the server keeps because of the slot, as far as is known.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.slot.as_ref().map_or(0, SlotFacts::retained_bytes)
    }
}

impl Settings {
    /// The bounds, on a server that keeps so much for a slot.
    #[must_use]
    pub fn bounds(&self, keep_bytes: Option<u64>) -> Bounds {
        let usual = keep_bytes.map_or(BUDGET, |keep| keep / 4 * 3);
        let budget_bytes = self.budget_bytes.unwrap_or(usual);
        let warn_bytes = self.warn_bytes.unwrap_or(budget_bytes / 2).min(budget_bytes);
        Bounds { warn_bytes, shed_bytes: (budget_bytes / 4 * 3).max(warn_bytes), budget_bytes }
    }

    /// What to do about a slot that is over its budget, when everything up to `routed` was routed,
    /// as far as is known.
    #[must_use]
    pub fn decide(&self, facts: &SlotFacts, bounds: Bounds, routed: Lsn) -> Decision {
        let routed = routed.max(facts.confirmed_lsn.unwrap_or(Lsn::ZERO));
        let unrouted = facts.current_lsn.bytes_since(routed);
        match self.over {
            OverBudget::Keep => Decision::Keep,
            OverBudget::LetGo if unrouted < bounds.budget_bytes / 2 => Decision::Useless,
            OverBudget::LetGo => Decision::LetGo,
        }
    }
}

impl Bounds {
    /// The level of so many bytes. It falls only when a bound is left by an eighth, so that it does
    /// not go up and down with every segment.
    #[must_use]
    pub fn level(&self, bytes: u64, before: Level) -> Level {
        let at = |scale: u64| {
            let over = |bound: u64| bytes >= bound / 8 * scale && bytes > 0;
            if over(self.budget_bytes) {
                Level::Over
            } else if over(self.shed_bytes) {
                Level::Shed
            } else if over(self.warn_bytes) {
                Level::Warned
            } else {
                Level::Good
            }
        };
        at(8).max(at(7).min(before))
    }
}

impl Level {
    /// All names, in order.
    pub const NAMES: [&str; 4] = ["good", "warned", "shed", "over"];

    /// A word for programs, stable between versions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Level::Good => "good",
            Level::Warned => "warned",
            Level::Shed => "shed",
            Level::Over => "over",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn facts(restart: u64, current: u64) -> SlotFacts {
        SlotFacts {
            active: true,
            active_pid: Some(1),
            wal_status: Some("reserved".into()),
            safe_wal_size: None,
            restart_lsn: Some(Lsn::new(restart * MB)),
            confirmed_lsn: Some(Lsn::new(restart * MB)),
            current_lsn: Lsn::new(current * MB),
            keep_bytes: None,
            oldest: None,
        }
    }

    #[test]
    fn the_bounds_follow_what_postgres_keeps() {
        let none = Settings::default();
        let bounds = none.bounds(Some(1024 * MB));
        assert_eq!((bounds.budget_bytes, bounds.warn_bytes), (768 * MB, 384 * MB));
        assert_eq!(bounds.shed_bytes, 576 * MB);
        assert_eq!(none.bounds(None).budget_bytes, BUDGET);
        let given = Settings { budget_bytes: Some(100), warn_bytes: Some(200), ..none };
        assert_eq!(given.bounds(Some(MB)).warn_bytes, 100, "a warning does not come too late");
    }

    #[test]
    fn a_level_rises_at_its_bound_and_falls_an_eighth_below() {
        let settings = Settings { budget_bytes: Some(800), ..Settings::default() };
        let bounds = settings.bounds(None);
        let mut level = Level::Good;
        for (bytes, expected) in [
            (399, Level::Good),
            (400, Level::Warned),
            (360, Level::Warned),
            (349, Level::Good),
            (600, Level::Shed),
            (800, Level::Over),
            (701, Level::Over),
            (699, Level::Shed),
            (0, Level::Good),
        ] {
            level = bounds.level(bytes, level);
            assert_eq!(level, expected, "{bytes}");
        }
    }

    #[test]
    fn the_log_is_let_go_only_where_that_helps() {
        let keep = Settings { budget_bytes: Some(100 * MB), ..Settings::default() };
        let settings = Settings { over: OverBudget::LetGo, ..keep };
        let (facts, bounds) = (facts(0, 150), settings.bounds(None));
        let decide =
            |settings: Settings, routed| settings.decide(&facts, bounds, Lsn::new(routed * MB));
        assert_eq!(decide(keep, 0), Decision::Keep);
        assert_eq!(decide(settings, 0), Decision::LetGo);
        // All but a little was routed: what is kept is kept for a transaction.
        assert_eq!(decide(settings, 140), Decision::Useless);
    }
}
