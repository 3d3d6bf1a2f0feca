//! What a subscriber must be told of a change: written as naively as it can be, and by nothing but
//! `docs/protocol.md`.

use std::collections::BTreeMap;

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::random::Random;
use crate::tables::Change;
use crate::tables::Granted;
use crate::tables::Grants;
use crate::tables::LARGE;
use crate::tables::ROLES;
use crate::tables::SUBJECTS;
use crate::tables::Shape;
use crate::tables::TABLES;

const OPS: [&str; 6] = ["insert", "update", "enter", "leave", "delete", "truncate"];

/// Who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) subject: &'static str,
    pub(crate) role: &'static str,
}

impl Person {
    pub(crate) fn any(random: &mut Random) -> Person {
        Person { subject: random.pick(&SUBJECTS), role: random.pick(&ROLES) }
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) table: usize,
    /// Conditions on columns; of each, whether it must equal or differ, and what.
    atoms: Vec<(&'static str, bool, &'static str)>,
    /// Whether one of them suffices.
    any: bool,
    columns: Option<Vec<&'static str>>,
    events: Vec<&'static str>,
}

/// A value of a row image, as far as the stream tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Value(Option<String>),
    Unknown,
}

type Image = BTreeMap<&'static str, Known>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Yes,
    No,
    Unknown,
}

/// What somebody must be told: `op`, and the images before they are cut to columns.
#[derive(Debug)]
pub(crate) struct Sight {
    op: &'static str,
    new: Option<Image>,
    old: Option<Image>,
}

impl Wish {
    pub(crate) fn any(random: &mut Random) -> Wish {
        let table = random.pick(&[0, 0, 0, 1, 1, 1, 2]);
        let mut atoms = Vec::new();
        for (column, values) in [
            ("word", &["x", "y", LARGE][..]),
            ("total", &["1", "2", "3"][..]),
            ("id", &["0", "1", "2"][..]),
            ("extra", &["x", "y"][..]),
        ] {
            if random.one_in(if column == "extra" { 12 } else { 4 }) {
                atoms.push((column, !random.one_in(3), random.pick(values)));
            }
        }
        let columns = ["id", "owner", "word", "total", "extra"];
        let mut asked: Vec<_> = columns.into_iter().filter(|_| !random.one_in(3)).collect();
        if !random.one_in(8) {
            asked.retain(|column| *column != "extra");
        }
        let columns = Some(asked).filter(|asked| !asked.is_empty() && random.one_in(3));
        let some = random.one_in(4);
        let events = OPS.into_iter().filter(|_| !some || !random.one_in(3)).collect();
        Wish { table, atoms, any: random.one_in(3), columns, events }
    }

    /// Asks for a column that the table has not always had.
    pub(crate) fn want_extra(&mut self) {
        self.columns = Some(vec!["id", "extra"]);
    }

    /// The fields of the request.
    pub(crate) fn json(&self, random: &mut Random) -> Value {
        let mut request = json!({ "type": "subscribe", "table": TABLES[self.table] });
        if !self.atoms.is_empty() && !self.any && random.one_in(2) {
            let atom = |(column, equal, value): &(&str, bool, &str)| {
                format!("{column}={}.{value}", if *equal { "eq" } else { "neq" })
            };
            request["filter"] = self.atoms.iter().map(atom).collect::<Vec<_>>().join(",").into();
        } else if !self.atoms.is_empty() {
            let atom = |(column, equal, value): &(&str, bool, &str)| {
                format!("{column} {} '{value}'", if *equal { "=" } else { "<>" })
            };
            let join = if self.any { " or " } else { " and " };
            request["where"] = self.atoms.iter().map(atom).collect::<Vec<_>>().join(join).into();
        }
        if let Some(columns) = &self.columns {
            request["columns"] = json!(columns);
        }
        if self.events.len() < OPS.len() {
            request["events"] = json!(self.events);
        }
        request
    }

