//! The body of an answer that is sent while its session lives.
//!
//! ```text
//! shard ──push──▶ outbox ──▶ Buffer ──taken when hyper has room──▶ socket
//! ```
//!
//! The body is the session: hyper asks it for bytes as fast as the socket takes them, so a slow
//! client fills the buffer, then its outbox, and then it is behind, as any other.
//!
//! The client of a stream sends nothing, so that it takes what is sent is the only sign of its life.
//! A connection whose other end has vanished is found by the system, which is told how long bytes
//! may stay unacknowledged (`http`).

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use hyper::body::Body;
use hyper::body::Frame;

use crate::dialect::native::events;
use crate::dialect::native::write;
use crate::serve::buffer::Buffer;
use crate::serve::end::goodbye;
use crate::serve::rows::Rows;
use crate::serve::visit::Visit;

/// The body of an answer, and the session in it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) visit: Visit,
    pub(crate) buffer: Rc<Buffer>,
    pub(crate) form: Form,
}

/// What is made of a session's events.
#[derive(Debug)]
pub(crate) enum Form {
    /// They are sent as they are; `ended` when the last was.
    Events {
        /// Whether the last event was sent.
        ended: bool,
    },
    /// One JSON object.
    Rows(Rows),
}

impl Stream {
    /// Ends a stream of events where the session is to be closed, or its subscription has ended; a
    /// JSON object is cut off then, which its reader can't take for a whole one.
    fn end_where_due(&mut self) -> io::Result<()> {
        let closing = self.visit.closing();
        match &mut self.form {
            Form::Events { ended: false } => {
                if let Some(close) = closing {
                    let end = goodbye(close);
                    self.visit.send_last(events::event(&write::closed(end.code, end.reason)));
                }
                // Else an `error` has told why. Whoever comes back is refused by a status.
                let ended = closing.is_some() || !self.visit.is_subscribed();
                self.form = Form::Events { ended };
            }
            Form::Rows(rows) if !rows.is_whole() => {
                if closing.is_some() || !self.visit.is_subscribed() {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            Form::Events { .. } | Form::Rows(_) => {}
        }
        Ok(())
    }

    /// Whether nothing comes any more once everything is out that waits.
    const fn is_over(&self) -> bool {
        match &self.form {
            Form::Events { ended } => *ended,
            Form::Rows(rows) => rows.is_whole(),
        }
    }

    fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.end_where_due()?;
        let events = self.buffer.take();
        let drained = self.visit.drain()? && self.buffer.is_empty();
        if !events.is_empty() {
            self.visit.heard();
        }
        let bytes = match &mut self.form {
            Form::Events { .. } => events,
            Form::Rows(rows) => rows.write(&events)?,
        };
        if bytes.is_empty() && self.is_over() && drained {
            return Ok(None);
        }
        Ok(Some(bytes.into()))
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let stream = self.get_mut();
        loop {
            match stream.next() {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            ready!(stream.buffer.poll_woken(context));
        }
    }
}
