//! `/v1/events`: a subscription as a stream of events, for `EventSource` and `curl -N`.
//!
//! ```text
//! shard ──push──▶ outbox ──▶ StreamWire ──taken when hyper has room──▶ socket
//! ```
//!
//! The body of the answer is the session: hyper asks it for bytes as fast as the socket takes them,
//! so a slow client fills the wire, then its outbox, and then it is behind, as any other.
//!
//! The client of a stream sends nothing, so that it takes what is sent is the only sign of its life.
//! A connection whose other end has vanished is found by the system, which is told how long bytes
//! may stay unacknowledged (`http`).

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use bytes::Bytes;
use http_body_util::Either;
use hyper::Request;
use hyper::Response;
use hyper::body::Body;
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::header::CACHE_CONTROL;
use hyper::header::CONTENT_TYPE;
use hyper::header::HeaderMap;
use hyper::header::HeaderName;

use crate::dialect::native::events;
use crate::dialect::native::write;
use crate::route::outbox::Wire;
use crate::serve::Front;
use crate::serve::answer::Answer;
use crate::serve::answer::set;
use crate::serve::asked;
use crate::serve::end::goodbye;
use crate::serve::visit::Line;
use crate::serve::visit::Visit;

/// Bytes that wait for hyper; what is more waits in the outbox.
const ROOM: usize = 64 << 10;
/// The cursor that a browser comes back with.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx, and those who do as it does, to pass on what it gets.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Begins a stream.
pub(crate) async fn answer(
    front: &Rc<Front>,
    line: &Rc<Line>,
    request: Request<Incoming>,
) -> Result<Answer, Box<Answer>> {
    let claims = asked::required_claims(front, &request)?;
    let resumed = last_event_id(request.headers());
    let mut fields = asked::fields(front, request).await?;
    if let Some(cursor) = resumed {
        fields.insert("since".to_owned(), cursor.into());
    }
    let subscribe = asked::subscription(fields)?;
    let wire = Rc::new(StreamWire {
        buffer: RefCell::default(),
        waker: RefCell::default(),
        line: Rc::clone(line),
    });
    let shared: Rc<dyn Wire> = Rc::<StreamWire>::clone(&wire);
    let visit = Visit::open(front, line, shared, claims)?;
    visit.send(events::opening(retry_ms(visit.number())));
    visit.subscribe(subscribe)?;
    let mut response = Response::new(Either::Right(Stream { visit, wire, ended: false }));
    set(&mut response, CONTENT_TYPE, "text/event-stream");
    set(&mut response, CACHE_CONTROL, "no-cache, no-transform");
    set(&mut response, X_ACCEL_BUFFERING, "no");
    Ok(response)
}

/// Where a browser stopped. It wins over `since`, which is in the address and grows old there.
fn last_event_id(headers: &HeaderMap) -> Option<String> {
    let cursor = headers.get(LAST_EVENT_ID)?.to_str().ok()?.trim();
    (!cursor.is_empty()).then(|| cursor.to_owned())
}

/// After how long a client comes back: one to five seconds, so that not all come at once when the
/// daemon was restarted.
const fn retry_ms(number: u32) -> u32 {
    1000 + (number.wrapping_mul(2_654_435_761) >> 20)
}

/// The body of the answer, and the session in it.
#[derive(Debug)]
pub(crate) struct Stream {
    visit: Visit,
    wire: Rc<StreamWire>,
    /// Whether the last event was sent.
    ended: bool,
}

impl Stream {
    /// Ends the stream where the session is to be closed, or its subscription has ended.
    fn end_where_due(&mut self) {
        if self.ended {
            return;
        }
        if let Some(close) = self.visit.closing() {
            let end = goodbye(close);
            self.visit.send_last(events::event(&write::closed(end.code, end.reason)));
            self.ended = true;
        } else if !self.visit.is_subscribed() {
            // An `error` has told why. Whoever comes back is refused in the head of the answer.
            self.ended = true;
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let stream = self.get_mut();
        stream.end_where_due();
        let Ok(drained) = stream.visit.drain() else { return Poll::Ready(None) };
        let bytes = stream.wire.buffer.take();
        if !bytes.is_empty() {
            stream.visit.heard();
            return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
        }
        if stream.ended && drained {
            return Poll::Ready(None);
        }
        stream.wire.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}

/// What lies between a session's outbox and hyper.
#[derive(Debug)]
struct StreamWire {
    buffer: RefCell<Vec<u8>>,
    /// Who waits for bytes.
    waker: RefCell<Option<Waker>>,
    line: Rc<Line>,
}

impl StreamWire {
    fn wake_body(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Wire for StreamWire {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut buffer = self.buffer.borrow_mut();
        let before = buffer.len();
        for slice in slices {
            let room = ROOM.saturating_sub(buffer.len());
            let part = slice.get(..slice.len().min(room)).unwrap_or_default();
            buffer.extend_from_slice(part);
        }
        if buffer.len() > before {
            self.wake_body();
        }
        Ok(buffer.len() - before)
    }

    fn wake(&self) {
        self.wake_body();
        self.line.woken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_back_within_seconds_and_not_at_once() {
        let mut times: Vec<u32> = (1..=1000).map(retry_ms).collect();
        times.sort_unstable();
        assert!((1000..1100).contains(&times[0]), "{}", times[0]);
        assert!((5000..5096).contains(&times[999]), "{}", times[999]);
        times.dedup();
        assert!(times.len() > 900, "{}", times.len());
    }

    #[test]
    fn a_wire_takes_what_it_has_room_for() {
        let line = Rc::default();
        let wire = StreamWire { buffer: RefCell::default(), waker: RefCell::default(), line };
        let large = vec![b'x'; ROOM - 1];
        let slices = [IoSlice::new(&large), IoSlice::new(b"yz")];
        assert_eq!(wire.write(&slices).unwrap(), ROOM);
        assert_eq!(wire.write(&slices).unwrap(), 0);
        assert_eq!(wire.buffer.take().last(), Some(&b'y'));
        assert_eq!(wire.write(&[IoSlice::new(b"z")]).unwrap(), 1);
    }
}
