//! The JSON of the native dialect, the same on every transport. `websocket` and `events` put it into
//! the frames of theirs.

use std::io::Write;

use crate::change::cursor::Cursor;
use crate::change::value::string::write_string;
use crate::dialect::json;
use crate::dialect::native::request::RequestError;
use crate::route::encode::Detail;
use crate::route::encode::Notice;
use crate::route::encode::RowFrame;
use crate::route::plan::Refusal;
use crate::route::projection::Projection;
use crate::route::subscription::Op;

/// What the longest cursor takes in a frame: four numbers in hexadecimal, what joins them, and what
/// stands around them.
const TAIL_BYTES: usize = 16 + 8 + 16 + 8 + 3 + r#","cursor":""}"#.len();

/// Appends what stands before the body in the row frames of the subscription called `id`.
pub(in crate::dialect) fn head(id: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"row","id":"#);
    write_string(id.as_bytes(), out);
    out.push(b',');
}

/// Appends the body of a row frame, for a transport to which a line end means something. There may be
/// line ends between the tokens of a `json` value; they become blanks.
pub(in crate::dialect) fn body_on_one_line(row: &RowFrame<'_>, out: &mut Vec<u8>) {
    let begin = out.len();
    body(row, out);
    for byte in out.iter_mut().skip(begin).filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
}

