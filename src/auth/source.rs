//! The keys of an issuer that publishes them at an address, and when to look there.
//!
//! ```text
//! a token with an unknown kid ──want──▶ Source ◀──due, fetch── the daemon
//!        ◀── the end of the fetch ───────┘ └─▶ keys, for every verifier
//! ```
//!
//! It is looked at when it says so (`max-age`), at least every [`Published::refresh`], and when a
//! token names a key that is not known: then not before [`Published::refetch`] after the look before,
//! and for one name once in [`MISSING_FOR`]. So nobody who shows tokens can make it be asked more
//! often than that. Where it can't be read the keys of before count for [`Published::keep`].
//!
//! # Invariants
//!
//! - A key that is not in the set any more is withdrawn at the look that finds it gone: the sessions
//!   whose tokens it has signed end.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep_until;
use tokio::time::timeout;

use super::fetch;
use super::fetch::FetchError;
use super::jwk;
use super::jwk::Unused;
use super::key;
use super::key::ReadyKey;
use super::settings::Published;

/// For how long a name is known not to be there.
const MISSING_FOR: Duration = Duration::from_mins(5);
/// How many such names are known; of more, each is asked for again, as seldom as any.
const MISSING_MAX: usize = 1024;
/// How long a token waits for the key that it names.
const WAIT: Duration = Duration::from_secs(3);

/// The keys at one address.
#[derive(Debug)]
pub struct Source {
    settings: Published,
    keys: ArcSwap<Vec<ReadyKey>>,
    state: Mutex<State>,
    /// Wakes who waits for the time of the next look, which may have come nearer.
    wanted: Notify,
    /// Counts the looks that ended.
    looks: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// When the last look ended.
    looked_at: Option<Instant>,
    /// When the last one that brought keys did, and what was said then of the next.
    read: Option<(Instant, Duration)>,
    /// Names that tokens have given since the last look began, and were not known.
    asked: HashSet<String>,
    /// Names that were not there, and until when that is believed.
    missing: HashMap<String, Instant>,
    failing: bool,
}

/// What a look brought.
#[derive(Debug)]
pub struct Look {
    /// How many keys count now.
    pub keys: usize,
    /// The keys of the set that are not used: which one, from 1, and why.
    pub unused: Vec<(usize, Unused)>,
    /// How many keys of before are not there any more.
    pub withdrawn: usize,
}

/// How the keys of an address are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As the address has them.
    Current,
    /// It can't be read; those of before count.
    Kept {
        /// For how long they still do.
        left: Duration,
    },
    /// There are none: it was never read, or too long ago.
    Missing,
}

/// Waits for keys that are looked for.
#[derive(Debug)]
pub struct Wait {
    looks: Vec<watch::Receiver<u64>>,
}

impl Wait {
    pub(super) fn new(looks: Vec<watch::Receiver<u64>>) -> Option<Wait> {
        (!looks.is_empty()).then_some(Wait { looks })
    }

    /// Returns when every address that may have the key was looked at, or that took too long.
    pub async fn over(mut self) {
        let all = async {
            for look in &mut self.looks {
                let _the_source_is_gone = look.changed().await.is_err();
            }
        };
        let _too_slow = timeout(WAIT, all).await.is_err();
    }
}

impl Source {
    pub(super) fn new(settings: Published) -> Source {
        Source {
            settings,
            keys: ArcSwap::default(),
            state: Mutex::default(),
            wanted: Notify::new(),
            looks: watch::Sender::new(0),
        }
    }

    /// What it was made of.
    #[must_use]
    pub const fn settings(&self) -> &Published {
        &self.settings
    }

    pub(super) fn keys(&self) -> Arc<Vec<ReadyKey>> {
        self.keys.load_full()
    }

