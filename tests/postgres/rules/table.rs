//! The table whose rows are judged: a column of each type, filled with what is hard.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use walcast::change::id::RelationId;
use walcast::change::id::TypeId;
use walcast::change::relation::Column;
use walcast::change::relation::Relation;
use walcast::change::relation::ReplicaIdentity;
use walcast::change::types::Collation;
use walcast::change::types::Kind;
use walcast::change::types::Type;

use crate::random::Random;

/// How many rows are judged.
const ROWS: usize = 64;

/// A column of the table: its name, its type in SQL, and values as literals for it.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
    pub(crate) values: &'static [&'static str],
}

const TEXTS: &[&str] = &[
    "",
    "a",
    "A",
    "ab",
    "aB",
    "b",
    "é",
    "É",
    "a b",
    " a",
    "a ",
    "%",
    "_",
    "a%b",
    "a\\b",
    "a,b",
    "\"a\"",
    "{a}",
    "NULL",
    "null",
    "日本",
    "ß",
    "ok",
    "x",
    "open",
    "a'b",
    "line\nbreak",
    "İ",
    "7",
    "-1.50",
    "true",
    "1e3",
];
const INTS: &[&str] = &["0", "1", "-1", "2", "7", "100", "32767", "-32768"];
const UUIDS: &[&str] = &[
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "A0EEBC999C0B4EF8BB6D6BB9BD380A12",
    "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13}",
];

