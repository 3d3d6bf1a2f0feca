//! How often somebody may do something: token buckets (GCRA), by address or for one session.
//!
//! An address that has not been here for as long as its bucket needs to fill is forgotten. Where
//! there are very many at once, those that come then share a few thousand buckets, so that memory is
//! bounded and a flood from a whole network still meets a limit.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use governor::NotUntil;
use governor::Quota;
use governor::RateLimiter;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::InMemoryState;
use governor::state::NotKeyed;
use governor::state::keyed::DashMapStateStore;
use tokio::time::Instant;

use crate::gate::Limits;
use crate::gate::address::Address;

/// Addresses that have a bucket of their own, for each of the rates.
pub const KEYS_MAX: usize = 1 << 16;
/// Buckets for all others.
const CROWD: u64 = 1 << 12;
/// How often those are forgotten who have not been here for long.
const SWEEP: Duration = Duration::from_secs(10);
/// The same where there are too many.
const SWEEP_CROWDED: Duration = Duration::from_secs(1);
/// How many seconds' worth of handshakes may come at once.
const HANDSHAKES_BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);

/// Tokio's clock, which tests can pause.
#[derive(Clone, Copy, Debug)]
struct Ticks(Instant);

impl Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

type None = NoOpMiddleware<Nanos>;
type One = RateLimiter<NotKeyed, InMemoryState, Ticks, None>;
type Many = RateLimiter<Address, DashMapStateStore<Address>, Ticks, None>;

fn wait(not_until: &NotUntil<Nanos>, clock: Ticks) -> Duration {
    not_until.wait_time_from(clock.now())
}

/// A rate by address.
#[derive(Debug)]
struct Keyed {
    buckets: Many,
    clock: Ticks,
    hasher: RandomState,
    /// When it was swept last, in milliseconds of the clock.
    swept_ms: AtomicU64,
}

impl Keyed {
    fn new(quota: Quota) -> Keyed {
        let clock = Ticks(Instant::now());
        let buckets = RateLimiter::dashmap_with_clock(quota, clock);
        Keyed { buckets, clock, hasher: RandomState::new(), swept_ms: AtomicU64::new(0) }
    }

    /// How long to wait, where it was often enough.
    fn take(&self, address: Address) -> Result<(), Duration> {
        self.sweep();
        let key = if self.buckets.len() < KEYS_MAX {
            address
        } else {
            let crowd = self.hasher.hash_one(address) % CROWD;
            Address::Crowd(u16::try_from(crowd).unwrap_or_default())
        };
        self.buckets.check_key(&key).map_err(|refused| wait(&refused, self.clock))
    }

    fn sweep(&self) {
        let now = u64::try_from(self.clock.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        let swept = self.swept_ms.load(Ordering::Relaxed);
        let pause = if self.buckets.len() < KEYS_MAX { SWEEP } else { SWEEP_CROWDED };
        let due = Duration::from_millis(now.saturating_sub(swept)) >= pause;
        let swap =
            || self.swept_ms.compare_exchange(swept, now, Ordering::Relaxed, Ordering::Relaxed);
        if due && swap().is_ok() {
            self.buckets.retain_recent();
            self.buckets.shrink_to_fit();
        }
    }
}

/// The rates by address.
#[derive(Debug)]
pub(crate) struct Rates {
    handshakes: Option<Keyed>,
    rejected: Option<Keyed>,
    /// Until when nothing of an address is looked at, by the clock of `rejected`.
    barred: Mutex<HashMap<Address, Instant>>,
}

impl Rates {
    pub(crate) fn new(limits: &Limits) -> Rates {
        let handshakes = limits.handshakes_per_second_per_address.map(|rate| {
            let burst = rate.saturating_mul(HANDSHAKES_BURST);
            Keyed::new(Quota::per_second(rate).allow_burst(burst))
        });
        let rejected =
            limits.rejected_tokens_per_minute.map(|rate| Keyed::new(Quota::per_minute(rate)));
        Rates { handshakes, rejected, barred: Mutex::default() }
    }

    /// Whether both want the same rates.
    pub(crate) fn same(one: &Limits, other: &Limits) -> bool {
        one.handshakes_per_second_per_address == other.handshakes_per_second_per_address
            && one.rejected_tokens_per_minute == other.rejected_tokens_per_minute
    }

    pub(crate) fn handshake(&self, address: Address) -> Result<(), Duration> {
        self.handshakes.as_ref().map_or(Ok(()), |rate| rate.take(address))
    }

