//! The asking role's connection: made when it is first needed, and again when it was lost.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::Row;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use crate::catalog::CatalogError;
use crate::catalog::Settings;
use crate::catalog::dial::Dial;
use crate::catalog::load::GrantRow;
use crate::catalog::load::Loaded;
use crate::catalog::load::TableRow;
use crate::catalog::load::TypeRow;
use crate::catalog::load::Wanted;
use crate::catalog::policies;
use crate::change::id::TypeId;
use crate::change::lsn::Lsn;
use crate::rule::policy::library::Server;

/// How long Postgres may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked where tables go on changing; the next look is soon.
const LOOKS_MAX: usize = 3;

/// Up to where commits can be seen; on a standby, up to where it has come.
const POSITION: &str = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                        ELSE pg_current_wal_flush_lsn() END)::text";

/// Types below this number are the same on every server, and never change.
const FIRST_CUSTOM: u32 = 16_384;

/// Names are resolved without anybody's schemas; constants are printed as rules read them; nothing
/// is ever written; no question can hold the server up for long; and none is worth compiling, which
/// takes longer than to answer it.
const PREPARE_SESSION: &str = "SET search_path = '';\
     SET TimeZone = 'UTC';\
     SET DateStyle = 'ISO';\
     SET IntervalStyle = 'postgres';\
     SET extra_float_digits = 1;\
     SET bytea_output = 'hex';\
     SET default_transaction_read_only = on;\
     SET jit = off;\
     SET statement_timeout = '10s';\
     SET lock_timeout = '5s';";

/// The connection, or the lack of one.
#[derive(Debug)]
pub(super) struct Connection {
    dial: Dial,
    runtime: Handle,
    session: Mutex<Option<Arc<Session>>>,
}

/// A connection that stands, with its statements prepared.
#[derive(Debug)]
struct Session {
    client: Client,
    position: Statement,
    tables: Statement,
    grants: Statement,
    types: Statement,
    policies: Statement,
    reach: Statement,
    builtin: Arc<Vec<TypeRow>>,
    server: Arc<Server>,
}

impl Connection {
    /// Prepares to connect; nothing is sent yet.
    pub(super) fn new(settings: &Settings) -> Result<Connection, CatalogError> {
        let dial = Dial::new(settings)?;
        Ok(Connection { dial, runtime: Handle::current(), session: Mutex::new(None) })
    }

    /// Everything that one look reads, and up to where in the log it is known to be true. Where
    /// something is not as it was known it looks again until two looks say the same, so that what is
    /// said of a table, of its grants and of its policies was true at one moment: privileges are read
    /// past any transaction's snapshot, so that one transaction for all would not make it so.
    pub(super) async fn load(
        &self,
        wanted: Wanted<'_>,
        known: &Loaded,
    ) -> Result<(Lsn, Loaded), CatalogError> {
        let session = self.session().await?;
        let (lsn, mut loaded) = session.look(wanted).await?;
        for _ in 1..LOOKS_MAX {
            if loaded == *known {
                break;
            }
            let (_, again) = session.look(wanted).await?;
            let settled = again == loaded;
            loaded = again;
            if settled {
                break;
            }
        }
        Ok((lsn, loaded))
    }

    /// These types, and what they are made of, without the built-in ones.
    pub(super) async fn types(&self, ids: &[TypeId]) -> Result<Vec<TypeRow>, CatalogError> {
        let session = self.session().await?;
        let ids: Vec<u32> = ids.iter().map(|id| id.0).collect();
        let rows = session.ask("types", &session.types, &[&ids, &FIRST_CUSTOM]).await?;
        read_all("types", &rows, TypeRow::read)
    }

    /// The built-in types, read once for each connection.
    pub(super) async fn builtin_types(&self) -> Result<Arc<Vec<TypeRow>>, CatalogError> {
        Ok(Arc::clone(&self.session().await?.builtin))
    }

    /// The server's own operators and functions, read once for each connection.
    pub(super) async fn server(&self) -> Result<Arc<Server>, CatalogError> {
        Ok(Arc::clone(&self.session().await?.server))
    }

