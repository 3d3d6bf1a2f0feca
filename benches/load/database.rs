//! The private Postgres of a run, set up so that the disk is not what is measured.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use walcast::cli::demo::postgres::Afterwards;
use walcast::cli::demo::postgres::Listen;
use walcast::cli::demo::postgres::Options;
use walcast::cli::demo::postgres::PrivateServer;

use crate::Fallible;
use crate::sql::Sql;
use crate::writer::Target;

/// The database, the slot and the publication that every server under test is given.
pub(crate) const DATABASE: &str = "bench";
pub(crate) const SLOT: &str = "walcast_bench";
pub(crate) const PUBLICATION: &str = "walcast_bench";
pub(crate) const USER: &str = "postgres";
const SCHEMA: &str = include_str!("schema.sql");

/// A running server with the schema in it; stopped and removed when dropped.
#[derive(Debug)]
pub(crate) struct Database {
    server: PrivateServer,
}

impl Database {
    /// Starts one. `fsync` is off, commits are waited for (so that the walsender streams at once),
    /// and nothing happens in the background.
    pub(crate) fn start() -> Fallible<Database> {
        let mut options = Options {
            binaries: None,
            superuser: USER.to_owned(),
            locale: "C".to_owned(),
            listen: Listen::Loopback,
            parameters: Vec::new(),
            templates: None,
            afterwards: Afterwards::Remove,
        };
        for (name, value) in [
            ("wal_level", "logical"),
            ("fsync", "off"),
            ("synchronous_commit", "on"),
            ("full_page_writes", "off"),
            ("max_wal_size", "16GB"),
            ("shared_buffers", "1GB"),
            ("autovacuum", "off"),
            ("checkpoint_timeout", "1h"),
            // A server under test may be stopped for a while.
            ("wal_sender_timeout", "0"),
            ("log_min_messages", "error"),
        ] {
            options = options.parameter(name, value);
        }
        let server = PrivateServer::start(options)?;
        let database = Database { server };
        Sql::connect(&database.socket(), USER, "postgres")?.run("create database bench")?;
        database.sql()?.run(SCHEMA)?;
        Ok(database)
    }

    /// A connection as the superuser.
    pub(crate) fn sql(&self) -> Fallible<Sql> {
        Sql::connect(&self.socket(), USER, DATABASE)
    }

    /// The same for the writer.
    pub(crate) fn target(&self) -> Target {
        let (user, database) = (USER.to_owned(), DATABASE.to_owned());
        Target::Postgres { socket: self.socket(), user, database }
    }

    /// Empties the tables, drops every slot and a peer's trigger, so that the next server starts from nothing.
    pub(crate) fn reset(&self) -> Fallible<()> {
        let mut sql = self.sql()?;
        let began = Instant::now();
        sql.run("select pg_terminate_backend(active_pid) from pg_replication_slots where active")?;
        while let Err(error) =
            sql.run("select pg_drop_replication_slot(slot_name) from pg_replication_slots")
        {
            // A terminated walsender takes a moment to let go of its slot.
            if began.elapsed() > Duration::from_secs(10) {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(50));
        }
        sql.run("drop function if exists bench_notify cascade")?;
        sql.run("truncate locations, orders restart identity")
    }

    /// Creates the slot that a server under test will find.
    pub(crate) fn create_slot(&self) -> Fallible<()> {
        let create = format!("select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')");
        self.sql()?.run(&create)
    }

    /// Whether somebody reads the slot.
    pub(crate) fn slot_is_read(&self) -> Fallible<bool> {
        let query = "select 1 from pg_replication_slots where active";
        Ok(!self.sql()?.first_column(query)?.is_empty())
    }

    /// Gives `command` what libpq and its relatives read from the environment.
    pub(crate) fn introduce(&self, command: &mut Command) {
        command
            .env("PGHOST", self.server.socket_folder())
            .env("PGPORT", self.server.port().to_string())
            .env("PGUSER", USER)
            .env("PGDATABASE", DATABASE)
            .env("SLOT", SLOT)
            .env("PUBLICATION", PUBLICATION);
    }

    /// How walcast reaches it.
    pub(crate) fn connection_string(&self) -> String {
        self.server.connection_string(DATABASE)
    }

    /// The process id of the postmaster.
    pub(crate) fn process_id(&self) -> u32 {
        self.server.pid().unwrap_or(0)
    }

    /// A program of the same installation: it lies beside the one that is running.
    pub(crate) fn program(&self, name: &str) -> Fallible<PathBuf> {
        let running = fs::read_link(format!("/proc/{}/exe", self.process_id()))?;
        Ok(running.with_file_name(name))
    }

    fn socket(&self) -> PathBuf {
        self.server.socket_folder().join(format!(".s.PGSQL.{}", self.server.port()))
    }
}
