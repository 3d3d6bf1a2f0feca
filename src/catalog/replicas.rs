//! Which tier decides who sees the rows of a table, and which other tables must be at hand for that.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::catalog::snapshot::RowSecurity;
use crate::catalog::snapshot::Snapshot;
use crate::catalog::snapshot::Table;
use crate::change::id::RelationId;
use crate::rule::RuleError;
use crate::rule::Wanted;
use crate::rule::policy::Kind;
use crate::rule::policy::surveyed;
use crate::rule::policy::tables::Guard;
use crate::rule::policy::tables::Guarded;

/// How it is decided which rows of a table a role sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tier {
    /// It sees every row that it may select.
    Everything,
    /// It sees none: no policy admits any.
    Nothing,
    /// By the row and the claims.
    Row,
    /// By the rows of these tables, too.
    Tables(Vec<RelationId>),
    /// Not here; for the reason that a policy, by its name, has.
    Elsewhere {
        /// The policy.
        policy: Box<str>,
        /// Why it is not decided here; or why Postgres raises an error.
        why: RuleError,
    },
}

impl Snapshot {
    /// What the policies of the published tables read of other tables, for whatever role: so much of
    /// these must be at hand. Sorted by table.
    #[must_use]
    pub fn replicas(&self) -> Vec<Wanted> {
        let mut wanted = BTreeMap::new();
        for table in self.tables().filter(|table| table.published) {
            for role in table.policies.roles() {
                // What is decided for nobody needs nothing.
                let _ = self.survey(table, role, &mut wanted);
            }
        }
        wanted.into_values().collect()
    }

    /// How it is decided what `role` sees of a table.
    #[must_use]
    pub fn tier(&self, table: &Table, role: &str) -> Tier {
        if table.row_security == RowSecurity::Off || table.policies.exempts(role) {
            return Tier::Everything;
        }
        if !table.policies.of(role).any(|policy| policy.kind == Kind::Permissive) {
            return Tier::Nothing;
        }
        let mut wanted = BTreeMap::new();
        match self.survey(table, role, &mut wanted) {
            Ok(()) if wanted.is_empty() => Tier::Row,
            Ok(()) => Tier::Tables(wanted.into_keys().map(RelationId).collect()),
            Err((place, why)) => {
                let policy = table.policies.of(role).nth(place);
                let policy = policy.map(|policy| policy.name.clone()).unwrap_or_default();
                Tier::Elsewhere { policy, why }
            }
        }
    }

    fn survey(
        &self,
        table: &Table,
        role: &str,
        wanted: &mut BTreeMap<u32, Wanted>,
    ) -> Result<(), (usize, RuleError)> {
        let guards: Vec<Guard<'_>> = table.guards(role).unwrap_or_default();
        let rule = surveyed(&guards, &table.relation, role, self)?;
        for source in rule.sources() {
            let Some(other) = self.by_id(source.table) else { continue };
            let named = |position: &usize| {
                other.relation.columns.get(*position).map(|column| column.name.clone())
            };
            let want = wanted.entry(source.table.0).or_insert_with(|| Wanted {
                table: source.table,
                columns: BTreeSet::new(),
                lookups: BTreeSet::new(),
            });
            want.columns.extend(source.columns.iter().filter_map(named));
            let looked_for =
                source.lookups.iter().filter_map(|lookup| source.columns.get(lookup.column));
            want.lookups.extend(looked_for.filter_map(named));
        }
        Ok(())
    }
}
