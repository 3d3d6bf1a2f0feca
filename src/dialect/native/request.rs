//! Requests of the native dialect: text in, [`Request`] out.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;

use crate::catalog::TableName;
use crate::change::cursor::Cursor;
use crate::change::value::BigNumbers;
use crate::route::subscription;
use crate::route::subscription::Events;
use crate::route::subscription::Filter;
use crate::route::subscription::Movement;
use crate::route::subscription::Op;
use crate::route::subscription::OrderBy;
use crate::route::subscription::SnapshotRequest;
use crate::route::subscription::Subscribe;
use crate::route::subscription::Throttle;

/// The longest name that a subscription may have, in bytes. It is in every frame.
pub const ID_BYTES_MAX: usize = 64;
/// The most columns of an order.
const ORDER_MAX: usize = 8;

/// The name of a subscription over HTTP that is given none. There is one in each answer, so the name
/// need not tell them apart.
const ID_OF_HTTP: &str = "main";

/// What a client asks.
#[derive(Debug)]
pub enum Request {
    /// Act under this token from now on.
    Auth {
        /// The token, not yet verified.
        token: String,
    },
    /// Begin a subscription.
    Subscribe(Subscribe),
    /// End one.
    Unsubscribe {
        /// Its name.
        id: String,
    },
    /// Let one rest.
    Pause {
        /// Its name.
        id: String,
    },
    /// Let one go on that rests.
    Resume {
        /// Its name.
        id: String,
    },
    /// Answer, so that the client can measure the round trip.
    Ping,
}

/// Why a text is not a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// The subscription it was about, where that could be read.
    pub id: Option<String>,
    /// The code that clients can rely on: `bad_request` or `unknown_request`.
    pub code: &'static str,
    /// What was wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<&'static str>,
}

const THROTTLE: &str = r#"{"key":"driver_id","interval_ms":1000,"min_move_m":25,"position":["lat","lng"]}, whole numbers; `key` may be a list; `interval_ms` alone is enough"#;

const TYPES: &str = "the types are auth, subscribe, unsubscribe, pause, resume and ping";

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    of: String,
    id: Option<Id>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    #[serde(rename = "type")]
    _of: String,
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(rename = "type")]
    _of: String,
    #[serde(rename = "id")]
    _id: Option<Id>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "type")]
    _of: String,
    id: Id,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeFields {
    #[serde(rename = "type")]
    _of: String,
    id: Id,
    table: String,
    #[serde(rename = "where")]
    where_: Option<String>,
    filter: Option<String>,
    columns: Option<Vec<String>>,
    events: Option<Vec<String>>,
    since: Option<String>,
    snapshot: Option<bool>,
    order: Option<Vec<String>>,
    limit: Option<u64>,
    latest_by: Option<Vec<String>>,
    big_numbers: Option<String>,
    throttle: Option<ThrottleFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThrottleFields {
    key: Option<Key>,
    interval_ms: u64,
    min_move_m: Option<u32>,
    position: Option<(String, String)>,
}

/// One column, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Key {
    One(String),
    Several(Vec<String>),
}

/// A subscription's name: a string, or a number, which is taken as its digits.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

impl Id {
    fn into_text(self) -> String {
        match self {
            Id::Text(text) => text,
            Id::Number(number) => number.to_string(),
        }
    }
}

/// Which subscription a request is about that is not read; none where it does not say.
#[must_use]
pub fn id_of(text: &str) -> Option<String> {
    let envelope: Envelope = serde_json::from_str(text).ok()?;
    envelope.id.map(Id::into_text).filter(|id| id.len() <= ID_BYTES_MAX)
}

/// Reads one request.
///
/// # Errors
///
/// [`RequestError`] says what is wrong with it; the connection may go on.
pub fn parse(text: &str) -> Result<Request, RequestError> {
    let envelope: Envelope = serde_json::from_str(text).map_err(|error| {
        let message = if error.is_data() {
            "a request is a JSON object with a `type`".to_owned()
        } else {
            format!("not JSON: {error}")
        };
        bad(None, message, Some(TYPES))
    })?;
    let id = envelope.id.map(Id::into_text);
    let wrong = |error: serde_json::Error| bad(id.clone(), error.to_string(), None);
    match envelope.of.as_str() {
        "auth" => {
            let auth: Auth = serde_json::from_str(text).map_err(wrong)?;
            Ok(Request::Auth { token: auth.token })
        }
        "subscribe" => {
            let fields: SubscribeFields = serde_json::from_str(text).map_err(wrong)?;
            Ok(Request::Subscribe(subscribe(fields)?))
        }
        "unsubscribe" => {
            let id = named(text).map_err(wrong)?;
            Ok(Request::Unsubscribe { id })
        }
        "pause" => {
            let id = named(text).map_err(wrong)?;
            Ok(Request::Pause { id })
        }
        "resume" => {
            let id = named(text).map_err(wrong)?;
            Ok(Request::Resume { id })
        }
        "ping" => {
            let _ping: Plain = serde_json::from_str(text).map_err(wrong)?;
            Ok(Request::Ping)
        }
        _ => {
            let message = "the request's type is unknown".to_owned();
            Err(RequestError { id, code: "unknown_request", message, hint: Some(TYPES) })
        }
    }
}

