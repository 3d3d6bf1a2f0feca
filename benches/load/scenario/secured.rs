//! S8: each change is for one of the subscribers whom the database's own row-level security lets see
//! it; nobody has a filter. How many changes a second, and whether it matters how the policy says it.

use crate::Fallible;
use crate::ledger::Ledger;
use crate::servers::Secured;
use crate::servers::Server;
use crate::stage::Shop;
use crate::stage::Stage;
use crate::tally::Wanted;

use super::Run;
use super::sweep::Steps;
use super::sweep::sweep;

/// As many as the neighbour was measured with.
const CONNECTIONS: usize = 5_000;
/// As in S2.
const ROWS_PER_TRANSACTION: u64 = 50;
/// How many memberships there are: twice as many as who is there.
const MEMBERS: u64 = 10_000;

const SECURE: &str = "
    alter table orders enable row level security;
    create policy everybody on orders to bench_reader using (true);
    create policy owners on orders to bench_owner
        using (customer_id = (current_setting('request.jwt.claims', true)::json ->> 'sub')::bigint);
    create policy members on orders to bench_member
        using (exists (select from members m where m.customer_id = orders.customer_id
            and m.user_id = (current_setting('request.jwt.claims', true)::json ->> 'sub')::bigint))";
const UNSECURE: &str = "
    drop policy everybody on orders;
    drop policy owners on orders;
    drop policy members on orders;
    alter table orders disable row level security;
    truncate members";

pub(super) fn run(run: &Run<'_>, server: Server, ledger: &mut Ledger) -> Fallible<()> {
    run.ground.database.sql()?.run(SECURE)?;
    let fill = format!("insert into members select n, n from generate_series(0, {MEMBERS} - 1) n");
    run.ground.database.sql()?.run(&fill)?;
    let mut outcome = Ok(());
    for (secured, connections) in [
        (Secured::Owner, 1),
        (Secured::Owner, run.size(CONNECTIONS)),
        (Secured::Owner, run.size(2 * CONNECTIONS)),
        (Secured::Member, 1),
        (Secured::Member, run.size(CONNECTIONS)),
        (Secured::Member, run.size(2 * CONNECTIONS)),
    ] {
        outcome = outcome.and_then(|()| measure(run, server, ledger, (secured, connections)));
    }
    run.ground.database.sql()?.run(UNSECURE)?;
    outcome
}

fn measure(
    run: &Run<'_>,
    server: Server,
    ledger: &mut Ledger,
    (secured, connections): (Secured, usize),
) -> Fallible<()> {
    let keys = u64::try_from(connections)?;
    let mut shop = Shop::new(Wanted::Own { keys }, connections);
    shop.secured = Some(secured);
    let mut stage = Stage::open(run.ground, server, &shop)?;
    let each = run.duration(3.0);
    let (first, factor, last) = (8_000.0, 1.5, 500_000.0);
    let steps = Steps { first, factor, last, rows_per_transaction: ROWS_PER_TRANSACTION, each };
    let found = sweep(&mut stage, "secured", steps, ledger)?;
    let name = format!("{}.{}", secured.name(), connections);
    let rate = found.best.as_ref().map_or(0.0, |best| best.deliveries_per_second);
    ledger.note(server.name(), &name, rate)?;
    if let Some(best) = found.best {
        ledger.note(server.name(), &format!("{name}_cpu_us"), best.cpu_us_per_delivery())?;
    }
    Ok(())
}
