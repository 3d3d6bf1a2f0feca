//! Tables kept in memory are, at every commit, what the stream and the server say.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use walcast::catalog;
use walcast::catalog::dial::Dial;
use walcast::change::lsn::Lsn;
use walcast::change::transaction::ChangeKind;
use walcast::change::transaction::Transaction;
use walcast::change::tuple::Cell;
use walcast::change::tuple::Tuple;
use walcast::replica;
use walcast::replica::Moment;
use walcast::replica::Outlook;
use walcast::replica::Report;
use walcast::replica::Store;
use walcast::replica::load::Loader;
use walcast::ring::feed::Feed;
use walcast::rule::Others;
use walcast::rule::Source;
use walcast::rule::Wanted;
use walcast::tls::TlsMode;

use super::stage::Stage;
use super::stage::settings;
use crate::support;
use crate::support::Database;

const PATIENCE: Duration = Duration::from_secs(60);
const MEMBERS: &str = "CREATE TABLE members (org uuid, who uuid, level int, note text, \
     PRIMARY KEY (org, who)); CREATE TABLE other (id int); \
     CREATE PUBLICATION walcast FOR TABLE members, other;";

/// A row: organisation, who, level.
type Row = [Option<String>; 3];

/// Who reads a database: a store, its loader and a stage.
struct Ground {
    database: Database,
    client: Client,
    stage: Stage,
    store: Arc<Store>,
    _loader: JoinSet<()>,
}

impl Ground {
    async fn new(sql: &str, settings_of: replica::Settings, part_bytes: usize) -> Ground {
        let database = support::database().await;
        let client = database.connect().await;
        client.batch_execute(sql).await.unwrap();
        let (stage, store, loader) = start(&database, settings_of, part_bytes).await;
        Ground { database, client, stage, store, _loader: loader }
    }

    /// Lets the store hold the columns of `members` that the test reads.
    async fn want(&self) {
        self.store.catalog().refresh().await.unwrap();
        let snapshot = self.store.catalog().current();
        let table = snapshot.table("public", "members").unwrap();
        let names = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
        let wanted = Wanted {
            table: table.relation.id,
            columns: names(&["org", "who", "level"]),
            lookups: names(&["org", "who"]),
        };
        self.store.want(&[wanted], &snapshot);
    }

    /// What `members` is said to be, once it is not being read.
    async fn report(&self) -> Report {
        timeout(PATIENCE, self.store.settled()).await.expect("the table is read");
        self.store.report("postgres").pop().unwrap()
    }

    /// The rows at a moment, sorted; absent where they are not known.
    fn rows(&self, at: Lsn, moment: Moment, by: Option<(usize, &str)>) -> Option<Vec<Row>> {
        let snapshot = self.store.catalog().current();
        let relation = Arc::clone(&snapshot.table("public", "members")?.relation);
        let columns = ["org", "who", "level"].map(|name| relation.column(name));
        let columns = columns.into_iter().collect::<Option<Vec<usize>>>()?;
        let (table, version, lookups) = (relation.id, relation.version, Box::default());
        let source = Source { table, version, columns: columns.into(), base: 0, lookups };
        let mut rows = Vec::new();
        let by = by.map(|(column, text)| (column, text.as_bytes()));
        let visited = self.store.view(at, moment).visit(&source, by, &mut |cells| {
            rows.push(row(cells));
            ControlFlow::Continue(())
        });
        rows.sort();
        visited.ok().map(|()| rows)
    }

    /// The rows that the server has.
    async fn truth(&self) -> Vec<Row> {
        let sql = "SELECT org::text, who::text, level::text FROM members";
        let rows = self.client.query(sql, &[]).await.unwrap();
        let mut rows: Vec<Row> =
            rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect();
        rows.sort();
        rows
    }

    /// Reads on up to a transaction that the test makes now.
    async fn mark(&mut self, mut each: impl FnMut(&Ground, &Transaction)) -> Lsn {
        self.client.batch_execute("INSERT INTO other VALUES (-1)").await.unwrap();
        loop {
            let transaction = self.stage.transaction().await;
            each(self, &transaction);
            let is_mark = transaction.changes().any(|change| match change.kind {
                ChangeKind::Insert { new } => new.cell(0) == Some(Cell::Text(b"-1")),
                _ => false,
            });
            if is_mark {
                return transaction.commit_lsn;
            }
        }
    }

