//! One run: everything is started, faults are done, everything is healed, and then what was seen is
//! checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Mutex as Turn;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::sleep_until;
use tokio::time::timeout;

use crate::check::Checker;
use crate::check::Findings;
use crate::clients::Client;
use crate::clients::Contact;
use crate::dice::Dice;
use crate::filter::Wanted;
use crate::guard;
use crate::inject::Done;
use crate::inject::Stage;
use crate::log;
use crate::log::Entry;
use crate::plan::Fault;
use crate::plan::Plan;
use crate::program::Program;
use crate::proxy::Proxy;
use crate::schema;
use crate::schema::STATUSES;
use crate::server::Server;
use crate::truth;
use crate::writers::Writer;
use crate::writers::Written;

/// How long everybody may take to come to the last row, when everything is healed.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long they may take until another last row is written.
const END_AGAIN: Duration = Duration::from_secs(10);

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) transactions: usize,
    pub(crate) changes: usize,
    pub(crate) findings: Findings,
    /// How walcast ended by itself, each time: it never should.
    pub(crate) ended: Vec<String>,
    pub(crate) done: Vec<Done>,
    /// What each client saw.
    pub(crate) logs: Vec<Vec<Entry>>,
}

/// Does a plan.
pub(crate) async fn run(plan: &Plan) -> Outcome {
    let server = Server::start().await;
    let sql = server.connect().await.unwrap();
    sql.batch_execute(&schema::statements(plan.profile.by_root)).await.unwrap();
    truth::begin(&sql).await;
    drop(sql);
    let far = Proxy::start(server.port()).await;
    let program = Program::start(far.port, plan.profile);
    let near = Proxy::start(program.port).await;
    let contacts: Vec<_> = plan.clients.iter().map(|_| Contact::new()).collect();
    let stage = Arc::new(Stage {
        server: server.clone(),
        program,
        near,
        far,
        contacts,
        done: Mutex::default(),
        server_turn: Turn::default(),
        program_turn: Turn::default(),
        table_turn: Turn::default(),
        altered: Mutex::default(),
    });
    let (stop_writing, written, mut writers) = writers(plan, &server);
    let (stop_watching, mut clients) = clients(plan, &stage);
    faults(plan, &stage).await;
    heal(&stage).await;
    stop_writing.send_replace(true);
    ended(&mut writers).await;
    let arrived = end(plan, &stage).await;
    stop_watching.send_replace(true);
    ended(&mut clients).await;
    let logs: Vec<_> = stage.contacts.iter().map(|contact| contact.log.take()).collect();
    let outcome = judge(plan, &stage, &written, logs).await;
    if !outcome.findings.violations.is_empty() || !arrived {
        keep(plan, &stage, &outcome);
    }
    outcome
}

fn writers(plan: &Plan, server: &Server) -> (watch::Sender<bool>, Arc<Written>, JoinSet<()>) {
    let (stop, stopped) = watch::channel(false);
    let written = Arc::new(Written::default());
    let mut tasks = JoinSet::new();
    for number in 1..=plan.profile.writers {
        let dice = Dice::new(plan.seed, 1000 + u64::try_from(number).unwrap());
        let written = Arc::clone(&written);
        let writer = Writer::new(server.clone(), number, plan.profile, dice, written);
        tasks.spawn(writer.run(stopped.clone()));
    }
    (stop, written, tasks)
}

fn clients(plan: &Plan, stage: &Stage) -> (watch::Sender<bool>, JoinSet<()>) {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for ((client, contact), part) in plan.clients.iter().zip(&stage.contacts).zip(2000..) {
        let dice = Dice::new(plan.seed, part);
        let client = Client::new(client.clone(), stage.near.port, dice, Arc::clone(contact));
        tasks.spawn(client.run(stopped.clone()));
    }
    (stop, tasks)
}

/// Does each fault at its time. One does not wait for the one before.
async fn faults(plan: &Plan, stage: &Arc<Stage>) {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for ((at, fault), part) in plan.faults.iter().zip(3000..) {
        sleep_until(began + *at).await;
        tasks.spawn(Arc::clone(stage).inject(*fault, Dice::new(plan.seed, part)));
    }
    sleep_until(began + plan.lasts).await;
    ended(&mut tasks).await;
}

