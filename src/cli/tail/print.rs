//! Changes as a person reads them: what was done, to which row, and what is different now.
//!
//! ```text
//! 12:03:04 insert  id=5 status="open" total=12.50
//! 12:03:09 update  id=5 status "open" → "assigned"
//! 12:03:20 leave   id=5
//! ```
//!
//! An update without an old image is compared with the row as it was printed last, as far as it is
//! remembered; a row that is not gets printed whole.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use serde_json::{Map, Value};

use crate::cli::tail::frame::{Column, Row};

/// How many rows are remembered. Then all are forgotten, which costs nothing but brevity.
const REMEMBERED_MAX: usize = 10_000;

/// How many characters of one value are shown.
const VALUE_LEN_MAX: usize = 80;

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// For a terminal.
    On,
    /// For a file or a pipe.
    Off,
}

/// Prints one subscription's rows.
#[derive(Debug)]
pub struct Printer {
    colours: Colours,
    columns: Vec<String>,
    key: Vec<String>,
    remembered: HashMap<String, Map<String, Value>>,
}

impl Printer {
    /// A printer that knows no columns yet.
    #[must_use]
    pub fn new(colours: Colours) -> Printer {
        let (columns, key, remembered) = (Vec::new(), Vec::new(), HashMap::new());
        Printer { colours, columns, key, remembered }
    }

    /// Takes the columns' order and the key from a `subscribed` frame.
    pub fn describe(&mut self, columns: &[Column], key: &[String]) {
        self.columns = columns.iter().map(|column| column.name.clone()).collect();
        self.key = key.to_vec();
    }

    /// One line for one change, without the line's end.
    pub fn line(&mut self, row: &Row) -> String {
        let mut line = String::new();
        if let Some(time) = row.commit_ts.as_deref().and_then(clock) {
            line.push_str(&self.paint("2", time));
            line.push(' ');
        }
        let _ = write!(line, "{}", self.paint(colour(&row.op), &format!("{:<7} ", row.op)));
        let image = row.new.as_ref().or(row.reference.as_ref()).or(row.old.as_ref());
        let key = image.map(|image| self.key_of(image)).unwrap_or_default();
        let before = row.old.clone().or_else(|| self.remembered.get(&key).cloned());
        line.push_str(&self.paint("1", &key));
        if let Some(bytes) = row.bytes {
            let large = format!(" ({bytes} bytes, too large to be sent)");
            line.push_str(&self.paint("2", &large));
        }
        match (row.op.as_str(), &row.new, before) {
            ("update", Some(new), Some(before)) => self.differences(&before, new, &mut line),
            (_, Some(new), _) => self.values(new, &mut line),
            (_, None, _) => {
                if let (Some(old), "delete") = (&row.old, row.op.as_str()) {
                    self.values(old, &mut line);
                }
            }
        }
        for name in &row.unchanged {
            let _ = write!(line, " {name}{}", self.paint("2", "=(not sent, as before)"));
        }
        self.remember(row, key);
        line
    }

    /// The key's values, each with its name; nothing where there is no key.
    fn key_of(&self, image: &Map<String, Value>) -> String {
        let part = |name: &String| Some(format!("{name}={}", short(image.get(name)?)));
        self.key.iter().filter_map(part).collect::<Vec<_>>().join(" ")
    }

    /// Every value that is not the key's.
    fn values(&self, image: &Map<String, Value>, line: &mut String) {
        for (name, value) in self.ordered(image) {
            let _ = write!(line, " {}{}", self.paint("2", &format!("{name}=")), short(value));
        }
    }

    /// The values that are others now.
    fn differences(&self, old: &Map<String, Value>, new: &Map<String, Value>, line: &mut String) {
        let mut any = false;
        for (name, value) in self.ordered(new) {
            let before = old.get(name);
            if before == Some(value) {
                continue;
            }
            any = true;
            match before {
                Some(before) => {
                    let arrow = format!("{} → {}", short(before), short(value));
                    let _ = write!(line, " {} {arrow}", self.paint("2", name));
                }
                None => {
                    let _ =
                        write!(line, " {}{}", self.paint("2", &format!("{name}=")), short(value));
                }
            }
        }
        if !any {
            line.push_str(&self.paint("2", " (nothing visible changed)"));
        }
    }

