//! `/v1/rows`: the rows that are there, and the cursor from which the changes follow.
//!
//! It is a subscription that begins with a snapshot and ends where it is up to date, written as one
//! JSON object while it comes, so that it needs no more memory than any other session. What was
//! committed while the rows were read stands behind them, as `changes`. They could be put into the
//! rows here only where nothing was ordered, bounded or left out.

use std::io;
use std::rc::Rc;

use http_body_util::Either;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::CACHE_CONTROL;
use hyper::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dialect::native::events;
use crate::route::outbox::Wire;
use crate::route::session::Transport;
use crate::serve::Front;
use crate::serve::answer::Answer;
use crate::serve::answer::refuse;
use crate::serve::answer::set;
use crate::serve::asked;
use crate::serve::buffer::Buffer;
use crate::serve::buffer::type_of;
use crate::serve::stream::Form;
use crate::serve::stream::Stream;
use crate::serve::visit::Line;
use crate::serve::visit::Visit;

/// Fields that say something of a stream, and nothing of the rows that are there.
const OF_A_STREAM: [&str; 4] = ["since", "events", "snapshot", "throttle"];

/// Answers with rows.
pub(crate) async fn answer(
    front: &Rc<Front>,
    line: &Rc<Line>,
    request: Request<Incoming>,
) -> Result<Answer, Box<Answer>> {
    let claims = asked::required_claims(front, line, &request).await?;
    let mut fields = asked::fields(front, request).await?;
    if let Some(wrong) = OF_A_STREAM.iter().find(|name| fields.contains_key(**name)) {
        let message = format!("`{wrong}` is not for rows");
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, "bad_request", &message)));
    }
    fields.insert("snapshot".to_owned(), true.into());
    let subscribe = asked::subscription(fields)?;
    let buffer = Rc::new(Buffer::new(line));
    let wire: Rc<dyn Wire> = Rc::<Buffer>::clone(&buffer);
    let visit = Visit::open(front, line, wire, (claims, Transport::Rows))?;
    visit.subscribe(subscribe)?;
    visit.begun(&buffer).await?;
    let form = Form::Rows(Rows::default());
    let mut response = Response::new(Either::Right(Stream { visit, buffer, form }));
    set(&mut response, CONTENT_TYPE, "application/json");
    set(&mut response, CACHE_CONTROL, "no-store");
    Ok(response)
}

/// How far the object is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Nothing,
    /// In the list of rows; whether there is one.
    Rows {
        any: bool,
    },
    /// In the list of changes; whether there is one.
    Changes {
        any: bool,
    },
    Whole,
}

/// The object that is written.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    stage: Stage,
}

/// As much of a `row` frame as is needed to see whether it is one of the rows.
#[derive(Deserialize)]
struct RowFrame<'a> {
    op: &'a str,
    #[serde(borrow)]
    new: Option<&'a RawValue>,
}

/// What is passed on of a `subscribed` frame.
#[derive(Deserialize)]
struct Subscribed<'a> {
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(borrow)]
    columns: &'a RawValue,
}

impl Rows {
    /// Whether the object is written to its end.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!(self.stage, Stage::Whole)
    }

    /// The part of the object that these events make.
    ///
    /// # Errors
    ///
    /// Where the snapshot begins again, after some of it was sent.
    pub(crate) fn write(&mut self, events: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(events.len());
        for event in events::events(events) {
            match type_of(event.json).as_str() {
                "subscribed" => {
                    let Subscribed { key, columns } = serde_json::from_slice(event.json)?;
                    out.extend_from_slice(
                        format!(r#"{{"key":{key},"columns":{columns},"rows":["#).as_bytes(),
                    );
                    self.stage = Stage::Rows { any: false };
                }
                "row" => self.row(event.json, &mut out)?,
                "synced" => {
                    self.begin_changes(&mut out);
                    let cursor = event.cursor.unwrap_or_default();
                    out.extend_from_slice(format!(r#"],"cursor":"{cursor}"}}"#).as_bytes());
                    self.stage = Stage::Whole;
                    break;
                }
                "heartbeat" => {}
                _ => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        Ok(out)
    }

    fn row(&mut self, json: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if let Stage::Rows { any } = self.stage {
            let frame: RowFrame<'_> = serde_json::from_slice(json)?;
            if let Some(row) = frame.new.filter(|_| frame.op == "snapshot") {
                separate(any, out);
                out.extend_from_slice(row.get().as_bytes());
                self.stage = Stage::Rows { any: true };
                return Ok(());
            }
        }
        let any = self.begin_changes(out);
        separate(any, out);
        out.extend_from_slice(json);
        self.stage = Stage::Changes { any: true };
        Ok(())
    }

    /// Ends the list of rows, if that was not done; whether there are changes.
    fn begin_changes(&mut self, out: &mut Vec<u8>) -> bool {
        if let Stage::Changes { any } = self.stage {
            return any;
        }
        out.extend_from_slice(br#"],"changes":["#);
        self.stage = Stage::Changes { any: false };
        false
    }
}

fn separate(any: bool, out: &mut Vec<u8>) {
    if any {
        out.push(b',');
    }
}
