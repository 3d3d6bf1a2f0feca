//! What must hold of any bytes from outside, one function for each entrance. Fuzz targets and
//! `tests/corpus.rs` call the same ones.

use std::sync::Arc;

use walcast::change::id::RelationId;
use walcast::change::id::TypeId;
use walcast::change::relation::Column;
use walcast::change::relation::Relation;
use walcast::change::relation::ReplicaIdentity;
use walcast::change::tuple::Cell;
use walcast::change::types::Collation;
use walcast::change::types::Kind;
use walcast::change::types::Type;
use walcast::dialect::native::request;
use walcast::dialect::native::request::ID_BYTES_MAX;
use walcast::dialect::native::request::Request;
use walcast::ingest::assemble::Assembler;
use walcast::ingest::assemble::PART_BYTES;
use walcast::ingest::condense::Condenser;
use walcast::ingest::condense::SMALL;
use walcast::ingest::pgoutput::decode;
use walcast::rule::Expression;
use walcast::rule::Rule;
use walcast::rule::RuleError;
use walcast::rule::parse_filter;
use walcast::rule::parse_where;
use walcast::rule::policy::Policy;
use walcast::rule::policy::Source;
use walcast::rule::policy::library::Library;
use walcast::rule::policy::library::Operator;
use walcast::rule::policy::library::Server;
use walcast::rule::policy::library::TableNames;

/// One message of the stream: no panic, and where it is understood every byte of it was needed and
/// none is left over. It may be condensed, and is no other then.
pub(crate) fn pgoutput(payload: &[u8]) {
    condense(payload);
    // A stream may hold it in a place where it means nothing.
    let _refused_or_not = Assembler::new(PART_BYTES, None).push(payload);
    if decode(payload).is_err() {
        return;
    }
    if let Some((_, shorter)) = payload.split_last() {
        assert!(decode(shorter).is_err(), "its last byte means nothing");
    }
    let longer = [payload, &[0]].concat();
    assert!(decode(&longer).is_err(), "a byte is left over");
}

/// A row condensed as a whole and byte by byte: the same, and what it was, as long as it is small.
fn condense(payload: &[u8]) {
    let frame = [&[b'w'; 25], payload].concat();
    let condensed = |pieces: usize| {
        let mut condenser = Condenser::new(SMALL);
        frame.chunks(pieces).for_each(|piece| condenser.push(piece));
        condenser.condensed().to_vec()
    };
    let whole = condensed(frame.len());
    assert!(condensed(1) == whole, "cuts make a difference");
    if payload.first().is_some_and(|tag| b"IUD".contains(tag)) {
        let after = decode(whole.get(25..).unwrap_or_default());
        assert_eq!(decode(payload).is_ok(), after.is_ok(), "malformed, and then not");
        assert!(after.is_err() || payload.len() > SMALL || whole == frame, "a value is missing");
    }
}

/// A text as a `where` and as a filter: no panic, in binding and judging neither, and a blank
/// before it changes nothing.
pub(crate) fn rule(text: &str) {
    for parse in [parse_where, parse_filter] {
        let Some(rule) = bound(parse, text) else { continue };
        assert_eq!(bound(parse, &format!(" {text}")).as_ref(), Some(&rule), "a blank counts");
        let columns = relation().columns.len();
        for row in [vec![Cell::Null; columns], vec![Cell::Unchanged; columns], row()] {
            let _verdict = rule.evaluate(&row);
        }
    }
}

/// The stored form of a policy over three tables: no panic, and blanks at its end change nothing.
pub(crate) fn policy(tree: &str) {
    let library = library();
    let Some(subject) = library.tables.get(&16_384) else { return };
    let read = |tree: &str| {
        let columns = &subject.columns;
        Policy::read(Source { tree, text: "true", columns }, &library).is_ok()
    };
    assert_eq!(read(tree), read(&format!("{tree} \n")), "a blank counts");
}

