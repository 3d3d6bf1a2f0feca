//! What a dialect must be able to write. Routing decides and never sees a client's JSON; a dialect
//! writes and decides nothing.

use std::fmt;
use std::time::Duration;

use crate::change::cursor::Cursor;
use crate::change::transaction::Timestamp;
use crate::ring::Gap;
use crate::route::decide::Visible;
use crate::route::expiry::Over;
use crate::route::plan::Refusal;
use crate::route::projection::Projection;

/// Writes frames in the form of one dialect over one transport.
///
/// A row's frame is written in parts: a body, once for each group; a head, once for each name that
/// subscriptions of the group have; and the cursor. What [`Encode::frame`] makes of them goes to
/// every member as it is.
pub trait Encode: fmt::Debug + Sync {
    /// The dialect's name, different for each.
    fn name(&self) -> &'static str;

    /// Appends what stands before the body in the row frames of the subscription called `id`.
    fn head(&self, id: &str, out: &mut Vec<u8>);

    /// Appends the body of a row frame: everything that does not depend on the subscription.
    fn body(&self, row: &RowFrame<'_>, out: &mut Vec<u8>);

    /// Appends a whole frame, as it goes to the socket, of head, body, and the cursor that the
    /// client may resume from when it has the frame; absent where it can't resume from there.
    fn frame(&self, head: &[u8], body: &[u8], cursor: Option<Cursor>, out: &mut Vec<u8>);

    /// Appends a whole frame that says something other than a row.
    fn notice(&self, notice: &Notice<'_>, out: &mut Vec<u8>);

    /// Appends what keeps a connection alive and makes its peer show that it lives.
    fn ping(&self, out: &mut Vec<u8>);
}

/// A visible change, ready to be written.
#[derive(Debug)]
pub struct RowFrame<'a> {
    /// What may be shown.
    pub visible: Visible<'a>,
    /// The columns to show.
    pub projection: &'a Projection,
    /// When its transaction committed.
    pub committed_at: Timestamp,
    /// How much of it the frame is to hold.
    pub detail: Detail,
}

/// How much of a row its frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything that may be shown.
    Whole,
    /// Of the row before the change only the key.
    OldKey,
    /// The row is too large: only a hint at it, and what a client needs to fetch it.
    Reference {
        /// How large the row is, as text.
        bytes: u64,
        /// Whether the key is in the frame.
        key: bool,
    },
}

/// What a client is told beside rows.
#[derive(Debug)]
pub enum Notice<'a> {
    /// From here on everything is delivered.
    Subscribed {
        /// The subscription.
        id: &'a str,
        /// Everything after this place will be delivered; absent where it begins at a cursor of
        /// the client's own, or with a snapshot.
        cursor: Option<Cursor>,
        /// The columns that will be delivered.
        projection: &'a Projection,
        /// Whether some updates and deletes can't be decided, because the stream does not carry
        /// the old row.
        no_old_image: bool,
    },
    /// What was missed has been delivered.
    Synced {
        /// The subscription.
        id: &'a str,
        /// Up to where.
        cursor: Cursor,
    },
    /// Changes were missed and can't be delivered; the stream goes on from the cursor, or with a
    /// snapshot.
    Resync {
        /// The subscription.
        id: &'a str,
        /// Why.
        reason: Gap,
        /// Where the stream goes on; absent where a snapshot follows.
        cursor: Option<Cursor>,
    },
    /// The subscription ended at the client's wish.
    Unsubscribed {
        /// The subscription.
        id: &'a str,
    },
    /// The subscription rests: nothing of it is delivered until the client resumes it.
    Paused {
        /// The subscription.
        id: &'a str,
        /// Where it will go on; absent where it has not had its snapshot whole and will begin again.
        cursor: Option<Cursor>,
    },
    /// A subscription that rested goes on. What it missed follows.
    Resumed {
        /// The subscription.
        id: &'a str,
    },
    /// A subscription was refused, or ended because it is no longer allowed or possible.
    Refused {
        /// The subscription.
        id: &'a str,
        /// Why.
        refusal: &'a Refusal,
    },
    /// All subscriptions of the session have been delivered up to here, but for those that rest.
    Heartbeat {
        /// Up to where.
        cursor: Cursor,
    },
    /// The session's token is nearly over.
    Expiring {
        /// How long it still counts.
        left: Duration,
    },
    /// The session's token is over: nothing is delivered until there is another.
    Expired {
        /// Why.
        why: Over,
        /// How long the session waits for it.
        grace: Duration,
    },
    /// The daemon stops; the session ends after this.
    Restart {
        /// Up to where all subscriptions of the session have been delivered; absent where that
        /// can't be said.
        cursor: Option<Cursor>,
        /// After what time the client shall come back.
        retry: Duration,
    },
}