/// Reads the subscription that an HTTP request is about, from its parameters or its body: the fields
/// of a `subscribe` request, of which `type` and `id` may be absent.
///
/// # Errors
///
/// [`RequestError`] says what is wrong with it.
pub fn of_http(mut fields: Map<String, Value>) -> Result<Subscribe, RequestError> {
    if fields.entry("type").or_insert_with(|| "subscribe".into()) != "subscribe" {
        return Err(bad(None, "`type` is not `subscribe`".to_owned(), None));
    }
    fields.entry("id").or_insert_with(|| ID_OF_HTTP.into());
    let fields = SubscribeFields::deserialize(Value::Object(fields));
    subscribe(fields.map_err(|error| bad(None, error.to_string(), None))?)
}

/// What the subscription begins with. What only orders or bounds a snapshot is refused without one,
/// so that nobody takes it for an order or a bound of the stream.
fn snapshot(fields: &mut SubscribeFields) -> Result<Option<Box<SnapshotRequest>>, SnapshotWrong> {
    let (order, limit, latest_by) = (fields.order.take(), fields.limit, fields.latest_by.take());
    if !fields.snapshot.unwrap_or(false) {
        if order.is_some() || limit.is_some() || latest_by.is_some() {
            return Err((
                "`order`, `limit` and `latest_by` are for a snapshot",
                "add snapshot: true",
            ));
        }
        return Ok(None);
    }
    let (order, latest_by) = (order.unwrap_or_default(), latest_by.unwrap_or_default());
    if order.len() > ORDER_MAX || latest_by.len() > ORDER_MAX {
        return Err(("`order` or `latest_by` names too many columns", "8 are enough"));
    }
    if !latest_by.is_empty() && order.is_empty() {
        let hint = "as in latest_by: [\"driver\"], order: [\"at desc\"]";
        return Err(("`latest_by` needs an `order` that says which row is the latest", hint));
    }
    let order = order.iter().map(|text| order_by(text)).collect::<Option<_>>();
    let order = order.ok_or(("`order` is malformed", "column [asc|desc] [nulls first|last]"))?;
    let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if limit == Some(0) {
        return Err(("`limit` is 0", "1 or more; leave `snapshot` out for no rows"));
    }
    let latest_by = latest_by.into_iter().map(Into::into).collect();
    Ok(Some(Box::new(SnapshotRequest { order, limit, latest_by })))
}

/// What is wrong, and what would be right.
type SnapshotWrong = (&'static str, &'static str);

/// One column of an order. The words behind the name are SQL's.
fn order_by(text: &str) -> Option<OrderBy> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let is =
        |word: Option<&&str>, known: &str| word.is_some_and(|it| it.eq_ignore_ascii_case(known));
    let mut nulls_first = None;
    if let [.., nulls, end] = words.as_slice()
        && nulls.eq_ignore_ascii_case("nulls")
        && words.len() > 2
    {
        nulls_first = match end.to_ascii_lowercase().as_str() {
            "first" => Some(true),
            "last" => Some(false),
            _ => return None,
        };
        words.truncate(words.len() - 2);
    }
    let descending = words.len() > 1 && is(words.last(), "desc");
    if words.len() > 1 && (descending || is(words.last(), "asc")) {
        words.pop();
    }
    match words.as_slice() {
        [column] => Some(OrderBy { column: (*column).into(), descending, nulls_first }),
        _ => None,
    }
}

