//! The shapes that policies of real databases have, one by one, and what becomes of each.

use walcast::route::plan::Refusal;

use crate::policies::oracle::Oracle;
use crate::policies::oracle::Tally;
use crate::policies::oracle::roles;
use crate::policies::subject;
use crate::random::Random;

/// Policies that are decided; not for all claims, because some make PostgreSQL raise an error.
pub(crate) const DECIDED: &[&str] = &[
    "true",
    "false",
    "owner = auth.uid()",
    "auth.uid() = owner",
    "(SELECT auth.uid()) = owner",
    "owner = (SELECT auth.uid() AS uid)",
    "owner = auth.uid_legacy()",
    "owner::text = auth.uid()::text",
    "auth.uid()::text = owner::text",
    "owner::text = (auth.jwt() ->> 'sub')",
    "auth.uid() IS NOT NULL",
    "auth.role() = 'admin'",
    "auth.role() IN ('admin', 'authenticated')",
    "(SELECT auth.role()) = 'authenticated' AND is_public",
    "(auth.jwt() ->> 'role') = 'admin'",
    "((SELECT auth.jwt()) ->> 'email') = email",
    "(auth.jwt() -> 'app_metadata' ->> 'role') = 'admin'",
    "(auth.jwt() #>> '{app_metadata,role}') = 'admin'",
    "auth.jwt() -> 'app_metadata' ? 'org'",
    "auth.email() = email",
    "auth.is_admin() OR owner = auth.uid()",
    "tenant = auth.org()",
    "owner IS NULL",
    "owner IS NOT NULL AND tenant IS NULL",
    "owner IS DISTINCT FROM auth.uid()",
    "NOT (owner IS DISTINCT FROM auth.uid())",
    "is_public",
    "NOT is_public",
    "is_public = true",
    "is_public IS TRUE",
    "is_public IS NOT TRUE",
    "is_public IS FALSE",
    "is_public IS UNKNOWN",
    "coalesce(is_public, false)",
    "status = 'open'",
    "status <> 'open'",
    "status IN ('open', 'closed')",
    "status NOT IN ('open', 'closed')",
    "status IN ('open', NULL)",
    "status = ANY ('{open,ok}')",
    "label = 'x'",
    "label IN ('x', 'open')",
    "label <> ALL (ARRAY['x', 'Y'])",
    "label = status",
    "code = 'AB'",
    "plain COLLATE \"C\" < 'b'",
    "plain >= 'a'",
    "lower(plain) = 'b'",
    "status LIKE 'o%'",
    "status NOT LIKE '%e%'",
    "plain ILIKE 'b%'",
    "plain ~ '^a'",
    "length(status) > 2",
    "nullif(status, '') IS NOT NULL",
    "email = 'ann@x.org'",
    "mood = 'ok'",
    "mood <> 'sad'",
    "mood > 'ok'",
    "mood IN ('ok', 'glad')",
    "mood::text = status",
    "qty = 3",
    "qty > 2.5",
    "qty BETWEEN 1 AND 5",
    "qty IN (0, 5, 100)",
    "small = qty",
    "qty = -5 OR small = -5",
    "price = 2.5",
    "price > 2",
    "ratio = 0.1",
    "ratio > 2",
    "tid = 7",
    "qty = tid",
    "day > '2023-12-31'",
    "at >= '2024-01-01 00:00:00+00'",
    "tags @> ARRAY['a']",
    "tags && '{b,admin}'",
    "'a' = ANY (tags)",
    "auth.role() = ANY (tags)",
    "auth.uid() = ANY (members)",
    "members IS NULL OR auth.uid() = ANY (members)",
    "(meta ->> 'k') = 'v'",
    "meta ? 'a'",
    "(meta -> 'a' ->> 0) = '1'",
    "(meta ->> 'k') IS NULL",
    "current_user = 'nobody'",
    "current_user::text LIKE 'web%'",
    "CURRENT_ROLE <> 'nobody'",
    "current_setting('role') LIKE 'web%'",
    "CASE WHEN is_public THEN status = 'open' ELSE owner = auth.uid() END",
    "CASE status WHEN 'open' THEN true WHEN 'ok' THEN is_public END",
    "claims = 'a'",
    "auth.of(owner)",
    "meta @> '{\"k\": \"v\"}'",
    "meta @> '{\"a\": [2]}' OR meta = '3'",
    "meta IN ('[]', '{\"a\": [1, 2]}', 'null', '-1.50e3')",
    "meta <@ '{\"n\": 3.0, \"k\": \"v\", \"x\": [true, false, null, {\"é\": \"\\\"\"}]}'",
    "hour > '08:00'",
    "hour IN ('24:00', '00:00:00.000001')",
    "span > '1 month -3 days'",
    "span = '24:00:00'",
    "span BETWEEN '-1 day' AND interval '1 year 2 mons 3 days 04:05:06.7'",
    "auth.branching() AND is_public",
    "CASE WHEN is_public THEN true ELSE owner = auth.uid() END",
    "CASE WHEN owner = auth.uid() THEN false WHEN is_public THEN status = 'open' END",
    "CASE WHEN is_public THEN NULL WHEN status = 'open' THEN true ELSE NOT is_public END",
    "auth.stored() AND is_public",
    "auth.owner_user() = 'x'",
    "auth.owner_user() <> 'x' AND is_public",
    "current_setting('request.jwt.claims', true)::json ->> 'sub' = owner::text",
    "(current_setting('request.jwt.claims', true)::jsonb ->> 'sub') = owner::text",
    "tenant = current_setting('app.tenant', true)::uuid",
    "tenant = nullif(current_setting('app.tenant', true), '')::uuid",
    "tenant::text = current_setting('app.tenant', true)",
    "tenant::text = current_setting('app.tenant')",
    "tid = current_setting('app.tenant_id', true)::bigint",
    "tid = current_setting('app.tenant_id')::int",
    "current_setting('app.tenant', true) IS NULL OR tenant IS NULL",
    "current_setting('app.tenant', true) = '' OR is_public",
    "NULLIF(current_setting('app.tenant', true), '') IS NULL",
    "tid <= (auth.jwt() ->> 'lvl')::numeric",
    "qty >= (auth.jwt() ->> 'lvl')::int",
    "current_setting('request.jwt.claim.role', true) = 'admin'",
    "(tenant, qty) = (auth.org(), 3)",
    "status = 'open' AND (owner = auth.uid() OR auth.role() = 'admin') AND NOT coalesce(is_public, true)",
];