/// What the stored forms of the corpus speak of.
fn library() -> Library {
    let table = |id: u32, name: &str, columns: &[&str]| {
        let columns = (1_i16..).zip(columns.iter().map(|name| Box::from(*name))).collect();
        (id, TableNames { schema: "public".into(), name: name.into(), columns })
    };
    let operator =
        |id: u32, name: &str, of| (id, Operator { name: name.into(), left: of, right: of });
    Library {
        server: Arc::new(Server {
            operators: [
                operator(2972, "=", 2950),
                operator(2973, "<>", 2950),
                operator(98, "=", 25),
            ]
            .into(),
            ..Server::default()
        }),
        tables: [
            table(16_384, "subject", &["id", "owner", "tenant", "label"]),
            table(16_391, "members", &["org_id", "user_id", "role"]),
            table(16_398, "orgs", &["id", "name"]),
        ]
        .into(),
        ..Library::default()
    }
}

/// A request: no panic, and a subscription has a name that fits into frames; a refusal has one of
/// the two codes.
pub(crate) fn request(text: &str) {
    match request::parse(text) {
        Ok(Request::Subscribe(subscribe)) => {
            assert!((1..=ID_BYTES_MAX).contains(&subscribe.id.len()), "{:?}", subscribe.id);
        }
        Ok(_) => {}
        Err(error) => assert!(["bad_request", "unknown_request"].contains(&error.code)),
    }
}

fn bound(parse: impl Fn(&str) -> Result<Expression, RuleError>, text: &str) -> Option<Rule> {
    let claims = serde_json::json!({ "sub": "7", "role": "driver", "tags": ["a", "b"] });
    Rule::bind(&parse(text).ok()?, &relation(), &claims).ok()
}

/// A table with a column of nearly every kind.
fn relation() -> Relation {
    let of = |id, name: &str, kind| Arc::new(Type { id: TypeId(id), name: name.into(), kind });
    let text = of(25, "text", Kind::Text);
    let labels = ["open", "live", "done"].map(Into::into);
    let columns = [
        ("id", of(20, "int8", Kind::Int8)),
        ("live", of(16, "bool", Kind::Bool)),
        ("total", of(1700, "numeric", Kind::Numeric)),
        ("weight", of(701, "float8", Kind::Float8)),
        ("note", Arc::clone(&text)),
        ("code", of(1042, "bpchar", Kind::Bpchar)),
        ("key", of(2950, "uuid", Kind::Uuid)),
        ("day", of(1082, "date", Kind::Date)),
        ("at", of(1184, "timestamptz", Kind::TimestampTz)),
        ("span", of(1186, "interval", Kind::Interval)),
        ("items", of(3802, "jsonb", Kind::Jsonb)),
        ("bytes", of(17, "bytea", Kind::Bytea)),
        ("status", of(20_000, "status", Kind::Enum(Arc::new(labels)))),
        ("tags", of(1009, "_text", Kind::Array { element: text, delimiter: b',' })),
        ("place", of(600, "point", Kind::Other)),
    ];
    let column = |(name, of): (&str, Arc<Type>)| Column {
        name: name.into(),
        of,
        modifier: -1,
        collation: if name == "code" { Collation::Locale } else { Collation::Bytes },
        in_identity: true,
    };
    Relation {
        id: RelationId(1),
        version: 1,
        schema: "public".into(),
        name: "orders".into(),
        identity: ReplicaIdentity::Full,
        columns: columns.into_iter().map(column).collect(),
        primary_key: vec![0],
    }
}

/// A row of it.
fn row() -> Vec<Cell<'static>> {
    let texts = [
        "7",
        "t",
        "12.50",
        "1.5",
        "a note",
        "ab  ",
        "a0000000-0000-4000-8000-000000000001",
        "2026-11-21",
        "2026-11-21 04:00:00.5+00",
        "1 day 02:00:00",
        "{\"a\": [1, {\"b\": null}]}",
        "\\x00ff",
        "live",
        "{a,\"b c\",NULL}",
        "(1,2)",
    ];
    texts.map(|text| Cell::Text(text.as_bytes())).to_vec()
}
