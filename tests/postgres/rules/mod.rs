//! Rules and PostgreSQL judge the same rows: never a different answer, and what is accepted here is
//! accepted there.
//!
//! `WALCAST_SEED` sets the seed, which is printed; `WALCAST_SHOW` shows what is refused.
#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic, and shows what it did"
)]

pub(crate) mod generate;
mod table;

use serde_json::Value as Json;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use walcast::change::tuple::Cell;
use walcast::rule::Rule;
use walcast::rule::Undecided;
use walcast::rule::Verdict;
use walcast::rule::parse_filter;
use walcast::rule::parse_where;

use crate::random::Random;
use crate::rules::table::Subject;
use crate::support;

/// How many pairs of a rule and a row are judged at least, unless `WALCAST_PAIRS` says more.
const PAIRS_MIN: usize = 50_000;
/// How many rules one query asks about.
const BATCH: usize = 40;

/// What the claims of all rules are.
const CLAIMS: &str = r#"{"sub": "7", "n": 7, "neg": -1.50, "role": "ok", "flag": true, "uid": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "tags": ["a", "", "é"], "o": {"k": [1, {"c": null}], "b": "x"}, "null": null, "day": "2000-02-29", "bad": "seven", "exp": 1e3}"#;

/// One rule in both worlds.
struct Pair {
    rule: Rule,
    /// As it was written for walcast.
    text: String,
    /// The same for PostgreSQL.
    sql: String,
    /// Whether that is as it is written for snapshots.
    written: bool,
}

#[derive(Default)]
struct Tally {
    tried: usize,
    refused: usize,
    pairs: usize,
    admitted: usize,
    /// PostgreSQL has an answer, walcast has none.
    undecided: usize,
    /// PostgreSQL raises, and walcast has no answer either.
    raised: usize,
    /// Rules that PostgreSQL was asked as walcast writes them.
    written: usize,
}

fn pairs_min() -> usize {
    std::env::var_os("WALCAST_PAIRS")
        .map_or(PAIRS_MIN, |count| count.to_str().unwrap().parse().unwrap())
}

fn cells(row: &[Option<String>]) -> Vec<Cell<'_>> {
    let cells = row.iter().map(Option::as_ref);
    cells.map(|cell| cell.map_or(Cell::Null, |text| Cell::Text(text.as_bytes()))).collect()
}