pub(crate) const SAMPLES: &[Sample] = &[
    Sample { name: "b", sql: "bool", values: &["t", "f"] },
    Sample { name: "i2", sql: "int2", values: INTS },
    Sample {
        name: "i4",
        sql: "int4",
        values: &["0", "1", "-1", "2", "7", "100", "2147483647", "-2147483648"],
    },
    Sample {
        name: "i8",
        sql: "int8",
        values: &[
            "0",
            "1",
            "-1",
            "7",
            "9007199254740993",
            "9223372036854775807",
            "-9223372036854775808",
            "2147483648",
        ],
    },
    Sample {
        name: "f4",
        sql: "float4",
        values: &[
            "0",
            "-0",
            "0.1",
            "1.5",
            "7",
            "-1",
            "NaN",
            "Infinity",
            "-Infinity",
            "3.4e38",
            "1e-40",
            "16777217",
        ],
    },
    Sample {
        name: "f8",
        sql: "float8",
        values: &[
            "0",
            "-0",
            "0.1",
            "1.5",
            "7",
            "-1",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e308",
            "5e-324",
            "9007199254740993",
        ],
    },
    Sample {
        name: "n",
        sql: "numeric",
        values: &[
            "0",
            "0.00",
            "1",
            "1.0",
            "1.50",
            "-1.5",
            "7",
            "7.000",
            "0.1",
            "NaN",
            "Infinity",
            "-Infinity",
            "123456789012345678901234567890.123456789",
            "-0.000000000000000000000000000001",
            "9007199254740993",
            "9223372036854775808",
        ],
    },
    Sample { name: "o", sql: "oid", values: &["0", "1", "7", "4294967295", "2147483648"] },
    Sample { name: "tx", sql: "text", values: TEXTS },
    Sample { name: "tc", sql: "text COLLATE \"C\"", values: TEXTS },
    Sample { name: "vc", sql: "varchar", values: TEXTS },
    Sample {
        name: "bp",
        sql: "char(6)",
        values: &["", "a", "ab", "a b", "abcdef", "é", " a", "ok", "%"],
    },
    Sample { name: "nm", sql: "name", values: &["", "a", "A", "b", "é", "ok", "a b"] },
    Sample { name: "u", sql: "uuid", values: UUIDS },
    Sample {
        name: "d",
        sql: "date",
        values: &[
            "2000-01-01",
            "2000-02-29",
            "1999-12-31",
            "0044-03-15 BC",
            "infinity",
            "-infinity",
            "5874897-12-31",
            "2026-11-21",
            "0001-01-01",
        ],
    },
    Sample {
        name: "t",
        sql: "time",
        values: &["00:00:00", "24:00:00", "12:30:00.5", "23:59:59.999999", "12:30"],
    },
    Sample {
        name: "tz",
        sql: "timetz",
        values: &[
            "00:00:00+00",
            "02:00:00+02",
            "12:30:00-05:30",
            "23:59:59.999999+00",
            "24:00:00+00",
            "10:00:00-02",
        ],
    },
    Sample {
        name: "ts",
        sql: "timestamp",
        values: &[
            "2000-01-01 00:00:00",
            "2000-01-01 00:00:00.000001",
            "1999-12-31 23:59:59.999999",
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "2000-02-29",
            "2026-11-21T04:05:06",
        ],
    },
    Sample {
        name: "tt",
        sql: "timestamptz",
        values: &[
            "2000-01-01 00:00:00+00",
            "2000-01-01 02:00:00+02",
            "1999-12-31 23:59:59.999999Z",
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "2000-02-29",
            "2026-11-21T04:05:06-05:30",
        ],
    },
    Sample {
        name: "iv",
        sql: "interval",
        values: &[
            "1 mon",
            "30 days",
            "720:00:00",
            "1 day",
            "24:00:00",
            "-1 days",
            "1 year 2 mons -3 days +04:05:06.7",
            "00:00:00",
            "-00:00:00.000001",
            "1 year",
            "360 days",
            "2 hours 30 minutes",
        ],
    },
    Sample { name: "e", sql: "mood", values: &["sad", "ok", "happy", "Odd one"] },
    Sample {
        name: "j",
        sql: "jsonb",
        values: &[
            "{}",
            "[]",
            "null",
            "1",
            "1.0",
            "\"a\"",
            "true",
            "{\"a\": 1}",
            "{\"a\": 1.0, \"b\": [1, 2]}",
            "[1, 2]",
            "[1]",
            "[\"a\", \"b\"]",
            "{\"a\": {\"b\": \"x\"}}",
            "{\"a\": null}",
            "[[1]]",
            "{\"k\": \"é\", \"aa\": \"7\"}",
            "[{\"a\": 1}, {\"b\": 2}]",
            "\"\"",
            "{\"a\":1,\"a\":2}",
            "1e2",
        ],
    },
    Sample {
        name: "by",
        sql: "bytea",
        values: &["\\x", "\\x00", "\\xDEADbeef", "\\xff", "\\x00ff"],
    },
    Sample {
        name: "ia",
        sql: "int4[]",
        values: &["{}", "{1}", "{1,2}", "{2,1}", "{1,NULL}", "{NULL}", "{7,7}", "{-1,0,100}"],
    },
    Sample {
        name: "la",
        sql: "int8[]",
        values: &["{}", "{1}", "{1,2}", "{9223372036854775807}", "{NULL,7}"],
    },
    Sample {
        name: "ta",
        sql: "text[]",
        values: &[
            "{}",
            "{a}",
            "{a,b}",
            "{\"\"}",
            "{NULL}",
            "{\"NULL\",a}",
            "{\"a b\",\"c,d\",\"e\\\"f\"}",
            "{é,ok}",
        ],
    },
    Sample {
        name: "ea",
        sql: "mood[]",
        values: &["{}", "{ok}", "{sad,happy}", "{\"Odd one\",NULL}"],
    },
];