    /// The values that are not the key's, in the columns' order.
    fn ordered<'a>(&'a self, image: &'a Map<String, Value>) -> Vec<(&'a str, &'a Value)> {
        let place: BTreeMap<&str, usize> =
            self.columns.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
        let mut values: Vec<(&str, &Value)> = image
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .filter(|(name, _)| !self.key.iter().any(|key| key == name))
            .collect();
        values.sort_by_key(|(name, _)| place.get(name).copied().unwrap_or(usize::MAX));
        values
    }

    fn remember(&mut self, row: &Row, key: String) {
        if key.is_empty() {
            return;
        }
        match &row.new {
            Some(new) => {
                if self.remembered.len() >= REMEMBERED_MAX {
                    self.remembered.clear();
                }
                let whole = self.remembered.entry(key).or_default();
                whole.extend(new.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            None => {
                self.remembered.remove(&key);
            }
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.colours {
            Colours::On if !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            Colours::On | Colours::Off => text.to_owned(),
        }
    }
}

fn colour(op: &str) -> &'static str {
    match op {
        "insert" | "snapshot" => "32",
        "enter" => "1;32",
        "update" => "33",
        "delete" => "31",
        "leave" => "1;31",
        _ => "35",
    }
}

/// The time of day out of an ISO 8601 timestamp.
fn clock(timestamp: &str) -> Option<&str> {
    timestamp.split_once('T')?.1.get(..8)
}

/// A value as JSON, cut when it is long. JSON has no control characters, so that no row can move
/// the terminal's cursor; those that it may hold (C1) are taken out.
fn short(value: &Value) -> String {
    let text: String = value.to_string().chars().filter(|one| !one.is_control()).collect();
    match text.char_indices().nth(VALUE_LEN_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tail::frame::{Content, Frame};

    fn printed(colours: Colours, frames: &[&str]) -> String {
        let mut printer = Printer::new(colours);
        let mut lines = Vec::new();
        for text in frames {
            match Frame::parse(text).unwrap().content {
                Content::Subscribed { columns, key, .. } => printer.describe(&columns, &key),
                Content::Row(row) => lines.push(printer.line(&row)),
                other => panic!("{other:?}"),
            }
        }
        lines.join("\n")
    }

    const SUBSCRIBED: &str = r#"{"type":"subscribed","id":"tail","columns":[{"name":"id","type":"int8"},{"name":"status","type":"text"},{"name":"note","type":"text"},{"name":"area","type":"text"}],"key":["id"]}"#;

    #[test]
    fn a_change_is_one_readable_line() {
        let frames = [
            SUBSCRIBED,
            r#"{"type":"row","id":"tail","op":"insert","new":{"area":"n","id":5,"note":null,"status":"open"},"commit_ts":"2026-11-21T12:03:04.5+00:00"}"#,
            r#"{"type":"row","id":"tail","op":"update","new":{"area":"n","id":5,"status":"assigned"},"unchanged":["note"]}"#,
            r#"{"type":"row","id":"tail","op":"update","new":{"area":"n","id":5,"note":"x","status":"live"},"old":{"area":"n","id":5,"note":"x","status":"assigned"}}"#,
            r#"{"type":"row","id":"tail","op":"update","new":{"area":"n","id":5,"note":"x","status":"live"}}"#,
            r#"{"type":"row","id":"tail","op":"leave","old":{"id":5}}"#,
            r#"{"type":"row","id":"tail","op":"enter","new":{"area":"n","id":5,"note":"\u001b[2J\u009b","status":"live"}}"#,
            r#"{"type":"row","id":"tail","op":"update","reference":{"id":5},"bytes":104857600}"#,
            r#"{"type":"row","id":"tail","op":"delete","old":{"area":"n","id":5}}"#,
            r#"{"type":"row","id":"tail","op":"truncate"}"#,
            r#"{"type":"row","id":"tail","op":"snapshot","new":{"area":"n","id":6}}"#,
        ];
        insta::assert_snapshot!(printed(Colours::Off, &frames), @r#"
    12:03:04 insert  id=5 status="open" note=null area="n"
    update  id=5 status "open" → "assigned" note=(not sent, as before)
    update  id=5 status "assigned" → "live"
    update  id=5 (nothing visible changed)
    leave   id=5
    enter   id=5 status="live" note="\u001b[2J" area="n"
    update  id=5 (104857600 bytes, too large to be sent)
    delete  id=5 area="n"
    truncate 
    snapshot id=6 area="n"
    "#);
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        let leave = [SUBSCRIBED, r#"{"type":"row","id":"tail","op":"leave","old":{"id":5}}"#];
        assert_eq!(printed(Colours::On, &leave), "\x1b[1;31mleave   \x1b[0m\x1b[1mid=5\x1b[0m");
        assert_eq!(printed(Colours::Off, &leave), "leave   id=5");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let shown = short(&Value::from("ä".repeat(200)));
        assert_eq!(shown.chars().count(), VALUE_LEN_MAX + 1);
        assert!(shown.ends_with('…'));
    }
}