    /// Checks that what is held now is what the server has.
    async fn check_now(&mut self) {
        let at = self.mark(|_, _| {}).await;
        assert_eq!(self.rows(at, Moment::Before, None), Some(self.truth().await));
    }
}

async fn start(
    database: &Database,
    settings_of: replica::Settings,
    part_bytes: usize,
) -> (Stage, Arc<Store>, JoinSet<()>) {
    let mut settings = settings(&database.connection_string(), &database.name);
    settings.part_bytes = part_bytes;
    let catalog = super::stage::catalog(settings.connection.clone()).await;
    let slot = database.name.as_str().into();
    let store = Arc::new(Store::new(replica::Settings { slot, ..settings_of }, catalog));
    let dial = Dial::new(&catalog::Settings {
        connection: settings.connection.clone(),
        tls_mode: TlsMode::Prefer,
        tls_ca_file: None,
        publication: "walcast".into(),
        roles: Vec::new(),
        tables: Vec::new(),
    });
    let mut loader = JoinSet::new();
    loader.spawn(Loader::new(Arc::clone(&store), dial.unwrap()).run());
    let mut stage = Stage::start_before(settings, 30, Arc::clone(&store));
    stage.live().await;
    (stage, store, loader)
}

fn row(cells: &[Cell<'_>]) -> Row {
    let text = |cell: &Cell<'_>| match cell {
        Cell::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        Cell::Null => None,
        other => panic!("{other:?}"),
    };
    [text(&cells[0]), text(&cells[1]), text(&cells[2])]
}

/// `members`, as the stream says.
#[derive(Default)]
struct Told(BTreeMap<[Option<String>; 2], Option<String>>);

impl Told {
    fn take(&mut self, transaction: &Transaction) {
        let row_of = |tuple: Tuple<'_>| row(&tuple.row());
        for change in transaction.changes().filter(|it| &*it.relation.name == "members") {
            match change.kind {
                ChangeKind::Insert { new } => self.put(row_of(new)),
                ChangeKind::Update { old, new } => {
                    if let Some(old) = old {
                        self.remove(row_of(old.tuple()));
                    }
                    self.put(row_of(new));
                }
                ChangeKind::Delete { old } => self.remove(row_of(old.tuple())),
                ChangeKind::Truncate => self.0.clear(),
            }
        }
    }

    fn put(&mut self, [org, who, level]: Row) {
        self.0.insert([org, who], level);
    }

    fn remove(&mut self, [org, who, _]: Row) {
        self.0.remove(&[org, who]);
    }

    fn rows(&self, by: Option<(usize, &str)>) -> Vec<Row> {
        let rows = self.0.iter().map(|([org, who], level)| [org, who, level].map(Clone::clone));
        rows.filter(|row| by.is_none_or(|(at, text)| row[at].as_deref() == Some(text))).collect()
    }
}