/// The table, its shape as walcast knows it, and its rows as `pgoutput` sends them.
pub(crate) struct Subject {
    pub(crate) relation: Relation,
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

impl Subject {
    /// Makes the table in an empty database, and fills it.
    pub(crate) async fn create(client: &Client, random: &mut Random) -> Subject {
        let columns: Vec<String> =
            SAMPLES.iter().map(|sample| format!("{} {}", sample.name, sample.sql)).collect();
        client
            .batch_execute(&format!(
                "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres';
                 SET extra_float_digits = 3; SET bytea_output = 'hex';
                 CREATE TYPE mood AS ENUM ('sad', 'happy');
                 ALTER TYPE mood ADD VALUE 'ok' BEFORE 'happy'; ALTER TYPE mood ADD VALUE 'Odd one' BEFORE 'sad';
                 CREATE TABLE subject (row_number int NOT NULL, {})",
                columns.join(", ")
            ))
            .await
            .unwrap();
        for number in 0..ROWS {
            let values: Vec<String> = SAMPLES
                .iter()
                .map(|sample| match random.one_in(6) {
                    true => "NULL".to_owned(),
                    false => quoted(random.pick(sample.values)),
                })
                .collect();
            let insert = format!("INSERT INTO subject VALUES ({number}, {})", values.join(", "));
            client.batch_execute(&insert).await.unwrap();
        }
        // An array of two dimensions, and one with a bound of its own.
        client
            .batch_execute(
                "UPDATE subject SET ia = '{{1,2},{7,-1}}' WHERE row_number = 1;
                 UPDATE subject SET ia = '[0:1]={1,2}', ta = '[2:3]={a,b}' WHERE row_number = 2",
            )
            .await
            .unwrap();
        Subject { relation: relation(), rows: rows(client).await }
    }
}

/// A text as a quoted constant.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The rows in the form of the stream: `format` calls the output functions, as `pgoutput` does.
async fn rows(client: &Client) -> Vec<Vec<Option<String>>> {
    let list: Vec<String> = SAMPLES
        .iter()
        .map(|sample| {
            format!("CASE WHEN {0} IS NULL THEN NULL ELSE format('%s', {0}) END", sample.name)
        })
        .collect();
    let query = format!("SELECT {} FROM subject ORDER BY row_number", list.join(", "));
    let messages = client.simple_query(&query).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
        }
        _ => None,
    });
    rows.collect()
}

fn relation() -> Relation {
    let columns = SAMPLES.iter().map(|sample| {
        let of = type_of(sample.sql);
        let collation = match sample.name {
            "tc" | "nm" => Collation::Bytes,
            "tx" | "vc" | "bp" | "ta" => Collation::Locale,
            _ => Collation::None,
        };
        Column { name: sample.name.into(), of, modifier: -1, collation, in_identity: true }
    });
    Relation {
        id: RelationId(16_400),
        version: 1,
        schema: "public".into(),
        name: "subject".into(),
        identity: ReplicaIdentity::Full,
        columns: columns.collect(),
        primary_key: Vec::new(),
    }
}

fn type_of(sql: &str) -> Arc<Type> {
    if let Some(element) = sql.strip_suffix("[]") {
        let element = type_of(element);
        let (id, name) = (TypeId(element.id.0 + 100_000), format!("_{}", element.name).into());
        return Arc::new(Type { id, name, kind: Kind::Array { element, delimiter: b',' } });
    }
    let (id, name, kind) = match sql {
        "bool" => (16, "bool", Kind::Bool),
        "int2" => (21, "int2", Kind::Int2),
        "int4" => (23, "int4", Kind::Int4),
        "int8" => (20, "int8", Kind::Int8),
        "float4" => (700, "float4", Kind::Float4),
        "float8" => (701, "float8", Kind::Float8),
        "numeric" => (1700, "numeric", Kind::Numeric),
        "oid" => (26, "oid", Kind::Oid),
        "varchar" => (1043, "varchar", Kind::Text),
        "char(6)" => (1042, "bpchar", Kind::Bpchar),
        "name" => (19, "name", Kind::Name),
        "uuid" => (2950, "uuid", Kind::Uuid),
        "date" => (1082, "date", Kind::Date),
        "time" => (1083, "time", Kind::Time),
        "timetz" => (1266, "timetz", Kind::TimeTz),
        "timestamp" => (1114, "timestamp", Kind::Timestamp),
        "timestamptz" => (1184, "timestamptz", Kind::TimestampTz),
        "interval" => (1186, "interval", Kind::Interval),
        "jsonb" => (3802, "jsonb", Kind::Jsonb),
        "bytea" => (17, "bytea", Kind::Bytea),
        "mood" => {
            let labels: Arc<[Box<str>]> = ["Odd one", "sad", "ok", "happy"].map(Box::from).into();
            (16_390, "mood", Kind::Enum(labels))
        }
        _ => (25, "text", Kind::Text),
    };
    Arc::new(Type { id: TypeId(id), name: name.into(), kind })
}
