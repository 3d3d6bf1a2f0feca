//! What an operator is told of each table.

use crate::change::lsn::Lsn;
use crate::replica::Store;
use crate::replica::table::Table;
use crate::replica::unheld::Reader;
use crate::replica::unheld::Unheld;

/// One table that policies read.
#[derive(Clone, Debug)]
pub struct Report {
    /// Schema and name; its OID where the catalogue does not know it.
    pub table: String,
    /// The columns that are kept, or would be.
    pub columns: Vec<Box<str>>,
    /// Rows that it has now, where it is held.
    pub rows: Option<usize>,
    /// Versions of rows that are kept for who looks back.
    pub dead: usize,
    /// Bytes that it takes.
    pub bytes: usize,
    /// From which commit on it is known, where it is held.
    pub since: Option<Lsn>,
    /// Whether it is being read.
    pub loading: bool,
    /// Why it is not held, or could not be read again.
    pub unheld: Option<Unheld>,
    /// What mends that, where SQL does.
    pub remedy: Option<String>,
}

impl Store {
    /// Tells how many rows there are, and what they take.
    pub(super) fn count(&self) {
        let (mut rows, mut dead, mut bytes, mut unheld) = (0, 0, 0, 0);
        for slot in self.slots.load().values() {
            match &slot.read().held {
                None => unheld += 1,
                Some(held) => {
                    rows += held.table.living();
                    dead += held.table.dead();
                    bytes += held.table.bytes();
                }
            }
        }
        let meter = &self.metrics.replicas;
        meter.rows.set_len(rows);
        meter.past_rows.set_len(dead);
        meter.bytes.set_len(bytes);
        meter.bytes_max.set_len(self.settings().bytes_max);
        meter.unheld.set(unheld);
    }

    /// Every table that policies read, by name.
    #[must_use]
    pub fn report(&self, own_role: &str) -> Vec<Report> {
        let publication = self.catalog.publication();
        let settings = self.settings();
        let reader = Reader { own: own_role, role: settings.role.as_deref() };
        let slots = self.slots.load();
        let mut reports: Vec<Report> = slots
            .iter()
            .map(|(id, slot)| {
                let state = slot.read();
                let held = state.held.as_ref();
                let relation = state.relation.as_ref();
                let known = held.map(|held| &held.table);
                let unheld = state.unheld.clone();
                let remedy = unheld.as_ref().zip(relation);
                let remedy = remedy.and_then(|(why, it)| why.remedy(it, publication, reader));
                Report {
                    table: relation
                        .map_or_else(|| id.to_string(), |it| format!("{}.{}", it.schema, it.name)),
                    columns: state.wanted.columns.iter().cloned().collect(),
                    rows: known.map(Table::living),
                    dead: known.map_or(0, Table::dead),
                    bytes: known.map_or(0, Table::bytes),
                    since: held.map(|held| held.since),
                    loading: state.loading.is_some(),
                    unheld,
                    remedy,
                }
            })
            .collect();
        reports.sort_by(|a, b| a.table.cmp(&b.table));
        reports
    }
}
