//! Those who write: each has rows of its own, shares some with the others, and chains what it
//! writes, so that a gap in the truth itself would be seen.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;

use crate::dice::Dice;
use crate::guard;
use crate::guard::PEOPLE;
use crate::plan::Profile;
use crate::schema::GUARDED;
use crate::schema::REGIONS;
use crate::schema::STATUSES;
use crate::schema::TABLES;
use crate::server::Server;
use crate::truth::link;

/// Rows that all writers share have smaller ids than this.
const SHARED: u64 = 60;
/// How many people there are who have no clients.
const OTHERS: u64 = 20;
/// How many ids a writer has for itself.
const OWN: u64 = 150;

/// What the writers did.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// A moment before each COMMIT was sent, by writer and number of the transaction.
    pub(crate) sent: Mutex<HashMap<(i64, i64), Instant>>,
    pub(crate) committed: AtomicU64,
}

/// One writer.
pub(crate) struct Writer {
    pub(crate) server: Server,
    pub(crate) number: i64,
    pub(crate) dice: Dice,
    pub(crate) profile: Profile,
    pub(crate) written: Arc<Written>,
    state: State,
}

/// How far a writer is; the ledger has the same once it committed.
#[derive(Clone, Debug, Default)]
struct State {
    transaction: i64,
    number: i64,
    chain: String,
}

/// What was written steadily, and since when.
struct Steady {
    since: Instant,
    rows: u64,
}

type Failed = tokio_postgres::Error;

impl Writer {
    pub(crate) fn new(
        server: Server,
        number: i64,
        profile: Profile,
        dice: Dice,
        written: Arc<Written>,
    ) -> Writer {
        Writer { server, number, dice, profile, written, state: State::default() }
    }

