//! What Postgres says of a table that is to be held: what stands in the way, and how large it is.
//!
//! The same questions are asked before a table is read (`replica::load`) and for `walcast check`
//! (`replica::forecast`), so that the one does not promise what the other refuses.

use crate::change::id::RelationId;
use crate::replica::shape::Kept;
use crate::replica::unheld::Unheld;
use crate::rule::quoted_name;
use crate::rule::quoted_text;

/// One answer of the server: values of one row, as text.
pub(super) type Facts = Vec<Option<String>>;

/// Whether a fact says yes.
pub(super) fn holds(facts: &[Option<String>], at: usize) -> bool {
    facts.get(at).and_then(Option::as_deref) == Some("t")
}

/// The questions, as the columns of a SELECT; `None` where a name can't be written.
pub(super) fn conditions(id: RelationId, publication: &str) -> Option<String> {
    let publication = quoted_text(publication)?;
    Some(format!(
        "(SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate \
          FROM pg_publication WHERE pubname = {publication}), \
         EXISTS (SELECT FROM pg_publication_tables p \
          JOIN pg_namespace n ON n.nspname = p.schemaname \
          JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
          WHERE p.pubname = {publication} AND c.oid = {id}::oid \
          AND to_jsonb(p) ->> 'rowfilter' IS NOT NULL), \
         EXISTS (SELECT FROM pg_inherits WHERE inhparent = {id}::oid), \
         (SELECT relkind <> 'r' FROM pg_class WHERE oid = {id}::oid), \
         row_security_active({id}::oid)"
    ))
}

/// Whether all that could have changed rows without the stream saying so (a column rewritten or made
/// anew, the table put into the publication) was over before whatever the slot may still bring: by
/// the numbers of the transactions that did it, all older than what the slot keeps the catalogue for.
pub(super) fn is_settled(id: RelationId, publication: &str, slot: &str) -> Option<String> {
    let (publication, slot) = (quoted_text(publication)?, quoted_text(slot)?);
    Some(format!(
        "(SELECT bool_and(age(did.xid) > age(s.catalog_xmin)) FROM pg_replication_slots s, \
          (SELECT xmin AS xid FROM pg_attribute WHERE attrelid = {id}::oid \
           UNION ALL SELECT xmin FROM pg_publication WHERE pubname = {publication} \
           UNION ALL SELECT d.xmin FROM pg_depend d JOIN pg_publication u ON u.oid = d.refobjid \
            WHERE d.refclassid = 'pg_publication'::regclass AND u.pubname = {publication}) did \
          WHERE s.slot_name = {slot})"
    ))
}

/// What the answers to [`conditions`], the first of which is at `from`, let stand in the way.
pub(super) fn obstacles(facts: &[Option<String>], from: usize) -> Vec<Unheld> {
    let is_partitioned = holds(facts, from + 3);
    [
        (holds(facts, from), Unheld::NotAllPublished),
        (!holds(facts, from + 1), Unheld::RowFilter),
        // Partitions inherit, too.
        (!holds(facts, from + 2) || is_partitioned, Unheld::Inherited),
        (!is_partitioned, Unheld::Partitioned),
        (!holds(facts, from + 4), Unheld::RowSecurity),
    ]
    .into_iter()
    .filter_map(|(fine, why)| (!fine).then_some(why))
    .collect()
}

/// The query for the columns that are kept.
pub(super) fn rows(kept: &Kept) -> String {
    let names: Vec<String> = kept.columns().map(|(name, _)| quoted_name(name)).collect();
    let (schema, name) = (quoted_name(&kept.relation.schema), quoted_name(&kept.relation.name));
    format!("SELECT {} FROM ONLY {schema}.{name}", names.join(", "))
}

/// How many rows the planner expects there, and how wide it holds them to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) rows: usize,
    pub(super) width: usize,
}

impl Extent {
    /// Reads what `EXPLAIN (FORMAT JSON)` of [`rows`] says.
    pub(super) fn read(document: &str) -> Option<Extent> {
        let document: serde_json::Value = serde_json::from_str(document).ok()?;
        let plan = document.get(0)?.get("Plan")?;
        let number = |key: &str| usize::try_from(plan.get(key)?.as_u64()?).ok();
        Some(Extent { rows: number("Plan Rows")?, width: number("Plan Width")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_planner_s_estimate_is_read() {
        let document =
            r#"[{"Plan": {"Node Type": "Seq Scan", "Plan Rows": 1200, "Plan Width": 32}}]"#;
        assert_eq!(Extent::read(document), Some(Extent { rows: 1200, width: 32 }));
        assert_eq!(Extent::read("[]"), None);
    }

    #[test]
    fn everything_that_stands_in_the_way_is_told() {
        let facts = |texts: [&str; 5]| texts.map(|text| Some(text.to_owned())).to_vec();
        assert_eq!(obstacles(&facts(["t", "f", "f", "f", "f"]), 0), []);
        let all =
            [Unheld::NotAllPublished, Unheld::RowFilter, Unheld::Inherited, Unheld::RowSecurity];
        assert_eq!(obstacles(&facts(["f", "t", "t", "f", "t"]), 0), all);
        assert_eq!(obstacles(&facts(["t", "f", "t", "t", "f"]), 0), [Unheld::Partitioned]);
        // What is not answered is not fine.
        assert_eq!(obstacles(&[], 0), [Unheld::NotAllPublished]);
    }
}