fn subscribe(mut fields: SubscribeFields) -> Result<Subscribe, RequestError> {
    let id = std::mem::replace(&mut fields.id, Id::Number(0)).into_text();
    let wrong = |message: &str, hint| bad(Some(id.clone()), message.to_owned(), Some(hint));
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(bad(None, "`id` is empty or too long".to_owned(), Some("1 to 64 bytes")));
    }
    let snapshot = snapshot(&mut fields).map_err(|(message, hint)| wrong(message, hint))?;
    let filter = match (fields.where_, fields.filter) {
        (Some(_), Some(_)) => {
            return Err(wrong("both `where` and `filter` are given", "give one of them"));
        }
        (Some(text), None) => Some(Filter::Where(text.into())),
        (None, Some(text)) => Some(Filter::Text(text.into())),
        (None, None) => None,
    };
    let since = fields.since.map(|text| text.parse::<Cursor>()).transpose();
    let since = since.map_err(|error| wrong("`since` is not a cursor", error_hint(&error)))?;
    let events = match fields.events {
        None => Events::ALL,
        Some(names) => names.iter().try_fold(Events::NONE, |events, name| {
            let op = Op::ALL.into_iter().find(|op| op.name() == name);
            let hint = "the events are insert, update, enter, leave, delete and truncate";
            op.map(|op| events.with(op)).ok_or_else(|| wrong("an event is unknown", hint))
        })?,
    };
    let big_numbers = match fields.big_numbers.as_deref() {
        None | Some("number") => BigNumbers::AsNumbers,
        Some("string") => BigNumbers::AsStrings,
        Some(_) => return Err(wrong("`big_numbers` is unknown", "number or string")),
    };
    let throttle = fields.throttle.map(throttle).transpose();
    let throttle = throttle.map_err(|message| wrong(message, THROTTLE))?.map(Box::new);
    let columns = fields.columns.map(|names| names.into_iter().map(Into::into).collect());
    let table = TableName::parse(&fields.table);
    let request = subscription::Request { table, filter, columns, events, big_numbers, throttle };
    Ok(Subscribe { id: id.into(), request, since, snapshot })
}

/// The name in a request that has nothing else.
fn named(text: &str) -> Result<String, serde_json::Error> {
    serde_json::from_str(text).map(|named: Named| named.id.into_text())
}

/// Reads a throttle, as far as it can be judged without the table; else says what is wrong.
fn throttle(fields: ThrottleFields) -> Result<Throttle, &'static str> {
    let interval = Duration::from_millis(fields.interval_ms);
    if !(Throttle::INTERVAL_MIN..=Throttle::INTERVAL_MAX).contains(&interval) {
        return Err("`throttle.interval_ms` is not from 10 to 30000");
    }
    let key: Option<Box<[Box<str>]>> = fields.key.map(|key| match key {
        Key::One(name) => Box::from([name.into()]),
        Key::Several(names) => names.into_iter().map(Into::into).collect(),
    });
    if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > Throttle::KEY_COLUMNS_MAX) {
        return Err("`throttle.key` has no columns or more than 8");
    }
    let movement = match (fields.min_move_m, fields.position) {
        (None, None) => None,
        (Some(metres), Some((latitude, longitude))) => {
            if !(1..=Throttle::METRES_MAX).contains(&metres) {
                return Err("`throttle.min_move_m` is not from 1 to 20000000");
            }
            let (latitude, longitude) = (latitude.into(), longitude.into());
            Some(Movement { metres, latitude, longitude })
        }
        _ => return Err("`throttle.min_move_m` and `throttle.position` need each other"),
    };
    Ok(Throttle { key, interval, movement })
}

const fn error_hint(_: &crate::change::cursor::ParseCursorError) -> &'static str {
    "the text of a `cursor` field, unchanged"
}