    /// Writes until told to stop, over as many connections as it takes.
    pub(crate) async fn run(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let client = self.server.connect_soon().await;
            if self.recover(&client).await.is_err() {
                continue;
            }
            let mut steady = Steady { since: Instant::now(), rows: 0 };
            while !*stop.borrow() {
                let done = if self.profile.steady {
                    self.steadily(&client, &mut steady).await
                } else {
                    self.transaction(&client).await
                };
                if let Err(error) = done {
                    let lost = client.is_closed() || error.as_db_error().is_none();
                    if lost || client.batch_execute("ROLLBACK").await.is_err() {
                        break;
                    }
                    if self.recover(&client).await.is_err() {
                        break;
                    }
                }
                sleep(self.pause()).await;
            }
        }
    }

    fn pause(&mut self) -> Duration {
        if self.profile.steady {
            return Duration::from_millis(5);
        }
        let writers = u64::try_from(self.profile.writers).unwrap();
        let mean = 1000 * writers / self.profile.rate;
        self.dice.milliseconds(0, 2 * mean)
    }

    /// Reads from the ledger how far it is: whether the last COMMIT counted is not known otherwise.
    async fn recover(&mut self, client: &Client) -> Result<(), Failed> {
        let insert = format!(
            "INSERT INTO ledger VALUES ({}, 0, 0, '') ON CONFLICT (writer) DO NOTHING",
            self.number
        );
        client.batch_execute(&insert).await?;
        let query =
            format!("SELECT transaction, number, chain FROM ledger WHERE writer = {}", self.number);
        let row = client.query_one(&query, &[]).await?;
        self.state = State { transaction: row.get(0), number: row.get(1), chain: row.get(2) };
        Ok(())
    }

    async fn transaction(&mut self, client: &Client) -> Result<(), Failed> {
        let before = self.state.clone();
        client.batch_execute("BEGIN").await?;
        match self.dice.below(100) {
            0 => self.many(client).await?,
            _ => {
                for _ in 0..self.dice.between(1, 5) {
                    self.step(client).await?;
                }
            }
        }
        if self.dice.chance(3) {
            client.batch_execute("ROLLBACK").await?;
            self.state = before;
            return Ok(());
        }
        self.commit(client).await
    }

    /// Inserts what is due by now, of a thousand rows a second.
    async fn steadily(&mut self, client: &Client, steady: &mut Steady) -> Result<(), Failed> {
        let due = u64::try_from(steady.since.elapsed().as_millis()).unwrap();
        let count = (due - steady.rows).min(200);
        if count == 0 {
            return Ok(());
        }
        client.batch_execute("BEGIN").await?;
        let first = u64::try_from(self.state.number).unwrap() + 1;
        self.insert("orders", first, count, client).await?;
        steady.rows += count;
        self.commit(client).await
    }

    async fn commit(&mut self, client: &Client) -> Result<(), Failed> {
        self.state.transaction += 1;
        let State { transaction, number, chain } = &self.state;
        let ledger = format!(
            "UPDATE ledger SET transaction = {transaction}, number = {number}, chain = '{chain}' \
             WHERE writer = {}",
            self.number
        );
        client.batch_execute(&ledger).await?;
        let key = (self.number, *transaction);
        self.written.sent.lock().unwrap().insert(key, Instant::now());
        client.batch_execute("COMMIT").await?;
        self.written.committed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// One statement, or some of them in a savepoint that may be rolled back.
    async fn step(&mut self, client: &Client) -> Result<(), Failed> {
        if !self.dice.chance(8) {
            return self.statement(client).await;
        }
        let before = self.state.clone();
        client.batch_execute("SAVEPOINT s").await?;
        self.statement(client).await?;
        self.statement(client).await?;
        if self.dice.chance(50) {
            client.batch_execute("ROLLBACK TO SAVEPOINT s").await?;
            self.state = before;
        } else {
            client.batch_execute("RELEASE SAVEPOINT s").await?;
        }
        Ok(())
    }

    /// Grants or revokes a membership: seldom of somebody who watches, because everything is void to
    /// them then. In the same transaction a row or two of the region change, before it or after it.
    async fn membership(&mut self, client: &Client) -> Result<(), Failed> {
        let (team, other) = (self.dice.below(REGIONS), self.dice.below(REGIONS));
        let watches = self.dice.chance(15);
        let who = if watches {
            self.dice.pick(&PEOPLE).sub.to_owned()
        } else {
            format!("other{}", self.dice.below(OTHERS))
        };
        if watches && self.dice.chance(50) {
            self.touch(team, client).await?;
        }
        let text = guard::statement(&who, team, other, self.dice.below(10));
        client.batch_execute(&text).await?;
        if watches && self.dice.chance(50) {
            self.touch(team, client).await?;
        }
        Ok(())
    }

    /// Changes a row that members of a region see.
    async fn touch(&mut self, region: u64, client: &Client) -> Result<(), Failed> {
        // Of `docs` the whole old row is in the log, so that it is judged by what was before.
        let table = if self.dice.chance(50) { "docs" } else { *self.dice.pick(&GUARDED) };
        let query = format!(
            "SELECT id FROM {table} WHERE region = {region} AND id > 0 ORDER BY id LIMIT 1 OFFSET {}",
            self.dice.below(10)
        );
        let Some(row) = client.query_opt(&query, &[]).await? else { return Ok(()) };
        let id = u64::try_from(row.get::<_, i64>(0)).unwrap();
        let (number, chain) = self.next_link(id);
        let text = format!(
            "UPDATE {table} SET amount = {}, writer = {}, number = {number}, chain = '{chain}' \
             WHERE id = {id}",
            self.dice.below(1000),
            self.number
        );
        let done = client.simple_query(&text).await?;
        if done.iter().any(is_one) {
            (self.state.number, self.state.chain) = (number, chain);
        }
        Ok(())
    }

    fn table(&mut self) -> &'static str {
        let place = usize::try_from(self.dice.below(7)).unwrap();
        TABLES.iter().chain(&GUARDED).nth(place).unwrap()
    }

    async fn statement(&mut self, client: &Client) -> Result<(), Failed> {
        if self.dice.chance(4) {
            return self.membership(client).await;
        }
        let table = self.table();
        let id = self.id();
        let kind = self.dice.below(10);
        // The link names the id that the row has afterwards.
        let new = if kind == 8 && id > SHARED { self.own_id() } else { id };
        let (number, chain) = self.next_link(new);
        let stamp = format!("writer = {}, number = {number}, chain = '{chain}'", self.number);
        let text = match kind {
            0..=4 => {
                let row = self.row(id, number, &chain, false);
                format!(
                    "INSERT INTO {table} (id, region, status, amount, note, writer, number, chain) \
                     VALUES {row} ON CONFLICT (id) DO UPDATE SET region = excluded.region, \
                     status = excluded.status, amount = excluded.amount, note = excluded.note, \
                     writer = excluded.writer, number = excluded.number, chain = excluded.chain"
                )
            }
            5 | 6 => {
                let status = self.dice.pick(&STATUSES);
                format!("UPDATE {table} SET status = '{status}', {stamp} WHERE id = {id}")
            }
            7 => {
                let (region, amount) = (self.dice.below(REGIONS), self.dice.below(1000));
                format!(
                    "UPDATE {table} SET region = {region}, amount = {amount}, {stamp} \
                     WHERE id = {id}"
                )
            }
            8 => format!(
                "UPDATE {table} SET id = {new}, {stamp} WHERE id = {id} AND id <> {new} \
                 AND NOT EXISTS (SELECT FROM {table} WHERE id = {new})"
            ),
            _ => format!("DELETE FROM {table} WHERE id = {id}"),
        };
        let done = client.simple_query(&text).await?;
        if kind != 9 && done.iter().any(is_one) {
            (self.state.number, self.state.chain) = (number, chain);
        }
        Ok(())
    }

    /// Many rows at once, and sometimes their end.
    async fn many(&mut self, client: &Client) -> Result<(), Failed> {
        let table = self.table();
        let first = self.base() + 10_000;
        let last = first + 2000;
        let delete = format!("DELETE FROM {table} WHERE id BETWEEN {first} AND {last}");
        client.batch_execute(&delete).await?;
        if self.dice.chance(30) {
            return Ok(());
        }
        let count = self.dice.between(100, 1500);
        self.insert(table, first, count, client).await
    }

    async fn insert(
        &mut self,
        table: &str,
        first: u64,
        count: u64,
        client: &Client,
    ) -> Result<(), Failed> {
        let mut text = format!(
            "INSERT INTO {table} (id, region, status, amount, note, writer, number, chain) VALUES "
        );
        // Large ones make a transaction of several megabytes, which is handed on in parts.
        let large = !self.profile.steady && self.dice.chance(10);
        for place in 0..count {
            let id = first + place;
            let (number, chain) = self.next_link(id);
            let row = self.row(id, number, &chain, large);
            let comma = if place == 0 { "" } else { ", " };
            write!(text, "{comma}{row}").unwrap();
            (self.state.number, self.state.chain) = (number, chain);
        }
        client.batch_execute(&text).await
    }

    fn next_link(&self, id: u64) -> (i64, String) {
        let number = self.state.number + 1;
        let chain = link(&self.state.chain, self.number, number, Some(&id.to_string()));
        (number, chain)
    }

    /// The values of a row.
    fn row(&mut self, id: u64, number: i64, chain: &str, large: bool) -> String {
        let (region, status) = (self.dice.below(REGIONS), *self.dice.pick(&STATUSES));
        let amount = match self.dice.below(10) {
            0 => "NULL".to_owned(),
            _ => self.dice.below(1000).to_string(),
        };
        let note = match self.dice.below(40) {
            _ if large => format!("'{}'", chain.repeat(200)),
            0 => format!("'{}'", chain.repeat(300)),
            1..=9 => "NULL".to_owned(),
            10 => "'it''s a \\ \"note\"\nof two lines, 中'".to_owned(),
            _ => format!("'{chain}'"),
        };
        format!(
            "({id}, {region}, '{status}', {amount}, {note}, {}, {number}, '{chain}')",
            self.number
        )
    }

    fn id(&mut self) -> u64 {
        if self.dice.chance(20) { self.dice.between(1, SHARED) } else { self.own_id() }
    }

    fn own_id(&mut self) -> u64 {
        self.base() + self.dice.below(OWN)
    }

    fn base(&self) -> u64 {
        u64::try_from(self.number).unwrap() * 100_000
    }
}

/// Whether a statement changed one row.
fn is_one(message: &SimpleQueryMessage) -> bool {
    matches!(message, SimpleQueryMessage::CommandComplete(1))
}
