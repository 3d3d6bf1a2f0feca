//! `/v1/changes`: what came after a cursor, or, where nothing has, what comes next. For clients to
//! which nothing else gets through.
//!
//! Each answer has a session of its own, which resumes from the cursor as any other does. It is
//! answered as soon as there is something and everything that is there, or as much as one answer
//! holds.

use std::rc::Rc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::Request;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::ETAG;
use hyper::header::HeaderValue;
use hyper::header::IF_NONE_MATCH;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::dialect::native::events;
use crate::route::outbox::Wire;
use crate::route::session::Transport;
use crate::serve::Front;
use crate::serve::answer;
use crate::serve::answer::Answer;
use crate::serve::answer::refuse;
use crate::serve::asked;
use crate::serve::buffer::Buffer;
use crate::serve::buffer::type_of;
use crate::serve::visit::Line;
use crate::serve::visit::Visit;

/// Fields that say something of the rows that are there.
const OF_ROWS: [&str; 4] = ["snapshot", "order", "limit", "latest_by"];
/// How long an answer is waited for where the client does not say.
const WAIT: Duration = Duration::from_secs(25);
/// How long a client may wait, in seconds: proxies give up after sixty.
const WAIT_MAX: u64 = 55;
/// Bytes after which an answer is full. It is passed by one write at the most.
const BYTES: usize = 1 << 20;
/// How much longer an answer may take whose cursor is far back.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Answers with changes.
pub(crate) async fn answer(
    front: &Rc<Front>,
    line: &Rc<Line>,
    request: Request<Incoming>,
) -> Result<Answer, Box<Answer>> {
    let claims = asked::required_claims(front, line, &request).await?;
    let known = entity_tag(request.headers());
    let mut fields = asked::fields(front, request).await?;
    let wait = asked::seconds(&mut fields, "wait", WAIT_MAX)?.unwrap_or(WAIT);
    if let Some(known) = &known {
        fields.entry("since").or_insert_with(|| known.as_str().into());
    }
    if let Some(wrong) = OF_ROWS.iter().find(|name| fields.contains_key(**name)) {
        let message = format!("`{wrong}` is for /v1/rows, whose cursor is good here");
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, "bad_request", &message)));
    }
    let since = fields.get("since").and_then(|since| since.as_str()).map(str::to_owned);
    let subscribe = asked::subscription(fields)?;
    let buffer = Rc::new(Buffer::new(line));
    let wire: Rc<dyn Wire> = Rc::<Buffer>::clone(&buffer);
    let visit = Visit::open(front, line, wire, (claims, Transport::Changes))?;
    visit.subscribe(subscribe)?;
    let is_known = known.is_some() && known == since;
    let changes = gather(&visit, &buffer, since, Instant::now() + wait).await?;
    Ok(changes.into_answer(is_known))
}

/// The cursor in `If-None-Match`. A proxy that compressed the answer has marked it as weak.
fn entity_tag(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(IF_NONE_MATCH)?.to_str().ok()?.trim();
    let quoted = text.strip_prefix("W/").unwrap_or(text);
    quoted.strip_prefix('"')?.strip_suffix('"').map(str::to_owned)
}

/// Frames for an answer.
#[derive(Default)]
struct Gathered {
    /// The frames, joined by commas.
    frames: Vec<u8>,
    /// The newest cursor among them, and among those that were left out.
    cursor: Option<String>,
    /// After how long to come back, where the daemon stops.
    retry_ms: Option<u64>,
}

impl Gathered {
    /// Takes the frames for which `wanted` is true of their type.
    fn read(&mut self, events: &[u8], wanted: impl Fn(&str) -> bool) {
        for event in events::events(events) {
            if let Some(cursor) = event.cursor {
                self.cursor = Some(cursor.to_owned());
            }
            let of = type_of(event.json);
            if of == "restart" {
                self.retry_ms = retry_ms(event.json);
            }
            if wanted(&of) {
                if !self.frames.is_empty() {
                    self.frames.push(b',');
                }
                self.frames.extend_from_slice(event.json);
            }
        }
    }
}