pub(super) fn bad(id: Option<String>, message: String, hint: Option<&'static str>) -> RequestError {
    RequestError { id, code: "bad_request", message, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let error = parse(text).unwrap_err();
        format!("{} {:?}: {}", error.code, error.id, error.message)
    }

    #[test]
    fn a_subscribe_request_is_read_with_all_its_fields() {
        let text = r#"{"type":"subscribe","id":7,"table":"orders","where":"a = 1",
            "columns":["id","a"],"events":["enter","leave"],"since":"7.1.2a.0"}"#;
        let Ok(Request::Subscribe(subscribe)) = parse(text) else { panic!("{text}") };
        assert_eq!(&*subscribe.id, "7");
        assert_eq!(subscribe.request.table.to_string(), "public.orders");
        assert!(subscribe.request.events.contains(Op::Leave));
        assert!(!subscribe.request.events.contains(Op::Insert));
        assert_eq!(subscribe.since.map(|cursor| cursor.position.index), Some(0));
    }

    #[test]
    fn a_throttle_is_read_and_judged() {
        let request = |throttle: &str| {
            format!(r#"{{"type":"subscribe","id":"a","table":"t","throttle":{throttle}}}"#)
        };
        let read = |throttle: &str| {
            let Ok(Request::Subscribe(it)) = parse(&request(throttle)) else {
                panic!("{throttle}")
            };
            *it.request.throttle.unwrap()
        };
        let plain = read(r#"{"interval_ms":1000}"#);
        assert_eq!(
            (plain.interval, plain.key, plain.movement),
            (Duration::from_secs(1), None, None)
        );
        let full =
            read(r#"{"key":["a","b"],"interval_ms":500,"min_move_m":25,"position":["lat","lng"]}"#);
        assert_eq!(full.key.as_ref().map(|key| key.len()), Some(2));
        assert_eq!(full.linger(), Duration::from_secs(5));
        assert_eq!(full.movement.map(|it| (it.metres, it.longitude)), Some((25, "lng".into())));
        for (throttle, expected) in [
            (r#"{"interval_ms":9}"#, "not from 10 to 30000"),
            (r#"{"interval_ms":30001}"#, "not from 10 to 30000"),
            (r#"{"interval_ms":50,"key":[]}"#, "no columns"),
            (r#"{"interval_ms":50,"min_move_m":5}"#, "need each other"),
            (r#"{"interval_ms":50,"position":["a","b"]}"#, "need each other"),
            (r#"{"interval_ms":50,"min_move_m":0,"position":["a","b"]}"#, "not from 1 to"),
            (r#"{"interval_ms":50,"min_move_m":1,"position":["a"]}"#, "invalid length 1"),
            (r#"{"key":"a"}"#, "missing field `interval_ms`"),
            (r#"{"interval":50}"#, "unknown field `interval`"),
            (r#"{"interval_ms":1.5}"#, "invalid type: floating point"),
        ] {
            let error = error(&request(throttle));
            assert!(error.starts_with("bad_request Some(\"a\")"), "{error}");
            assert!(error.contains(expected), "{throttle}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(error("[]"), "bad_request None: a request is a JSON object with a `type`");
        assert_eq!(
            error(r#"{"type":"sub"}"#),
            "unknown_request None: the request's type is unknown"
        );
        assert!(error("{").starts_with("bad_request None: not JSON"));
        let unknown = error(r#"{"type":"subscribe","id":"a","table":"t","wher":"x"}"#);
        assert!(unknown.starts_with("bad_request Some(\"a\"): unknown field `wher`"), "{unknown}");
        let both = error(r#"{"type":"subscribe","id":"a","table":"t","where":"x","filter":"y"}"#);
        assert!(both.contains("both `where` and `filter`"), "{both}");
        let since = error(r#"{"type":"subscribe","id":"a","table":"t","since":"x"}"#);
        assert!(since.contains("`since` is not a cursor"), "{since}");
    }

    #[test]
    fn an_order_is_read_and_what_belongs_to_a_snapshot_is_refused_without_one() {
        let snapshot = |more: &str| {
            format!(r#"{{"type":"subscribe","id":"a","table":"t","snapshot":true,{more}}}"#)
        };
        let text = snapshot(r#""order":["a","b DESC","c  asc nulls first","desc"],"limit":5"#);
        let Ok(Request::Subscribe(subscribe)) = parse(&text) else { panic!("{text}") };
        let snapshot_request = subscribe.snapshot.unwrap();
        let order: Vec<_> = snapshot_request.order.iter().collect();
        let read: Vec<_> =
            order.iter().map(|by| (&*by.column, by.descending, by.nulls_first)).collect();
        let expected = [
            ("a", false, None),
            ("b", true, None),
            ("c", false, Some(true)),
            ("desc", false, None),
        ];
        assert_eq!((read.as_slice(), snapshot_request.limit), (expected.as_slice(), Some(5)));
        for (more, message) in [
            (r#""order":["a up"]"#, "`order` is malformed"),
            (r#""order":["a nulls"]"#, "`order` is malformed"),
            (r#""order":[""]"#, "`order` is malformed"),
            (r#""latest_by":["a"]"#, "`latest_by` needs an `order`"),
            (r#""limit":0"#, "`limit` is 0"),
            (r#""limit":-1"#, "invalid value"),
            (r#""order":["a","a","a","a","a","a","a","a","a"]"#, "too many columns"),
        ] {
            let error = error(&snapshot(more));
            assert!(error.contains(message), "{more}: {error}");
        }
        for more in [r#""order":["a"]"#, r#""limit":1"#, r#""latest_by":["a"]"#] {
            let text = format!(r#"{{"type":"subscribe","id":"a","table":"t",{more}}}"#);
            assert!(error(&text).contains("are for a snapshot"), "{more}");
        }
    }
}
