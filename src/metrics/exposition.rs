//! All metrics as text, in the form of OpenMetrics.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::MetricEncoder;
use prometheus_client::encoding::text;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use prometheus_client::registry::Unit;

use crate::metrics::Metrics;
use crate::metrics::family::Family;
use crate::metrics::family::Kind;
use crate::metrics::family::Sample;
use crate::metrics::family::Samples;
use crate::metrics::family::Value;
use crate::metrics::instrument::BOUNDS_US;
use crate::metrics::instrument::Reading;
use crate::metrics::process;
use crate::metrics::table;

/// What the text is, for `Content-Type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// Writes the text.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Exposition {
    /// For these metrics.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Exposition {
        process::open();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Everything(metrics)));
        Exposition(registry)
    }

    /// The values of now.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(32 << 10);
        // Writing into a string does not fail, and the tables' kinds fit their values.
        match text::encode(&mut text, &self.0) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n# EOF\n"),
        }
    }
}

#[derive(Debug)]
struct Everything(Arc<Metrics>);

impl Collector for Everything {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in table::all() {
            encode_family(&mut encoder, family, &self.0)?;
        }
        Ok(())
    }
}

fn encode_family(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    metrics: &Metrics,
) -> fmt::Result {
    let unit = match family.unit {
        "" => None,
        unit => Some(Unit::Other(unit.to_owned())),
    };
    // The library puts the unit behind the name itself.
    let bare = family.name.strip_suffix(family.unit).unwrap_or(family.name).trim_end_matches('_');
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    // And a full stop behind the text.
    let help = family.help.trim_end_matches('.');
    let mut encoder = encoder.encode_descriptor(bare, &format!("{help}."), unit.as_ref(), kind)?;
    let mut samples = Samples::default();
    (family.read)(metrics, &mut samples);
    for Sample { labels, value } in samples.0 {
        if labels.is_empty() {
            encode_value(&mut encoder, family.kind, &value)?;
        } else {
            let labels: Labels = family.labels.iter().copied().zip(labels).collect();
            encode_value(&mut encoder.encode_family(&labels)?, family.kind, &value)?;
        }
    }
    Ok(())
}

fn encode_value(encoder: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => {
            encoder.encode_counter::<Labels, u64, f64>(value, None)
        }
        (Kind::Counter, Value::Time(value)) => {
            encoder.encode_counter::<Labels, f64, f64>(&value.as_secs_f64(), None)
        }
        (Kind::Gauge, Value::Whole(value)) => encoder.encode_gauge(value),
        (Kind::Gauge, Value::Time(value)) => encoder.encode_gauge(&value.as_secs_f64()),
        (Kind::Histogram, Value::Buckets(reading)) => encode_buckets(encoder, reading),
        (Kind::Histogram, _) | (_, Value::Buckets(_)) => Err(fmt::Error),
    }
}

fn encode_buckets(encoder: &mut MetricEncoder<'_>, reading: &Reading) -> fmt::Result {
    let seconds = |us: u64| std::time::Duration::from_micros(us).as_secs_f64();
    let bounds = BOUNDS_US.iter().map(|us| seconds(*us)).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(reading.buckets).collect();
    encoder.encode_histogram::<Labels>(seconds(reading.sum_us), reading.count(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn every_family_is_served_once_and_the_text_ends() {
        let text = Exposition::new(Arc::default()).text();
        let mut served = BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(served.insert((name.to_owned(), kind.to_owned())), "{name} twice");
        }
        let expected: BTreeSet<_> =
            table::all().map(|it| (it.name.to_owned(), it.kind.to_string())).collect();
        assert_eq!(served, expected);
        assert_eq!(served.len(), table::all().count());
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn names_end_with_their_unit_and_have_no_other() {
        for family in table::all() {
            let Family { name, unit, help, .. } = family;
            assert!(name.starts_with("walcast_") || name.starts_with("process_"), "{name}");
            assert!(unit.is_empty() || name.ends_with(&format!("_{unit}")), "{name} {unit}");
            let is_unit = |it: &&str| ["bytes", "seconds"].contains(it);
            assert_eq!(name.rsplit('_').next().filter(is_unit).unwrap_or_default(), *unit);
            assert!(!name.ends_with("_total") && !name.ends_with("_count"), "{name}");
            assert!(help.ends_with('.'), "{name}: {help}");
        }
    }

    #[test]
    fn values_are_written_with_their_labels() {
        let metrics = Arc::new(Metrics::default());
        metrics.refused("no_policy");
        metrics.refused("no_policy");
        let shard = metrics.shard();
        shard.committed(Duration::from_millis(2), 7);
        shard.delivered(3);
        let text = Exposition::new(metrics).text();
        for line in [
            "# UNIT walcast_delivery_commit_to_socket_seconds seconds",
            "walcast_delivery_commit_to_socket_seconds_bucket{le=\"0.001\"} 0",
            "walcast_delivery_commit_to_socket_seconds_bucket{le=\"0.0025\"} 7",
            "walcast_delivery_commit_to_socket_seconds_bucket{le=\"+Inf\"} 7",
            "walcast_delivery_commit_to_socket_seconds_sum 0.014",
            "walcast_refused_total{code=\"no_policy\"} 2",
            "walcast_delivery_frames_total{shard=\"0\"} 3",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }
}