/// Policies that are refused for everybody, with a word of the reason.
const REFUSED: &[(&str, &str)] = &[
    ("(auth.jwt() -> 'app_metadata') ? ANY (tags)", "comparisons"),
    ("plain < 'b' COLLATE \"C\"", "COLLATE"),
    ("auth.twice()", "auth.twice"),
    ("session_user = 'x'", "session_user"),
    ("at > now()", "server"),
    ("day > current_date", "time"),
    ("at > '2024-01-01'::date", "operator"),
    ("random() > 0.5", "server"),
    ("status::uuid = auth.uid()", ""),
    ("qty + 1 = 3", "operator"),
    ("status < 'open'", "locale"),
    ("lower(status) = 'open'", "locale"),
    ("status ILIKE 'O%'", "locale"),
    ("plain ~ '\\yx'", "characters"),
    ("at::text = 'x'", "texts"),
    ("'open' = ANY (string_to_array(status, ','))", "server"),
    ("current_setting('app.other', true) = 'x'", "clients"),
    ("current_setting('TimeZone') = 'UTC'", "clients"),
    ("current_setting('app.' || status, true) = 'x'", "constant"),
    ("pg_has_role('staff', 'member')", "server"),
    ("subject IS NOT NULL", "argisrow"),
    ("status COLLATE \"en_US\" = 'x'", ""),
    ("auth.secret()", "call"),
];

#[tokio::test]
async fn each_shape_is_decided_as_postgres_does() {
    let mut random = Random::seeded();
    let mut oracle = Oracle::new().await;
    let mut tally = Tally::default();
    let web = roles(&oracle.database).swap_remove(0);
    let mut wrong = Vec::new();
    for (index, condition) in DECIDED.iter().enumerate() {
        if index % 4 == 0 {
            oracle.fill(|count| random.below(count)).await;
        }
        wrong.extend(oracle.guard(condition).await);
        let mut refusals = Vec::new();
        for claims in subject::claims() {
            refusals.extend(oracle.compare(&claims, &web, condition, &mut tally).await);
        }
        if refusals.len() == subject::claims().len() {
            wrong.push(format!("{condition}: refused for everybody"));
        }
        oracle.sql.batch_execute("DROP POLICY it ON subject").await.unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // As many in each run of the tests, whatever the other ones add to them.
    println!("{}", tally.end("shapes", 100_000));
    // What is refused is what PostgreSQL raises an error for, in one kind of session at least.
    assert_eq!(tally.withheld, 0, "{tally:?}");
    assert!(tally.shown * 8 > tally.verdicts, "{tally:?}");
}

#[tokio::test]
async fn what_is_not_decided_is_refused_with_its_reason() {
    let mut oracle = Oracle::new().await;
    oracle.fill(|_| 0).await;
    let mut tally = Tally::default();
    let web = roles(&oracle.database).swap_remove(0);
    let mut wrong = Vec::new();
    for (condition, reason) in REFUSED {
        let create = format!("CREATE POLICY it ON subject FOR SELECT USING ({condition})");
        if oracle.sql.batch_execute(&create).await.is_err() {
            // A collation that this server does not have.
            assert!(condition.contains("en_US"), "{condition}");
            continue;
        }
        oracle.refresh().await;
        let snapshot = oracle.catalog.current();
        let policy = &snapshot.table("public", "subject").unwrap().policies.policies[0];
        let refusal = oracle.compare(&subject::claims()[0], &web, condition, &mut tally).await;
        let code = refusal.as_ref().map(Refusal::code);
        if !matches!(code, Some("policy_unsupported" | "policy_undecidable")) {
            wrong.push(format!("{condition}: {code:?}"));
        }
        if let Err(error) = &policy.read
            && !error.to_string().contains(reason)
        {
            wrong.push(format!("{condition}: {error}"));
        }
        oracle.sql.batch_execute("DROP POLICY it ON subject").await.unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
