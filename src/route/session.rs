//! One client connection, as its shard knows it.

use std::rc::Rc;

use smallvec::SmallVec;

use crate::auth::Claims;
use crate::ring::Place;
use crate::route::encode::Encode;
use crate::route::groups::Attachment;
use crate::route::handover::Handover;
use crate::route::outbox::Outbox;
use crate::route::paced::Paced;
use crate::route::subscription::Request;
use crate::route::subscription::SnapshotRequest;

/// A session's name in its shard. A place is used again by a later session, a key never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    pub(crate) place: u32,
    pub(crate) generation: u32,
}

/// Why the shard wants a session closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The token expired and was not refreshed.
    Expired,
    /// No token came in time.
    Unauthenticated,
    /// The peer was silent for too long.
    Silent,
    /// The daemon stops; come back.
    Restart,
}

/// One client connection.
///
/// Live subscriptions are members of their group's variant; the others are in a reader, parked or
/// paused.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) generation: u32,
    pub(crate) outbox: Outbox,
    pub(crate) claims: Option<Claims>,
    pub(crate) dialect: &'static dyn Encode,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) readers: Vec<Reader>,
    /// The payloads of this pass that it must get.
    pub(crate) pending: SmallVec<[u32; 2]>,
    /// When the peer last showed that it lives, on the shard's clock of seconds.
    pub(crate) heard_at: u32,
    /// When it came, on the same clock.
    pub(crate) opened_at: u32,
    /// Whether it stands in the queue of those that may read on.
    pub(crate) scheduled: bool,
    /// Whether a throttled subscription has something to send that the outbox had no room for.
    pub(crate) stalled: bool,
    pub(crate) close: Option<Close>,
}

/// One subscription of a session.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) id: Rc<str>,
    pub(crate) request: Box<Request>,
    /// Whether it begins with the rows that are there, and does so again where it missed changes.
    pub(crate) snapshot: Option<Box<SnapshotRequest>>,
    pub(crate) attachment: Attachment,
    /// Its place among the variant's members; `None` while it is behind.
    pub(crate) member_at: Option<u32>,
    /// What it holds back, where it is throttled.
    pub(crate) paced: Option<Box<Paced>>,
}

/// Subscriptions that read the ring from the same place.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) place: Place,
    pub(crate) ids: SmallVec<[Rc<str>; 1]>,
    /// Whether the client asked for what it missed and is told when it has it.
    pub(crate) announce: bool,
    /// Where it follows a snapshot: rows to deliver first, and what is in them already.
    pub(crate) handover: Option<Box<Handover>>,
}

impl Session {
    /// The subscription of that name.
    pub(crate) fn subscription(&self, id: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| &*subscription.id == id)
    }

    /// The subscription of that name, to be changed.
    pub(crate) fn subscription_mut(&mut self, id: &str) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| &*subscription.id == id)
    }

    /// Takes a name out of whatever reader has it.
    pub(crate) fn forget_reader_of(&mut self, id: &str) {
        for reader in &mut self.readers {
            reader.ids.retain(|known| &**known != id);
        }
        self.readers.retain(|reader| !reader.ids.is_empty());
    }
}