/// Appends the body of a row frame.
pub(in crate::dialect) fn body(row: &RowFrame<'_>, out: &mut Vec<u8>) {
    let (op, projection) = (row.visible.op(), row.projection);
    out.extend_from_slice(br#""op":""#);
    out.extend_from_slice(op.name().as_bytes());
    out.push(b'"');
    if let Detail::Reference { bytes, key } = row.detail {
        reference(row, key, out);
        write!(out, r#","bytes":{bytes}"#).expect("memory can be written to");
    } else if let Some(new) = row.visible.new_row() {
        out.extend_from_slice(br#","new":"#);
        json::row(new, projection, out);
        let mut separator: &[u8] = br#","unchanged":["#;
        for column in json::unchanged(new, projection) {
            out.extend_from_slice(separator);
            out.extend_from_slice(column.label.trim_suffix_colon());
            separator = b",";
        }
        if separator == b"," {
            out.push(b']');
        }
    }
    let tells_old = match row.detail {
        Detail::Whole | Detail::OldKey => true,
        Detail::Reference { key, .. } => key && row.visible.new_row().is_some(),
    };
    if let Some(old) = row.visible.old_row().filter(|_| tells_old) {
        out.extend_from_slice(br#","old":"#);
        if op == Op::Leave || row.detail != Detail::Whole {
            json::key(old, projection, out);
        } else {
            json::row(old, projection, out);
        }
    }
    if op != Op::Snapshot {
        out.extend_from_slice(br#","commit_ts":"#);
        json::timestamp(row.committed_at, out);
    }
}

/// What ends a row frame: the cursor, where it has one, and a brace.
pub(in crate::dialect) struct Tail {
    bytes: [u8; TAIL_BYTES],
    length: usize,
}

impl Tail {
    pub(in crate::dialect) fn of(cursor: Option<Cursor>) -> Tail {
        let mut bytes = [0; TAIL_BYTES];
        let mut room = bytes.as_mut_slice();
        match cursor {
            Some(cursor) => write!(room, r#","cursor":"{cursor}"}}"#),
            None => write!(room, "}}"),
        }
        .expect("the longest cursor has room");
        let length = TAIL_BYTES - room.len();
        Tail { bytes, length }
    }

    pub(in crate::dialect) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Appends what stands for a row that is too large: its key, in place of its values.
fn reference(row: &RowFrame<'_>, key: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","reference":"#);
    match row.visible.new_row().or(row.visible.old_row()) {
        Some(image) if key => json::key(image, row.projection, out),
        _ => out.extend_from_slice(b"{}"),
    }
}

/// A column's label is its name as JSON and a colon.
trait Label {
    fn trim_suffix_colon(&self) -> &[u8];
}

impl Label for [u8] {
    fn trim_suffix_colon(&self) -> &[u8] {
        self.strip_suffix(b":").unwrap_or(self)
    }
}

/// What a client is told beside rows.
pub(in crate::dialect) fn notice(notice: &Notice<'_>) -> serde_json::Value {
    match notice {
        Notice::Subscribed { id, cursor, projection, no_old_image } => {
            let mut json = serde_json::json!({
                "type": "subscribed",
                "id": id,
                "columns": columns(projection),
                "key": key(projection),
            });
            if let Some(cursor) = cursor {
                set(&mut json, "cursor", cursor.to_string());
            }
            if *no_old_image {
                set(&mut json, "limits", vec!["no_old_image"]);
                let hint = format!(
                    "alter table {}.{} replica identity full",
                    quoted(&projection.relation.schema),
                    quoted(&projection.relation.name)
                );
                set(&mut json, "hint", hint);
            }
            json
        }
        Notice::Synced { id, cursor } => {
            serde_json::json!({ "type": "synced", "id": id, "cursor": cursor.to_string() })
        }
        Notice::Resync { id, reason, cursor } => {
            let mut json = serde_json::json!({
                "type": "resync",
                "id": id,
                "reason": reason.code(),
                "message": reason.to_string(),
            });
            if let Some(cursor) = cursor {
                set(&mut json, "cursor", cursor.to_string());
            }
            json
        }
        Notice::Unsubscribed { id } => serde_json::json!({ "type": "unsubscribed", "id": id }),
        Notice::Paused { id, cursor } => {
            let mut json = serde_json::json!({ "type": "paused", "id": id });
            if let Some(cursor) = cursor {
                set(&mut json, "cursor", cursor.to_string());
            }
            json
        }
        Notice::Resumed { id } => serde_json::json!({ "type": "resumed", "id": id }),
        Notice::Refused { id, refusal } => refused(Some(id), refusal),
        Notice::Expiring { left } => {
            serde_json::json!({ "type": "expiring", "seconds": left.as_secs() })
        }
        Notice::Expired { why, grace } => serde_json::json!({
            "type": "expired",
            "reason": why.code(),
            "grace_seconds": grace.as_secs(),
        }),
        Notice::Heartbeat { cursor } => {
            serde_json::json!({ "type": "heartbeat", "cursor": cursor.to_string() })
        }
        Notice::Restart { cursor, retry } => {
            let retry_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
            let mut json = serde_json::json!({ "type": "restart", "retry_ms": retry_ms });
            if let Some(cursor) = cursor {
                set(&mut json, "cursor", cursor.to_string());
            }
            json
        }
    }
}

fn columns(projection: &Projection) -> Vec<serde_json::Value> {
    let column = |position: usize| projection.relation.columns.get(position);
    let delivered = projection.columns.iter().filter_map(|projected| column(projected.position));
    delivered
        .map(|column| serde_json::json!({ "name": column.name, "type": column.of.name }))
        .collect()
}

fn key(projection: &Projection) -> Vec<&str> {
    if !projection.has_key() {
        return Vec::new();
    }
    let relation = &projection.relation;
    let name = |position: &usize| relation.columns.get(*position).map(|column| &*column.name);
    relation.primary_key.iter().filter_map(name).collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn set(json: &mut serde_json::Value, key: &str, value: impl Into<serde_json::Value>) {
    if let Some(object) = json.as_object_mut() {
        object.insert(key.to_owned(), value.into());
    }
}

fn refused(id: Option<&str>, refusal: &Refusal) -> serde_json::Value {
    error(id, refusal.code(), &refusal.to_string(), refusal.hint().as_deref())
}

/// An `error` frame, about a subscription where there is an `id`.
#[must_use]
pub fn error(id: Option<&str>, code: &str, message: &str, hint: Option<&str>) -> serde_json::Value {
    let mut json = serde_json::json!({ "type": "error", "code": code, "message": message });
    if let Some(id) = id {
        set(&mut json, "id", id);
    }
    if let Some(hint) = hint {
        set(&mut json, "hint", hint);
    }
    json
}

/// What a session is told when it has come: what it may do, and how often it will hear from us.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    /// The role that it acts under; absent before it has said who it is.
    pub role: Option<&'a str>,
    /// Bytes that one request may have.
    pub request_bytes_max: usize,
    /// Subscriptions that it may have.
    pub subscriptions_max: usize,
    /// Seconds between two pings.
    pub ping_seconds: u32,
}

/// The `welcome` frame.
#[must_use]
pub fn welcome(welcome: &Welcome<'_>) -> serde_json::Value {
    let mut json = serde_json::json!({
        "type": "welcome",
        "version": env!("CARGO_PKG_VERSION"),
        "limits": {
            "request_bytes": welcome.request_bytes_max,
            "subscriptions": welcome.subscriptions_max,
        },
        "ping_seconds": welcome.ping_seconds,
    });
    if let Some(role) = welcome.role {
        set(&mut json, "role", role);
    }
    json
}

/// The frame that answers a request which was not understood.
#[must_use]
pub fn bad_request(wrong: &RequestError) -> serde_json::Value {
    error(wrong.id.as_deref(), wrong.code, &wrong.message, wrong.hint)
}

/// The frame that refuses a request.
#[must_use]
pub fn refusal(id: &str, why: &Refusal) -> serde_json::Value {
    refused(Some(id), why)
}

/// An `error` frame about the session.
#[must_use]
pub fn session_error(code: &str, message: &str) -> serde_json::Value {
    error(None, code, message, None)
}

/// The `authenticated` frame: the session now acts under this role.
#[must_use]
pub fn authenticated(role: &str) -> serde_json::Value {
    serde_json::json!({ "type": "authenticated", "role": role })
}

/// The `pong` frame.
#[must_use]
pub fn pong() -> serde_json::Value {
    serde_json::json!({ "type": "pong" })
}

/// The last frame of a stream over HTTP, which has no close codes: why it ends.
#[must_use]
pub fn closed(code: u16, reason: &str) -> serde_json::Value {
    serde_json::json!({ "type": "closed", "code": code, "reason": reason })
}

/// The body of an HTTP answer that refuses a request.
#[must_use]
pub fn http_error(code: &str, message: &str, hint: Option<&str>) -> serde_json::Value {
    let mut json = serde_json::json!({ "code": code, "message": message });
    if let Some(hint) = hint {
        set(&mut json, "hint", hint);
    }
    json
}
