//! From a request and claims to what will be decided and delivered, or to a refusal.

use std::sync::Arc;

use crate::ask::AskError;
use crate::auth::Claims;
use crate::catalog::snapshot::Snapshot;
use crate::catalog::snapshot::Table;
use crate::change::relation::Column;
use crate::change::relation::Relation;
use crate::change::relation::ReplicaIdentity;
use crate::replica::Store;
use crate::route::admit;
use crate::route::admit::Admitted;
use crate::route::asked::Asked;
use crate::route::policy::Policies;
use crate::route::projection::Projection;
use crate::route::subscription::Filter;
use crate::route::subscription::Request;
use crate::route::throttle::Keying;
use crate::rule::Expression;
use crate::rule::Rule;
use crate::rule::RuleError;
use crate::rule::parse_filter;
use crate::rule::parse_where;

/// What a subscription comes to for one shape of its table.
#[derive(Debug)]
pub struct Plan {
    /// Filter and policy in one, with the claims put in.
    pub rule: Rule,
    /// What Postgres must be asked beside it, of each image that the rule admits.
    pub asked: Option<Arc<Asked>>,
    /// The columns to deliver.
    pub projection: Projection,
    /// By which columns deliveries are told apart, where they are throttled.
    pub(crate) keying: Option<Keying>,
}

/// Why a subscription is refused, or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The table is not published, or does not exist.
    #[error("table {table} is not published")]
    UnknownTable {
        /// The table.
        table: String,
    },
    /// Neither the configuration nor a policy opens the table.
    #[error("table {table} is not open to clients")]
    TableClosed {
        /// The table.
        table: String,
    },
    /// The table has row-level security and no policy that lets the role see a row.
    #[error("table {table} has row-level security, and no policy of it lets this role see a row")]
    NoPolicy {
        /// The table.
        table: String,
    },
    /// The role may not select the table.
    #[error("role {role} may not select {table}")]
    TableForbidden {
        /// The role of the claims.
        role: String,
        /// The table.
        table: String,
    },
    /// A column does not exist, or the role may not select it. One answer for both: the difference
    /// is none of the client's business.
    #[error("column {column} of {table} does not exist or may not be selected")]
    ColumnForbidden {
        /// The column.
        column: String,
        /// The table.
        table: String,
    },
    /// The filter is wrong.
    #[error("{0}")]
    Filter(RuleError),
    /// The throttle does not fit the table.
    #[error("{message}")]
    Throttle {
        /// What does not fit.
        message: String,
    },
    /// The policy can't be decided for this table or these claims. The reason is the operator's.
    #[error("the policy of {table} can't be decided for these claims")]
    Policy {
        /// The table.
        table: String,
    },
    /// The policy reads columns that the role may not, so the rows can't be asked for in its name.
    #[error(
        "the policy of {table} reads columns that {role} may not select, so it gets no snapshot"
    )]
    SnapshotForbidden {
        /// The role of the claims.
        role: String,
        /// The table.
        table: String,
    },
    /// The database would count rows that the rule does not admit.
    #[error("with limit or latest_by the database must be able to answer the whole condition")]
    SnapshotFilter,
    /// Again and again the stream went on by more than the ring holds before the client had its
    /// snapshot, or the table was changed.
    #[error("the snapshot was overtaken by changes, several times in a row")]
    SnapshotOvertaken,
    /// The rows did not come.
    #[error("{0}")]
    Snapshot(AskError),
    /// A policy that the database has for the table and the role is not decided here. The reason is
    /// the operator's.
    #[error("the row-level security of {table} is not decided by walcast for this role")]
    PolicyUnread {
        /// The table.
        table: String,
    },
    /// The session has not said who it is.
    #[error("a subscription needs a token")]
    Unauthenticated,
    /// The session has as many subscriptions as it may have.
    #[error("a session may have {limit} subscriptions")]
    TooMany {
        /// How many it may have.
        limit: usize,
    },
    /// The session has a subscription of that name.
    #[error("there is a subscription with this id already")]
    DuplicateId,
    /// The session has no subscription of that name.
    #[error("there is no subscription with this id")]
    UnknownId,
}