    /// Rows of any statement; for questions that are asked once.
    pub(super) async fn ask_once(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, CatalogError> {
        let session = self.session().await?;
        in_time(what, session.client.query(sql, parameters)).await
    }

    async fn session(&self) -> Result<Arc<Session>, CatalogError> {
        let mut place = self.session.lock().await;
        if let Some(session) = place.as_ref().filter(|session| !session.client.is_closed()) {
            return Ok(Arc::clone(session));
        }
        *place = None;
        let session = Arc::new(self.connect().await?);
        *place = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Connects on the catalogue's own runtime, whoever asked: the socket belongs to it.
    async fn connect(&self) -> Result<Session, CatalogError> {
        let dial = self.dial.clone();
        let connecting = self.runtime.spawn(async move { dial.open().await });
        let (client, driver) = connecting.await.map_err(|_| CatalogError::Stopping)??;
        // Ends when the client is dropped.
        self.runtime.spawn(driver);
        in_time("the session's settings", client.batch_execute(PREPARE_SESSION)).await?;
        let position = in_time("the log's position", client.prepare(POSITION)).await?;
        let tables = in_time("tables", client.prepare(include_str!("tables.sql"))).await?;
        let grants = in_time("grants", client.prepare(include_str!("grants.sql"))).await?;
        let types = in_time("types", client.prepare(include_str!("types.sql"))).await?;
        let policies = in_time("policies", client.prepare(include_str!("policies.sql"))).await?;
        let reach = in_time("policies", client.prepare(include_str!("reach.sql"))).await?;
        let rows = in_time("operators", client.query(include_str!("server.sql"), &[])).await?;
        let server = policies::server(document("operators", &rows)?);
        let server = Arc::new(server.map_err(CatalogError::Policies)?);
        let every = "SELECT array_agg(oid) FROM pg_type WHERE oid < 16384";
        let builtin: Vec<u32> =
            in_time("types", async { client.query_one(every, &[]).await?.try_get(0) }).await?;
        let rows = in_time("types", client.query(&types, &[&builtin, &0u32])).await?;
        let mut builtin = read_all("types", &rows, TypeRow::read)?;
        builtin.retain(|row| row.id.0 < FIRST_CUSTOM);
        let builtin = Arc::new(builtin);
        Ok(Session { client, position, tables, grants, types, policies, reach, builtin, server })
    }
}

impl Session {
    async fn look(&self, wanted: Wanted<'_>) -> Result<(Lsn, Loaded), CatalogError> {
        // The position first: what had committed before it must be in all that follows.
        let (position, tables) = tokio::try_join!(
            self.ask("the log's position", &self.position, &[]),
            self.tables(wanted),
        )?;
        let text = document("the log's position", &position)?;
        Ok((text.parse().unwrap_or(Lsn::ZERO), self.about(tables, wanted).await?))
    }

    async fn tables(&self, wanted: Wanted<'_>) -> Result<Vec<TableRow>, CatalogError> {
        let schemas: Vec<&str> = wanted.tables.iter().map(|table| &*table.schema).collect();
        let names: Vec<&str> = wanted.tables.iter().map(|table| &*table.name).collect();
        let relations: Vec<u32> = wanted.relations.iter().map(|id| id.0).collect();
        let rows = self
            .ask("tables", &self.tables, &[&wanted.publication, &schemas, &names, &relations])
            .await?;
        read_all("tables", &rows, TableRow::read)
    }

    /// What else there is to know of these tables.
    async fn about(
        &self,
        tables: Vec<TableRow>,
        wanted: Wanted<'_>,
    ) -> Result<Loaded, CatalogError> {
        let oids: Vec<u32> = tables.iter().map(|table| table.description.id.0).collect();
        let roles: Vec<&str> = wanted.roles.iter().map(|role| &**role).collect();
        let columns = tables.iter().flat_map(|table| &table.description.columns);
        let mut used: Vec<u32> = columns.map(|column| column.type_id.0).collect();
        used.sort_unstable();
        used.dedup();
        // All questions go out before the first answer is waited for.
        let about_grants: [&(dyn ToSql + Sync); 2] = [&oids, &roles];
        let about_types: [&(dyn ToSql + Sync); 2] = [&used, &FIRST_CUSTOM];
        let about_reach: [&(dyn ToSql + Sync); 1] = [&oids];
        let (grants, types, policies, reach) = tokio::try_join!(
            self.ask("grants", &self.grants, &about_grants),
            self.ask("types", &self.types, &about_types),
            self.ask("policies", &self.policies, &about_grants),
            self.ask("policies", &self.reach, &about_reach),
        )?;
        let grants = read_all("grants", &grants, GrantRow::read)?;
        let types = read_all("types", &types, TypeRow::read)?;
        let policies = document("policies", &policies)?.into();
        let reach = document("policies", &reach)?.into();
        Ok(Loaded { tables, grants, types, policies, reach })
    }

    async fn ask(
        &self,
        what: &'static str,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, CatalogError> {
        in_time(what, self.client.query(statement, parameters)).await
    }
}

async fn in_time<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, CatalogError> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|source| CatalogError::Query { what, source }),
        Err(_) => Err(CatalogError::Late { what, seconds: PATIENCE.as_secs() }),
    }
}

/// The one text of an answer that is a document.
fn document<'a>(what: &'static str, rows: &'a [Row]) -> Result<&'a str, CatalogError> {
    let text = rows.first().map_or(Ok(""), |row| row.try_get(0));
    text.map_err(|source| CatalogError::Query { what, source })
}

fn read_all<T>(
    what: &'static str,
    rows: &[Row],
    read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
) -> Result<Vec<T>, CatalogError> {
    let read: Result<Vec<T>, _> = rows.iter().map(read).collect();
    read.map_err(|source| CatalogError::Query { what, source })
}
