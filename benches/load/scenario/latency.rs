//! S3: a quiet system. How long from before the commit to the client's socket.

use std::time::Duration;

use crate::Fallible;
use crate::ledger::Ledger;
use crate::servers::Server;
use crate::stage::Shop;
use crate::stage::Stage;
use crate::tally::Wanted;
use crate::writer::End;
use crate::writer::Pace;

use super::Run;

const CONNECTIONS: usize = 100;
const CHANGES_PER_SECOND: f64 = 50.0;

pub(super) fn run(run: &Run<'_>, server: Server, ledger: &mut Ledger) -> Fallible<()> {
    let shop = Shop::new(Wanted::Everything, CONNECTIONS);
    let mut stage = Stage::open(run.ground, server, &shop)?;
    let pace = |duration: Duration| Pace {
        rows_per_second: Some(CHANGES_PER_SECOND),
        rows_per_transaction: 1,
        end: End::After(duration),
    };
    let warm = stage.run(pace(run.duration(2.0)))?;
    ledger.stage("latency-warm-up", &warm)?;
    let outcome = stage.run(pace(run.duration(8.0)))?;
    ledger.stage("latency", &outcome)?;
    ledger.note(server.name(), "latency_p50_ms", outcome.p50_ms)?;
    ledger.note(server.name(), "latency_p95_ms", outcome.p95_ms)?;
    ledger.note(server.name(), "latency_p99_ms", outcome.p99_ms)?;
    ledger.note(server.name(), "latency_commit_p50_ms", outcome.commit_p50_ms)
}