impl Refusal {
    /// The code that clients can rely on; `docs/protocol.md` lists them.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::UnknownTable { .. } => "unknown_table",
            Refusal::TableClosed { .. } => "table_closed",
            Refusal::NoPolicy { .. } => "no_policy",
            Refusal::TableForbidden { .. } => "table_forbidden",
            Refusal::ColumnForbidden { .. } => "column_forbidden",
            Refusal::Filter(_) | Refusal::SnapshotFilter => "bad_filter",
            Refusal::Throttle { .. } => "bad_throttle",
            Refusal::Policy { .. } => "policy_undecidable",
            Refusal::SnapshotForbidden { .. } => "snapshot_forbidden",
            Refusal::Snapshot(AskError::TooLarge { .. }) => "snapshot_too_large",
            Refusal::Snapshot(AskError::Busy) => "snapshot_busy",
            Refusal::Snapshot(AskError::Late { .. }) => "snapshot_timeout",
            Refusal::SnapshotOvertaken => "snapshot_overtaken",
            Refusal::Snapshot(AskError::Changed | AskError::Failed) => "snapshot_failed",
            Refusal::Snapshot(AskError::Forbidden) => "role_forbidden",
            Refusal::PolicyUnread { .. } => "policy_unsupported",
            Refusal::Unauthenticated => "unauthenticated",
            Refusal::TooMany { .. } => "too_many_subscriptions",
            Refusal::DuplicateId => "duplicate_id",
            Refusal::UnknownId => "unknown_id",
        }
    }

    /// What would be right.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Refusal::UnknownTable { .. } => {
                "name it as schema.table, unquoted; `alter publication … add table …` publishes it"
            }
            Refusal::TableClosed { .. } => {
                "give it a policy, or `open = true`, in a [[table]] section of walcast.toml"
            }
            Refusal::NoPolicy { .. } => {
                "create a policy for the role, or give the table one in a [[table]] section of \
                 walcast.toml"
            }
            Refusal::TableForbidden { .. } => "grant select on the table to the role",
            Refusal::ColumnForbidden { .. } => "ask for granted columns only",
            Refusal::Filter(error) => return error.hint().map(str::to_owned),
            Refusal::Throttle { .. } => {
                "`key` names columns, `position` two columns of numbers: latitude and longitude"
            }
            Refusal::Policy { .. } => "the daemon's log says why; check the token's claims",
            Refusal::SnapshotForbidden { .. } => {
                "grant these columns to the role, or subscribe without a snapshot"
            }
            Refusal::SnapshotFilter => {
                "leave casts and arithmetic on columns out, in the filter and in the policy"
            }
            Refusal::Snapshot(AskError::TooLarge { .. }) => {
                "give a limit, or a narrower filter, or ask for fewer columns"
            }
            Refusal::Snapshot(AskError::Busy) => "come back after a random delay of some seconds",
            Refusal::Snapshot(AskError::Late { .. }) => {
                "an index on what the filter and the order read would help"
            }
            Refusal::SnapshotOvertaken => {
                "ask for fewer rows; `ring.bytes_max` says how much may happen meanwhile"
            }
            Refusal::Snapshot(AskError::Changed | AskError::Failed) => {
                "come back later; the daemon's log says why"
            }
            Refusal::Snapshot(AskError::Forbidden) => {
                "grant the role to the role of `database.ask_url`"
            }
            Refusal::PolicyUnread { .. } => {
                "`walcast check --online` and the daemon's log say why; a policy in a [[table]] \
                 section of walcast.toml takes its place"
            }
            Refusal::Unauthenticated => "send an `auth` request first",
            Refusal::TooMany { .. } => "unsubscribe, or ask for more rows with one filter",
            Refusal::DuplicateId => "choose another id, or unsubscribe first",
            Refusal::UnknownId => return None,
        };
        Some(hint.to_owned())
    }
}

/// What planning looks at.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// What the database says of its tables.
    pub catalog: &'a Snapshot,
    /// What the configuration says.
    pub policies: &'a Policies,
    /// The tables that policies read; absent where it is nobody's business whether they are at hand.
    pub replicas: Option<&'a Store>,
}

