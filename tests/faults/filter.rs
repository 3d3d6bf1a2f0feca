//! Which rows a subscription wants: as its client writes it, and what it means, told once more in
//! a few lines that share nothing with walcast.

use crate::dice::Dice;
use crate::schema::REGIONS;
use crate::schema::STATUSES;
use crate::truth::Cell;
use crate::truth::Row;
use crate::truth::cell;

/// A condition on a row.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    All,
    RegionIs(i64),
    StatusIn(Vec<&'static str>),
    AmountOver(i64),
    IdBelow(i64),
    NoteMissing,
    Both(Box<Filter>, Box<Filter>),
}

/// What a condition says of a row image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Admits,
    /// False or null.
    Rejects,
    /// It reads a column that the image does not hold.
    Undecided,
}

impl Verdict {
    /// What both say together.
    pub(crate) fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (Verdict::Rejects, _) | (_, Verdict::Rejects) => Verdict::Rejects,
            (Verdict::Undecided, _) | (_, Verdict::Undecided) => Verdict::Undecided,
            (Verdict::Admits, Verdict::Admits) => Verdict::Admits,
        }
    }
}

/// What a row must be for a filter to admit it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) region: i64,
    pub(crate) status: &'static str,
    pub(crate) amount: i64,
}

impl Filter {
    /// Any filter.
    pub(crate) fn any(dice: &mut Dice) -> Filter {
        let number = |dice: &mut Dice, end| i64::try_from(dice.below(end)).unwrap();
        match dice.below(8) {
            0 | 1 => Filter::All,
            2 => Filter::RegionIs(number(dice, REGIONS)),
            3 => {
                let first = *dice.pick(&STATUSES);
                Filter::StatusIn(vec![first, *dice.pick(&STATUSES)])
            }
            4 => Filter::AmountOver(number(dice, 1000)),
            5 => Filter::IdBelow(i64::try_from(dice.between(1, 6) * 100_000).unwrap()),
            6 => Filter::NoteMissing,
            _ => {
                let region = Filter::RegionIs(number(dice, REGIONS));
                let status = Filter::StatusIn(vec![*dice.pick(&STATUSES), *dice.pick(&STATUSES)]);
                Filter::Both(Box::new(region), Box::new(status))
            }
        }
    }

    /// As SQL.
    pub(crate) fn sql(&self) -> String {
        match self {
            Filter::All => "true".to_owned(),
            Filter::RegionIs(region) => format!("region = {region}"),
            Filter::StatusIn(list) => format!("status in ('{}')", list.join("', '")),
            Filter::AmountOver(least) => format!("amount > {least}"),
            Filter::IdBelow(end) => format!("id < {end}"),
            Filter::NoteMissing => "note is null".to_owned(),
            Filter::Both(one, other) => format!("{} and {}", one.sql(), other.sql()),
        }
    }

    /// In PostgREST's form.
    pub(crate) fn postgrest(&self) -> String {
        match self {
            Filter::All => String::new(),
            Filter::RegionIs(region) => format!("region=eq.{region}"),
            Filter::StatusIn(list) => format!("status=in.({})", list.join(",")),
            Filter::AmountOver(least) => format!("amount=gt.{least}"),
            Filter::IdBelow(end) => format!("id=lt.{end}"),
            Filter::NoteMissing => "note=is.null".to_owned(),
            Filter::Both(one, other) => format!("{},{}", one.postgrest(), other.postgrest()),
        }
    }

    /// What it says of a row image.
    pub(crate) fn decide(&self, row: &Row) -> Verdict {
        let of = |column: &str, holds: &dyn Fn(&str) -> bool| match cell(row, column) {
            None | Some(Cell::Unchanged) => Verdict::Undecided,
            Some(Cell::Bare(text) | Cell::Text(text)) if holds(text) => Verdict::Admits,
            Some(_) => Verdict::Rejects,
        };
        let number = |text: &str| text.parse::<i64>().unwrap();
        match self {
            Filter::All => Verdict::Admits,
            Filter::RegionIs(region) => of("region", &|text| number(text) == *region),
            Filter::StatusIn(list) => of("status", &|text| list.contains(&text)),
            Filter::AmountOver(least) => of("amount", &|text| number(text) > *least),
            Filter::IdBelow(end) => of("id", &|text| number(text) < *end),
            Filter::NoteMissing => match cell(row, "note") {
                None | Some(Cell::Unchanged) => Verdict::Undecided,
                Some(Cell::Null) => Verdict::Admits,
                Some(_) => Verdict::Rejects,
            },
            Filter::Both(one, other) => one.decide(row).and(other.decide(row)),
        }
    }

    /// The only region whose rows it admits, where there is one.
    pub(crate) fn region(&self) -> Option<i64> {
        match self {
            Filter::RegionIs(region) => Some(*region),
            Filter::Both(one, other) => one.region().or_else(|| other.region()),
            _ => None,
        }
    }

    /// Makes a row one that is admitted. Its `id` is negative and its `note` null in any case.
    pub(crate) fn satisfy(&self, row: &mut Wanted) {
        match self {
            Filter::RegionIs(region) => row.region = *region,
            Filter::StatusIn(list) => row.status = list[0],
            Filter::AmountOver(least) => row.amount = least + 1,
            Filter::Both(one, other) => {
                one.satisfy(row);
                other.satisfy(row);
            }
            Filter::All | Filter::IdBelow(_) | Filter::NoteMissing => {}
        }
    }
}
