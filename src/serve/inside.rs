//! Sessions of those who are in the process: the console, which runs on a thread of its own.
//!
//! ```text
//! Inspector::follow ──▶ a shard's thread: a session, whose wire is a Pipe
//! Follower::next ◀───── Pipe ◀── outbox
//! ```
//!
//! It is a session like all others: its frames are lines, it falls behind when its reader is slow,
//! and reads on from the ring. Between the two threads lies at most one pipe's worth of bytes, and
//! nobody waits for the reader.

use std::io;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::auth::Claims;
use crate::dialect::native::write;
use crate::dialect::sql::lines;
use crate::dialect::sql::lines::LINES;
use crate::route::explain::Explanation;
use crate::route::explain::Lookup;
use crate::route::explain::LookupError;
use crate::route::outbox::Wire;
use crate::route::plan::Refusal;
use crate::route::session::Peer;
use crate::route::session::SessionKey;
use crate::route::session::Transport;
use crate::route::subscription::Subscribe;
use crate::serve::FAREWELL;
use crate::serve::Front;
use crate::serve::end::goodbye;
use crate::serve::inspect::Inspector;
use crate::serve::inspect::Unanswered;

/// Bytes from which on a pipe takes no more; what comes then waits in the session's outbox.
const ROOM: usize = 64 << 10;

/// Which shard is asked next, so that sessions are spread over all.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// Why a shard did not do what it was asked from inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsideError {
    /// The request is refused, as it would be to any client.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The change is not there to be explained.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The shard does not answer.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The shard has not caught up with the log yet.
    #[error("walcast has not caught up with the log yet")]
    NotLive,
    /// The daemon stops.
    #[error("walcast is stopping")]
    Stopping,
}

impl Inspector {
    /// Begins a subscription in a session of its own, which ends when the follower is dropped.
    ///
    /// # Errors
    ///
    /// [`InsideError`]; there is no session then.
    pub async fn follow(
        &self,
        claims: Claims,
        subscribe: Subscribe,
        address: Option<SocketAddr>,
    ) -> Result<Follower, InsideError> {
        let follower = Follower { pipe: Arc::default() };
        let pipe = Arc::clone(&follower.pipe);
        // Where nobody waits for the answer any more the follower is gone, and the session ends.
        let begin = move |front: &Rc<Front>| begin(front, pipe, (claims, address), subscribe);
        self.ask(self.turn(), begin).await??;
        Ok(follower)
    }

    /// Looks a change up in the ring and explains what becomes of it for somebody.
    ///
    /// # Errors
    ///
    /// [`InsideError`].
    pub async fn explain(&self, lookup: Lookup) -> Result<Explanation, InsideError> {
        let explain = move |front: &Rc<Front>| front.shard.borrow().explain(&lookup);
        Ok(self.ask(self.turn(), explain).await??)
    }

    fn turn(&self) -> usize {
        TURN.fetch_add(1, Ordering::Relaxed).checked_rem(self.shards()).unwrap_or_default()
    }
}

/// The reading end of a session. Dropped, it ends the session.
#[derive(Debug)]
pub struct Follower {
    pipe: Arc<Pipe>,
}

impl Follower {
    /// The lines that have come, whole ones, as soon as there are any; nothing after the last.
    ///
    /// Nothing is lost where the future is dropped.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let (bytes, ended) = self.pipe.take();
            if !bytes.is_empty() {
                return Some(bytes);
            }
            if ended {
                return None;
            }
            self.pipe.filled.notified().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.pipe.left.store(true, Ordering::Release);
        self.pipe.look.notify_one();
    }
}

/// What lies between a shard's thread and a reader's.
#[derive(Debug, Default)]
struct Pipe {
    lines: Mutex<Lines>,
    /// Tells the reader.
    filled: Notify,
    /// Tells the session's task: something was taken, or the shard wants it to look.
    look: Notify,
    /// Whether the reader has taken something since the task last looked.
    taken: AtomicBool,
    /// Whether the reader is gone.
    left: AtomicBool,
}

#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    ended: bool,
}

impl Pipe {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> (Vec<u8>, bool) {
        let mut lines = self.lines();
        let (bytes, ended) = (std::mem::take(&mut lines.bytes), lines.ended);
        drop(lines);
        if !bytes.is_empty() {
            self.taken.store(true, Ordering::Relaxed);
            self.look.notify_one();
        }
        (bytes, ended)
    }

