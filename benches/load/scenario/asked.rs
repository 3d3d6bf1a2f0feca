//! S9: each change is for one of the subscribers, and a policy that is not decided in process says for
//! which: a function in plpgsql with a PERFORM, which looks into another table. So Postgres has to be
//! asked for every one of them, each with claims of its own.
//!
//! Three figures, all in verdicts per second (one change, one client): *new*, where nothing is known
//! (of the smaller crowd only: the larger one would take its answers by the second); *known*, where the
//! policy has seen the like of each row; and *one by one*: the database itself asks one question for
//! each change and client, in a loop, as the neighbour does.

use std::time::Instant;

use crate::Fallible;
use crate::ledger::Ledger;
use crate::servers::Secured;
use crate::servers::Server;
use crate::stage::Shop;
use crate::stage::Stage;
use crate::tally::Wanted;
use crate::writer::End;
use crate::writer::Pace;

use super::Run;
use super::sweep::Steps;
use super::sweep::sweep;

const CONNECTIONS: [usize; 2] = [100, 1_000];
const ROWS_PER_TRANSACTION: u64 = 10;
/// New rows a second for the larger crowd: each is a question for every client.
const GENTLY: f64 = 25.0;
/// What the loop in the database is noted under.
const ONE_BY_ONE: &str = "one-by-one";

const SECURE: &str = "
    create function may_see(customer bigint) returns boolean language plpgsql stable as $$
    begin
        perform 1;
        if customer is null then
            return false;
        end if;
        return exists (select from public.members m where m.customer_id = customer
            and m.user_id = (current_setting('request.jwt.claims', true)::json ->> 'sub')::bigint);
    end $$;
    alter table orders enable row level security;
    create policy everybody on orders to bench_reader using (true);
    create policy asked on orders to bench_asked using (may_see(customer_id));
    create function one_by_one(which bigint, clients integer) returns bigint language plpgsql as $$
    declare
        seen bigint := 0;
        visible boolean;
    begin
        execute format('prepare see as select exists (select from orders where id = %s)', which);
        for client in 0 .. clients - 1 loop
            perform set_config('role', 'bench_asked', true),
                set_config('request.jwt.claims', format('{\"sub\":\"%s\"}', client), true);
            execute 'execute see' into visible;
            if visible then
                seen := seen + 1;
            end if;
        end loop;
        perform set_config('role', 'none', true);
        deallocate see;
        return seen;
    end $$";
const UNSECURE: &str = "
    drop policy everybody on orders;
    drop policy asked on orders;
    drop function may_see, one_by_one;
    alter table orders disable row level security;
    truncate members";

pub(super) fn run(run: &Run<'_>, server: Server, ledger: &mut Ledger) -> Fallible<()> {
    run.ground.database.sql()?.run(SECURE)?;
    let mut outcome = Ok(());
    for full in CONNECTIONS {
        outcome = outcome.and_then(|()| measure(run, server, ledger, full));
    }
    run.ground.database.sql()?.run(UNSECURE)?;
    outcome
}

fn measure(run: &Run<'_>, server: Server, ledger: &mut Ledger, full: usize) -> Fallible<()> {
    let connections = run.size(full);
    let keys = u64::try_from(connections)?;
    let verdicts = connections as f64;
    run.ground.database.sql()?.run("truncate members")?;
    let fill = format!("insert into members select n, n from generate_series(0, {keys} - 1) n");
    run.ground.database.sql()?.run(&fill)?;
    let mut shop = Shop::new(Wanted::Own { keys }, connections);
    shop.secured = Some(Secured::Asked);
    let mut stage = Stage::open(run.ground, server, &shop)?;

    // Each customer's first row: nothing is known of any.
    let is_small = Some(&full) == CONNECTIONS.first();
    let pace = Pace {
        rows_per_second: (!is_small).then_some(GENTLY),
        rows_per_transaction: if is_small { ROWS_PER_TRANSACTION } else { 1 },
        end: End::Rows(keys),
    };
    let first = stage.run(pace)?;
    ledger.stage("asked-new", &first)?;
    if is_small {
        let new = first.deliveries_per_second * verdicts;
        ledger.note(server.name(), &format!("verdicts_new.{full}"), new)?;
    }

    let steps = Steps {
        first: 100.0,
        factor: 1.6,
        last: 200_000.0,
        rows_per_transaction: ROWS_PER_TRANSACTION,
        each: run.duration(3.0),
    };
    let found = sweep(&mut stage, "asked-known", steps, ledger)?;
    let rate = found.best.as_ref().map_or(0.0, |best| best.deliveries_per_second);
    ledger.note(server.name(), &format!("asked.{full}"), rate)?;
    ledger.note(server.name(), &format!("verdicts_known.{full}"), rate * verdicts)?;
    drop(stage);

    let one_by_one = one_by_one(run, connections)?;
    println!("    one by one in the database: {one_by_one:.0} verdicts/s");
    for figure in ["verdicts_new", "verdicts_known"] {
        ledger.note(ONE_BY_ONE, &format!("{figure}.{full}"), one_by_one)?;
    }
    Ok(())
}

/// Verdicts a second of the loop in the database.
fn one_by_one(run: &Run<'_>, connections: usize) -> Fallible<f64> {
    let mut sql = run.ground.database.sql()?;
    let insert = "insert into orders (customer_id, status, seq, sent_at_us) \
                  values (0, 'placed', 1, 1) returning id";
    let id = sql.first_column(insert)?.pop().ok_or("no row was written")?;
    let ask = format!("select one_by_one({id}, {connections})");
    let (began, mut changes) = (Instant::now(), 0_u32);
    while began.elapsed() < run.duration(3.0) {
        if sql.first_column(&ask)? != ["1"] {
            return Err("the database shows the row to others than its one client".into());
        }
        changes += 1;
    }
    Ok(f64::from(changes) * connections as f64 / began.elapsed().as_secs_f64())
}
