//! How each fault is done. What is done is noted with its time, so that the checker knows what can
//! have followed from it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Mutex as Turn;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;
use walcast::cli::demo::postgres::Stop;

use crate::clients::Contact;
use crate::dice::Dice;
use crate::plan::Fault;
use crate::program::Program;
use crate::proxy::Flow;
use crate::proxy::Proxy;
use crate::schema::STATUSES;
use crate::schema::alter_policy;
use crate::schema::note_shape;
use crate::server::Server;
use crate::server::kill;
use crate::server::pause;
use crate::server::reload;

/// A fault that was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) fault: Fault,
    pub(crate) began_at: Instant,
    pub(crate) ended_at: Instant,
}

/// Everything that a fault can be done to.
pub(crate) struct Stage {
    pub(crate) server: Server,
    pub(crate) program: Program,
    pub(crate) near: Proxy,
    pub(crate) far: Proxy,
    pub(crate) contacts: Vec<Arc<Contact>>,
    pub(crate) done: Mutex<Vec<Done>>,
    /// Whoever stops or starts Postgres.
    pub(crate) server_turn: Turn<()>,
    /// Whoever stops or starts walcast.
    pub(crate) program_turn: Turn<()>,
    /// Whoever changes a table.
    pub(crate) table_turn: Turn<()>,
    /// A moment before each alteration of a policy was sent, by its number.
    pub(crate) altered: Mutex<HashMap<i64, Instant>>,
}

impl Stage {
    /// Does one fault, to its end.
    pub(crate) async fn inject(self: Arc<Stage>, fault: Fault, mut dice: Dice) {
        let began_at = Instant::now();
        let was_done = match fault {
            Fault::WalcastKilled | Fault::WalcastPaused | Fault::WalcastDrained => {
                self.to_walcast(fault, &mut dice).await
            }
            Fault::PostgresKilled
            | Fault::PostgresStoppedFast
            | Fault::PostgresStoppedAtOnce
            | Fault::PostgresPaused
            | Fault::BackendKilled
            | Fault::WalsenderTerminated
            | Fault::WalsenderPaused
            | Fault::CommitsHeldUp => self.to_postgres(fault, &mut dice).await,
            Fault::ClientsCut
            | Fault::ClientsHalfOpen
            | Fault::ClientsFrozen
            | Fault::ClientsSlow => self.to_connections(&self.near, fault, &mut dice).await,
            Fault::UpstreamCut
            | Fault::UpstreamHalfOpen
            | Fault::UpstreamFrozen
            | Fault::UpstreamSlow => self.to_connections(&self.far, fault, &mut dice).await,
            Fault::ReadersStop => self.to_readers(&mut dice),
            Fault::ClientsForget => self.let_forget(&mut dice),
            Fault::SlotDropped => self.drop_slot().await,
            Fault::TableUnpublished
            | Fault::ColumnAdded
            | Fault::ColumnRenamed
            | Fault::ColumnDropped
            | Fault::TypeChanged
            | Fault::IdentityChanged
            | Fault::TableTruncated => self.to_a_table(fault, &mut dice).await,
            Fault::PolicyAltered => {
                let statuses: Vec<&str> =
                    STATUSES.into_iter().filter(|_| dice.chance(50)).collect();
                self.alter_policy(if statuses.is_empty() { &["done"] } else { &statuses }).await
            }
            Fault::MembersTruncated => {
                let client = self.server.connect_soon().await;
                let text = "SET lock_timeout = '5s'; TRUNCATE members";
                client.batch_execute(text).await.is_ok()
            }
        };
        if was_done {
            let done = Done { fault, began_at, ended_at: Instant::now() };
            self.done.lock().unwrap().push(done);
        }
    }

    /// Lets staff see other statuses from now on.
    pub(crate) async fn alter_policy(&self, statuses: &[&str]) -> bool {
        let _turn = self.table_turn.lock().await;
        let client = self.server.connect_soon().await;
        let number = {
            let mut altered = self.altered.lock().unwrap();
            let number = i64::try_from(altered.len()).unwrap() + 1;
            altered.insert(number, Instant::now());
            number
        };
        let alter = alter_policy(number, statuses);
        let text = format!("SET lock_timeout = '5s'; BEGIN; {alter}; COMMIT");
        client.batch_execute(&text).await.is_ok()
    }

