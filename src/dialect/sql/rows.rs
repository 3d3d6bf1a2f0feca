//! A line taken apart again: what there is to a row for those who want columns.

use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::value::RawValue;

/// One of the lines that [`LINES`](crate::dialect::sql::lines::LINES) wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The subscription has begun; these columns are a row's key.
    Subscribed {
        /// The key's columns; none where the key is not delivered.
        key: Vec<String>,
        /// From where on everything is delivered.
        cursor: Option<String>,
    },
    /// A row, or that rows were missed or are complete.
    Record(Record),
    /// Everything was delivered up to here.
    Heartbeat {
        /// Up to where.
        cursor: String,
    },
    /// The subscription, or the session, ended.
    Ended(Ending),
    /// Something that is of no concern to rows.
    Other,
}

/// What a row of the result holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What happened: `insert` and so on, `synced` or `resync`.
    pub op: String,
    /// The row's key, as a JSON object; absent where it is not delivered.
    pub key: Option<String>,
    /// The row before, as JSON.
    pub old: Option<String>,
    /// The row after, as JSON; of a `resync` the reason.
    pub new: Option<String>,
    /// Where to go on from.
    pub cursor: Option<String>,
    /// When it was committed, in ISO 8601.
    pub commit_ts: Option<String>,
}

/// Why there are no more lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The subscription is no longer allowed or possible.
    Refused {
        /// The code, as in an `error` frame.
        code: String,
        /// What happened.
        message: String,
        /// What would help.
        hint: Option<String>,
    },
    /// The daemon stops.
    Restart {
        /// Up to where everything was delivered.
        cursor: Option<String>,
    },
    /// The session was closed.
    Closed {
        /// The close code of a WebSocket.
        code: u16,
        /// The reason.
        reason: String,
    },
}

impl Record {
    /// The names of the columns, in the order of [`Record::values`].
    pub const COLUMNS: [&'static str; 6] = ["op", "key", "old", "new", "cursor", "commit_ts"];

    /// What is in the columns.
    #[must_use]
    pub fn values(&self) -> [Option<&str>; 6] {
        [
            Some(&self.op),
            self.key.as_deref(),
            self.old.as_deref(),
            self.new.as_deref(),
            self.cursor.as_deref(),
            self.commit_ts.as_deref(),
        ]
    }

    /// Whether it is a row of the table.
    #[must_use]
    pub fn is_row(&self) -> bool {
        !matches!(self.op.as_str(), "synced" | "resync")
    }

    /// Appends it as a line of comma-separated values, as Postgres writes them: what is absent is
    /// empty, what is there and empty or has a comma, a quote or a line end is in quotes.
    pub fn write_csv(&self, out: &mut Vec<u8>) {
        for (at, value) in self.values().into_iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"" } else { b"," });
            let Some(value) = value else { continue };
            if value.is_empty() || value.contains([',', '"', '\n', '\r']) {
                out.push(b'"');
                out.extend_from_slice(value.replace('"', "\"\"").as_bytes());
                out.push(b'"');
            } else {
                out.extend_from_slice(value.as_bytes());
            }
        }
        out.push(b'\n');
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    of: String,
    op: Option<String>,
    #[serde(borrow)]
    old: Option<&'a RawValue>,
    #[serde(borrow)]
    new: Option<&'a RawValue>,
    #[serde(borrow)]
    reference: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    cursor: Option<String>,
    commit_ts: Option<String>,
    code: Option<Value>,
    reason: Option<String>,
    message: Option<String>,
    hint: Option<String>,
}

/// Reads a line; `key` names the columns of the table's key, as `subscribed` told them.
#[must_use]
pub fn read(line: &[u8], key: &[String]) -> Line {
    let Ok(frame) = serde_json::from_slice::<Frame<'_>>(line) else { return Line::Other };
    let text = |raw: Option<&RawValue>| raw.map(|raw| raw.get().to_owned());
    let word = || frame.code.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    match frame.of.as_str() {
        "row" => {
            let image = frame.new.or(frame.old).or(frame.reference);
            Line::Record(Record {
                op: frame.op.unwrap_or_default(),
                key: image.and_then(|image| key_of(image, key)),
                old: text(frame.old),
                new: text(frame.new),
                cursor: frame.cursor,
                commit_ts: frame.commit_ts,
            })
        }
        "subscribed" => {
            let names = frame.key.and_then(|key| serde_json::from_str(key.get()).ok());
            Line::Subscribed { key: names.unwrap_or_default(), cursor: frame.cursor }
        }
        "synced" => {
            let (op, cursor) = (frame.of, frame.cursor);
            Line::Record(Record { op, cursor, ..Record::default() })
        }
        "resync" => {
            let why = serde_json::json!({ "reason": frame.reason, "message": frame.message });
            let (op, cursor, new) = (frame.of, frame.cursor, Some(why.to_string()));
            Line::Record(Record { op, cursor, new, ..Record::default() })
        }
        "heartbeat" => Line::Heartbeat { cursor: frame.cursor.unwrap_or_default() },
        "error" => {
            let (code, message) = (word(), frame.message.unwrap_or_default());
            Line::Ended(Ending::Refused { code, message, hint: frame.hint })
        }
        "restart" => Line::Ended(Ending::Restart { cursor: frame.cursor }),
        "closed" => {
            let code = frame.code.as_ref().and_then(Value::as_u64);
            let code = code.and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
            Line::Ended(Ending::Closed { code, reason: frame.reason.unwrap_or_default() })
        }
        _ => Line::Other,
    }
}

