//! Frames of the native dialect, as a client reads them (`docs/protocol.md`).
//!
//! A client must live with frames and fields that it does not know: a newer daemon may send them.

use serde::Deserialize;
use serde_json::{Map, Value};

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// As it came.
    pub text: String,
    /// What it says.
    pub content: Content,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// The first frame of a session.
    Welcome {
        /// After how many quiet seconds the daemon pings.
        ping_seconds: Option<u64>,
    },
    /// The token was taken.
    Authenticated {
        /// The role that the session acts under.
        role: Option<String>,
    },
    /// Whatever commits from now on is delivered.
    Subscribed {
        /// From here on; absent where the daemon has no position yet.
        cursor: Option<String>,
        /// The columns, in their order.
        #[serde(default)]
        columns: Vec<Column>,
        /// The names of the primary key's columns; empty where they are not all delivered.
        #[serde(default)]
        key: Vec<String>,
        /// What would make the subscription better.
        hint: Option<String>,
    },
    /// A change of a row.
    Row(Row),
    /// What was missed has all been sent.
    Synced {
        /// Up to here.
        cursor: Option<String>,
    },
    /// The cursor cannot be resumed from: changes are missing between it and the new one.
    Resync {
        /// Why, in a word.
        reason: String,
        /// Why, in a sentence.
        message: Option<String>,
        /// Changes from here on are delivered.
        cursor: Option<String>,
    },
    /// Nothing more happened up to here.
    Heartbeat {
        /// Up to here.
        cursor: Option<String>,
    },
    /// The daemon stops: the connection ends, and shall be taken up later.
    Restart {
        /// Everything up to here has been delivered.
        cursor: Option<String>,
        /// After what time.
        retry_ms: u64,
    },
    /// A request was refused, or the session is about to end.
    Error {
        /// In a word.
        code: String,
        /// In a sentence.
        message: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// Something that this client does not know.
    #[serde(other)]
    Other,
}

/// A delivered column.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
}

/// A change of a row.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Row {
    /// `insert`, `update`, `delete`, `enter`, `leave`, `truncate` or `snapshot`.
    pub op: String,
    /// The row as it is now.
    pub new: Option<Map<String, Value>>,
    /// The row as it was, or its key.
    pub old: Option<Map<String, Value>>,
    /// The key of a row that is too large to be sent, in place of the row.
    pub reference: Option<Map<String, Value>>,
    /// How large that is.
    pub bytes: Option<u64>,
    /// Columns that are the same as before and were not sent.
    #[serde(default)]
    pub unchanged: Vec<String>,
    /// Where a client that has seen this row resumes.
    pub cursor: Option<String>,
    /// When the transaction was committed, ISO 8601.
    pub commit_ts: Option<String>,
}

impl Frame {
    /// Reads one frame; `None` when the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Frame> {
        let content = serde_json::from_str(text).ok()?;
        Some(Frame { text: text.to_owned(), content })
    }

    /// The position that a client is at which has seen this frame.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        match &self.content {
            Content::Subscribed { cursor, .. }
            | Content::Synced { cursor }
            | Content::Resync { cursor, .. }
            | Content::Restart { cursor, .. }
            | Content::Heartbeat { cursor } => cursor.as_deref(),
            Content::Row(row) => row.cursor.as_deref(),
            Content::Welcome { .. }
            | Content::Authenticated { .. }
            | Content::Error { .. }
            | Content::Other => None,
        }
    }
}