    async fn to_walcast(&self, fault: Fault, dice: &mut Dice) -> bool {
        let _turn = self.program_turn.lock().await;
        match fault {
            Fault::WalcastKilled => self.program.restart("KILL").await,
            Fault::WalcastDrained => self.program.restart("TERM").await,
            _ => self.program.pause(dice.milliseconds(300, 6000)).await,
        }
        true
    }

    async fn to_postgres(&self, fault: Fault, dice: &mut Dice) -> bool {
        let _turn = self.server_turn.lock().await;
        let down = dice.milliseconds(0, 1500);
        match fault {
            Fault::PostgresKilled => self.server.restart(Stop::Kill, down).await,
            Fault::PostgresStoppedFast => self.server.restart(Stop::Fast, down).await,
            Fault::PostgresStoppedAtOnce => self.server.restart(Stop::Immediate, down).await,
            Fault::PostgresPaused => self.server.pause(dice.milliseconds(300, 4000)).await,
            Fault::CommitsHeldUp => return self.hold_commits_up(dice).await,
            _ => {
                let Some(walsender) = self.server.walsender().await else { return false };
                match fault {
                    Fault::BackendKilled => kill(walsender).await,
                    Fault::WalsenderPaused => {
                        pause(&[walsender], dice.milliseconds(300, 4000)).await;
                    }
                    _ => {
                        let client = self.server.connect_soon().await;
                        let text = format!("SELECT pg_terminate_backend({walsender})");
                        return client.batch_execute(&text).await.is_ok();
                    }
                }
            }
        }
        true
    }

    /// Lets commits wait for a standby that does not exist, and clients begin anew meanwhile: what
    /// was decoded already is not in their snapshots.
    async fn hold_commits_up(&self, dice: &mut Dice) -> bool {
        let client = self.server.connect_soon().await;
        let set = "ALTER SYSTEM SET synchronous_standby_names = 'nobody'";
        if client.batch_execute(set).await.is_err() || reload(&client).await.is_err() {
            return false;
        }
        sleep(dice.milliseconds(100, 500)).await;
        self.let_forget(dice);
        sleep(dice.milliseconds(200, 1500)).await;
        self.server.release_commits().await;
        true
    }

    async fn to_connections(&self, proxy: &Proxy, fault: Fault, dice: &mut Dice) -> bool {
        let percent = *dice.pick(&[30, 60, 100]);
        let (flow, lasts) = match fault {
            Fault::ClientsCut | Fault::UpstreamCut => (Flow::Cut, Duration::ZERO),
            Fault::ClientsFrozen | Fault::UpstreamFrozen => {
                (Flow::Frozen, dice.milliseconds(300, 7000))
            }
            Fault::ClientsSlow | Fault::UpstreamSlow => {
                let rate = usize::try_from(dice.between(4, 64)).unwrap() << 10;
                (Flow::Slow(rate), dice.milliseconds(1000, 6000))
            }
            _ => {
                let flow = *dice.pick(&[Flow::NearGone, Flow::FarGone]);
                (flow, dice.milliseconds(500, 7000))
            }
        };
        let these = proxy.set(flow, percent, dice);
        sleep(lasts).await;
        let after = match flow {
            Flow::Frozen | Flow::Slow(_) => Flow::Open,
            _ => Flow::Cut,
        };
        proxy.set_these(&these, after);
        !these.is_empty()
    }

    fn to_readers(&self, dice: &mut Dice) -> bool {
        for contact in &self.contacts {
            if dice.chance(40) {
                let until = Instant::now() + dice.milliseconds(500, 8000);
                *contact.deaf_until.lock().unwrap() = until;
            }
        }
        true
    }

