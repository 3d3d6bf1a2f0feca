//! The rows that the writer writes, as SQL and as the JSON that a server would make of them.

use std::fmt::Write as _;

/// Which table the rows go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// What everybody watches.
    Locations,
    /// What each client watches its own rows of.
    Orders,
}

/// What rows look like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) table: Table,
    /// How many drivers or customers there are; row `seq` is of number `seq % keys`.
    pub(crate) keys: u64,
    /// The last column, which brings a row to its length.
    pub(crate) note: String,
}

impl Shape {
    /// Rows with a note of `note_bytes`; 60 bytes make a frame of some 300.
    pub(crate) fn new(table: Table, keys: u64, note_bytes: usize) -> Shape {
        let note = "the parcel stands behind the blue door ".chars().cycle().take(note_bytes);
        Shape { table, keys, note: note.collect() }
    }

    /// One INSERT of `rows` rows from `first_seq` on.
    pub(crate) fn insert(&self, first_seq: u64, rows: u64, sent_at_us: u64) -> String {
        let mut sql = String::with_capacity(self.length(rows));
        sql.push_str(match self.table {
            Table::Locations => {
                "insert into locations \
                 (driver_id, lat, lng, heading, speed, status, seq, sent_at_us, note) values "
            }
            Table::Orders => {
                "insert into orders \
                 (customer_id, status, total_cents, currency, seq, sent_at_us, note) values "
            }
        });
        for seq in first_seq..first_seq + rows {
            let comma = if seq == first_seq { "" } else { "," };
            let (key, note) = (seq % self.keys, &self.note);
            let written = match self.table {
                Table::Locations => {
                    let (lat, lng) = (seq % 1_000_000, (seq * 7) % 1_000_000);
                    let (heading, speed) = (seq % 360, seq % 90);
                    write!(
                        sql,
                        "{comma}({key},52.{lat:06},13.{lng:06},{heading},{speed},'moving',\
                         {seq},{sent_at_us},'{note}')"
                    )
                }
                Table::Orders => {
                    let cents = 100 + seq % 9_000;
                    write!(sql, "{comma}({key},'placed',{cents},'EUR',{seq},{sent_at_us},'{note}')")
                }
            };
            written.expect("a string takes everything");
        }
        sql
    }

    /// The columns of one row as a JSON object.
    pub(crate) fn json(&self, seq: u64, sent_at_us: u64) -> String {
        let (key, note) = (seq % self.keys, &self.note);
        match self.table {
            Table::Locations => {
                let (lat, lng) = (seq % 1_000_000, (seq * 7) % 1_000_000);
                let (heading, speed) = (seq % 360, seq % 90);
                format!(
                    "{{\"id\":{seq},\"driver_id\":{key},\"lat\":52.{lat:06},\"lng\":13.{lng:06},\
                     \"heading\":{heading},\"speed\":{speed},\"status\":\"moving\",\"seq\":{seq},\
                     \"sent_at_us\":{sent_at_us},\"note\":\"{note}\"}}"
                )
            }
            Table::Orders => {
                let cents = 100 + seq % 9_000;
                format!(
                    "{{\"id\":{seq},\"customer_id\":{key},\"status\":\"placed\",\
                     \"total_cents\":{cents},\"currency\":\"EUR\",\"seq\":{seq},\
                     \"sent_at_us\":{sent_at_us},\"note\":\"{note}\"}}"
                )
            }
        }
    }

    /// The frame that a change server would send for that row.
    pub(crate) fn frame(&self, seq: u64, sent_at_us: u64) -> String {
        let row = self.json(seq, sent_at_us);
        let table = self.table.name();
        format!("{{\"type\":\"row\",\"table\":\"public.{table}\",\"op\":\"insert\",\"new\":{row}}}")
    }

    fn length(&self, rows: u64) -> usize {
        usize::try_from(rows).unwrap_or(1) * (self.note.len() + 120) + 160
    }
}

impl Table {
    /// Its name in the schema `public`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::Locations => "locations",
            Table::Orders => "orders",
        }
    }
}