/// Plans a subscription for the shape that its table has now.
///
/// # Errors
///
/// [`Refusal`] where the request can't be served to these claims.
pub fn plan(context: Context<'_>, claims: &Claims, request: &Request) -> Result<Plan, Refusal> {
    let table = table(context, request)?;
    let relation = Arc::clone(&table.relation);
    plan_for(context, claims, request, &relation)
}

/// Plans a subscription for the shape that its table had when a change was made. What may be
/// selected is decided by the grants of today, by column name.
///
/// # Errors
///
/// As [`plan`].
pub fn plan_for(
    context: Context<'_>,
    claims: &Claims,
    request: &Request,
    relation: &Arc<Relation>,
) -> Result<Plan, Refusal> {
    let table = table(context, request)?;
    let name = || request.table.to_string();
    admit::is_open(context, table, request)?;
    let may = |column: &Column| table.may_select(claims.role(), &column.name);
    let granted: Vec<bool> = relation.columns.iter().map(may).collect();
    if !granted.contains(&true) {
        return Err(Refusal::TableForbidden { role: claims.role().to_owned(), table: name() });
    }
    let filter = request.filter.as_ref().map(parse).transpose().map_err(Refusal::Filter)?;
    let may_select = |column: &str| {
        let position = relation.column(column);
        position.and_then(|position| granted.get(position)).copied().unwrap_or(false)
    };
    let forbidden =
        |column: &str| Refusal::ColumnForbidden { column: column.to_owned(), table: name() };
    let mut filtered = filter.iter().flat_map(Expression::columns);
    if let Some(column) = filtered.find(|column| !may_select(column)) {
        return Err(forbidden(column));
    }
    drop(filtered);
    let positions = match &request.columns {
        None => (0..relation.columns.len()).filter(|at| granted.get(*at) == Some(&true)).collect(),
        Some(columns) => {
            let mut positions = Vec::with_capacity(columns.len());
            for column in columns {
                let position = relation.column(column).filter(|_| may_select(column));
                positions.push(position.ok_or_else(|| forbidden(column))?);
            }
            positions.sort_unstable();
            positions.dedup();
            positions
        }
    };
    // Each is bound alone, so that an error is blamed on the one that is wrong; and a row that is
    // not admitted is never looked at by the filter.
    let filter = filter.map(|filter| Rule::bind(&filter, relation, claims.json()));
    let filter = filter.transpose().map_err(Refusal::Filter)?;
    let Admitted { rule, asked } = admit::admitted(context, claims, (table, relation), request)?;
    let rule = match filter {
        Some(filter) => rule.and(filter),
        None => rule,
    };
    let projection = Projection::new(Arc::clone(relation), &positions, request.big_numbers);
    let keying = request.throttle.as_deref();
    let keying = keying.map(|it| Keying::bind(it, relation, may_select)).transpose()?;
    Ok(Plan { rule, asked, projection, keying })
}

/// Whether some updates and deletes of the subscription can't be decided, because its rule reads
/// columns of which the stream does not carry the old value.
#[must_use]
pub fn lacks_old_image(plan_rule: &Rule, relation: &Relation) -> bool {
    let unknown =
        |position: &usize| relation.columns.get(*position).is_none_or(|column| !column.in_identity);
    relation.identity != ReplicaIdentity::Full && plan_rule.columns().iter().any(unknown)
}

pub(crate) fn table<'a>(context: Context<'a>, request: &Request) -> Result<&'a Table, Refusal> {
    let table = context.catalog.table(&request.table.schema, &request.table.name);
    let unknown = || Refusal::UnknownTable { table: request.table.to_string() };
    table.filter(|table| table.published).map(AsRef::as_ref).ok_or_else(unknown)
}

pub(crate) fn parse(filter: &Filter) -> Result<Expression, RuleError> {
    match filter {
        Filter::Where(text) => parse_where(text),
        Filter::Text(text) => parse_filter(text),
    }
}
