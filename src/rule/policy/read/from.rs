//! What a query in the stored form reads: tables, functions, and how they are joined.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::expression::QUALIFIED;
use crate::rule::expression::query::From;
use crate::rule::expression::query::Origin;
use crate::rule::policy::read::DEPTH_MAX;
use crate::rule::policy::read::Level;
use crate::rule::policy::read::Range;
use crate::rule::policy::read::Reader;
use crate::rule::policy::read::query::other;
use crate::rule::policy::tree::Fields;
use crate::rule::policy::tree::Tree;

impl<'a> Reader<'a> {
    /// An entry of the range table: a table, the rows of a function, or a join, which is nothing of
    /// its own.
    pub(super) fn range(
        &self,
        mut entry: Fields<'_>,
        level: &Level<'_>,
        depth: usize,
    ) -> Result<(Option<Range<'a>>, Option<From>), RuleError> {
        match entry.word("rtekind")? {
            // RTE_RELATION
            "0" => {}
            // RTE_JOIN: what its columns are stands in the tables themselves.
            "2" => return Ok((None, None)),
            // RTE_FUNCTION
            "3" => return self.rows(entry, level, depth),
            _ => return Err(other("it reads something else than tables and functions")),
        }
        let (id, kind) = (entry.number::<u32>("relid")?, entry.word("relkind")?);
        let (mut called, inherits) = (entry.take("eref")?.node()?, entry.boolean("inh")?);
        let alias = called.word("aliasname")?.replace('\\', "");
        let no_matter =
            ["alias", "inFromCl", "requiredPerms", "rellockmode", "selectedCols", "perminfoindex"];
        entry.end(&no_matter)?;
        if kind != "r" || !inherits {
            return Err(other("it reads a view, a partitioned table, or ONLY a table"));
        }
        let table = self.library.tables.get(&id);
        let table = table.ok_or_else(|| other("it reads a table that is not known here"))?;
        let place = level.ranges.len();
        let name: Box<str> = format!("{alias}{QUALIFIED}{}.{place}", level.depth).into();
        let (schema, named) = (Some(table.schema.clone()), table.name.clone());
        let from = From { what: Origin::Table { schema, table: named }, alias: name.clone() };
        Ok((Some(Range { name, columns: Cow::Borrowed(&table.columns) }), Some(from)))
    }

    /// A function in the place of a table.
    fn rows(
        &self,
        mut entry: Fields<'_>,
        level: &Level<'_>,
        depth: usize,
    ) -> Result<(Option<Range<'a>>, Option<From>), RuleError> {
        let unreadable = || other("a function in it can't be read");
        let mut called = entry.take("eref")?.node()?;
        let alias = called.word("aliasname")?.replace('\\', "");
        let names = called.take("colnames")?.list()?;
        let mut functions = entry.take("functions")?.list()?;
        entry.end(&["alias", "inFromCl"])?;
        let function = functions.pop().filter(|_| functions.is_empty());
        let mut function = function.ok_or_else(unreadable)?.node()?;
        let (call, count) = (function.take("funcexpr")?, function.number::<usize>("funccolcount")?);
        function.end(&[])?;
        let mut columns = BTreeMap::new();
        for (number, name) in (1_i16..).zip(&names) {
            let Tree::Word(name) = name else { return Err(unreadable()) };
            let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
            let name = name.ok_or_else(unreadable)?.replace('\\', "");
            // A column without a name was dropped from the table of the function's rows.
            if !name.is_empty() {
                columns.insert(number, Box::from(name));
            }
        }
        if names.len() != count {
            return Err(unreadable());
        }
        let inside = Reader { level, parameters: &[], ..*self };
        let call = inside.any(call, depth)?.node;
        if !matches!(call, Node::User { .. }) {
            return Err(other("of functions, it reads those of the database only"));
        }
        let name: Box<str> =
            format!("{alias}{QUALIFIED}{}.{}", level.depth, level.ranges.len()).into();
        let what = Origin::Call { call, columns: columns.values().cloned().collect() };
        let from = From { what, alias: name.clone() };
        Ok((Some(Range { name, columns: Cow::Owned(columns) }), Some(from)))
    }

    /// What is joined, and on what condition.
    pub(super) fn joined(
        &self,
        mut from: Fields<'_>,
        tables: &mut [Option<From>],
        depth: usize,
    ) -> Result<(Vec<From>, Vec<Node>), RuleError> {
        let (items, condition) = (from.take("fromlist")?.list()?, from.take("quals")?);
        from.end(&[])?;
        let mut joined = Joined { reader: self, tables, from: Vec::new(), conditions: Vec::new() };
        for item in items {
            joined.item(item, depth)?;
        }
        joined.condition(condition, depth)?;
        if joined.from.is_empty() && !joined.conditions.is_empty() {
            return Err(other("it has a condition and no table"));
        }
        Ok((joined.from, joined.conditions))
    }
}

/// The tables in the order in which they are joined.
struct Joined<'j, 'a> {
    reader: &'j Reader<'a>,
    tables: &'j mut [Option<From>],
    from: Vec<From>,
    conditions: Vec<Node>,
}

impl Joined<'_, '_> {
    fn item(&mut self, item: Tree<'_>, depth: usize) -> Result<(), RuleError> {
        let mut item = item.node()?;
        match item.name {
            "RANGETBLREF" => {
                let number = item.number::<usize>("rtindex")?;
                item.end(&[])?;
                let table = number.checked_sub(1).and_then(|place| self.tables.get_mut(place));
                let table = table.and_then(Option::take);
                self.from.push(table.ok_or_else(|| other("it can't be read"))?);
                Ok(())
            }
            "JOINEXPR" if depth < DEPTH_MAX => {
                if item.word("jointype")? != "0" {
                    return Err(other("only inner joins are decided here"));
                }
                let (left, right) = (item.take("larg")?, item.take("rarg")?);
                let condition = item.take("quals")?;
                item.end(&["rtindex"])?;
                self.item(left, depth + 1)?;
                self.item(right, depth + 1)?;
                self.condition(condition, depth)
            }
            _ => Err(other("only tables and inner joins are decided here")),
        }
    }

    fn condition(&mut self, condition: Tree<'_>, depth: usize) -> Result<(), RuleError> {
        if condition != Tree::Nothing {
            self.conditions.push(self.reader.node(condition, depth)?);
        }
        Ok(())
    }
}
