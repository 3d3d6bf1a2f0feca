//! A rule that is ready to judge rows.

use serde_json::Value as Json;

use crate::change::relation::Relation;
use crate::change::tuple::Cell;
use crate::rule::bind;
use crate::rule::bind::logic::junction;
use crate::rule::error::RuleError;
use crate::rule::expression::Expression;
use crate::rule::subquery::Alone;
use crate::rule::subquery::Others;
use crate::rule::subquery::Scope;
use crate::rule::subquery::Source;
use crate::rule::term::Term;
use crate::rule::term::Undecided;
use crate::rule::value::Value;

/// A boolean expression bound to a relation, claims put in.
///
/// Small: thousands of distinct ones live at once. Equal rules admit the same rows, so they may
/// share a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub(in crate::rule) term: Term,
    columns: Box<[usize]>,
}

/// What a rule says of a row image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// PostgreSQL's answer is TRUE.
    Admits,
    /// It is FALSE or NULL.
    Rejects,
    /// This image alone does not tell. Never to be taken for either.
    Undecided(Undecided),
}

/// A column that must have one of a few texts for a rule to admit the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equality {
    /// The column's position in the relation.
    pub column: usize,
    /// The texts, exactly as a cell on the wire carries them; sorted.
    pub texts: Vec<Box<[u8]>>,
}

impl Rule {
    /// Gives an expression its types, and puts the claims in.
    ///
    /// # Errors
    ///
    /// [`RuleError`] when PostgreSQL would refuse it for this relation, or when it cannot be
    /// answered exactly.
    pub fn bind(
        expression: &Expression,
        relation: &Relation,
        claims: &Json,
    ) -> Result<Rule, RuleError> {
        Ok(Rule::of(bind::bind(&expression.node, relation, claims)?))
    }

    pub(in crate::rule) fn of(term: Term) -> Rule {
        let mut columns = Vec::new();
        collect(&term, &mut columns);
        columns.sort_unstable();
        columns.dedup();
        Rule { term, columns: columns.into() }
    }

    pub(in crate::rule) const fn term(&self) -> &Term {
        &self.term
    }

    /// Both must admit a row; where this one does not, the other is not asked.
    #[must_use]
    pub fn and(self, other: Rule) -> Rule {
        Rule::of(junction(vec![self.term, other.term], false))
    }

    /// Whether it admits no row whatever.
    #[must_use]
    pub const fn is_never(&self) -> bool {
        matches!(self.term, Term::Constant(None | Some(Value::Bool(false))))
    }

    /// The rule that admits every row.
    #[must_use]
    pub fn always() -> Rule {
        Rule { term: Term::boolean(true), columns: Box::default() }
    }