    /// For how long tokens of this address are not looked at.
    pub(crate) fn barred(&self, address: Address) -> Option<Duration> {
        let until = *self.lock().get(&address)?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Notes that a token was not believed.
    pub(crate) fn token_rejected(&self, address: Address) {
        let Some(rejected) = &self.rejected else { return };
        let Err(wait) = rejected.take(address) else { return };
        let now = Instant::now();
        let mut barred = self.lock();
        if barred.len() >= KEYS_MAX {
            barred.retain(|_, until| *until > now);
        }
        if barred.len() < KEYS_MAX {
            barred.insert(address, now + wait);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Instant>> {
        self.barred.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a session's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paced {
    /// It is served.
    Served,
    /// It came too soon, and is refused.
    TooSoon,
    /// So have many before it: the session is to be closed.
    Abused,
}

/// How often one session may ask. As many messages may be refused as may be served; a session that
/// goes on beyond that is closed.
#[derive(Debug)]
pub struct Pace {
    served: One,
    refused: One,
}

impl Pace {
    /// So many a second, and so many at once.
    #[must_use]
    pub fn new(rate: NonZeroU32, burst: NonZeroU32) -> Pace {
        let quota = Quota::per_second(rate).allow_burst(burst);
        let clock = Ticks(Instant::now());
        let bucket = || RateLimiter::direct_with_clock(quota, clock);
        Pace { served: bucket(), refused: bucket() }
    }

    /// Counts one message.
    pub fn take(&self) -> Paced {
        if self.served.check().is_ok() {
            Paced::Served
        } else if self.refused.check().is_ok() {
            Paced::TooSoon
        } else {
            Paced::Abused
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::advance;

    use super::*;

    fn limits(handshakes: u32, rejected: u32) -> Limits {
        Limits {
            handshakes_per_second_per_address: NonZeroU32::new(handshakes),
            rejected_tokens_per_minute: NonZeroU32::new(rejected),
            ..Limits::default()
        }
    }

    fn address(number: u32) -> Address {
        Address::V4(Ipv4Addr::from_bits(number))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_hurries_waits_and_no_other_does() {
        let rates = Rates::new(&limits(2, 0));
        for _ in 0..10 {
            rates.handshake(address(1)).unwrap();
        }
        let wait = rates.handshake(address(1)).unwrap_err();
        assert!(wait <= Duration::from_millis(500), "{wait:?}");
        rates.handshake(address(2)).unwrap();
        advance(wait).await;
        rates.handshake(address(1)).unwrap();
        rates.handshake(address(1)).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn after_too_many_bad_tokens_none_is_looked_at_for_a_while() {
        let rates = Rates::new(&limits(0, 3));
        for _ in 0..3 {
            rates.token_rejected(address(1));
            assert_eq!(rates.barred(address(1)), None);
        }
        rates.token_rejected(address(1));
        assert_eq!(rates.barred(address(1)), Some(Duration::from_secs(20)));
        assert_eq!(rates.barred(address(2)), None);
        advance(Duration::from_secs(20)).await;
        assert_eq!(rates.barred(address(1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_refused_and_then_closed_and_a_quiet_one_is_neither() {
        let (rate, burst) = (NonZeroU32::new(10).unwrap(), NonZeroU32::new(20).unwrap());
        let pace = Pace::new(rate, burst);
        let taken: Vec<Paced> = (0..41).map(|_| pace.take()).collect();
        assert!(taken[..20].iter().all(|it| *it == Paced::Served));
        assert!(taken[20..40].iter().all(|it| *it == Paced::TooSoon));
        assert_eq!(taken[40], Paced::Abused);
        advance(Duration::from_secs(2)).await;
        assert!((0..20).all(|_| pace.take() == Paced::Served));
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_take_bounded_memory_and_are_forgotten() {
        let rates = Rates::new(&limits(1, 0));
        let buckets = &rates.handshakes.as_ref().unwrap().buckets;
        let many = u32::try_from(KEYS_MAX).unwrap() * 2;
        for number in 0..many {
            let _taken = rates.handshake(address(number));
        }
        let bound = KEYS_MAX + usize::try_from(CROWD).unwrap();
        assert!(buckets.len() <= bound, "{}", buckets.len());
        advance(SWEEP).await;
        rates.handshake(address(1)).unwrap();
        assert_eq!(buckets.len(), 1);
    }
}
