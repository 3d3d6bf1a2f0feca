//! The parameters of an HTTP request: a query string in, the fields of a request out, as JSON would
//! have them. So one reader, [`request::of_http`](crate::dialect::native::request::of_http), knows
//! what the fields are.

use percent_encoding::percent_decode_str;
use serde_json::Map;
use serde_json::Value;

use crate::dialect::native::request::RequestError;
use crate::dialect::native::request::bad;

/// The parameters that are lists, joined by commas or given several times.
const LISTS: [&str; 4] = ["columns", "events", "order", "latest_by"];
/// The parameters that are numbers.
const NUMBERS: [&str; 2] = ["limit", "wait"];
/// The parameters that are `true` or `false`.
const FLAGS: [&str; 1] = ["snapshot"];
/// The parameters that are JSON.
const OBJECTS: [&str; 1] = ["throttle"];
/// The parameter that is for the handshake alone.
const TOKEN: &str = "token";

/// Reads a query string.
///
/// # Errors
///
/// [`RequestError`] where it is not one, or a parameter is given twice or is not of its kind.
pub fn fields(query: &str) -> Result<Map<String, Value>, RequestError> {
    let mut fields = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, text) = (decoded(name)?, decoded(text)?);
        if name == TOKEN {
            continue;
        }
        let value = value(&name, text)?;
        match (fields.get_mut(&name), value) {
            (None, value) => {
                fields.insert(name, value);
            }
            (Some(Value::Array(known)), Value::Array(more)) => known.extend(more),
            (Some(_), _) => return Err(wrong(format!("`{name}` is given twice"))),
        }
    }
    Ok(fields)
}

fn value(name: &str, text: String) -> Result<Value, RequestError> {
    if LISTS.contains(&name) {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        return Ok(items.collect());
    }
    if NUMBERS.contains(&name) {
        let number: Result<u64, _> = text.parse();
        return number
            .map(Value::from)
            .map_err(|_| wrong(format!("`{name}` is not a whole number")));
    }
    if FLAGS.contains(&name) {
        let flag: Result<bool, _> = text.parse();
        return flag.map(Value::from).map_err(|_| wrong(format!("`{name}` is not true or false")));
    }
    if OBJECTS.contains(&name) {
        return serde_json::from_str(&text).map_err(|_| wrong(format!("`{name}` is not JSON")));
    }
    Ok(Value::String(text))
}

fn decoded(text: &str) -> Result<String, RequestError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    let decoded = decoded.map_err(|_| wrong("the query string is not UTF-8".to_owned()))?;
    Ok(decoded.into_owned())
}

fn wrong(message: String) -> RequestError {
    bad(None, message, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::native::request::of_http;

    fn error(query: &str) -> String {
        fields(query).and_then(of_http).unwrap_err().message
    }

    #[test]
    fn a_query_string_is_a_subscription() {
        let query = "table=orders&where=a+%3D+%27b%2Bc%27&columns=id,a&columns=b&events=enter\
                     &since=7.1.2a.0&token=x.y.z&&";
        let subscribe = fields(query).and_then(of_http).unwrap();
        assert_eq!(&*subscribe.id, "main");
        assert_eq!(subscribe.request.columns.map(|columns| columns.len()), Some(3));
        let filter = format!("{:?}", subscribe.request.filter);
        assert_eq!(filter, r#"Some(Where("a = 'b+c'"))"#);
        assert!(subscribe.since.is_some());
        let query = "table=orders&throttle=%7B%22interval_ms%22:100%7D";
        let throttled = fields(query).and_then(of_http).unwrap().request.throttle;
        assert_eq!(throttled.map(|it| it.interval.as_millis()), Some(100));
    }

    #[test]
    fn what_is_wrong_with_a_query_is_named() {
        assert_eq!(error("table=a&table=b"), "`table` is given twice");
        assert_eq!(error("table=%ff"), "the query string is not UTF-8");
        assert_eq!(error("table=a&throttle=100ms"), "`throttle` is not JSON");
        assert_eq!(error("wait=soon"), "`wait` is not a whole number");
        assert!(error("table=a&wher=b").starts_with("unknown field `wher`"));
        assert!(error("").starts_with("missing field `table`"));
        assert_eq!(error("table=a&type=auth"), "`type` is not `subscribe`");
    }
}