    fn let_forget(&self, dice: &mut Dice) -> bool {
        for contact in &self.contacts {
            if dice.chance(50) {
                contact.forget.notify_one();
            }
        }
        true
    }

    async fn drop_slot(&self) -> bool {
        let _turn = self.server_turn.lock().await;
        let text = "DO $$ BEGIN PERFORM pg_terminate_backend(active_pid, 5000) \
                    FROM pg_replication_slots WHERE active AND slot_name = 'walcast'; \
                    PERFORM pg_drop_replication_slot('walcast'); END $$";
        for _ in 0..100 {
            let client = self.server.connect_soon().await;
            if client.batch_execute(text).await.is_ok() {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        false
    }

    async fn to_a_table(&self, fault: Fault, dice: &mut Dice) -> bool {
        let _turn = self.table_turn.lock().await;
        let table = *dice.pick(&["orders", "jobs", "notes"]);
        let ddl = match fault {
            Fault::TableUnpublished => {
                let drop = format!("ALTER PUBLICATION walcast DROP TABLE {table}");
                let add = format!("ALTER PUBLICATION walcast ADD TABLE {table}");
                let done = self.change(table, &drop, false).await;
                sleep(dice.milliseconds(100, 5000)).await;
                self.insist(table, &add, true).await;
                return done;
            }
            Fault::ColumnAdded => {
                let name = format!("extra_{}", dice.below(1_000_000));
                let default = *dice.pick(&["", " DEFAULT 7", " NOT NULL DEFAULT 'x'"]);
                let of = if default.contains('x') { "text" } else { "int" };
                format!("ALTER TABLE {table} ADD COLUMN {name} {of}{default}")
            }
            Fault::ColumnRenamed => {
                let Some(column) = self.extra_column(table).await else { return false };
                let name = format!("extra_{}", dice.below(1_000_000));
                format!("ALTER TABLE {table} RENAME COLUMN {column} TO {name}")
            }
            Fault::ColumnDropped => {
                let Some(column) = self.extra_column(table).await else { return false };
                format!("ALTER TABLE {table} DROP COLUMN {column}")
            }
            Fault::TypeChanged => {
                let of = *dice.pick(&["int", "bigint"]);
                format!("ALTER TABLE {table} ALTER COLUMN amount TYPE {of}")
            }
            Fault::IdentityChanged => {
                let identity = *dice.pick(&["FULL", "DEFAULT"]);
                format!("ALTER TABLE {table} REPLICA IDENTITY {identity}")
            }
            _ => format!("TRUNCATE {table}"),
        };
        self.change(table, &ddl, true).await
    }

    async fn extra_column(&self, table: &str) -> Option<String> {
        let client = self.server.connect().await.ok()?;
        let query = format!(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = '{table}'::regclass \
             AND attname LIKE 'extra%' AND NOT attisdropped ORDER BY attnum LIMIT 1"
        );
        let row = client.query_opt(&query, &[]).await.ok()??;
        Some(row.get(0))
    }

    /// Changes a table in a transaction that nobody else writes to it during, and notes its shape.
    async fn change(&self, table: &str, ddl: &str, published: bool) -> bool {
        let client = self.server.connect_soon().await;
        let shape = note_shape(table, published);
        let text = format!(
            "SET lock_timeout = '5s'; BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; {ddl}; \
             {shape} COMMIT"
        );
        let done = timeout(Duration::from_secs(10), client.batch_execute(&text)).await;
        matches!(done, Ok(Ok(())))
    }

    /// The same, until it has worked.
    async fn insist(&self, table: &str, ddl: &str, published: bool) {
        loop {
            let client = self.server.connect_soon().await;
            let query = format!(
                "SELECT count(*) FROM pg_publication_tables \
                 WHERE pubname = 'walcast' AND tablename = '{table}'"
            );
            if let Ok(row) = client.query_one(&query, &[]).await
                && (row.get::<_, i64>(0) > 0) == published
            {
                return;
            }
            self.change(table, ddl, published).await;
            sleep(Duration::from_millis(50)).await;
        }
    }
}