/// Waits until all tasks have ended; one that panicked ends the run.
async fn ended(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Everything runs and flows again.
async fn heal(stage: &Stage) {
    stage.server.run().await;
    stage.server.release_commits().await;
    stage.near.heal();
    stage.far.heal();
    while !stage.alter_policy(&STATUSES).await {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Writes a last row for each subscription until everybody has seen one: a client that is told to
/// begin anew, because it was away too long, does not see what was written before.
async fn end(plan: &Plan, stage: &Stage) -> bool {
    let deadline = Instant::now() + PATIENCE;
    for round in 0.. {
        write_ends(plan, &stage.server, round).await;
        if timeout(END_AGAIN, everybody_arrives(plan, stage)).await.is_ok() {
            return true;
        }
        if Instant::now() > deadline {
            break;
        }
    }
    false
}

/// Writes one last row for each subscription, which it must see, and lets it see it.
async fn write_ends(plan: &Plan, server: &Server, round: i64) {
    let client = server.connect_soon().await;
    for (watch, number) in plan.watches().zip(1 + 100 * round..) {
        let mut row = Wanted { region: 0, status: "open", amount: 500 };
        watch.filter.satisfy(&mut row);
        let Wanted { region, status, amount } = row;
        if let Some(sub) = guard::member(watch.table, watch.identity) {
            // It is begun anew only where it did not see the region.
            let join = format!(
                "INSERT INTO members VALUES ({region}, '{sub}', true) ON CONFLICT (team, who) \
                 DO UPDATE SET active = true WHERE NOT members.active"
            );
            client.batch_execute(&join).await.unwrap();
        }
        let parity = match watch.table {
            "events_even" | "events_odd" => leaf_id(&client, watch.table, number).await,
            _ => -number,
        };
        let table = if watch.table.starts_with("events") { "events" } else { watch.table };
        let text = format!(
            "INSERT INTO {table} (id, region, status, amount, writer, number, chain) \
             VALUES ({parity}, {region}, '{status}', {amount}, -1, {number}, '{}')",
            watch.end()
        );
        client.batch_execute(&text).await.unwrap();
    }
}

/// An id that belongs to a leaf.
async fn leaf_id(client: &tokio_postgres::Client, leaf: &str, number: i64) -> i64 {
    let remainder = i32::from(leaf == "events_odd");
    let query = format!(
        "SELECT -(1000 * {number} + n)::bigint FROM generate_series(1, 999) n \
         WHERE satisfies_hash_partition('events'::regclass, 2, {remainder}, -(1000 * {number} + n)::bigint) \
         LIMIT 1"
    );
    let row = client.query_one(&query, &[]).await.unwrap();
    row.get(0)
}

async fn everybody_arrives(plan: &Plan, stage: &Stage) {
    for (client, contact) in plan.clients.iter().zip(&stage.contacts) {
        let mut arrived = contact.arrived.subscribe();
        let _count = arrived.wait_for(|count| *count == client.watches.len()).await;
    }
    // What would come twice has a moment to come.
    sleep(Duration::from_millis(300)).await;
}

async fn judge(plan: &Plan, stage: &Stage, written: &Written, logs: Vec<Vec<Entry>>) -> Outcome {
    let sql = stage.server.connect_soon().await;
    let sent = written.sent.lock().unwrap().clone();
    let altered = stage.altered.lock().unwrap().clone();
    let truth = truth::read(&sql, plan.profile.by_root, &sent, &altered).await;
    let done = stage.done.lock().unwrap().clone();
    let mut checker = Checker::new(plan, &truth, &done);
    for (number, log) in logs.iter().enumerate() {
        checker.client(number, log);
    }
    let mut findings = checker.end_all();
    let log = stage.program.log();
    if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
        findings.violations.push(format!("walcast panicked: {line}"));
    }
    let committed = usize::try_from(written.committed.load(Ordering::Relaxed)).unwrap();
    if truth.transactions.len() < committed {
        findings.violations.push(format!("{committed} committed, fewer in the truth"));
    }
    let ended = stage.program.ended.lock().unwrap().clone();
    if !ended.is_empty() {
        findings.violations.push(format!("walcast ended by itself: {}", ended.join("; ")));
    }
    let mut faults = BTreeMap::new();
    for done in &done {
        *faults.entry(done.fault).or_default() += 1;
    }
    let changes = truth.transactions.iter().map(|it| it.changes.len()).sum();
    let transactions = truth.transactions.len();
    Outcome { faults, transactions, changes, findings, ended, done, logs }
}

/// Keeps what a person needs to see why.
fn keep(plan: &Plan, stage: &Stage, outcome: &Outcome) {
    let logs = &outcome.logs;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-seed-{}", plan.seed));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("walcast.log"), stage.program.log()).unwrap();
    let _copied = fs::copy(stage.server.log_path(), folder.join("postgres.log"));
    let beginnings = logs.iter().filter_map(|log| log.first()).map(|entry| entry.at);
    let Some(beginning) = beginnings.min() else { return };
    for (number, entries) in logs.iter().enumerate() {
        let text = log::shown(entries, beginning);
        fs::write(folder.join(format!("client-{number}.log")), text).unwrap();
    }
    let mut faults = format!("{plan:#?}\n");
    for Done { fault, began_at, ended_at } in &outcome.done {
        let at = |at: Instant| at.saturating_duration_since(beginning).as_secs_f64();
        faults.push_str(&format!("{:10.4} {:10.4} {fault:?}\n", at(*began_at), at(*ended_at)));
    }
    fs::write(folder.join("plan"), faults).unwrap();
    println!("the logs are in {}", folder.display());
}