    /// Judges one row image, whose cells stand in the relation's order. A cell that is not there
    /// is taken for [`Cell::Unchanged`].
    #[must_use]
    pub fn evaluate(&self, row: &[Cell<'_>]) -> Verdict {
        self.evaluate_among(row, &Alone)
    }

    /// The same, where the rule may read other tables: their rows are those of `others`.
    #[must_use]
    pub fn evaluate_among(&self, row: &[Cell<'_>], others: &dyn Others) -> Verdict {
        match self.term.truth(Scope { row, others }) {
            Ok(Some(true)) => Verdict::Admits,
            Ok(Some(false) | None) => Verdict::Rejects,
            Err(undecided) => Verdict::Undecided(undecided),
        }
    }

    /// A column that this rule can be found by; the most selective where there are several.
    #[must_use]
    pub fn equality(&self) -> Option<Equality> {
        let arms = match &self.term {
            Term::All(arms) => arms,
            term => std::slice::from_ref(term),
        };
        let found = arms.iter().filter_map(|arm| match arm {
            Term::Same { column, text } => Some((*column, std::slice::from_ref(text))),
            Term::OneOf { column, texts, .. } => Some((*column, &**texts)),
            _ => None,
        });
        let (column, texts) = found.min_by_key(|(_, texts)| texts.len())?;
        Some(Equality { column, texts: texts.to_vec() })
    }

    /// The tables that it reads beside the row, those in subqueries of subqueries included; in no
    /// order, and as often as it reads them.
    #[must_use]
    pub fn sources(&self) -> Vec<&Source> {
        let mut sources = Vec::new();
        self.term.sources(&mut sources);
        sources
    }

    /// The positions of the columns that it reads, sorted.
    #[must_use]
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }
}

pub(in crate::rule) fn collect(term: &Term, columns: &mut Vec<usize>) {
    match term {
        Term::Subquery(subquery) => columns.append(&mut subquery.outer_columns()),
        Term::Column { column, .. } | Term::Same { column, .. } | Term::OneOf { column, .. } => {
            columns.push(*column);
        }
        _ => term.for_each_child(&mut |child| collect(child, columns)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::id::RelationId;
    use crate::change::id::TypeId;
    use crate::change::relation::Column;
    use crate::change::relation::ReplicaIdentity;
    use crate::change::types::Collation;
    use crate::change::types::Kind;
    use crate::change::types::Type;
    use crate::rule::parse_filter;
    use crate::rule::parse_where;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn column(name: &str, type_name: &str, id: u32, kind: Kind) -> Column {
        let collation = if id == 25 { Collation::Locale } else { Collation::None };
        Column {
            name: name.into(),
            of: Arc::new(Type { id: TypeId(id), name: type_name.into(), kind }),
            modifier: -1,
            collation,
            in_identity: false,
        }
    }

    /// A table with columns of some types.
    fn orders() -> Relation {
        let labels: Arc<[Box<str>]> = ["open", "live", "done"].map(Box::from).into();
        Relation {
            id: RelationId(1),
            version: 1,
            schema: "public".into(),
            name: "orders".into(),
            identity: ReplicaIdentity::Full,
            columns: vec![
                column("id", "int8", 20, Kind::Int8),
                column("customer_id", "int8", 20, Kind::Int8),
                column("status", "order_status", 20000, Kind::Enum(labels)),
                column("total", "numeric", 1700, Kind::Numeric),
                column("uid", "uuid", 2950, Kind::Uuid),
                column("note", "text", 25, Kind::Text),
                column("live", "bool", 16, Kind::Bool),
                column("data", "jsonb", 3802, Kind::Jsonb),
                column("user", "text", 25, Kind::Text),
            ],
            primary_key: vec![0],
        }
    }

    const ROW: [Cell<'static>; 9] = [
        Cell::Text(b"1"),
        Cell::Text(b"7"),
        Cell::Text(b"live"),
        Cell::Text(b"12.50"),
        Cell::Text(b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        Cell::Null,
        Cell::Text(b"t"),
        Cell::Text(b"{\"a\": [1, 2], \"k\": \"v\"}"),
        Cell::Unchanged,
    ];

    fn claims() -> Json {
        serde_json::from_str(
            r#"{"sub":"7","n":7,"role":"driver","big":1e3,"tags":["x","y"],"o":{"b":[1,{"c":true}]},"bad":"seven","null":null}"#,
        )
        .unwrap()
    }

    fn rule(text: &str) -> Result<Rule, RuleError> {
        Rule::bind(&parse_where(text)?, &orders(), &claims())
    }

    fn check(text: &str) -> String {
        match rule(text) {
            Err(error) => format!("{}: {error}", error.code()),
            Ok(rule) => match rule.evaluate(&ROW) {
                Verdict::Admits => "admits".to_owned(),
                Verdict::Rejects => "rejects".to_owned(),
                Verdict::Undecided(_) => "undecided".to_owned(),
            },
        }
    }

    #[test]
    fn a_rule_is_told_as_it_is_decided() {
        for (text, expected) in [
            ("customer_id = 7", "customer_id = '7'"),
            ("status in ('open', 'live') and id > 3", "status IN ('live', 'open') AND id > 3"),
            ("not (id = 1 or status is null)", "NOT (id = '1' OR status IS NULL)"),
            ("1 = 1", "TRUE"),
        ] {
            assert_eq!(rule(text).unwrap().text(&orders()), expected);
        }
    }

    #[test]
    fn rules_admit_and_reject() {
        for text in [
            "customer_id = 7",
            "customer_id = '7'",
            "customer_id in (1, 7)",
            "id < customer_id",
            "status = 'live'",
            "status > 'open'",
            "status in ('open', 'live')",
            "total = 12.5",
            "total > 12 and total < 13",
            "total between 12 and 13",
            "live",
            "not (not live)",
            "note is null",
            "note is distinct from 'x'",
            "(note = 'x') is unknown",
            "data ->> 'k' = 'v'",
            "data -> 'a' @> '2'",
            "data ? 'k'",
            "data #>> '{a,-1}' = '2'",
            "(data -> 'a' ->> 0)::int = 1",
            "uid = 'A0EEBC999C0B4EF8BB6D6BB9BD380A11'",
            "status::text like 'l%'",
            "coalesce(note, 'x') = 'x'",
            "case when live then 1 else 2 end = 1",
            "customer_id + 1 = 8",
            "orders.id = 1",
            "customer_id = any('{1,7}')",
            "customer_id <> all(array[1,2])",
            "id::text || 'x' = '1x'",
            "\"user\" is null or live",
            "length('abc') = 3",
            "nullif(id, 2) = 1",
            "true",
            "status::text in ('live', 'x')",
            "customer_id = 7.0",
        ] {
            assert_eq!(check(text), "admits", "{text}");
        }
        for text in [
            "customer_id = 8",
            "customer_id not in (1, 7)",
            "note = 'x'",
            "not (note = 'x')",
            "customer_id in (1, null)",
            "customer_id not in (1, null)",
            "note is not null",
            "live is false",
            "status < 'live'",
            "\"user\" = 'x' and not live",
            "null",
            "live = null",
        ] {
            assert_eq!(check(text), "rejects", "{text}");
        }
    }

    #[test]
    fn claims_become_constants() {
        for text in [
            "customer_id = (claims ->> 'sub')::bigint",
            "customer_id = (claims ->> 'n')::int8",
            "claims ->> 'role' = 'driver'",
            "claims ->> 'big' = '1000'",
            "claims -> 'o' -> 'b' ->> 0 = '1'",
            "claims #>> '{o,b,1,c}' = 'true'",
            "claims ? 'role'",
            "claims -> 'tags' ? 'x'",
            "claims ->> 'o' = '{\"b\": [1, {\"c\": true}]}'",
            "claims ->> 'null' is null",
            "claims ->> 'absent' is null",
            "claims -> 'tags' @> '[\"y\"]'",
        ] {
            assert_eq!(check(text), "admits", "{text}");
        }
        assert_eq!(rule("customer_id = (claims ->> 'sub')::int8"), rule("customer_id=7"));
        let bare = check("customer_id = claims ->> 'sub'");
        assert!(
            bare.starts_with("rule_type: customer_id = claims ->> 'sub': operator does not exist"),
            "{bare}"
        );
        assert_eq!(
            check("customer_id = (claims ->> 'bad')::int8"),
            "rule_value: claims ->> 'bad' is not a valid int8"
        );
    }

    #[test]
    fn what_is_missing_is_neither_true_nor_false() {
        assert_eq!(check("\"user\" = 'x'"), "undecided");
        assert_eq!(check("not (\"user\" = 'x')"), "undecided");
        assert_eq!(check("\"user\" is null"), "undecided");
        assert_eq!(check("\"user\" = 'x' or live"), "admits");
        assert_eq!(check("\"user\" = 'x' and id = 2"), "rejects");
        assert_eq!(check("\"user\" = 'x' or note = 'x'"), "undecided");
        assert_eq!(
            rule("id = 1").unwrap().evaluate(&[]),
            Verdict::Undecided(Undecided::Missing { column: 0 })
        );
    }

    #[test]
    fn a_fault_is_not_negated_away() {
        for text in [
            "id + 9223372036854775807 = 1",
            "not (id + 9223372036854775807 = 1)",
            "(id + 9223372036854775807 = 1) is not true",
            "id + 9223372036854775807 = 1 or live",
        ] {
            assert_eq!(check(text), "undecided", "{text}");
        }
        assert_eq!(check("live or id + 9223372036854775807 = 1"), "admits");
    }

    #[test]
    fn mistakes_are_refused_by_name() {
        for (text, message) in [
            ("nope = 1", "rule_unknown_column: invalid column for filter nope"),
            ("customer_id = 'x'", "rule_value: 'x' is not a valid int8"),
            ("status = 'nope'", "rule_value: 'nope' is not a valid order_status"),
            (
                "customer_id = 1.5 or uid = 5",
                "rule_type: uid = 5: operator does not exist: uuid = int4",
            ),
            (
                "note < 'x'",
                "rule_unsupported: note < 'x' is not supported: the order of texts depends on the locale of the database",
            ),
            ("customer_id", "rule_type: customer_id: a boolean is expected here, not int8"),
            (
                "data < '{}'",
                "rule_unsupported: data < '{}' is not supported: only = and <> are answered for jsonb",
            ),
        ] {
            assert_eq!(check(text), message, "{text}");
        }
        assert_eq!(check("note collate \"C\" < 'x'"), "rejects");
    }

    #[test]
    fn an_equality_is_found_by_its_texts() {
        let texts = |text: &str| {
            let equality = rule(text).unwrap().equality()?;
            let texts =
                equality.texts.iter().map(|text| String::from_utf8_lossy(text).into_owned());
            Some((equality.column, texts.collect::<Vec<_>>()))
        };
        let found = |column, all: &[&str]| {
            Some((column, all.iter().map(|&text| text.to_owned()).collect()))
        };
        assert_eq!(texts("customer_id = '07' and live"), found(1, &["7"]));
        assert_eq!(texts("status in ('open', 'live') and id > 5"), found(2, &["live", "open"]));
        assert_eq!(texts("status in ('open', 'live') and 5 = id"), found(0, &["5"]));
        assert_eq!(texts("id = 1 or id = 2"), found(0, &["1", "2"]));
        assert_eq!(texts("id = any('{1,2}')"), found(0, &["1", "2"]));
        assert_eq!(texts("id = 1 or live"), None);
        assert_eq!(texts("total = 5"), None);
        assert_eq!(texts("id <> 1"), None);
    }

    #[test]
    fn rules_that_read_the_same_are_equal() {
        let same = |left: &str, right: &str| assert_eq!(rule(left).unwrap(), rule(right).unwrap());
        same("id=1 AND live", "  Id = 1\nand LIVE");
        same("(id = 1)", "id = 1");
        same("id = 1", "1 = id");
        same("status in ('open','live')", "status in ('live','open')");
        let filter = parse_filter("id=eq.1,status=in.(open,live)").unwrap();
        let filter = Rule::bind(&filter, &orders(), &Json::Null).unwrap();
        assert_eq!(filter, rule("id = 1 and status in ('open', 'live')").unwrap());
        assert_eq!(Rule::always(), rule("true").unwrap());
        assert_eq!(filter.columns(), [0, 2]);
    }

    #[test]
    fn ten_thousand_equalities_fit_in_two_megabytes() {
        let rule = rule("customer_id = 1234567").unwrap();
        let Term::Same { text, .. } = &rule.term else { panic!("{rule:?}") };
        // Two blocks of the heap, each with what an allocator adds.
        let heap = text.len().next_multiple_of(16) + 16 + size_of_val(&*rule.columns) + 16;
        assert!(size_of::<Rule>() + heap < 200, "{} + {heap}", size_of::<Rule>());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = parse_where(&text).and_then(|rule| Rule::bind(&rule, &orders(), &claims()));
            let _ = parse_filter(&text).and_then(|rule| Rule::bind(&rule, &orders(), &claims()));
        }

        #[test]
        fn no_run_of_words_makes_it_panic(words in prop::collection::vec(prop::sample::select(&[
            "id", "status", "total", "note", "data", "live", "claims", "=", "<", "->", "->>", "#>>", "@>", "?",
            "in", "(", ")", ",", "and", "or", "not", "is", "null", "true", "1", "-", "+", "'x'", "'{}'", "1.5e3",
            "::", "int8", "text", "any", "array", "[", "]", "case", "when", "then", "end", "like", "between",
            "coalesce", "collate", "\"C\"", "distinct", "from", "uid=eq.1", "or=(", "a.in.(", "\"", "~", "||",
        ][..]), 0..25)) {
            let text = words.join(" ");
            if let Ok(rule) = parse_where(&text).and_then(|rule| Rule::bind(&rule, &orders(), &claims())) {
                let _ = rule.evaluate(&ROW);
            }
            let text = words.concat();
            let _ = parse_filter(&text).and_then(|rule| Rule::bind(&rule, &orders(), &claims()));
        }
    }
}
