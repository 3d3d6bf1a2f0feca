//! The catalogue against a real server: shapes, types and grants, and what DDL does to them.

use std::sync::Arc;

use bytes::Buf;
use tokio_postgres::Client;
use walcast::catalog::Catalog;
use walcast::catalog::Settings;
use walcast::catalog::TableName;
use walcast::catalog::snapshot::RowSecurity;
use walcast::change::id::RelationId;
use walcast::change::id::TypeId;
use walcast::change::relation::ColumnDescription;
use walcast::change::relation::Relation;
use walcast::change::relation::RelationDescription;
use walcast::change::relation::ReplicaIdentity;
use walcast::change::types::Collation;
use walcast::change::types::Kind;
use walcast::tls::TlsMode;

use crate::support::Database;
use crate::support::database;

/// A database with a publication `walcast` for every table, and its catalogue.
async fn with(sql: &str) -> (Database, Client, Catalog) {
    let database = database().await;
    let client = database.connect().await;
    client.batch_execute("CREATE PUBLICATION walcast FOR ALL TABLES").await.unwrap();
    client.batch_execute(sql).await.unwrap();
    let catalog = Catalog::connect(settings(&database, &[])).await.unwrap();
    (database, client, catalog)
}

fn settings(database: &Database, roles: &[&str]) -> Settings {
    Settings {
        connection: database.connection_string().parse().unwrap(),
        tls_mode: TlsMode::Prefer,
        tls_ca_file: None,
        publication: "walcast".into(),
        roles: roles.iter().map(|role| Box::from(*role)).collect(),
        tables: Vec::new(),
    }
}

fn table(catalog: &Catalog, name: &str) -> Arc<Relation> {
    Arc::clone(&catalog.current().table("public", name).unwrap().relation)
}

fn column_names(relation: &Relation) -> Vec<&str> {
    relation.columns.iter().map(|column| &*column.name).collect()
}

/// The `Relation` messages that a slot of the publication gives, in their order.
async fn described_by_the_stream(client: &Client, slot: &str) -> Vec<RelationDescription> {
    let rows = client
        .query(
            "SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, \
             'proto_version', '1', 'publication_names', 'walcast')",
            &[&slot],
        )
        .await
        .unwrap();
    let messages = rows.iter().map(|row| row.get::<_, Vec<u8>>(0));
    let relations = messages.filter(|message| message.first() == Some(&b'R'));
    relations.map(|message| relation_message(message.get(1..).unwrap())).collect()
}

/// The body of a `Relation` message.
fn relation_message(mut rest: &[u8]) -> RelationDescription {
    let id = RelationId(rest.get_u32());
    let (schema, name) = (take_text(&mut rest), take_text(&mut rest));
    let identity = match rest.get_u8() {
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        b'n' => ReplicaIdentity::Nothing,
        _ => ReplicaIdentity::Default,
    };
    let columns = (0..rest.get_u16()).map(|_| ColumnDescription {
        in_identity: rest.get_u8() == 1,
        name: take_text(&mut rest),
        type_id: TypeId(rest.get_u32()),
        modifier: rest.get_i32(),
    });
    let columns = columns.collect();
    RelationDescription { id, schema, name, identity, columns }
}

fn take_text(rest: &mut &[u8]) -> Box<str> {
    let end = rest.iter().position(|&byte| byte == 0).unwrap();
    let text = rest.copy_to_bytes(end);
    rest.advance(1);
    std::str::from_utf8(&text).unwrap().into()
}