    fn end(&self) {
        self.lines().ended = true;
        self.filled.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.lines().bytes.is_empty()
    }

    /// A slice is taken as a whole or not at all, and each ends where a line ends, so lines are never
    /// cut.
    fn write(&self, slices: &[IoSlice<'_>]) -> usize {
        let mut lines = self.lines();
        let mut taken = 0;
        for slice in slices {
            if lines.bytes.len() >= ROOM {
                break;
            }
            lines.bytes.extend_from_slice(slice);
            taken += slice.len();
        }
        drop(lines);
        if taken > 0 {
            self.filled.notify_one();
        }
        taken
    }
}

/// The writing end, as an outbox knows it.
#[derive(Debug)]
struct PipeWire {
    pipe: Arc<Pipe>,
}

impl Wire for PipeWire {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.pipe.left.load(Ordering::Acquire) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(self.pipe.write(slices))
    }

    fn wake(&self) {
        self.pipe.look.notify_one();
    }
}

fn begin(
    front: &Rc<Front>,
    pipe: Arc<Pipe>,
    (claims, address): (Claims, Option<SocketAddr>),
    subscribe: Subscribe,
) -> Result<(), InsideError> {
    // What begins now would not be told of the stop any more.
    if front.closing.is_cancelled() {
        return Err(InsideError::Stopping);
    }
    let mut shard = front.shard.borrow_mut();
    if !*shard.live().borrow() {
        return Err(InsideError::NotLive);
    }
    let wire = Rc::new(PipeWire { pipe: Arc::clone(&pipe) });
    let key = shard.open(wire, Some(claims), &LINES);
    shard.introduce(key, Peer { transport: Transport::Console, address });
    let subscribed = shard.subscribe(key, subscribe);
    drop(shard);
    let session = Session { front: Rc::clone(front), pipe, key };
    if let Err(refusal) = subscribed {
        front.shard.borrow().count_refusal(&refusal);
        return Err(refusal.into());
    }
    front.tasks.spawn_local(session.run());
    Ok(())
}

/// A session's task.
struct Session {
    front: Rc<Front>,
    pipe: Arc<Pipe>,
    key: SessionKey,
}

impl Session {
    async fn run(self) {
        while self.goes_on() {
            self.pipe.look.notified().await;
        }
        let _too_slow = timeout(FAREWELL, self.farewell()).await;
    }

    /// Moves what waits; whether the session goes on.
    fn goes_on(&self) -> bool {
        if self.pipe.left.load(Ordering::Acquire) {
            return false;
        }
        let mut shard = self.front.shard.borrow_mut();
        if self.pipe.taken.swap(false, Ordering::Relaxed) {
            shard.heard(self.key);
        }
        if let Some(close) = shard.closing(self.key) {
            let end = goodbye(close);
            let last = lines::line(&write::closed(end.code, end.reason));
            shard.send_last(self.key, &Bytes::from(last));
            return false;
        }
        let drained = shard.drain(self.key);
        // Else an `error` has told why.
        drained.is_ok() && shard.is_subscribed(self.key)
    }

    /// Lets the reader take what is left.
    async fn farewell(&self) {
        loop {
            let drained = self.front.shard.borrow_mut().drain(self.key);
            if !matches!(drained, Ok(false)) && self.pipe.is_empty() {
                return;
            }
            if drained.is_err() || self.pipe.left.load(Ordering::Acquire) {
                return;
            }
            self.pipe.look.notified().await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.front.shard.borrow_mut().close(self.key);
        self.pipe.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pipe_takes_whole_slices_while_there_is_room() {
        let mut follower = Follower { pipe: Arc::default() };
        let wire = PipeWire { pipe: Arc::clone(&follower.pipe) };
        let large = vec![b'x'; ROOM - 1];
        let slices = [IoSlice::new(&large), IoSlice::new(b"yz"), IoSlice::new(b"z")];
        assert_eq!(wire.write(&slices).unwrap(), ROOM + 1);
        assert_eq!(wire.write(&slices).unwrap(), 0);
        assert_eq!(follower.next().await.map(|bytes| bytes.len()), Some(ROOM + 1));
        assert_eq!(wire.write(&[IoSlice::new(b"z")]).unwrap(), 1);
        wire.pipe.end();
        assert_eq!(follower.next().await.as_deref(), Some(&b"z"[..]));
        assert_eq!(follower.next().await, None);
        drop(follower);
        assert!(wire.write(&slices).is_err());
    }
}
