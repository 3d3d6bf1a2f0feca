//! The table that the micro benchmarks decode rows of and judge rows of, and such rows.

use std::sync::Arc;

use walcast::change::id::RelationId;
use walcast::change::id::TypeId;
use walcast::change::relation::Column;
use walcast::change::relation::Relation;
use walcast::change::relation::ReplicaIdentity;
use walcast::change::types::Collation;
use walcast::change::types::Kind;
use walcast::change::types::Type;

/// The table's OID.
pub(crate) const ORDERS: RelationId = RelationId(16_400);

/// `orders`, eight columns.
pub(crate) fn orders() -> Relation {
    let column = |name: &str, id: u32, kind: Kind| Column {
        name: name.into(),
        collation: if kind == Kind::Text { Collation::Bytes } else { Collation::None },
        of: Arc::new(Type { id: TypeId(id), name: name.into(), kind }),
        modifier: -1,
        in_identity: name == "id",
    };
    Relation {
        id: ORDERS,
        version: 1,
        schema: "public".into(),
        name: "orders".into(),
        identity: ReplicaIdentity::Default,
        columns: vec![
            column("id", 20, Kind::Int8),
            column("customer_id", 20, Kind::Int8),
            column("status", 25, Kind::Text),
            column("total", 1700, Kind::Numeric),
            column("placed_at", 1184, Kind::TimestampTz),
            column("is_gift", 16, Kind::Bool),
            column("coupon", 25, Kind::Text),
            column("note", 25, Kind::Text),
        ],
        primary_key: vec![0],
    }
}

/// The row number `number`, as the stream carries it; `coupon` is null.
pub(crate) fn tuple(number: u32) -> Vec<u8> {
    let (id, customer) = (number.to_string(), (number % 10_000).to_string());
    let total = format!("{}.{:02}", number % 500, number % 100);
    let cells = [
        Some(id.as_str()),
        Some(customer.as_str()),
        Some("open"),
        Some(total.as_str()),
        Some("2026-03-01 12:30:45.123456+00"),
        Some("f"),
        None,
        Some("the parcel stands behind the blue door, please knock twice"),
    ];
    let mut wire = 8_u16.to_be_bytes().to_vec();
    for cell in cells {
        match cell {
            None => wire.push(b'n'),
            Some(text) => {
                let length = u32::try_from(text.len()).expect("short texts");
                wire.push(b't');
                wire.extend_from_slice(&length.to_be_bytes());
                wire.extend_from_slice(text.as_bytes());
            }
        }
    }
    wire
}
