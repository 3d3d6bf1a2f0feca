//! A warning that repeats: the first ones are logged, then one line says how many more there were.
//!
//! What clients and networks do at will, they can do ten thousand times a second; the log is for a
//! person. Each place in the code that warns may do so [`BURST`] times in [`SPAN`]. What comes
//! beyond is counted, and told when that place warns after the span. Below a warning nothing is left
//! out.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Event;
use tracing::Level;
use tracing::Subscriber;
use tracing::callsite::Identifier;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::Layer;

/// How often a place may warn in [`SPAN`].
const BURST: u32 = 20;
/// How long the places are counted for.
const SPAN: Duration = Duration::from_secs(10);

/// Leaves out what repeats too often.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// One entry for each place in the code that ever warned.
    places: Mutex<HashMap<Identifier, Place>>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    logged: u32,
    left_out: u64,
}

impl Place {
    /// Whether a warning is logged; and how many were left out before it, where a new span begins.
    fn admit(&mut self, now: Instant) -> (bool, u64) {
        let mut before = 0;
        if now.saturating_duration_since(self.since) >= SPAN {
            before = self.left_out;
            *self = Place { since: now, logged: 0, left_out: 0 };
        }
        let admitted = self.logged < BURST;
        if admitted {
            self.logged += 1;
        } else {
            self.left_out += 1;
        }
        (admitted, before)
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return true;
        }
        let now = Instant::now();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Place { since: now, logged: 0, left_out: 0 };
        let (admitted, before) = places.entry(metadata.callsite()).or_insert(fresh).admit(now);
        drop(places);
        if before > 0 {
            let (file, line) = (metadata.file(), metadata.line());
            tracing::info!(left_out = before, file, line, "a warning repeated; most were left out");
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_logged_and_the_rest_is_counted_until_the_span_is_over() {
        let begin = Instant::now();
        let mut place = Place { since: begin, logged: 0, left_out: 0 };
        for _ in 0..BURST {
            assert_eq!(place.admit(begin), (true, 0));
        }
        for _ in 0..1000 {
            assert_eq!(place.admit(begin + SPAN / 2), (false, 0));
        }
        assert_eq!(place.admit(begin + SPAN), (true, 1000));
        assert_eq!(place.admit(begin + SPAN), (true, 0));
    }
}
