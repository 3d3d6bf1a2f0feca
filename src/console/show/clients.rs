//! What the shards say.

use crate::change::lsn::Lsn;
use crate::console::View;
use crate::console::answer::Refused;
use crate::console::answer::Table;
use crate::console::answer::Value;
use crate::route::inspect::GroupRow;
use crate::route::inspect::RingRow;
use crate::route::inspect::SessionRow;
use crate::route::inspect::SubscriptionRow;
use crate::serve::inspect::Listed;

pub(super) async fn clients(view: &View, limit: usize) -> Result<Table, Refused> {
    let inspector = &view.inspector;
    let row = |(shard, row): (usize, SessionRow)| {
        let state = match (row.closing, row.behind) {
            (true, _) => "closing",
            (false, true) => "behind",
            (false, false) => "live",
        };
        vec![
            inspector.id_of(shard, row.number).into(),
            row.transport.name().into(),
            row.address.map(|address| address.to_string()).into(),
            row.subject.as_deref().into(),
            row.role.as_deref().into(),
            row.seconds.into(),
            row.silent_seconds.into(),
            row.subscriptions.into(),
            state.into(),
            row.outbox_bytes.into(),
            row.lag_bytes.into(),
            row.cursor.map(|cursor| cursor.to_string()).into(),
            row.frames.into(),
            row.bytes.into(),
            shard.into(),
        ]
    };
    Ok(listed(inspector.sessions(limit).await?, limit, row))
}

pub(super) async fn subscriptions(view: &View, limit: usize) -> Result<Table, Refused> {
    let inspector = &view.inspector;
    let row = |(shard, row): (usize, SubscriptionRow)| {
        vec![
            inspector.id_of(shard, row.session).into(),
            (&*row.id).into(),
            row.table.into(),
            row.filter.as_deref().into(),
            row.columns.into(),
            row.events.into(),
            row.throttle.into(),
            row.state.into(),
            row.tier.name().into(),
            group(shard, row.group).into(),
        ]
    };
    Ok(listed(inspector.subscriptions(limit).await?, limit, row))
}

pub(super) async fn groups(view: &View, limit: usize) -> Result<Table, Refused> {
    let row = |(shard, row): (usize, GroupRow)| {
        vec![
            group(shard, row.number).into(),
            row.table.into(),
            row.indexed_by.into(),
            row.rule.into(),
            row.reads.into(),
            row.columns.into(),
            row.events.into(),
            row.dialect.into(),
            row.members.into(),
            row.attached.into(),
            row.names.into(),
        ]
    };
    Ok(listed(view.inspector.groups(limit).await?, limit, row))
}

pub(super) async fn ring(view: &View) -> Result<Table, Refused> {
    let rings = view.inspector.rings().await?;
    let row = |(shard, ring): (usize, RingRow)| {
        vec![
            shard.into(),
            ring.tail.lsn.to_string().into(),
            ring.head.lsn.to_string().into(),
            ring.transactions.into(),
            ring.bytes.into(),
            ring.bytes_max.into(),
            ring.oldest_seconds.into(),
            ring.newest_seconds.into(),
            ring.seconds_max.into(),
            ring.waiting.into(),
        ]
    };
    Ok(Table::of(rings.into_iter().map(row).collect()))
}

pub(super) async fn lag(view: &View) -> Result<Table, Refused> {
    let meters = &view.metrics.ingest;
    let received = Lsn::new(meters.received_lsn.get());
    let stage = |name: String, lsn: Lsn| {
        vec![name.into(), lsn.to_string().into(), received.bytes_since(lsn).into()]
    };
    let routed = Lsn::new(meters.routed_lsn.get());
    let confirmed = Lsn::new(meters.confirmed_lsn.get());
    let mut rows = vec![
        stage("received".to_owned(), received),
        stage("routed".to_owned(), routed),
        stage("confirmed".to_owned(), confirmed),
    ];
    for (shard, ring) in view.inspector.rings().await? {
        rows.push(stage(format!("shard {shard}"), ring.matched.lsn));
    }
    Ok(Table::of(rows))
}

/// The name of a group.
fn group(shard: usize, number: usize) -> String {
    format!("{shard}-{number}")
}

fn listed<T>(listed: Listed<T>, limit: usize, row: impl Fn((usize, T)) -> Vec<Value>) -> Table {
    let more = listed.more || listed.rows.len() > limit;
    let notice = format!("there are more than {limit}; LIMIT shows more of them");
    let rows = listed.rows.into_iter().take(limit).map(row).collect();
    Table::of(rows).with_notice(more.then_some(notice))
}