    /// Says that a token names a key that is not known. Gives what tells the end of the look that is
    /// made for it; nothing where it is known that it would bring nothing, or not soon.
    pub(super) fn want(&self, kid: &str) -> Option<watch::Receiver<u64>> {
        let (now, mut state) = (Instant::now(), self.lock());
        if state.missing.get(kid).is_some_and(|until| now < *until) {
            return None;
        }
        let soon = state.looked_at.is_none_or(|at| at + self.settings.refetch <= now + WAIT);
        if state.asked.len() < MISSING_MAX {
            state.asked.insert(kid.to_owned());
        }
        drop(state);
        self.wanted.notify_one();
        soon.then(|| self.looks.subscribe())
    }

    /// Waits until it is time for a look.
    pub async fn due(&self) {
        loop {
            let at = self.next_look();
            tokio::select! {
                () = sleep_until(at) => return,
                () = self.wanted.notified() => {}
            }
        }
    }

    fn next_look(&self) -> Instant {
        let state = self.lock();
        let Some(looked_at) = state.looked_at else { return Instant::now() };
        let earliest = looked_at + self.settings.refetch;
        match state.read {
            Some((_, next)) if !state.failing && state.asked.is_empty() => looked_at + next,
            Some(_) | None => earliest,
        }
    }

    /// Looks once.
    ///
    /// # Errors
    ///
    /// [`FetchError`]; the keys of before count, as long as they may.
    pub async fn look(&self) -> Result<Look, FetchError> {
        let asked = std::mem::take(&mut self.lock().asked);
        let fetched = fetch::get(&self.settings).await;
        let look = fetched.and_then(|fetched| {
            let set = jwk::read(&fetched.body, &self.settings.algorithms)?;
            Ok((set, fetched.max_age))
        });
        let result = self.take(look, asked);
        self.looks.send_modify(|looks| *looks += 1);
        result
    }

    fn take(
        &self,
        look: Result<(jwk::Set, Option<Duration>), FetchError>,
        asked: HashSet<String>,
    ) -> Result<Look, FetchError> {
        let now = Instant::now();
        let mut state = self.lock();
        state.looked_at = Some(now);
        state.failing = look.is_err();
        let (set, max_age) = match look {
            Ok(read) => read,
            Err(error) => {
                let is_over = state.read.is_none_or(|(at, _)| at + self.settings.keep <= now);
                drop(state);
                if is_over {
                    self.replace(Vec::new());
                }
                return Err(error);
            }
        };
        let (least, most) =
            (self.settings.refetch.min(self.settings.refresh), self.settings.refresh);
        state.read = Some((now, max_age.unwrap_or(most).clamp(least, most)));
        state.missing.retain(|_, until| now < *until);
        for kid in asked {
            let is_there = set.keys.iter().any(|key| key.kid.as_ref() == Some(&kid));
            if !is_there && state.missing.len() < MISSING_MAX {
                state.missing.insert(kid, now + MISSING_FOR);
            }
        }
        state.missing.retain(|kid, _| !set.keys.iter().any(|key| key.kid.as_ref() == Some(kid)));
        drop(state);
        let keys = set.keys.len();
        let withdrawn = self.replace(set.keys);
        Ok(Look { keys, unused: set.unused, withdrawn })
    }

    /// Lets other keys count; gives how many count no more.
    fn replace(&self, mut keys: Vec<ReadyKey>) -> usize {
        let old = self.keys();
        key::succeed(&old, &mut keys);
        let gone = key::withdraw(&old, &keys);
        self.keys.store(Arc::new(keys));
        gone
    }

    /// Withdraws all its keys: it is not in the settings any more.
    pub(super) fn abandon(&self) {
        self.replace(Vec::new());
    }

    /// How many keys count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.load().len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How its keys are.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let state = self.lock();
        match state.read {
            Some(_) if !state.failing => Standing::Current,
            Some((at, _)) => {
                let left = (at + self.settings.keep).saturating_duration_since(Instant::now());
                if left.is_zero() { Standing::Missing } else { Standing::Kept { left } }
            }
            None => Standing::Missing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
