//! What Postgres says of itself: types, tables, grants, policies.
//!
//! ```text
//! control ──refresh, every two seconds───▶ Catalog ──Arc<Snapshot>──▶ route
//! ingest  ──announced(description, lsn)──▶ (here)  ──Arc<Relation>──▶ every change after it
//! ```
//!
//! One ordinary connection, as the asking role, answers both. A poll costs five statements, and
//! a [`Snapshot`] is replaced only when their answers differ. A `Relation` message whose shape is
//! known costs no statement at all.
//!
//! The stream may be behind the catalogue, so that a description need not be what the table is
//! now: then the names, types and identity are the description's, and only what the stream does
//! not say (collations, primary key) is today's, by column name.
//!
//! # Invariants
//!
//! - The same shape is the same `Arc` and the same version; another shape never gets a version
//!   that was used before. (`tests/postgres/catalog.rs`.)
//! - Privileges are never computed here: Postgres is asked, for each role and table.

pub mod snapshot;
mod error;
pub mod policies;
pub mod replicas;
pub mod reach;
pub mod slot;
pub mod audit;
pub mod dial;
pub mod replication;
mod connection;
mod load;
mod fence;
mod types;
mod shapes;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex as WordMutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::sync::Notify;

use crate::catalog::connection::Connection;
use crate::catalog::fence::Looked;
use crate::catalog::load::Loaded;
use crate::catalog::load::TypeRow;
use crate::catalog::load::Wanted;
use crate::catalog::shapes::Shapes;
use crate::catalog::snapshot::Snapshot;
use crate::catalog::types::Types;
use crate::change::id::RelationId;
use crate::change::id::TypeId;
use crate::change::relation::Relation;
use crate::change::relation::RelationDescription;
use crate::tls::TlsMode;
use crate::trace::span;
use crate::trace::traced;

pub use error::CatalogError;

/// Whom to ask, and about what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server, the database and the asking role. Its `ssl_mode` is set from
    /// [`tls_mode`](Settings::tls_mode).
    pub connection: tokio_postgres::Config,
    /// Whether the connection is encrypted, and whom it believes.
    pub tls_mode: TlsMode,
    /// The authorities to believe; absent: the operating system's.
    pub tls_ca_file: Option<PathBuf>,
    /// The publication that the slot reads.
    pub publication: Box<str>,
    /// The client roles whose grants are looked up.
    pub roles: Vec<Box<str>>,
    /// Tables that the configuration names: they are looked up even when they are not published.
    pub tables: Vec<TableName>,
}

/// A table by name, unquoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Its schema.
    pub schema: Box<str>,
    /// Its name in the schema.
    pub name: Box<str>,
}

