//! Random policies of random kinds for random roles, rows and claims.

use crate::policies::membership;
use crate::policies::oracle::Oracle;
use crate::policies::oracle::Tally;
use crate::policies::oracle::roles;
use crate::policies::shapes::DECIDED;
use crate::policies::subject;
use crate::random::Random;

/// How many verdicts are compared at least, unless `POLICY_VERDICTS` says more. The shapes one by
/// one make another 150,000.
const VERDICTS_MIN: usize = 40_000;

/// What the policies of the tables that others read may say. Some of them lead back.
const OF_MEMBER: &[&str] = &[
    "true",
    "person = auth.uid()",
    "role = 'admin' OR person = auth.uid()",
    "EXISTS (SELECT 1 FROM profile p WHERE p.id = member.person AND p.role IS NOT NULL)",
    "org IN (SELECT id FROM org)",
    "is_member_definer(org)",
    "auth.role() <> 'anon'",
];
const OF_ORG: &[&str] = &[
    "true",
    "owner = auth.uid()",
    "is_open",
    "id IN (SELECT org FROM member WHERE person = auth.uid())",
    "is_member(id)",
    "(SELECT role FROM profile WHERE profile.id = org.owner) = 'admin'",
    "EXISTS (SELECT 1 FROM closed)",
];

fn verdicts_min() -> usize {
    std::env::var_os("POLICY_VERDICTS")
        .map_or(VERDICTS_MIN, |count| count.to_str().unwrap().parse().unwrap())
}

/// A condition of the shapes, joined at random.
fn condition(random: &mut Random, depth: usize) -> String {
    if depth == 0 || random.one_in(3) {
        let shapes = if random.one_in(2) { DECIDED } else { membership::DECIDED };
        return random.pick(shapes).to_owned();
    }
    let left = condition(random, depth - 1);
    match random.below(6) {
        0 => format!("NOT ({left})"),
        1 => format!("({left}) IS TRUE"),
        2 => format!("coalesce({left}, {})", condition(random, depth - 1)),
        3 | 4 => format!("({left}) OR ({})", condition(random, depth - 1)),
        _ => format!("({left}) AND ({})", condition(random, depth - 1)),
    }
}

/// Statements that give the table new policies.
fn policies(random: &mut Random, roles: &[String]) -> String {
    let mut sql = String::from(if random.one_in(3) {
        "ALTER TABLE subject FORCE ROW LEVEL SECURITY;"
    } else {
        "ALTER TABLE subject NO FORCE ROW LEVEL SECURITY;"
    });
    for number in 0..random.below(4) {
        let kind = if random.one_in(5) { "RESTRICTIVE" } else { "PERMISSIVE" };
        let command = random.pick(&["SELECT", "SELECT", "ALL", "UPDATE"]);
        let to = match random.below(4) {
            0 => roles[2].as_str(),
            1 => roles[0].as_str(),
            _ => "PUBLIC",
        };
        let condition = condition(random, 2);
        sql.push_str(&format!(
            "CREATE POLICY p{number} ON subject AS {kind} FOR {command} TO {to} USING ({condition});"
        ));
    }
    sql
}

/// Statements that give the tables that others read other policies.
fn nested(random: &mut Random) -> String {
    let mut sql = String::new();
    for (table, conditions) in [("member", OF_MEMBER), ("org", OF_ORG)] {
        let security = if random.one_in(6) { "DISABLE" } else { "ENABLE" };
        sql.push_str(&format!("ALTER TABLE {table} {security} ROW LEVEL SECURITY;"));
        for number in 0..random.below(4) {
            let kind = if random.one_in(5) { "RESTRICTIVE" } else { "PERMISSIVE" };
            let condition = random.pick(conditions);
            sql.push_str(&format!(
                "CREATE POLICY n{number} ON {table} AS {kind} FOR SELECT USING ({condition});"
            ));
        }
    }
    sql
}

#[tokio::test]
async fn random_policies_are_decided_as_postgres_does() {
    let mut random = Random::seeded();
    let mut oracle = Oracle::new().await;
    let roles = roles(&oracle.database);
    let all_claims = subject::claims();
    let (mut tally, mut tables) = (Tally::default(), 0);
    let drop = "DO $$ DECLARE p record; BEGIN
                FOR p IN SELECT polname, polrelid::regclass AS of FROM pg_policy
                         WHERE polrelid <> 'other'::regclass LOOP
                EXECUTE format('DROP POLICY %I ON %s', p.polname, p.of); END LOOP; END $$";
    oracle.sql.batch_execute(drop).await.unwrap();
    while tally.verdicts < verdicts_min() {
        if tables % 4 == 0 {
            oracle.fill(|count| random.below(count)).await;
        }
        let sql = policies(&mut random, &roles) + &nested(&mut random);
        oracle.sql.batch_execute(&sql).await.unwrap();
        oracle.refresh().await;
        tables += 1;
        for _ in 0..8 {
            let claims = &all_claims[random.below(all_claims.len())];
            let role = &roles[random.below(roles.len())];
            oracle.compare(claims, role, &sql, &mut tally).await;
        }
        oracle.sql.batch_execute(drop).await.unwrap();
    }
    println!("{}", tally.end(&format!("{tables} tables with random policies"), verdicts_min()));
    assert!(tally.shown * 8 > tally.verdicts, "{tally:?}");
    assert!(tally.refused * 5 < tally.verdicts, "{tally:?}");
}
