//! `/v1/events`: a subscription as a stream of events, for `EventSource` and `curl -N`.

use std::rc::Rc;

use http_body_util::Either;
use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::CACHE_CONTROL;
use hyper::header::CONTENT_TYPE;
use hyper::header::HeaderMap;
use hyper::header::HeaderName;

use crate::dialect::native::events;
use crate::route::outbox::Wire;
use crate::route::session::Transport;
use crate::serve::Front;
use crate::serve::answer::Answer;
use crate::serve::answer::set;
use crate::serve::asked;
use crate::serve::buffer::Buffer;
use crate::serve::stream::Form;
use crate::serve::stream::Stream;
use crate::serve::visit::Line;
use crate::serve::visit::Visit;

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
    let claims = asked::required_claims(front, line, &request).await?;
    let resumed = last_event_id(request.headers());
    let mut fields = asked::fields(front, request).await?;
    if let Some(cursor) = resumed {
        fields.insert("since".to_owned(), cursor.into());
    }
    let subscribe = asked::subscription(fields)?;
    // Who resumes gets the head at once: nothing may come for a while, and it may never be rows.
    let begins_with_rows = subscribe.snapshot.is_some() && subscribe.since.is_none();
    let buffer = Rc::new(Buffer::new(line));
    let wire: Rc<dyn Wire> = Rc::<Buffer>::clone(&buffer);
    let visit = Visit::open(front, line, wire, (claims, Transport::Events))?;
    visit.send(events::opening(retry_ms(visit.number())));
    visit.subscribe(subscribe)?;
    if begins_with_rows {
        visit.begun(&buffer).await?;
    }
    let form = Form::Events { ended: false };
    let mut response = Response::new(Either::Right(Stream { visit, buffer, form }));
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
}
