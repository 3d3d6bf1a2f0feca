//! The end of a shard's sessions when the daemon stops: one after the other, so that they come back
//! one after the other.
//!
//! The window is for those who are served meanwhile and for those who are behind: a session is told
//! when it has everything, and at the window's end in any case.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hash::Hasher;
use std::hash::RandomState;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::serve::Front;

/// How often sessions are told, those that are due together.
const STEP: Duration = Duration::from_millis(10);
/// Sessions told in a step where the window would leave time for fewer: a few sessions need no
/// seconds.
const STEP_MIN: usize = 1;
/// The least time over which sessions come back.
const SPREAD_MIN: Duration = Duration::from_secs(2);

/// Tells every session to come back, spread evenly over the window, and returns when all were told:
/// earlier where there are few, and at once where it is hurried.
pub(crate) async fn drain(front: &Front, window: Duration, hurried: &CancellationToken) {
    let began = Instant::now();
    let mut waiting = VecDeque::from(front.shard.borrow().staying());
    let all = waiting.len();
    let mut retries = Retries::new(window);
    let mut steps = 0;
    while !waiting.is_empty() && began.elapsed() < window && !hurried.is_cancelled() {
        steps += 1;
        let left = window.saturating_sub(began.elapsed());
        let stay = share(all, left, window).min(all.saturating_sub(steps * STEP_MIN));
        // Who is behind is asked again, after the others.
        for _ in 0..waiting.len() {
            if waiting.len() <= stay {
                break;
            }
            let Some(key) = waiting.pop_front() else { break };
            if !front.shard.borrow_mut().release(key, retries.next(left)) {
                waiting.push_back(key);
            }
        }
        let _hurried = timeout(STEP.min(left), hurried.cancelled()).await;
    }
    let mut shard = front.shard.borrow_mut();
    for key in shard.staying() {
        shard.dismiss(key, retries.next(Duration::ZERO));
    }
}

/// The part of `all` that `left` is of `whole`.
fn share(all: usize, left: Duration, whole: Duration) -> usize {
    let all = u128::try_from(all).unwrap_or(u128::MAX);
    let of = all.saturating_mul(left.as_nanos()).checked_div(whole.as_nanos()).unwrap_or_default();
    usize::try_from(of).unwrap_or(usize::MAX)
}

/// When sessions shall come back: from when the daemon will be gone on, over as long a time as they
/// were told in. Each falls into the widest gap that those before it left, so they are spread evenly
/// however many there are; where the first falls is random, so that shards differ.
#[derive(Debug)]
struct Retries {
    spread: Duration,
    fraction: u64,
}

impl Retries {
    /// 2^64 divided by the golden ratio.
    const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

    fn new(window: Duration) -> Retries {
        let fraction = RandomState::new().build_hasher().finish();
        Retries { spread: window.max(SPREAD_MIN), fraction }
    }

    /// The next one's, where the daemon needs `left` until it is gone.
    fn next(&mut self, left: Duration) -> Duration {
        self.fraction = self.fraction.wrapping_add(Self::STRIDE);
        let nanos = (self.spread.as_nanos() * u128::from(self.fraction)) >> 64;
        left + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_to_come_back_comes_evenly() {
        let mut retries = Retries::new(Duration::from_secs(10));
        let mut in_second = [0; 10];
        for _ in 0..1000 {
            let retry = retries.next(Duration::from_secs(3)).as_secs();
            in_second[usize::try_from(retry - 3).unwrap()] += 1;
        }
        assert!(in_second.iter().all(|count| (95..=105).contains(count)), "{in_second:?}");
    }

    #[test]
    fn what_stays_shrinks_with_the_time_that_is_left() {
        let second = Duration::from_secs(1);
        assert_eq!(share(1000, second * 5, second * 5), 1000);
        assert_eq!(share(1000, second, second * 5), 200);
        assert_eq!(share(1000, Duration::ZERO, second * 5), 0);
        assert_eq!(share(1000, Duration::ZERO, Duration::ZERO), 0);
    }
}
