//! One client connection, as its shard knows it.

use std::net::SocketAddr;
use std::rc::Rc;

use smallvec::SmallVec;

use crate::auth::Claims;
use crate::ring::Place;
use crate::route::encode::Encode;
use crate::route::expiry::Expired;
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

/// By what a session is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Nobody said.
    #[default]
    Unsaid,
    /// A WebSocket.
    WebSocket,
    /// A stream of events.
    Events,
    /// An answer with changes, that is waited for.
    Changes,
    /// An answer with rows.
    Rows,
    /// The operators' console.
    Console,
}

impl Transport {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Unsaid => "",
            Transport::WebSocket => "websocket",
            Transport::Events => "events",
            Transport::Changes => "changes",
            Transport::Rows => "rows",
            Transport::Console => "console",
        }
    }
}

/// Where a session comes from, for operators. Nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// By what it is connected.
    pub transport: Transport,
    /// From where, if that is known.
    pub address: Option<SocketAddr>,
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
    /// An operator ended it.
    Killed,
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
    /// Seconds between two pings, as the client was told.
    pub(crate) ping_seconds: u32,
    /// Seconds of silence after which the peer is taken for dead.
    pub(crate) silence_seconds: u32,
    /// Whether it stands in the queue of those that may read on.
    pub(crate) scheduled: bool,
    /// Whether a throttled subscription has something to send that the outbox had no room for.
    pub(crate) stalled: bool,
    /// Whether Postgres has answered for a subscription, and the outbox had no room for it.
    pub(crate) answered: bool,
    pub(crate) close: Option<Close>,
    /// Set while it waits for a new token.
    pub(crate) expired: Option<Box<Expired>>,
    /// Whether the client was told that its token is nearly over.
    pub(crate) warned: bool,
    /// Row frames that it was sent.
    pub(crate) delivered: u64,
    pub(crate) peer: Peer,
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

    /// Counts row frames that went into its outbox.
    pub(crate) fn count_delivered(&mut self, frames: usize) {
        self.delivered += u64::try_from(frames).unwrap_or(u64::MAX);
    }

    /// Takes a name out of whatever reader has it.
    pub(crate) fn forget_reader_of(&mut self, id: &str) {
        for reader in &mut self.readers {
            reader.ids.retain(|known| &**known != id);
        }
        self.readers.retain(|reader| !reader.ids.is_empty());
    }
}
