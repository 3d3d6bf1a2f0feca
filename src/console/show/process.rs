//! What the process says of itself.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::change::lsn::Lsn;
use crate::console::Console;
use crate::console::View;
use crate::console::answer::Refused;
use crate::console::answer::Table;
use crate::console::answer::Value;
use crate::console::statement::STATEMENTS;
use crate::console::statement::Spec;
use crate::control::Setting;
use crate::control::Stop;
use crate::metrics;
use crate::metrics::family::Samples;
use crate::metrics::family::Value as Counted;

pub(super) fn help() -> Table {
    let row = |spec: &Spec| {
        vec![spec.form.into(), spec.level.name().into(), spec.purpose.replace('`', "").into()]
    };
    Table::of(STATEMENTS.iter().map(row).collect())
}

pub(super) fn version() -> Table {
    Table::one(vec![concat!("walcast ", env!("CARGO_PKG_VERSION")).into()])
}

pub(super) fn state(console: &Console) -> Table {
    let view = &console.view;
    let standing = view.standing.borrow().clone();
    let since = standing.since.elapsed().unwrap_or_default();
    let orders = view.control.state().borrow().clone();
    let stopping = orders.stop.map(|stop| match stop {
        Stop::Drain => "drain",
        Stop::Now => "now",
    });
    let meter = &view.metrics.ingest;
    let received = Lsn::new(meter.received_lsn.get());
    let conditions = view.metrics.health.conditions();
    let said = conditions.iter().map(|it| format!("{}: {}", it.code, it.message));
    let said = said.collect::<Vec<_>>().join("\n");
    Table::one(vec![
        standing.state.name().into(),
        standing.state.why().into(),
        since.as_secs().into(),
        (!conditions.iter().any(|it| it.is_unready)).into(),
        Some(said).filter(|said| !said.is_empty()).into(),
        orders.paused.into(),
        stopping.into(),
        console.began.elapsed().as_secs().into(),
        view.metrics.sessions().into(),
        received.bytes_since(Lsn::new(meter.routed_lsn.get())).into(),
        standing.renewals.into(),
        standing.renewed.map(|renewal| renewal.why.to_string()).into(),
        orders.reloads.into(),
        orders.reload_failed.as_deref().into(),
    ])
}

pub(super) async fn config(view: &View) -> Result<Table, Refused> {
    let settings = view.control.config().await?;
    let row = |setting: Setting| {
        vec![
            setting.name.into(),
            setting.value.into(),
            setting.source.into(),
            setting.reloadable.into(),
        ]
    };
    Ok(Table::of(settings.into_iter().map(row).collect()))
}

pub(super) async fn limits(view: &View) -> Result<Table, Refused> {
    let settings = view.control.config().await?;
    let rings = view.inspector.rings().await?;
    // The rings share what they hold.
    let ring = rings.iter().map(|(_, ring)| ring.bytes).max();
    let oldest = rings.iter().filter_map(|(_, ring)| ring.oldest_seconds).max();
    let is_limit = |name: &str| {
        let section = name.split('.').next().unwrap_or_default();
        matches!(section, "limits" | "snapshot" | "window" | "ring")
            || name == "console.connections_max"
    };
    let row = |setting: Setting| {
        let used: Value = match setting.name.as_str() {
            "limits.outbox_total_bytes_max" => view.metrics.outbox_bytes().into(),
            "ring.bytes_max" => ring.into(),
            "ring.seconds_max" => oldest.into(),
            // What was routed and not confirmed.
            "window.bytes" => {
                let meter = &view.metrics.ingest;
                let confirmed = Lsn::new(meter.confirmed_lsn.get());
                Lsn::new(meter.routed_lsn.get()).bytes_since(confirmed).into()
            }
            _ => Value::Null,
        };
        vec![setting.name.into(), setting.value.into(), used]
    };
    Ok(Table::of(settings.into_iter().filter(|it| is_limit(&it.name)).map(row).collect()))
}

pub(super) fn errors(view: &View) -> Table {
    let counted = view.metrics.read().into_iter().filter_map(|(name, count)| {
        let (kind, code) = name.split_once('.')?;
        Some(vec![kind.into(), code.into(), count.into()])
    });
    let tokens = view.metrics.auth.rejected.get().into_iter();
    let tokens = tokens.map(|(code, count)| vec!["token".into(), code.into(), count.into()]);
    Table::of(counted.chain(tokens).collect())
}

pub(super) fn stats(view: &View) -> Table {
    let mut rows = Vec::new();
    for family in metrics::table::all() {
        let mut samples = Samples::default();
        (family.read)(&view.metrics, &mut samples);
        for sample in samples.all() {
            let labels = family.labels.iter().zip(&sample.labels);
            let labels = labels.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
            let labels = Value::from(Some(labels.join(", ")).filter(|it| !it.is_empty()));
            let name = family.served_name();
            let mut row = |name: String, value: Value, unit: &'static str| {
                rows.push(vec![name.into(), labels.clone(), value, unit.into()]);
            };
            match sample.value {
                Counted::Whole(number) => row(name, number.into(), family.unit),
                Counted::Time(time) => row(name, microseconds(time), MICROSECONDS),
                Counted::Buckets(reading) => {
                    row(format!("{name}_count"), reading.count().into(), "");
                    row(format!("{name}_sum"), reading.sum_us.into(), MICROSECONDS);
                }
            }
        }
    }
    Table::of(rows)
}

const MICROSECONDS: &str = "microseconds";

fn microseconds(time: Duration) -> Value {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).into()
}

pub(super) async fn mem(view: &View) -> Result<Table, Refused> {
    let rings = view.inspector.rings().await?;
    let ring = rings.iter().map(|(_, ring)| ring.bytes).max().unwrap_or_default();
    let mut rows: Vec<Vec<Value>> = vec![
        vec!["ring".into(), ring.into()],
        vec!["outboxes".into(), view.metrics.outbox_bytes().into()],
        vec!["received, not yet routed".into(), view.metrics.ingest.in_flight_bytes.get().into()],
    ];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (key, name) in [("VmRSS:", "process"), ("VmHWM:", "process, at most so far")] {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        rows.extend(kibibytes.map(|kibibytes| vec![name.into(), (kibibytes * 1024).into()]));
    }
    Ok(Table::of(rows))
}

pub(super) fn fds() -> Table {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        let kind = match target.split(':').next() {
            Some("socket") => "socket",
            Some("pipe") => "pipe",
            Some("anon_inode") => "event",
            _ => "file",
        };
        *kinds.entry(kind).or_default() += 1;
    }
    let mut rows: Vec<Vec<Value>> =
        kinds.into_iter().map(|(kind, count)| vec![kind.into(), count.into()]).collect();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = limit.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    rows.extend(soft.map(|soft| vec!["limit".into(), soft.into()]));
    Table::of(rows)
}