/// The cursor that a line ends with, where it has one.
#[must_use]
pub fn cursor_of(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line).ok()?.trim_end().strip_suffix("\"}")?;
    let (_, cursor) = line.rsplit_once(",\"cursor\":\"")?;
    (!cursor.contains('"')).then_some(cursor)
}

/// Whether a line is a row: all but a few are, and say so at their beginning.
#[must_use]
pub fn is_row(line: &[u8]) -> bool {
    line.starts_with(br#"{"type":"row""#)
}

/// Microseconds since 2000-01-01 00:00 UTC of a time as frames have it; none of a year that has not
/// four digits.
///
/// The days are counted by the civil-to-days algorithm over 400-year eras that begin in March
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
#[must_use]
pub fn micros(commit_ts: &str) -> Option<i64> {
    const DAY: i64 = 86_400_000_000;
    /// Days from 0000-03-01 to 2000-01-01.
    const EPOCH: i64 = 730_425;
    let number = |range: std::ops::Range<usize>| commit_ts.get(range)?.parse::<i64>().ok();
    if commit_ts.len() != 27 {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - EPOCH;
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(days * DAY + seconds * 1_000_000 + number(20..26)?)
}

/// The key's columns of an image; none where one is missing.
fn key_of(image: &RawValue, key: &[String]) -> Option<String> {
    let image: Map<String, Value> = serde_json::from_str(image.get()).ok()?;
    if key.is_empty() {
        return None;
    }
    let pair = |name: &String| Some((name.clone(), image.get(name)?.clone()));
    let key: Map<String, Value> = key.iter().map(pair).collect::<Option<_>>()?;
    Some(Value::Object(key).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::transaction::Timestamp;

    fn record(line: &str) -> Record {
        match read(line.as_bytes(), &["id".to_owned()]) {
            Line::Record(record) => record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_row_s_values_are_as_they_were_written() {
        let row = record(
            r#"{"type":"row","id":"main","op":"update","new":{"id":9007199254740993,"a":1.50},"old":{"id":9007199254740993},"commit_ts":"2026-11-20T23:59:59.123456Z","cursor":"1.1.1.1"}"#,
        );
        assert_eq!(row.key.as_deref(), Some(r#"{"id":9007199254740993}"#));
        assert_eq!(row.new.as_deref(), Some(r#"{"id":9007199254740993,"a":1.50}"#));
        assert!(row.is_row());
        let mut csv = Vec::new();
        row.write_csv(&mut csv);
        assert_eq!(
            String::from_utf8(csv).unwrap(),
            "update,\"{\"\"id\"\":9007199254740993}\",\"{\"\"id\"\":9007199254740993}\",\
             \"{\"\"id\"\":9007199254740993,\"\"a\"\":1.50}\",1.1.1.1,2026-11-20T23:59:59.123456Z\n"
        );
        let large = record(r#"{"type":"row","op":"insert","reference":{"id":1},"bytes":5}"#);
        assert_eq!((large.key.as_deref(), large.new), (Some(r#"{"id":1}"#), None));
    }

    #[test]
    fn a_time_is_read_as_it_was_written() {
        for expected in [0, -1, 5_097_600_000_000, 5_184_000_000_000, 848_534_399_123_456] {
            let mut text = Vec::new();
            crate::dialect::json::timestamp(Timestamp(expected), &mut text);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(micros(text.trim_matches('"')), Some(expected), "{text}");
        }
        assert_eq!(micros("never"), None);
    }

    #[test]
    fn a_cursor_is_found_at_the_end_of_a_line_only() {
        let cursor = |line: &str| cursor_of(line.as_bytes()).map(str::to_owned);
        let row = r#"{"type":"row","new":{"a":",\"cursor\":\"x"},"cursor":"1.2.3.4"}"#;
        assert_eq!(cursor(&format!("{row}\n")).as_deref(), Some("1.2.3.4"));
        let snapshot = r#"{"type":"row","op":"snapshot","new":{"cursor":"x"}}"#;
        assert_eq!(cursor(snapshot), None);
        assert!(is_row(snapshot.as_bytes()));
        assert!(!is_row(br#"{"type":"resync"}"#));
    }

    #[test]
    fn what_is_no_row_is_told_apart() {
        let resync = record(
            r#"{"type":"resync","id":"main","reason":"too_old","message":"m","cursor":"1.1.1.0"}"#,
        );
        assert!(!resync.is_row() && resync.new.is_some_and(|new| new.contains("too_old")));
        let line = |text: &str| read(text.as_bytes(), &[]);
        let subscribed = line(r#"{"type":"subscribed","id":"main","columns":[],"key":["id"]}"#);
        assert_eq!(subscribed, Line::Subscribed { key: vec!["id".to_owned()], cursor: None });
        let ended = line(r#"{"type":"closed","code":4401,"reason":"token_expired"}"#);
        let reason = "token_expired".to_owned();
        assert_eq!(ended, Line::Ended(Ending::Closed { code: 4401, reason }));
        let ended = line(r#"{"type":"error","code":"column_forbidden","message":"m","hint":"h"}"#);
        assert!(
            matches!(ended, Line::Ended(Ending::Refused { code, .. }) if code == "column_forbidden")
        );
        assert_eq!(line("{}"), Line::Other);
    }
}
