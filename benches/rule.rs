//! What it costs to read a rule, to bind it, and to judge a row by it.

#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

mod common;

use divan::Bencher;
use divan::black_box;
use serde_json::json;
use walcast::change::tuple::Tuple;
use walcast::rule::Rule;
use walcast::rule::parse_filter;
use walcast::rule::parse_where;

/// From the cheapest that the index finds groups by to what a policy may look like.
const RULES: &[&str] = &[
    "customer_id = 42",
    "status in ('open', 'assigned', 'live')",
    "total > 100.50 and not is_gift",
    "placed_at >= '2026-01-01 00:00:00+00'",
    "note like '%blue door%'",
    "customer_id = (claims ->> 'sub')::bigint and (status = 'open' or coupon is null)",
];

fn main() {
    divan::main();
}

#[divan::bench(args = RULES)]
fn evaluate(bencher: Bencher, text: &str) {
    let (relation, claims) = (common::orders(), json!({ "sub": "42" }));
    let rule = Rule::bind(&parse_where(text).unwrap(), &relation, &claims).unwrap();
    let wire = common::tuple(42);
    let (tuple, _) = Tuple::take(&wire).unwrap();
    let row = tuple.row();
    bencher.bench(|| black_box(&rule).evaluate(black_box(&row)));
}

#[divan::bench(args = RULES)]
fn parse(text: &str) -> usize {
    parse_where(black_box(text)).unwrap().columns().count()
}

#[divan::bench(args = RULES)]
fn bind(bencher: Bencher, text: &str) {
    let (relation, claims) = (common::orders(), json!({ "sub": "42" }));
    let expression = parse_where(text).unwrap();
    bencher.bench(|| Rule::bind(black_box(&expression), &relation, &claims).unwrap());
}

#[divan::bench]
fn parse_filter_string() -> usize {
    parse_filter(black_box("status=in.(open,live),total=gt.5")).unwrap().columns().count()
}

/// A row taken apart into its cells, which every rule needs first.
#[divan::bench]
fn cells(bencher: Bencher) {
    let wire = common::tuple(42);
    let (tuple, _) = Tuple::take(&wire).unwrap();
    bencher.bench(|| black_box(tuple).row().len());
}