    /// The columns that are delivered of a table of this shape, or the refusal.
    pub(crate) fn plan(
        &self,
        shape: Shape,
        today: Shape,
        role: &'static str,
        grants: &Grants,
    ) -> Result<Vec<&'static str>, &'static str> {
        let may = |column: &&'static str| match &grants[&(role, self.table)] {
            Granted::Nothing => false,
            Granted::Table => true,
            Granted::Columns(columns) => {
                columns.contains(column) && today.columns().contains(column)
            }
        };
        let granted: Vec<_> = shape.columns().into_iter().filter(may).collect();
        if granted.is_empty() {
            return Err("table_forbidden");
        }
        let read = self.atoms.iter().map(|(column, ..)| *column);
        let asked = self.columns.iter().flatten().copied();
        if read.chain(asked).any(|column| !granted.contains(&column)) {
            return Err("column_forbidden");
        }
        let wanted = |column: &&str| self.columns.as_ref().is_none_or(|it| it.contains(column));
        Ok(granted.into_iter().filter(wanted).collect())
    }

    /// Whether some `leave` and `delete` of a table of this shape can't be told.
    pub(crate) fn lacks_old_image(&self, shape: Shape) -> bool {
        let policy = (self.table == 0).then_some("owner");
        let mut read = self.atoms.iter().map(|(column, ..)| *column).chain(policy);
        !shape.full && read.any(|column| column != "id")
    }

    /// What somebody must be told of a change, if anything.
    pub(crate) fn sight(&self, change: &Change, subject: &str) -> Option<Sight> {
        if change.shape.table != self.table {
            return None;
        }
        let shown = |op, old: Option<&Image>, new: Option<&Image>| {
            let (old, new) = (old.cloned(), new.cloned());
            self.events.contains(&op).then_some(Sight { op, new, old })
        };
        if change.truncate {
            return shown("truncate", None, None);
        }
        let (old, new) = images(change);
        let judge = |image: &Image| self.judge(image, subject);
        match (&old, &new) {
            (None, Some(new)) if judge(new) == Verdict::Yes => shown("insert", None, Some(new)),
            (Some(old), None) if judge(old) == Verdict::Yes => shown("delete", Some(old), None),
            (Some(old), Some(new)) => {
                let sent = Some(old).filter(|_| change.shape.full || change.key_changed());
                match (judge(old), judge(new)) {
                    (Verdict::Yes, Verdict::Yes) => shown("update", sent, Some(new)),
                    (Verdict::No, Verdict::Yes) => shown("enter", None, Some(new)),
                    (Verdict::Unknown, Verdict::Yes) => shown("update", None, Some(new)),
                    (Verdict::Yes, Verdict::No) => shown("leave", Some(old), None),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn judge(&self, image: &Image, subject: &str) -> Verdict {
        let own = match (&image["owner"], self.table) {
            (_, 1..) => Verdict::Yes,
            (Known::Unknown, _) => Verdict::Unknown,
            (Known::Value(owner), _) if owner.as_deref() == Some(subject) => Verdict::Yes,
            _ => Verdict::No,
        };
        let atom = |(column, equal, value): &(&str, bool, &str)| match image.get(column) {
            Some(Known::Unknown) => Verdict::Unknown,
            Some(Known::Value(Some(text))) if (text == value) == *equal => Verdict::Yes,
            _ => Verdict::No,
        };
        let verdicts: Vec<Verdict> = self.atoms.iter().map(atom).collect();
        let filter = match self.any {
            _ if verdicts.is_empty() => Verdict::Yes,
            true if verdicts.contains(&Verdict::Yes) => Verdict::Yes,
            true if verdicts.contains(&Verdict::Unknown) => Verdict::Unknown,
            true => Verdict::No,
            false => all(&verdicts),
        };
        all(&[own, filter])
    }
}

fn all(verdicts: &[Verdict]) -> Verdict {
    if verdicts.contains(&Verdict::No) {
        Verdict::No
    } else if verdicts.contains(&Verdict::Unknown) {
        Verdict::Unknown
    } else {
        Verdict::Yes
    }
}

/// The row before and after a change, as far as the stream tells them.
fn images(change: &Change) -> (Option<Image>, Option<Image>) {
    let shape = change.shape;
    let columns = shape.columns();
    let kept = change.kept();
    let new = change.new.as_ref().map(|row| {
        let known = |column: &&'static str| match kept.contains(column) && !shape.full {
            true => Known::Unknown,
            false => Known::Value(row[column].clone()),
        };
        columns.iter().map(|column| (*column, known(column))).collect()
    });
    let old = change.old.as_ref().map(|row| {
        let known = |column: &&'static str| match shape.full || *column == "id" {
            true => Known::Value(row[column].clone()),
            false => Known::Unknown,
        };
        columns.iter().map(|column| (*column, known(column))).collect()
    });
    (old, new)
}

impl Sight {
    /// The frame's fields, of the columns that are delivered.
    pub(crate) fn frame(&self, columns: &[&'static str]) -> Value {
        let mut frame = json!({ "type": "row", "op": self.op });
        if let Some(new) = &self.new {
            frame["new"] = object(new, columns);
            let missing = columns.iter().filter(|column| new[**column] == Known::Unknown);
            let missing: Vec<_> = missing.collect();
            if !missing.is_empty() {
                frame["unchanged"] = json!(missing);
            }
        }
        if let Some(old) = &self.old {
            let key: &[_] = if columns.contains(&"id") { &["id"] } else { columns };
            frame["old"] = object(old, if self.op == "leave" { key } else { columns });
        }
        frame
    }
}

fn object(image: &Image, columns: &[&'static str]) -> Value {
    let mut object = Map::new();
    for column in columns {
        let value = match &image[column] {
            Known::Unknown => continue,
            Known::Value(None) => Value::Null,
            Known::Value(Some(text)) if ["id", "total"].contains(column) => {
                text.parse::<u64>().unwrap().into()
            }
            Known::Value(Some(text)) => text.clone().into(),
        };
        object.insert((*column).to_owned(), value);
    }
    Value::Object(object)
}