/// PostgreSQL's answers to some expressions, row by row; `None` when a statement fails.
async fn ask(
    client: &Client,
    expressions: &[&str],
    only: Option<usize>,
) -> Result<Vec<Vec<bool>>, String> {
    let list: Vec<String> = expressions.iter().map(|sql| format!("({sql}\n) IS TRUE")).collect();
    let filter = only.map(|row| format!("WHERE row_number = {row}")).unwrap_or_default();
    let query = format!(
        "SELECT {} FROM subject, (SELECT $json${CLAIMS}$json$::jsonb AS claims) AS token {filter} ORDER BY row_number",
        list.join(", ")
    );
    let messages = client.simple_query(&query).await.map_err(|error| {
        let error = error.as_db_error().map(|error| error.message().to_owned());
        error.unwrap_or_else(|| "the connection broke".to_owned())
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column) == Some("t")).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

/// Whether PostgreSQL plans an expression at all.
async fn plan(client: &Client, sql: &str) -> Result<(), String> {
    let query = format!(
        "EXPLAIN SELECT ({sql}\n) IS TRUE FROM subject, (SELECT $json${CLAIMS}$json$::jsonb AS claims) AS token"
    );
    let outcome = client.simple_query(&query).await;
    outcome.map(drop).map_err(|error| {
        error.as_db_error().map_or_else(String::new, |error| error.message().to_owned())
    })
}

fn check(pair: &Pair, row: &[Option<String>], expected: bool, tally: &mut Tally) {
    tally.pairs += 1;
    tally.admitted += usize::from(expected);
    match pair.rule.evaluate(&cells(row)) {
        Verdict::Admits => {
            assert!(expected, "walcast admits, PostgreSQL does not: {}\n{row:?}", pair.text);
        }
        Verdict::Rejects => {
            assert!(!expected, "PostgreSQL admits, walcast does not: {}\n{row:?}", pair.text);
        }
        Verdict::Undecided(_) => tally.undecided += 1,
    }
}

/// Judges all rows by all rules of a batch, here and there.
async fn judge(client: &Client, batch: &[Pair], subject: &Subject, tally: &mut Tally) {
    let all: Vec<&str> = batch.iter().map(|pair| pair.sql.as_str()).collect();
    if let Ok(answers) = ask(client, &all, None).await {
        assert_eq!(answers.len(), subject.rows.len());
        for (row, answers) in subject.rows.iter().zip(answers) {
            for (pair, expected) in batch.iter().zip(answers) {
                check(pair, row, expected, tally);
            }
        }
        return;
    }
    for pair in batch {
        if let Err(message) = plan(client, &pair.sql).await {
            panic!("walcast accepts, PostgreSQL does not ({message}): {}", pair.text);
        }
        if let Ok(answers) = ask(client, &[&pair.sql], None).await {
            for (row, answers) in subject.rows.iter().zip(answers) {
                check(pair, row, answers[0], tally);
            }
            continue;
        }
        // Some row makes it raise: that row is undecided here.
        for (number, row) in subject.rows.iter().enumerate() {
            match ask(client, &[&pair.sql], Some(number)).await {
                Ok(answers) => check(pair, row, answers[0][0], tally),
                Err(message) => {
                    assert!(!pair.written, "written for snapshots, and raises: {}", pair.sql);
                    let verdict = pair.rule.evaluate(&cells(row));
                    assert!(
                        matches!(verdict, Verdict::Undecided(Undecided::Fault(_))),
                        "PostgreSQL raises ({message}), walcast says {verdict:?}: {}\n{row:?}",
                        pair.text
                    );
                    tally.pairs += 1;
                    tally.raised += 1;
                }
            }
        }
    }
}

/// Hides cells: the verdict without them is the verdict with any value in their place.
fn hide(pair: &Pair, subject: &Subject, random: &mut Random) {
    for _ in 0..4 {
        let row = &subject.rows[random.below(subject.rows.len())];
        let hidden: Vec<bool> = row.iter().map(|_| random.one_in(2)).collect();
        let mut image = cells(row);
        for (cell, hidden) in image.iter_mut().zip(&hidden) {
            if *hidden {
                *cell = Cell::Unchanged;
            }
        }
        let verdict = pair.rule.evaluate(&image);
        if matches!(verdict, Verdict::Undecided(_)) {
            continue;
        }
        for other in &subject.rows {
            let mut image = cells(row);
            for ((cell, other), hidden) in image.iter_mut().zip(cells(other)).zip(&hidden) {
                if *hidden {
                    *cell = other;
                }
            }
            assert_eq!(pair.rule.evaluate(&image), verdict, "{}\n{row:?}\n{hidden:?}", pair.text);
        }
    }
}

#[tokio::test]
async fn rules_judge_rows_as_postgres_does() {
    let mut random = Random::seeded();
    let client = support::database().await.connect().await;
    let subject = Subject::create(&client, &mut random).await;
    let claims: Json = serde_json::from_str(CLAIMS).unwrap();
    let mut tally = Tally::default();
    let mut batch = Vec::new();
    while tally.pairs < pairs_min() {
        // Each sixth rule is thrown together without regard to types.
        let typed = !random.one_in(6);
        let text = if typed { random.rule(3) } else { random.nonsense() };
        let bound = parse_where(&text).and_then(|expression| {
            let rule = Rule::bind(&expression, &subject.relation, &claims)?;
            Ok((rule, expression.to_sql(&subject.relation, &claims)))
        });
        tally.tried += usize::from(typed);
        match bound {
            Ok((rule, written)) => {
                // Every other one is asked as it is written for snapshots.
                let whole = written.sql.filter(|_| written.whole && random.one_in(2));
                tally.written += usize::from(whole.is_some());
                let written = whole.is_some();
                let pair = Pair { rule, sql: whole.unwrap_or_else(|| text.clone()), written, text };
                hide(&pair, &subject, &mut random);
                batch.push(pair);
            }
            Err(error) => {
                tally.refused += usize::from(typed);
                if std::env::var_os("WALCAST_SHOW").is_some() && typed {
                    println!("{error} <- {text}");
                }
            }
        }
        if batch.len() == BATCH {
            judge(&client, &batch, &subject, &mut tally).await;
            batch.clear();
        }
    }
    report("rules", &tally);
}

#[tokio::test]
async fn filters_judge_rows_as_postgres_does() {
    let mut random = Random::seeded();
    let client = support::database().await.connect().await;
    let subject = Subject::create(&client, &mut random).await;
    let mut tally = Tally::default();
    let mut batch = Vec::new();
    while tally.pairs < pairs_min() / 2 {
        let (text, sql) = random.filter();
        let bound = parse_filter(&text).and_then(|expression| {
            let rule = Rule::bind(&expression, &subject.relation, &Json::Null)?;
            Ok((rule, expression.to_sql(&subject.relation, &Json::Null)))
        });
        tally.tried += 1;
        match bound {
            Ok((rule, written)) => {
                let whole = written.sql.filter(|_| written.whole && random.one_in(2));
                tally.written += usize::from(whole.is_some());
                let written = whole.is_some();
                batch.push(Pair { rule, sql: whole.unwrap_or(sql), written, text });
            }
            Err(error) => {
                tally.refused += 1;
                if std::env::var_os("WALCAST_SHOW").is_some() {
                    println!("{error} <- {text}");
                }
            }
        }
        if batch.len() == BATCH {
            judge(&client, &batch, &subject, &mut tally).await;
            batch.clear();
        }
    }
    report("filters", &tally);
}

/// Prints the tally, and checks that the test was not about next to nothing.
fn report(what: &str, tally: &Tally) {
    let Tally { tried, refused, pairs, admitted, undecided, raised, written } = tally;
    println!(
        "{what}: {pairs} pairs, {admitted} admitted, {undecided} undecided, {raised} raised; {refused} of {tried} well-typed ones refused; {written} asked as they are written for snapshots"
    );
    assert!(written * 4 >= tried - refused, "{written} written");
    assert!(refused * 10 <= tried * 4, "{refused} of {tried} refused");
    assert!(undecided * 20 <= *pairs, "{undecided} of {pairs} undecided");
    assert!(admitted * 10 >= *pairs, "{admitted} of {pairs} admitted");
}
