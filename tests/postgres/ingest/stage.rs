//! The stage on a thread of its own, and a shard played by the test.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use walcast::catalog::Catalog;
use walcast::change::cursor::Source;
use walcast::change::lsn::Lsn;
use walcast::change::transaction::ChangeKind;
use walcast::change::transaction::OldTuple;
use walcast::change::transaction::Transaction;
use walcast::change::tuple::Cell;
use walcast::change::tuple::Tuple;
use walcast::ingest;
use walcast::ingest::Settings;
use walcast::ingest::Standing;
use walcast::ingest::State;
use walcast::ingest::error::IngestError;
use walcast::ingest::orders::Orders;
use walcast::ingest::progress::Window;
use walcast::ingest::state::Board;
use walcast::metrics::Metrics;
use walcast::replica::Store;
use walcast::ring::feed::Feed;
use walcast::ring::feed::Routed;
use walcast::tls::TlsMode;

const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing is held back: what is routed is confirmed at the next status.
pub(super) const NO_WINDOW: Window = Window { bytes: 0, age: Duration::ZERO };

/// A running stage.
pub(super) struct Stage {
    pub(super) feeds: mpsc::Receiver<Feed>,
    pub(super) routed: Routed,
    pub(super) metrics: Arc<Metrics>,
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<(), IngestError>>>,
}

/// The settings with which a test reads `slot` in the database of `connection_string`.
pub(super) fn settings(connection_string: &str, slot: &str) -> Settings {
    let mut settings = Settings::new(connection_string.parse().unwrap());
    settings.slot.name = slot.parse().unwrap();
    settings
}

/// A catalogue that is asked over `connection`.
pub(super) async fn catalog(connection: tokio_postgres::Config) -> Arc<Catalog> {
    let catalog = Catalog::connect(walcast::catalog::Settings {
        connection,
        tls_mode: TlsMode::Prefer,
        tls_ca_file: None,
        publication: "walcast".into(),
        roles: Vec::new(),
        tables: Vec::new(),
    });
    Arc::new(catalog.await.unwrap())
}

impl Stage {
    /// Starts a stage; the catalogue is asked by the same user.
    pub(super) async fn start(settings: Settings) -> Stage {
        Stage::start_with_room(settings, 1000).await
    }

    /// The same with a shard that takes only so much without being read.
    pub(super) async fn start_with_room(settings: Settings, room: usize) -> Stage {
        let catalog = catalog(settings.connection.clone()).await;
        Stage::start_with(settings, room, &catalog)
    }

    /// The same with another catalogue.
    pub(super) fn start_with(settings: Settings, room: usize, catalog: &Arc<Catalog>) -> Stage {
        Stage::start_before(settings, room, Store::empty(catalog))
    }

    /// The same ahead of whose shard these tables are moved.
    pub(super) fn start_before(settings: Settings, room: usize, replicas: Arc<Store>) -> Stage {
        let (feed, feeds) = mpsc::channel(room);
        let (routed, metrics) = (Routed::new(), Arc::new(Metrics::default()));
        let board = Board::new(Arc::clone(&metrics));
        let standing = board.watch();
        let stop = CancellationToken::new();
        let stage = ingest::Stage {
            settings,
            catalog: Arc::clone(replicas.catalog()),
            replicas,
            feeds: vec![feed],
            routed: vec![routed.clone()],
            board,
            orders: Orders::new(),
            metrics: Arc::clone(&metrics),
            stop: stop.clone(),
        };
        let thread = Some(std::thread::spawn(move || ingest::run_thread(stage)));
        Stage { feeds, routed, metrics, standing, stop, thread }
    }

    /// The next thing that a shard is fed.
    pub(super) async fn next(&mut self) -> Feed {
        let standing = self.standing.clone();
        let next = timeout(PATIENCE, self.feeds.recv()).await;
        next.unwrap_or_else(|_| panic!("nothing came, {:?}", standing.borrow())).unwrap()
    }

    /// The next transaction, which is routed at once; positions of a quiet database are skipped.
    pub(super) async fn transaction(&mut self) -> Arc<Transaction> {
        loop {
            match self.next().await {
                Feed::Transaction(transaction) => {
                    self.routed.add(1);
                    return transaction;
                }
                Feed::Advance(_) => {}
                other => panic!("{other:?} instead of a transaction"),
            }
        }
    }