impl TableName {
    /// Reads `schema.table` or `table` (which is in `public`), unquoted: everything after the
    /// first point is the table's name.
    #[must_use]
    pub fn parse(text: &str) -> TableName {
        let (schema, name) = text.split_once('.').unwrap_or(("public", text));
        TableName { schema: schema.into(), name: name.into() }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// The catalogue, as of the last look. Shared by every thread.
#[derive(Debug)]
pub struct Catalog {
    publication: Box<str>,
    named: WordMutex<Named>,
    connection: Connection,
    snapshot: ArcSwap<Snapshot>,
    shapes: WordMutex<Shapes>,
    /// Up to where what was read is known to be true.
    looked: WordMutex<Looked>,
    /// Told where it should be read once more soon.
    again: Notify,
    /// Held while Postgres is asked: one asks at a time.
    known: Mutex<Known>,
}

/// What the configuration names.
#[derive(Clone, Debug)]
struct Named {
    roles: Vec<Box<str>>,
    tables: Vec<TableName>,
}

/// What was read last.
#[derive(Debug, Default)]
struct Known {
    loaded: Loaded,
    /// Relations that the stream described although they are not published by that name: the
    /// partitions of a published root.
    described: BTreeSet<RelationId>,
}

impl Catalog {
    /// Prepares to ask as the asking role; nothing is sent, and nothing known, before
    /// [`Catalog::refresh`].
    ///
    /// The connection is driven on the runtime in which this is called, and made again there when
    /// it is lost; the other calls may come from any runtime.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Tls`], where the settings of TLS can't be used.
    pub fn new(settings: Settings) -> Result<Catalog, CatalogError> {
        let connection = Connection::new(&settings)?;
        Ok(Catalog {
            publication: settings.publication,
            named: WordMutex::new(Named { roles: settings.roles, tables: settings.tables }),
            connection,
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            shapes: WordMutex::default(),
            looked: WordMutex::default(),
            again: Notify::new(),
            known: Mutex::default(),
        })
    }

    /// The same, and reads everything once.
    ///
    /// # Errors
    ///
    /// [`CatalogError`], when Postgres can't be reached or refuses to answer.
    pub async fn connect(settings: Settings) -> Result<Catalog, CatalogError> {
        let catalog = Catalog::new(settings)?;
        catalog.refresh().await?;
        Ok(catalog)
    }

    /// The publication that the slot reads.
    #[must_use]
    pub const fn publication(&self) -> &str {
        &self.publication
    }

    /// What was read last. Costs no statement.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Looks for other roles and tables from the next time on.
    pub fn look_for(&self, roles: Vec<Box<str>>, tables: Vec<TableName>) {
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = Named { roles, tables };
    }

    /// Reads everything again; tells whether something differs, and the snapshot was replaced.
    ///
    /// Not to be given up in the middle of a `select!`: nothing is lost, but what was read is.
    ///
    /// # Errors
    ///
    /// [`CatalogError`]; the snapshot stays what it was.
    pub async fn refresh(&self) -> Result<bool, CatalogError> {
        let mut known = self.known.lock().await;
        traced(span!("catalog.read"), self.read(&mut known)).await
    }

    /// The relation that a `Relation` message of the stream describes, its types resolved.
    ///
    /// A type that no longer exists is of kind `Other`: its values are written as strings. Costs
    /// statements only where the shape was never seen.
    ///
    /// # Errors
    ///
    /// [`CatalogError`]; the caller tries again before it goes on in the stream.
    pub async fn resolve(
        &self,
        description: &RelationDescription,
    ) -> Result<Arc<Relation>, CatalogError> {
        if let Some(relation) = self.shapes().find(description) {
            return Ok(relation);
        }
        let mut known = self.known.lock().await;
        if let Some(relation) = self.shapes().find(description) {
            return Ok(relation);
        }
        known.described.insert(description.id);
        traced(span!("catalog.read"), self.read(&mut known)).await?;
        if let Some(relation) = self.shapes().find(description) {
            return Ok(relation);
        }
        let ids: Vec<TypeId> = description.columns.iter().map(|column| column.type_id).collect();
        let more = self.connection.types(&ids).await?;
        let builtin = self.connection.builtin_types().await?;
        let mut types = Types::new(&builtin, more.iter().chain(&known.loaded.types));
        let table = known.loaded.tables.iter().find(|table| table.description.id == description.id);
        Ok(self.shapes().intern(description, table, &mut types))
    }

    /// Asks, and replaces the snapshot where the answer is a new one.
    async fn read(&self, known: &mut Known) -> Result<bool, CatalogError> {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let wanted = Wanted {
            publication: &self.publication,
            roles: &named.roles,
            tables: &named.tables,
            relations: &known.described,
        };
        let stream = self.stream();
        let (lsn, loaded) = self.connection.load(wanted, &known.loaded).await?;
        let first = self.current().generation == 0;
        if loaded == known.loaded && !first {
            self.note_looked(stream, lsn);
            return Ok(false);
        }
        let builtin: Arc<Vec<TypeRow>> = self.connection.builtin_types().await?;
        let server = self.connection.server().await?;
        let mut policies =
            policies::read(&loaded.policies, server).map_err(CatalogError::Policies)?;
        reach::read(&loaded.reach, &mut policies).map_err(CatalogError::Policies)?;
        let mut types = Types::new(&builtin, loaded.types.iter());
        let snapshot = {
            let mut shapes = self.shapes();
            let generation = self.current().generation + 1;
            Snapshot::build(generation, &loaded, &mut policies, |table| {
                shapes.intern(&table.description, Some(table), &mut types)
            })
        };
        // A partition that is gone would be asked for in vain for ever.
        known.described.retain(|id| loaded.tables.iter().any(|table| table.description.id == *id));
        known.loaded = loaded;
        self.snapshot.store(Arc::new(snapshot));
        self.note_looked(stream, lsn);
        Ok(true)
    }

    fn looked(&self) -> MutexGuard<'_, Looked> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shapes(&self) -> MutexGuard<'_, Shapes> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[doc(hidden)]
impl Catalog {
    /// A catalogue that was read once, and never asks: for tests without Postgres. To be made in a
    /// runtime.
    #[must_use]
    pub fn read_once(snapshot: Snapshot) -> Catalog {
        let settings = Settings {
            connection: tokio_postgres::Config::new(),
            tls_mode: TlsMode::Disable,
            tls_ca_file: None,
            publication: "walcast".into(),
            roles: Vec::new(),
            tables: Vec::new(),
        };
        let connection = Connection::new(&settings).expect("without TLS nothing can be wrong");
        Catalog {
            publication: settings.publication,
            named: WordMutex::new(Named { roles: settings.roles, tables: settings.tables }),
            connection,
            snapshot: ArcSwap::from_pointee(snapshot),
            shapes: WordMutex::default(),
            looked: WordMutex::default(),
            again: Notify::new(),
            known: Mutex::default(),
        }
    }

    /// Lets the next look find something else.
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }
}