/// Writes until it is to stop.
async fn write(client: Client, stop: CancellationToken) {
    let id = "('00000000-0000-0000-0000-' || lpad((random() * 9)::int::text, 12, '0'))::uuid";
    let acts = [
        format!(
            "INSERT INTO members VALUES ({id}, {id}, (random() * 9)::int) \
             ON CONFLICT (org, who) DO UPDATE SET level = excluded.level"
        ),
        format!("DELETE FROM members WHERE who = {id}"),
        format!("UPDATE members SET level = level + 1 WHERE org = {id}"),
        format!("UPDATE members SET who = {id} WHERE org = {id} AND level = 3"),
        "INSERT INTO other VALUES (1)".to_owned(),
    ];
    for round in 0_usize.. {
        let several = format!("{}; {}", acts[round % 5], acts[(round * 7 + 2) % 5]);
        let sql = match round % 100 {
            99 => "TRUNCATE members",
            _ if round % 3 == 0 => &several,
            _ => &acts[round % 5],
        };
        if stop.is_cancelled() {
            return;
        }
        // What conflicts with another is rolled back.
        if client.batch_execute(sql).await.is_err() && client.is_closed() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_under_writers_is_exact_at_every_commit() {
    let mut ground = Ground::new(MEMBERS, replica::Settings::default(), 8 << 20).await;
    let (mut writers, stop) = (JoinSet::new(), CancellationToken::new());
    for _ in 0..4 {
        writers.spawn(write(ground.database.connect().await, stop.clone()));
    }
    let mut told = Told::default();
    let mut known = 0;
    let org = "00000000-0000-0000-0000-000000000003";
    for round in 0..4 {
        // Given up and read anew each time: each is a moment of its own.
        ground.store.want(&[], &ground.store.catalog().current());
        ground.want().await;
        let enough = known + 120;
        while known < enough {
            let transaction = ground.stage.transaction().await;
            let at = transaction.commit_lsn;
            for moment in [Moment::Before, Moment::After] {
                if moment == Moment::After {
                    told.take(&transaction);
                }
                for by in [None, Some((0, org)), Some((1, org))] {
                    let Some(rows) = ground.rows(at, moment, by) else { continue };
                    assert_eq!(rows, told.rows(by), "round {round}, {moment:?} {at}");
                    known += 1;
                }
            }
        }
    }
    stop.cancel();
    writers.join_all().await;
    let at = ground.mark(|_, transaction| told.take(transaction)).await;
    assert_eq!(told.rows(None), ground.truth().await);
    timeout(PATIENCE, ground.store.settled()).await.unwrap();
    assert_eq!(ground.rows(at, Moment::Before, None), Some(told.rows(None)));
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_and_a_slot_that_is_made_anew_are_read_again() {
    let mut ground = Ground::new(MEMBERS, replica::Settings::default(), 64 << 10).await;
    let fill = "INSERT INTO members SELECT gen_random_uuid(), gen_random_uuid(), n \
                FROM generate_series(1, 3000) n";
    ground.client.batch_execute(fill).await.unwrap();
    ground.want().await;
    assert_eq!(ground.report().await.rows, Some(3000));
    ground.check_now().await;

    // A transaction in parts is seen whole, or not at all.
    ground.client.batch_execute(fill).await.unwrap();
    let mut parts = 0;
    ground
        .mark(|ground, part| {
            parts += usize::from(part.end_lsn.is_none());
            let rows = ground.rows(part.commit_lsn, Moment::After, None);
            assert!(rows.is_none_or(|rows| rows.len() == 6000 || rows.len() == 3000));
            assert!(ground.rows(part.commit_lsn, Moment::Before, None).is_some());
        })
        .await;
    assert!(parts > 1, "{parts}");
    assert_eq!(ground.report().await.rows, Some(6000));

    // The same with another column, and with values that are others.
    for ddl in [
        "ALTER TABLE members DROP note, ADD extra int DEFAULT 3; DELETE FROM members WHERE level < 10",
        "ALTER TABLE members ALTER level TYPE bigint USING level + 1; UPDATE members SET extra = 4",
        "ALTER TABLE members REPLICA IDENTITY FULL; UPDATE members SET level = 5 WHERE level < 100",
        "TRUNCATE members; INSERT INTO members VALUES (gen_random_uuid(), gen_random_uuid(), 1)",
    ] {
        ground.client.batch_execute(ddl).await.unwrap();
        ground.mark(|_, _| {}).await;
        ground.want().await;
        assert_eq!(ground.report().await.unheld, None, "{ddl}");
        ground.check_now().await;
    }

    let name = ground.database.name.clone();
    let drop = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{name}'; \
         INSERT INTO members VALUES (gen_random_uuid(), gen_random_uuid(), 2)"
    );
    // The stage may be faster: it is tried until the slot is gone.
    let gone = format!("SELECT pg_drop_replication_slot('{name}')");
    loop {
        ground.client.batch_execute(&drop).await.unwrap();
        if ground.client.batch_execute(&gone).await.is_ok() {
            break;
        }
    }
    while !matches!(ground.stage.next().await, Feed::Start { .. }) {}
    ground.stage.live_again().await;
    ground.check_now().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_held_says_why_and_what_mends_it() {
    let sql =
        format!("{MEMBERS} INSERT INTO members VALUES (gen_random_uuid(), gen_random_uuid())");
    // Roles are the server's, which all tests share.
    let reader = format!("reader_{}", std::process::id());
    let settings_of =
        replica::Settings { role: Some(reader.as_str().into()), ..replica::Settings::default() };
    let mut ground = Ground::new(&sql, settings_of, 8 << 20).await;
    ground.client.batch_execute(&format!("CREATE ROLE {reader}")).await.unwrap();
    ground.want().await;
    let table = "\"public\".\"members\"";
    let grant = format!(
        "GRANT USAGE ON SCHEMA \"public\" TO \"{reader}\"; GRANT SELECT ON {table} TO \"{reader}\""
    );
    let publish = "ALTER PUBLICATION \"walcast\" SET \
                   (publish = 'insert, update, delete, truncate')";
    let whole = format!(
        "ALTER PUBLICATION \"walcast\" DROP TABLE {table}; \
         ALTER PUBLICATION \"walcast\" ADD TABLE {table}"
    );
    let steps = [
        ("", "no_privilege", &*grant),
        (
            "ALTER TABLE members ENABLE ROW LEVEL SECURITY; \
             CREATE POLICY ones ON members USING (level = 1)",
            "row_security",
            &format!("ALTER ROLE \"{reader}\" BYPASSRLS"),
        ),
        ("ALTER PUBLICATION walcast SET (publish = 'insert')", "not_all_published", publish),
        (
            "ALTER PUBLICATION walcast SET TABLE other, members WHERE (org IS NOT NULL)",
            "row_filter",
            &whole,
        ),
        (
            "ALTER PUBLICATION walcast SET TABLE other, members (org, who)",
            "column_not_published",
            &whole,
        ),
        (
            "ALTER TABLE members REPLICA IDENTITY NOTHING",
            "no_identity",
            &format!("ALTER TABLE {table} REPLICA IDENTITY FULL"),
        ),
    ];
    for (breaks, code, remedy) in steps {
        ground.client.batch_execute(breaks).await.unwrap();
        ground.store.want(&[], &ground.store.catalog().current());
        ground.want().await;
        let report = ground.report().await;
        let at = ground.mark(|_, _| {}).await;
        assert_eq!(report.unheld.as_ref().map(replica::Unheld::code), Some(code), "{report:?}");
        assert_eq!(report.remedy.as_deref(), Some(remedy));
        assert_eq!(ground.rows(at, Moment::Before, None), None);
        let id = ground.store.catalog().current().table("public", "members").unwrap().relation.id;
        let (columns, lookups) = (Box::default(), Box::default());
        let source = Source { table: id, version: 0, columns, base: 0, lookups };
        assert_eq!(ground.store.outlook(&source, at, None), Outlook::Lost);
        ground.client.batch_execute(remedy).await.unwrap();
        ground.want().await;
        assert_eq!(ground.report().await.unheld, None, "{code}");
        ground.check_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_change_without_the_stream_saying_so_are_read_again() {
    let mut ground = Ground::new(MEMBERS, replica::Settings::default(), 8 << 20).await;
    ground.client.batch_execute(&fill(50)).await.unwrap();
    ground.want().await;
    assert_eq!(ground.report().await.rows, Some(50));
    ground.check_now().await;
    for ddl in [
        // Of the same shape as before.
        "ALTER TABLE members ALTER level TYPE int USING level + 100",
        "ALTER TABLE members DROP level, ADD level int DEFAULT 7",
        "BEGIN; ALTER TABLE members DROP level; ALTER TABLE members ADD level int DEFAULT 8; COMMIT",
        "ALTER TABLE members ALTER who TYPE uuid USING gen_random_uuid()",
        // Not published for a while.
        "ALTER PUBLICATION walcast DROP TABLE members; DELETE FROM members WHERE org::text < '8'; \
         ALTER PUBLICATION walcast ADD TABLE members",
        "ALTER PUBLICATION walcast SET (publish = 'insert'); UPDATE members SET level = 9; \
         ALTER PUBLICATION walcast SET (publish = 'insert, update, delete, truncate')",
        "ALTER PUBLICATION walcast SET TABLE other, members WHERE (level > 9); \
         INSERT INTO members (org, who) VALUES (gen_random_uuid(), gen_random_uuid()); ALTER PUBLICATION walcast SET TABLE other, members",
        "ALTER PUBLICATION walcast DROP TABLE members; ALTER TABLE members SET UNLOGGED; \
         UPDATE members SET level = 4; ALTER TABLE members SET LOGGED; \
         ALTER PUBLICATION walcast ADD TABLE members",
        // In the stream, whoever does not hear of it.
        "SET session_replication_role = replica; UPDATE members SET level = 5; \
         SET session_replication_role = origin",
    ] {
        for statement in ddl.split("; ").filter(|_| !ddl.starts_with("BEGIN")) {
            ground.client.batch_execute(statement).await.unwrap();
        }
        if ddl.starts_with("BEGIN") {
            ground.client.batch_execute(ddl).await.unwrap();
        }
        ground.mark(|_, _| {}).await;
        ground.want().await;
        assert_eq!(ground.report().await.unheld, None, "{ddl}");
        ground.check_now().await;
    }
    // What leaves the rows as they are, or is in the stream, costs nothing.
    let since = ground.report().await.since;
    for benign in [
        "VACUUM FULL members",
        "CLUSTER members USING members_pkey",
        "CREATE INDEX ON members (level)",
        "ANALYZE members",
        "CREATE TABLE more (id int)",
        "ALTER PUBLICATION walcast ADD TABLE more",
        "TRUNCATE members",
        "INSERT INTO members (org, who) VALUES (gen_random_uuid(), gen_random_uuid())",
    ] {
        ground.client.batch_execute(benign).await.unwrap();
        ground.want().await;
        let report = ground.report().await;
        assert_eq!((report.since, report.loading), (since, false), "{benign}: {report:?}");
        ground.check_now().await;
    }
}

/// A mebibyte holds about 11,000 rows.
fn small() -> replica::Settings {
    let retry_every = Duration::from_millis(20);
    replica::Settings { bytes_max: 1 << 20, retry_every, ..replica::Settings::default() }
}

/// So many rows more.
fn fill(rows: u32) -> String {
    format!(
        "INSERT INTO members SELECT gen_random_uuid(), gen_random_uuid(), n \
         FROM generate_series(1, {rows}) n"
    )
}

impl Ground {
    /// Waits until a table is as it should be.
    async fn until(&self, what: &str, is_so: impl Fn(&Report) -> bool) -> Report {
        let looked = async {
            loop {
                let report = self.store.report("postgres").pop().unwrap();
                if is_so(&report) {
                    return report;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        let report = timeout(PATIENCE, looked).await.expect(what);
        timeout(PATIENCE, self.store.settled()).await.expect("nothing is being read");
        report
    }

    async fn until_given_up(&mut self) {
        let report = self.until("it is given up", |report| report.rows.is_none()).await;
        let too_large = Some(replica::Unheld::TooLarge { bytes_max: 1 << 20 });
        assert_eq!(report.unheld, too_large, "{report:?}");
        let at = self.mark(|_, _| {}).await;
        assert_eq!(self.rows(at, Moment::Before, None), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_grows_beyond_the_bound_is_given_up_until_it_fits_again() {
    let mut ground = Ground::new(MEMBERS, small(), 8 << 20).await;
    ground.want().await;
    assert_eq!(ground.report().await.unheld, None);
    ground.client.batch_execute(&fill(3000)).await.unwrap();
    ground.check_now().await;
    ground.client.batch_execute(&fill(30_000)).await.unwrap();
    ground.mark(|_, _| {}).await;
    ground.until_given_up().await;

    // Most of it goes, and an eighth is free.
    ground.client.batch_execute("DELETE FROM members WHERE level > 50").await.unwrap();
    ground.client.batch_execute("VACUUM FULL ANALYZE members").await.unwrap();
    ground.mark(|_, _| {}).await;
    ground.until("it is held again", |report| report.rows.is_some()).await;
    ground.check_now().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_bound_counts_at_once() {
    let mut ground = Ground::new(MEMBERS, replica::Settings::default(), 8 << 20).await;
    ground.client.batch_execute(&fill(30_000)).await.unwrap();
    ground.want().await;
    assert_eq!(ground.report().await.rows, Some(30_000));
    ground.check_now().await;
    ground.store.reconfigure(None, 1 << 20);
    ground.until_given_up().await;
    ground.store.reconfigure(None, 16 << 20);
    ground.until("it is held again", |report| report.rows.is_some()).await;
    ground.check_now().await;
}