#[tokio::test]
async fn the_catalogue_and_the_stream_describe_a_table_alike() {
    let (database, client, catalog) = with(
        "CREATE TYPE mood AS ENUM ('sad', 'happy');
         CREATE DOMAIN email AS varchar(200);
         CREATE TABLE plain (id bigint PRIMARY KEY, m mood, e email, n numeric(10, 2), a text[]);
         CREATE TABLE keyless (x int);
         CREATE TABLE full_identity (id int PRIMARY KEY, x text);
         ALTER TABLE full_identity REPLICA IDENTITY FULL;
         CREATE TABLE by_index (a int, b int NOT NULL, c int NOT NULL);
         CREATE UNIQUE INDEX by_index_c_b ON by_index (c, b) INCLUDE (a);
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_c_b;
         CREATE TABLE nothing (id int PRIMARY KEY);
         ALTER TABLE nothing REPLICA IDENTITY NOTHING;
         CREATE TABLE generated (id int PRIMARY KEY, double int GENERATED ALWAYS AS (id * 2) STORED);
         CREATE TABLE holes (a int, id int PRIMARY KEY, b int); ALTER TABLE holes DROP COLUMN a;
         CREATE TABLE covering (id int, extra int, PRIMARY KEY (id) INCLUDE (extra));
         CREATE TABLE \"Ünï \"\"q\"\" Tab\" (\"Mixed Case\" int PRIMARY KEY);
         CREATE TABLE later (id int PRIMARY KEY DEFERRABLE);
         CREATE TABLE root (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE leaf PARTITION OF root DEFAULT;",
    )
    .await;
    let slot = format!("slot_{}", database.name);
    client
        .batch_execute(&format!(
            "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');
             INSERT INTO plain (id) VALUES (1); INSERT INTO keyless VALUES (1);
             INSERT INTO full_identity VALUES (1); INSERT INTO by_index VALUES (1, 1, 1);
             INSERT INTO nothing VALUES (1); INSERT INTO generated VALUES (1);
             INSERT INTO holes VALUES (1); INSERT INTO covering VALUES (1);
             INSERT INTO \"Ünï \"\"q\"\" Tab\" VALUES (1); INSERT INTO later VALUES (1);
             INSERT INTO root VALUES (1, '2026-01-01')"
        ))
        .await
        .unwrap();
    let described = described_by_the_stream(&client, &slot).await;
    assert_eq!(described.len(), 11);
    for description in described {
        let resolved = catalog.resolve(&description).await.unwrap();
        let table = Arc::clone(catalog.current().by_id(description.id).unwrap());
        assert!(Arc::ptr_eq(&resolved, &table.relation), "{description:?}");
    }
    assert_eq!(catalog.current().generation, 1, "nothing had to be read again");
    client.batch_execute(&format!("SELECT pg_drop_replication_slot('{slot}')")).await.unwrap();
}

#[tokio::test]
async fn a_root_that_stands_for_its_partitions_is_described_alike() {
    let (database, client, catalog) = with(
        "DROP PUBLICATION walcast;
         CREATE TABLE root (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE leaf PARTITION OF root DEFAULT;
         CREATE PUBLICATION walcast FOR TABLE root WITH (publish_via_partition_root = true);",
    )
    .await;
    let current = catalog.current();
    assert!(current.table("public", "leaf").is_none());
    assert!(current.table("public", "root").unwrap().partitioned);
    let slot = format!("slot_{}", database.name);
    client
        .batch_execute(&format!(
            "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');
             INSERT INTO root VALUES (1, '2026-01-01')"
        ))
        .await
        .unwrap();
    for description in described_by_the_stream(&client, &slot).await {
        let resolved = catalog.resolve(&description).await.unwrap();
        assert_eq!(resolved.primary_key, [0, 1], "{description:?}");
        assert!(Arc::ptr_eq(&resolved, &catalog.resolve(&description).await.unwrap()));
        let table = Arc::clone(catalog.current().by_id(description.id).unwrap());
        assert_eq!(table.published, &*description.name == "root");
    }
    // A new partition is described once rows go into it.
    client
        .batch_execute(
            "CREATE TABLE leaf_2027 PARTITION OF root FOR VALUES FROM ('2027-01-01') TO \
             ('2028-01-01'); INSERT INTO root VALUES (1, '2027-02-03')",
        )
        .await
        .unwrap();
    let described = described_by_the_stream(&client, &slot).await;
    let fresh = described.iter().find(|description| &*description.name == "leaf_2027").unwrap();
    assert_eq!(column_names(&catalog.resolve(fresh).await.unwrap()), ["id", "at"]);
    client.batch_execute("DROP TABLE leaf_2027").await.unwrap();
    assert!(catalog.refresh().await.unwrap());
    assert!(catalog.current().by_id(fresh.id).is_none());
    assert!(!catalog.refresh().await.unwrap());
    client.batch_execute(&format!("SELECT pg_drop_replication_slot('{slot}')")).await.unwrap();
}

#[tokio::test]
async fn ddl_gives_a_new_version_and_nothing_else_does() {
    let (_database, client, catalog) =
        with("CREATE TABLE t (id int PRIMARY KEY, a int, b text); CREATE TABLE other (id int)")
            .await;
    let (first, other) = (table(&catalog, "t"), table(&catalog, "other"));
    client.batch_execute("INSERT INTO t VALUES (1); ANALYZE t").await.unwrap();
    assert!(!catalog.refresh().await.unwrap());
    assert_eq!(catalog.current().generation, 1);

    let steps = [
        ("ALTER TABLE t ADD COLUMN c bool DEFAULT true", vec!["id", "a", "b", "c"]),
        ("ALTER TABLE t RENAME COLUMN a TO z", vec!["id", "z", "b", "c"]),
        ("ALTER TABLE t DROP COLUMN b", vec!["id", "z", "c"]),
        ("ALTER TABLE t ALTER COLUMN z TYPE bigint", vec!["id", "z", "c"]),
        ("ALTER TABLE t REPLICA IDENTITY FULL", vec!["id", "z", "c"]),
        ("ALTER TABLE t DROP CONSTRAINT t_pkey", vec!["id", "z", "c"]),
    ];
    let mut versions = vec![first.version];
    for (sql, names) in steps {
        client.batch_execute(sql).await.unwrap();
        assert!(catalog.refresh().await.unwrap(), "{sql}");
        let relation = table(&catalog, "t");
        assert_eq!(column_names(&relation), names, "{sql}");
        assert!(!versions.contains(&relation.version), "{sql}");
        versions.push(relation.version);
    }
    let last = table(&catalog, "t");
    assert_eq!(last.columns[1].of.kind, Kind::Int8);
    assert!(last.columns.iter().all(|column| column.in_identity));
    assert_eq!((first.primary_key.as_slice(), last.primary_key.as_slice()), (&[0][..], &[][..]));

    client.batch_execute("ALTER TABLE t RENAME TO renamed").await.unwrap();
    assert!(catalog.refresh().await.unwrap());
    assert!(catalog.current().table("public", "t").is_none());
    assert_eq!(table(&catalog, "renamed").id, first.id);
    assert!(Arc::ptr_eq(&other, &table(&catalog, "other")), "another table is left alone");
    client.batch_execute("DROP TABLE renamed").await.unwrap();
    assert!(catalog.refresh().await.unwrap());
    assert!(catalog.current().by_id(first.id).is_none());
}

#[tokio::test]
async fn a_shape_of_yesterday_is_resolved_with_the_types_of_then() {
    let (_database, client, catalog) = with(
        "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (id int PRIMARY KEY, m mood, x text)",
    )
    .await;
    let now = table(&catalog, "t");
    let column = |at: usize| {
        let column = &now.columns[at];
        ColumnDescription {
            name: column.name.clone(),
            type_id: column.of.id,
            modifier: column.modifier,
            in_identity: column.in_identity,
        }
    };
    let mut yesterday = RelationDescription {
        id: now.id,
        schema: "public".into(),
        name: "t".into(),
        identity: ReplicaIdentity::Default,
        columns: vec![column(0), column(1)],
    };
    let old = catalog.resolve(&yesterday).await.unwrap();
    assert_eq!(old.columns[1].of.kind, Kind::Enum([Box::from("sad")].into()));
    assert_ne!(old.version, now.version);
    assert!(Arc::ptr_eq(&old, &catalog.resolve(&yesterday).await.unwrap()));
    assert!(Arc::ptr_eq(&now, &table(&catalog, "t")), "today's shape is left alone");

    client.batch_execute("ALTER TABLE t DROP COLUMN m; DROP TYPE mood").await.unwrap();
    yesterday.columns[0].name = "was_id".into();
    let gone = catalog.resolve(&yesterday).await.unwrap();
    assert_eq!(gone.columns[1].of.kind, Kind::Other);
    assert!(gone.primary_key.is_empty());

    yesterday.id = RelationId(4_000_000_000);
    let dropped = catalog.resolve(&yesterday).await.unwrap();
    assert_eq!(dropped.columns[0].of.kind, Kind::Int4);
}

#[tokio::test]
async fn types_of_the_database_are_taken_apart() {
    let (_database, client, catalog) = with(
        "CREATE TYPE mood AS ENUM ('sad', 'happy');
         CREATE TYPE point3 AS (x float8, y float8, tag mood[]);
         CREATE DOMAIN grid AS int[];
         CREATE TYPE span AS RANGE (subtype = float8);
         CREATE EXTENSION hstore;
         CREATE TABLE t (m mood, p point3, g grid, s span, b box[], h hstore, v int2vector);",
    )
    .await;
    let relation = table(&catalog, "t");
    let kinds: Vec<&Kind> = relation.columns.iter().map(|column| &column.of.kind).collect();
    let mood = Kind::Enum([Box::from("sad"), Box::from("happy")].into());
    assert_eq!(*kinds[0], mood);
    let Kind::Composite(attributes) = kinds[1] else { panic!("{:?}", kinds[1]) };
    let names: Vec<&str> = attributes.iter().map(|attribute| &*attribute.name).collect();
    assert_eq!(names, ["x", "y", "tag"]);
    assert!(matches!(&attributes[2].of.kind, Kind::Array { element, .. } if element.kind == mood));
    assert!(matches!(kinds[2], Kind::Array { element, .. } if element.kind == Kind::Int4));
    assert_eq!(&*relation.columns[2].of.name, "grid");
    assert_eq!(*kinds[3], Kind::Other);
    assert!(matches!(kinds[4], Kind::Array { delimiter: b';', .. }));
    assert_eq!(*kinds[5], Kind::JsonCast);
    assert!(matches!(kinds[6], Kind::Array { delimiter: b' ', .. }));

    client
        .batch_execute(
            "ALTER TYPE mood ADD VALUE 'calm' BEFORE 'happy';
             ALTER TYPE point3 DROP ATTRIBUTE y, ADD ATTRIBUTE z numeric",
        )
        .await
        .unwrap();
    assert!(catalog.refresh().await.unwrap());
    let later = table(&catalog, "t");
    assert!(later.version > relation.version);
    let calm = ["sad", "calm", "happy"].map(Box::from);
    assert_eq!(later.columns[0].of.kind, Kind::Enum(calm.into()));
    let Kind::Composite(attributes) = &later.columns[1].of.kind else { panic!() };
    let names: Vec<&str> = attributes.iter().map(|attribute| &*attribute.name).collect();
    assert_eq!(names, ["x", "tag", "z"]);
}

#[tokio::test]
async fn collations_say_what_can_be_decided() {
    let (_database, _client, catalog) = with(
        "CREATE COLLATION loose (provider = icu, locale = 'und', deterministic = false);
         CREATE TABLE t (i int, c text COLLATE \"C\", p varchar(3) COLLATE \"POSIX\",
                         d text, l text COLLATE \"und-x-icu\", n text COLLATE loose,
                         name name, a text[] COLLATE \"C\")",
    )
    .await;
    let collations: Vec<Collation> =
        table(&catalog, "t").columns.iter().map(|column| column.collation).collect();
    // The database's own is C.UTF-8 of libc, which promises no order to anybody.
    let expected = [
        Collation::None,
        Collation::Bytes,
        Collation::Bytes,
        Collation::Locale,
        Collation::Locale,
        Collation::Nondeterministic,
        Collation::Bytes,
        Collation::Bytes,
    ];
    assert_eq!(collations, expected);
}

#[tokio::test]
async fn grants_are_what_postgres_says_of_each_role() {
    let (database, client, _) =
        with("CREATE TABLE t (id int PRIMARY KEY, secret text, pub text)").await;
    let [one, two, three, member] =
        ["one", "two", "three", "member"].map(|role| format!("{role}_{}", database.name));
    client
        .batch_execute(&format!(
            "CREATE ROLE {one}; CREATE ROLE {two}; CREATE ROLE {three};
             CREATE ROLE {member} IN ROLE {two};
             GRANT SELECT ON t TO {one}; GRANT SELECT (id, pub) ON t TO {two};
             GRANT INSERT ON t TO {three};
             ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
        ))
        .await
        .unwrap();
    let roles = [&*one, &two, &three, &member, "no such role"];
    let catalog = Catalog::connect(settings(&database, &roles)).await.unwrap();
    let granted = |role: &str| {
        let current = catalog.current();
        current.table("public", "t").unwrap().granted(role).map(<[bool]>::to_vec)
    };
    assert_eq!(granted(&one), Some(vec![true, true, true]));
    assert_eq!(granted(&two), Some(vec![true, false, true]));
    assert_eq!(granted(&three), None);
    assert_eq!(granted(&member), Some(vec![true, false, true]));
    assert_eq!(granted("no such role"), None);
    assert_eq!(catalog.current().table("public", "t").unwrap().row_security, RowSecurity::On);

    let relation = table(&catalog, "t");
    client
        .batch_execute(&format!(
            "REVOKE SELECT ON t FROM {one}; GRANT SELECT (secret) ON t TO PUBLIC;
             ALTER TABLE t FORCE ROW LEVEL SECURITY"
        ))
        .await
        .unwrap();
    assert!(catalog.refresh().await.unwrap());
    assert_eq!(granted(&one), Some(vec![false, true, false]));
    assert_eq!(granted(&three), Some(vec![false, true, false]));
    assert_eq!(catalog.current().table("public", "t").unwrap().row_security, RowSecurity::Forced);
    assert!(Arc::ptr_eq(&relation, &table(&catalog, "t")), "a grant changes no shape");

    client.batch_execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC").await.unwrap();
    assert!(catalog.refresh().await.unwrap());
    assert_eq!(granted(&one), None);
}

#[tokio::test]
async fn what_is_published_is_what_the_publication_says() {
    let (database, client, _) = with(
        "DROP PUBLICATION walcast;
         CREATE TABLE a (id int PRIMARY KEY, b text, twice int GENERATED ALWAYS AS (id * 2) STORED);
         CREATE TABLE z (id int PRIMARY KEY);
         CREATE PUBLICATION walcast FOR TABLE a;",
    )
    .await;
    let named = TableName { schema: "public".into(), name: "z".into() };
    let settings = Settings { tables: vec![named], ..settings(&database, &[]) };
    let catalog = Catalog::connect(settings).await.unwrap();
    let current = catalog.current();
    let (a, z) = (current.table("public", "a").unwrap(), current.table("public", "z").unwrap());
    assert!(a.published && !z.published);
    assert_eq!(a.unpublished_columns, [Box::from("twice")]);
    client.batch_execute("ALTER PUBLICATION walcast ADD TABLE z").await.unwrap();
    assert!(catalog.refresh().await.unwrap());
    assert!(catalog.current().table("public", "z").unwrap().published);
}

#[tokio::test]
async fn a_generated_column_is_there_where_the_server_publishes_it() {
    let (database, client, _) = with(
        "CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, x text)",
    )
    .await;
    let version = "SELECT current_setting('server_version_num')::int >= 180000";
    let can: bool = client.query_one(version, &[]).await.unwrap().get(0);
    if can {
        let publish = "ALTER PUBLICATION walcast SET (publish_generated_columns = stored)";
        client.batch_execute(publish).await.unwrap();
    }
    let catalog = Catalog::connect(settings(&database, &[])).await.unwrap();
    let expected = if can { vec!["id", "twice", "x"] } else { vec!["id", "x"] };
    assert_eq!(column_names(&table(&catalog, "t")), expected);

    let slot = format!("slot_{}", database.name);
    client
        .batch_execute(&format!(
            "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');
             INSERT INTO t VALUES (1)"
        ))
        .await
        .unwrap();
    for description in described_by_the_stream(&client, &slot).await {
        let resolved = catalog.resolve(&description).await.unwrap();
        assert!(Arc::ptr_eq(&resolved, &table(&catalog, "t")), "{description:?}");
    }
    client.batch_execute(&format!("SELECT pg_drop_replication_slot('{slot}')")).await.unwrap();
}

#[tokio::test]
async fn a_column_list_narrows_the_shape() {
    let (database, client, _) =
        with("DROP PUBLICATION walcast; CREATE TABLE t (id int PRIMARY KEY, a int, b int);").await;
    let version = "SELECT current_setting('server_version_num')::int >= 150000";
    let can: bool = client.query_one(version, &[]).await.unwrap().get(0);
    let columns = if can { "(id, b)" } else { "" };
    let publish = format!("CREATE PUBLICATION walcast FOR TABLE t {columns}");
    client.batch_execute(&publish).await.unwrap();
    let catalog = Catalog::connect(settings(&database, &[])).await.unwrap();
    let current = catalog.current();
    let table = current.table("public", "t").unwrap();
    let left_out: Vec<Box<str>> = if can { vec!["a".into()] } else { Vec::new() };
    assert_eq!(table.unpublished_columns, left_out);
    assert_eq!(table.relation.columns.len(), 3 - left_out.len());
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let (_database, client, catalog) = with("CREATE TABLE t (id int PRIMARY KEY)").await;
    let cut = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
               WHERE application_name = 'walcast asking' AND datname = current_database()";
    assert_eq!(client.query_one(cut, &[]).await.unwrap().get::<_, i64>(0), 1);
    client.batch_execute("ALTER TABLE t ADD COLUMN x int").await.unwrap();
    // The client may notice the cut only when it asks.
    let changed = match catalog.refresh().await {
        Ok(changed) => changed,
        Err(_) => catalog.refresh().await.unwrap(),
    };
    assert!(changed);
    assert_eq!(column_names(&table(&catalog, "t")), ["id", "x"]);
}