    /// The changes of the next transaction, as text.
    pub(super) async fn changes(&mut self) -> Vec<String> {
        changes(&*self.transaction().await)
    }

    /// Reads on until clients may come; gives back what the first `Start` said.
    pub(super) async fn live(&mut self) -> (Source, Lsn) {
        let mut start = None;
        loop {
            match self.next().await {
                Feed::Start { source, tail } => start = Some((source, tail)),
                Feed::Transaction(_) => self.routed.add(1),
                Feed::Advance(_) => {}
                Feed::Live => return start.unwrap(),
                other => panic!("{other:?} before the stream was live"),
            }
        }
    }

    /// Reads on until clients may come, after a `Start` that was read already.
    pub(super) async fn live_again(&mut self) {
        loop {
            match self.next().await {
                Feed::Live => return,
                Feed::Transaction(_) => self.routed.add(1),
                Feed::Advance(_) | Feed::Interrupted => {}
                other => panic!("{other:?} before the stream was live"),
            }
        }
    }

    /// Waits until the stage is in a state that `is` takes.
    pub(super) async fn enters(&mut self, is: impl Fn(&State) -> bool) -> State {
        let found = timeout(PATIENCE, self.standing.wait_for(|it| is(&it.state))).await;
        found.expect("the state is not reached").unwrap().state.clone()
    }

    /// Waits until the stage waits; gives back why.
    pub(super) async fn waits(&mut self) -> String {
        let waiting = |state: &State| {
            matches!(state, State::Interrupted { .. } | State::Busy { .. } | State::Lost { .. })
        };
        self.enters(waiting).await.to_string()
    }

    /// Stops the stage.
    pub(super) async fn stop(mut self) -> Result<(), IngestError> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until the stage has ended.
    pub(super) async fn ended(&mut self) -> Result<(), IngestError> {
        self.enters(|state| matches!(state, State::Stopped { .. })).await;
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A transaction's changes as text: `insert t (1,NULL,unchanged)`.
pub(super) fn changes(transaction: &Transaction) -> Vec<String> {
    let changes = transaction.changes().map(|change| {
        let name = &change.relation.name;
        match change.kind {
            ChangeKind::Insert { new } => format!("insert {name} {}", cells(new)),
            ChangeKind::Update { old: None, new } => format!("update {name} {}", cells(new)),
            ChangeKind::Update { old: Some(old), new } => {
                format!("update {name} {} to {}", image(old), cells(new))
            }
            ChangeKind::Delete { old } => format!("delete {name} {}", image(old)),
            ChangeKind::Truncate => format!("truncate {name}"),
        }
    });
    changes.collect()
}

fn image(old: OldTuple<'_>) -> String {
    match old {
        OldTuple::Full(tuple) => format!("full {}", cells(tuple)),
        OldTuple::Key(tuple) => format!("key {}", cells(tuple)),
    }
}

fn cells(tuple: Tuple<'_>) -> String {
    let cells = tuple.cells().map(|cell| match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Unchanged => "unchanged".to_owned(),
        Cell::Omitted { bytes } => format!("{bytes} bytes omitted"),
        Cell::Text(text) if text.len() > 100 => format!("{} bytes", text.len()),
        Cell::Text(text) => std::str::from_utf8(text).unwrap().to_owned(),
    });
    format!("({})", cells.collect::<Vec<_>>().join(","))
}

/// Up to where the slot is confirmed.
pub(super) async fn confirmed(client: &Client, slot: &str) -> Lsn {
    let query = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
    client.query_one(query, &[&slot]).await.unwrap().get::<_, String>(0).parse().unwrap()
}

/// Where the log ends.
pub(super) async fn log_end(client: &Client) -> Lsn {
    let row = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap();
    row.get::<_, String>(0).parse().unwrap()
}

/// Asks again and again until the query gives true.
pub(super) async fn until(client: &Client, query: &str) {
    let asked = async {
        loop {
            let row = client.query_one(&format!("SELECT ({query})"), &[]).await.unwrap();
            if row.get::<_, bool>(0) {
                return;
            }
            client.batch_execute("SELECT pg_sleep(0.01)").await.unwrap();
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("never true: {query}"));
}
