//! Claims are what Postgres reads in them, or they are refused.

use walcast::auth::Settings;
use walcast::auth::Verifier;

use crate::random::Random;
use crate::support;

/// Values of a claim that a token may have.
const TAKEN: &[&str] = &[
    "null",
    "true",
    "-0",
    "1.0",
    "1E3",
    "1e400",
    "-12.5e-300",
    "12345678901234567890.123456789012345678901234567890",
    r#""""#,
    r#""é \u00e9 \ud83d\ude00 \/ \" \\ \b\f\n\r\t""#,
    r#"{"":{"a b":[1,[],{}]}}"#,
    " [ 1 ,\t\"x\"\r\n] ",
    "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]",
    "\"\u{2028}\u{feff}\u{10ffff}\"",
];

/// Values that Postgres refuses, so that no token may have them.
const NOT_FOR_POSTGRES: &[&str] = &[
    r#""\u0000""#,
    r#"{"\u0000":1}"#,
    r#""\ud800""#,
    r#""\udc00""#,
    r#""\ud800\u0041""#,
    r#""\ud800\ud800""#,
    r#""\x""#,
    r#""\u12G4""#,
    "\"a\nb\"",
    "\"\u{1}\"",
    "'x'",
    "NaN",
    "Infinity",
    "01",
    "+1",
    "1.",
    ".5",
    "1e",
    "0x10",
    "1_000",
    "[1,]",
    r#"{"a":1,}"#,
    "{a:1}",
    "// x\n1",
    "1e999999999",
    "",
];

/// Values that Postgres takes, and that are refused because two readers could differ on them.
const AMBIGUOUS: &[&str] =
    &[r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, r#"[{"b":[{"c":1,"c":1}]}]"#, "1e1001"];

fn with(value: &str) -> String {
    format!(r#"{{"role":"web","x":{value}}}"#)
}

/// Pieces put together at random, of which some are JSON.
fn any(random: &mut Random) -> String {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u",
        "0000",
        "d800",
        "dc00",
        "\\ud83d\\ude00",
        "1",
        "0",
        "-",
        ".",
        "e",
        "+",
        "null",
        "true",
        "\"a\":",
        "\"a\"",
        "\"\\u0061\"",
        " ",
        "\n",
        "é",
        "[1]",
        "{}",
        "\"x\\n\"",
    ];
    let length = 1 + random.below(7);
    (0..length).map(|_| random.pick(&pieces)).collect()
}

#[tokio::test]
async fn claims_are_what_postgres_reads_in_them_or_they_are_refused() {
    let roles = vec!["web".to_owned()];
    let verifier = Verifier::new(Settings { roles, ..Settings::default() }).unwrap();
    let taken = |text: &str| verifier.assume(text).ok().map(|claims| claims.json().to_string());
    for (values, is_taken) in [(TAKEN, true), (NOT_FOR_POSTGRES, false), (AMBIGUOUS, false)] {
        for value in values {
            assert_eq!(taken(&with(value)).is_some(), is_taken, "{value}");
        }
    }
    let seed = std::env::var_os("WALCAST_SEED")
        .map_or_else(|| u64::from(std::process::id()), |it| it.to_str().unwrap().parse().unwrap());
    println!("WALCAST_SEED={seed}");
    let mut random = Random::new(seed);
    let listed = TAKEN.iter().chain(NOT_FOR_POSTGRES).chain(AMBIGUOUS);
    let mut texts: Vec<String> = listed.map(|value| with(value)).collect();
    texts.extend((0..20_000).map(|_| with(&any(&mut random))));
    let read: Vec<Option<String>> = texts.iter().map(|text| taken(text)).collect();

    let sql = support::database().await.connect().await;
    sql.batch_execute(
        "CREATE FUNCTION read(text) RETURNS jsonb LANGUAGE plpgsql AS $$ \
         BEGIN RETURN $1::jsonb; EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$",
    )
    .await
    .unwrap();
    let compare = "SELECT read(text) IS NULL, read(text) = claims::jsonb \
                   FROM unnest($1::text[], $2::text[]) AS pair (text, claims)";
    let rows = sql.query(compare, &[&texts, &read]).await.unwrap();
    let mut alike = 0;
    for ((text, ours), row) in texts.iter().zip(&read).zip(&rows) {
        let (is_refused, same): (bool, Option<bool>) = (row.get(0), row.get(1));
        assert!(!is_refused || ours.is_none(), "Postgres refuses {text}, and we read {ours:?}");
        if ours.is_some() {
            assert_eq!(same, Some(true), "{text} is {ours:?} here, and not to Postgres");
            alike += 1;
        }
    }
    assert!(alike > TAKEN.len() + 100, "only {alike} texts were JSON");
    let refused = &rows[TAKEN.len()..TAKEN.len() + NOT_FOR_POSTGRES.len()];
    assert!(refused.iter().all(|row| row.get::<_, bool>(0)), "Postgres takes one of the list");
}