fn retry_ms(json: &[u8]) -> Option<u64> {
    let json: serde_json::Value = serde_json::from_slice(json).ok()?;
    json.get("retry_ms")?.as_u64()
}

/// What an answer tells.
struct Changes {
    frames: Vec<u8>,
    cursor: String,
    more: bool,
}

/// Waits for changes until `deadline`.
async fn gather(
    visit: &Visit,
    buffer: &Buffer,
    since: Option<String>,
    deadline: Instant,
) -> Result<Changes, Box<Answer>> {
    let begins = since.is_none();
    let wanted = |of: &str| match of {
        // Who resumes knows it, and is told the cursor with the answer.
        "subscribed" => begins,
        "synced" | "heartbeat" | "restart" => false,
        _ => true,
    };
    let mut gathered = Gathered { cursor: since, ..Gathered::default() };
    loop {
        gathered.read(&buffer.take(), wanted);
        let drained = visit.drain().unwrap_or(true) && buffer.is_empty();
        if let Some(close) = visit.closing() {
            return Err(Box::new(answer::refuse_closed(close, gathered.retry_ms)));
        }
        let here = visit.delivered_to().filter(|_| drained);
        let late = Instant::now() >= deadline;
        let too_late = Instant::now() >= deadline + CATCH_UP;
        let done = here.is_some() && (late || !gathered.frames.is_empty());
        if done || too_late || gathered.frames.len() >= BYTES || !visit.is_subscribed() {
            let more = here.is_none() && visit.is_subscribed();
            let cursor = here.or(gathered.cursor).unwrap_or_default();
            return Ok(Changes { frames: gathered.frames, cursor, more });
        }
        let patience = if late { deadline + CATCH_UP } else { deadline };
        let _late = timeout_at(patience, buffer.woken()).await;
        // It waits, so it is there: a connection that was closed has no answer under way.
        visit.heard();
    }
}

impl Changes {
    /// The answer to a client that has the cursor `is_known` tells of, and wants none in its place
    /// where nothing came.
    fn into_answer(self, is_known: bool) -> Answer {
        let mut answer = if is_known && self.frames.is_empty() && !self.more {
            answer::empty(StatusCode::NOT_MODIFIED)
        } else {
            let mut json = br#"{"frames":["#.to_vec();
            json.extend_from_slice(&self.frames);
            let end = format!(r#"],"cursor":"{}","more":{}}}"#, self.cursor, self.more);
            json.extend_from_slice(end.as_bytes());
            answer::json(StatusCode::OK, json)
        };
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", self.cursor)) {
            answer.headers_mut().insert(ETAG, tag);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_are_not_wanted_leave_their_cursor() {
        let events = b"id: 1\ndata: {\"type\":\"row\",\"a\":1}\n\n:\n\n\
                       data: {\"a\":2,\"type\":\"error\"}\n\n\
                       id: 2\ndata: {\"cursor\":\"2\",\"type\":\"heartbeat\"}\n\n";
        let mut gathered = Gathered::default();
        gathered.read(events, |of| of != "heartbeat");
        let frames = std::str::from_utf8(&gathered.frames).unwrap();
        assert_eq!(frames, r#"{"type":"row","a":1},{"a":2,"type":"error"}"#);
        assert_eq!(gathered.cursor.as_deref(), Some("2"));
    }

    #[test]
    fn an_entity_tag_is_a_cursor_in_quotes() {
        let tag = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(text));
            entity_tag(&headers)
        };
        assert_eq!(tag("\"7.1.2a.0\"").as_deref(), Some("7.1.2a.0"));
        assert_eq!(tag("W/\"7.1.2a.0\"").as_deref(), Some("7.1.2a.0"));
        assert_eq!(tag("*"), None);
    }
}
