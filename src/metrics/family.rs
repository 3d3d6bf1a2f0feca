//! What a metric is called, what it means, and how it is read: one [`Family`] for each.

use std::fmt;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::metrics::instrument::Reading;

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows; its name ends with `_total`.
    Counter,
    /// It is what it is now.
    Gauge,
    /// How often which times were seen.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        })
    }
}

/// One metric, or several that differ in the values of labels.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name without what the kind adds; it ends with the unit, where there is one.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// In what it is measured: `bytes`, `seconds`, or nothing.
    pub unit: &'static str,
    /// What it says, in a sentence.
    pub help: &'static str,
    /// What its values are told apart by. Each has few values, all of them the code's own.
    pub labels: &'static [&'static str],
    /// Reads it.
    pub read: fn(&Metrics, &mut Samples),
}

impl Family {
    /// The name under which its values are served, and by which rules and dashboards ask for it.
    /// (Those of a histogram have `_bucket`, `_sum` or `_count` after it.)
    #[must_use]
    pub fn served_name(&self) -> String {
        let end = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{end}", self.name)
    }
}

/// The unit that a name ends with.
const fn family(
    (name, unit): (&'static str, &'static str),
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Metrics, &mut Samples),
) -> Family {
    Family { name, kind, unit, help, labels, read }
}

/// A counter; `name` is its name and its unit.
pub(super) const fn counter(
    name: (&'static str, &'static str),
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Metrics, &mut Samples),
) -> Family {
    family(name, Kind::Counter, labels, help, read)
}

/// A gauge.
pub(super) const fn gauge(
    name: (&'static str, &'static str),
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Metrics, &mut Samples),
) -> Family {
    family(name, Kind::Gauge, labels, help, read)
}

/// A histogram of times.
pub(super) const fn histogram(
    name: &'static str,
    help: &'static str,
    read: fn(&Metrics, &mut Samples),
) -> Family {
    family((name, "seconds"), Kind::Histogram, &[], help, read)
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// A time, or a moment as the time since 1970.
    Time(Duration),
    /// Times by buckets.
    Buckets(Box<Reading>),
}

/// One value of a family, with the values of its labels in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The values of the labels.
    pub labels: Vec<String>,
    /// The value.
    pub value: Value,
}

/// The values of one family, as they are read.
#[derive(Debug, Default)]
pub struct Samples(pub(super) Vec<Sample>);

impl Samples {
    /// The values.
    #[must_use]
    pub fn all(self) -> Vec<Sample> {
        self.0
    }

    /// A whole number, of a family without labels.
    pub fn whole(&mut self, value: u64) {
        self.labelled([], Value::Whole(value));
    }

    /// A length.
    pub fn len(&mut self, len: usize) {
        self.whole(u64::try_from(len).unwrap_or(u64::MAX));
    }

    /// A time.
    pub fn time(&mut self, value: Duration) {
        self.labelled([], Value::Time(value));
    }

    /// Times by buckets.
    pub fn buckets(&mut self, reading: Reading) {
        self.labelled([], Value::Buckets(Box::new(reading)));
    }

    /// Whole numbers by the one label.
    pub fn by(&mut self, values: impl IntoIterator<Item = (&'static str, u64)>) {
        for (label, value) in values {
            self.labelled([label.to_owned()], Value::Whole(value));
        }
    }

    /// One value with its labels'.
    pub fn labelled(&mut self, labels: impl Into<Vec<String>>, value: Value) {
        self.0.push(Sample { labels: labels.into(), value });
    }
}
