//! How an inquiry is written.
//!
//! ```text
//! BEGIN; the moment, the table's shape; the images as a setting; SAVEPOINT
//! for each name: ROLLBACK TO; the role, its settings (and, empty, those that it lacks); the condition
//!                over the images
//! ROLLBACK TO; whether the tables that it looks into are still the same files; ROLLBACK
//! ```
//!
//! Everything goes out before the first answer is waited for. An error ends what was sent with it and
//! nothing else: the next begins by going back.
//!
//! A TRUNCATE or a rewrite takes rows away from older snapshots, too. Such an answer would be of no
//! moment at all, and is not taken.

use crate::ask::query::emptied;
use crate::ask::verdict::Case;
use crate::ask::verdict::Inquiry;
use crate::ask::verdict::Matter;
use crate::ask::verdict::image::array;
use crate::rule::quoted_name;
use crate::rule::quoted_text;

/// Ends the transaction.
pub(super) const END: &str = "ROLLBACK";

/// Ends it, and tells whether the rows that the snapshot can see were where they were looked for: the
/// catalogue says by the snapshot in which file a table was (and those that are parts of it), and a
/// function in which it is.
pub(super) fn end(matter: &Matter) -> String {
    if matter.watched.is_empty() {
        return END.to_owned();
    }
    let tables: Vec<String> = matter.watched.iter().map(ToString::to_string).collect();
    format!(
        "ROLLBACK TO SAVEPOINT name;\
         WITH RECURSIVE parts (id) AS (\
           SELECT unnest(ARRAY[{}]::oid[]) \
           UNION SELECT inhrelid FROM pg_inherits JOIN parts ON inhparent = id) \
         SELECT bool_and(pg_relation_filenode(oid) IS NOT DISTINCT FROM nullif(relfilenode, 0)) \
         FROM pg_class JOIN parts ON oid = id WHERE relkind = 'r';\
         {END}",
        tables.join(", ")
    )
}

/// Where the images are that every name is asked about.
const SHARED: &str = "walcast.images";

/// What a setting is that a case looks at and does not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unset {
    /// As in a session that never set it: this one must not have.
    Null,
    /// As in one that did: empty, or what the database sets it to.
    Empty,
}

/// Begins the transaction, tells its moment and whether the table is of the shape that the images
/// have, and how another session may join in that moment; `None` where an image holds what no literal
/// can.
pub(super) fn begin(inquiry: &Inquiry, is_joined: bool) -> Option<String> {
    let matter = &inquiry.matter;
    let images = quoted_text(&array(inquiry.images.iter()))?;
    let join = if is_joined { ", pg_export_snapshot()" } else { "" };
    Some(format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\
         SELECT pg_current_snapshot(), pg_current_wal_insert_lsn(), {}{join};\
         SELECT set_config('{SHARED}', {images}, true) IS NULL;\
         SAVEPOINT name",
        shape(matter)
    ))
}

/// Takes on a role and nothing else.
pub(super) fn act(role: &str) -> String {
    format!("ROLLBACK TO SAVEPOINT name;SET LOCAL ROLE {}", quoted_name(role))
}

/// Begins the transaction at another one's moment.
pub(super) fn join(inquiry: &Inquiry, moment: &str) -> Option<String> {
    let images = quoted_text(&array(inquiry.images.iter()))?;
    let moment = quoted_text(moment)?;
    Some(format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\
         SET TRANSACTION SNAPSHOT {moment};\
         SELECT set_config('{SHARED}', {images}, true) IS NULL;\
         SAVEPOINT name"
    ))
}

/// Asks about some images of a case; absent: all that it is about.
pub(super) fn ask(
    inquiry: &Inquiry,
    case: &Case,
    only: Option<&[usize]>,
    (discard, unset): (bool, Unset),
) -> Option<String> {
    let matter = &inquiry.matter;
    let call = |(name, value): &(Box<str>, Box<str>)| {
        let (name, value) = (quoted_text(name)?, quoted_text(value)?);
        Some(format!("set_config({name}, {value}, true) IS NULL"))
    };
    let mut settings: Vec<String> = case.name.settings.iter().map(call).collect::<Option<_>>()?;
    if let (Unset::Empty, Some(names)) = (unset, &case.name.unset) {
        let empty = names.names.iter().map(|name| emptied(name));
        settings.extend(empty.collect::<Option<Vec<_>>>()?);
    }
    let settings = match settings.join(", ") {
        none if none.is_empty() => none,
        calls => format!("SELECT {calls};"),
    };
    let images = match only.or(case.images.as_deref()) {
        None => format!("current_setting('{SHARED}')"),
        Some(some) => {
            let some = some.iter().filter_map(|at| inquiry.images.get(*at));
            quoted_text(&array(some))?
        }
    };
    let (schema, table) =
        (quoted_name(&matter.relation.schema), quoted_name(&matter.relation.name));
    let discard = if discard { "DISCARD PLANS;" } else { "" };
    // The condition's own names were resolved when the statement was read. Functions that it calls
    // look for theirs when they run, as they do in a session that names no path.
    let path = quoted_text(&matter.search_path)?;
    Some(format!(
        "ROLLBACK TO SAVEPOINT name;{discard}SET LOCAL ROLE {};{settings}\
         SELECT set_config('search_path', {path}, true) IS NULL, ({}) \
         FROM unnest({images}::{schema}.{table}[]) AS {table}",
        quoted_name(&case.name.role),
        matter.condition,
    ))
}

/// Whether the table has these columns and no others, so that an image is one of its rows.
fn shape(matter: &Matter) -> String {
    let relation = &matter.relation;
    let known: Vec<String> = relation
        .columns
        .iter()
        .map(|column| {
            let name = column.name.replace('\'', "''");
            format!("('{name}', {}::oid, {})", column.of.id, column.modifier)
        })
        .collect();
    format!(
        "(SELECT count(*) = {} AND count(*) FILTER (WHERE (attname::text, atttypid, atttypmod) IN \
         ({})) = {} FROM pg_attribute WHERE attrelid = {}::oid AND attnum > 0 AND NOT attisdropped)",
        matter.columns.len(),
        known.join(", "),
        known.len(),
        relation.id,
    )
}
