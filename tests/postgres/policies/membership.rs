//! Policies that read other tables, in the shapes that real databases have.

use walcast::route::plan::Refusal;

use crate::policies::oracle::Oracle;
use crate::policies::oracle::Tally;
use crate::policies::oracle::roles;
use crate::policies::subject;
use crate::random::Random;

/// Policies that are decided.
pub(crate) const DECIDED: &[&str] = &[
    "EXISTS (SELECT 1 FROM member m WHERE m.org = subject.tenant AND m.person = auth.uid())",
    "EXISTS (SELECT FROM member WHERE member.org = tenant AND member.person = auth.uid()
             AND member.role IN ('admin', 'open'))",
    "EXISTS (SELECT * FROM profile p WHERE p.id = auth.uid() AND p.role = 'admin')",
    "EXISTS (SELECT 1 FROM profile WHERE id = owner AND is_admin LIMIT 1)",
    "tenant IN (SELECT org FROM member WHERE person = auth.uid())",
    "tenant = ANY (SELECT org FROM member WHERE person = auth.uid())",
    "tenant IN (SELECT DISTINCT m.org FROM member m WHERE m.person = (SELECT auth.uid()))",
    "auth.uid() IN (SELECT person FROM member WHERE org = tenant)",
    "auth.uid() IN (SELECT m.person FROM member m WHERE m.org = subject.tenant AND m.level > 1)",
    "tenant NOT IN (SELECT org FROM member WHERE person = auth.uid())",
    "owner NOT IN (SELECT owner FROM org)",
    "NOT (owner IN (SELECT owner FROM org WHERE owner IS NOT NULL))",
    "owner <> ALL (SELECT owner FROM org WHERE is_open)",
    "qty > ALL (SELECT level FROM member WHERE org = tenant)",
    "qty >= ANY (SELECT level FROM member)",
    "(owner IN (SELECT owner FROM org)) IS NOT FALSE",
    "(owner IN (SELECT owner FROM org)) IS UNKNOWN",
    "EXISTS (SELECT 1 FROM member m JOIN org o ON o.id = m.org
             WHERE m.person = auth.uid() AND o.id = subject.tenant)",
    "EXISTS (SELECT 1 FROM member m, org o WHERE o.id = m.org AND o.tid = subject.tid)",
    "EXISTS (SELECT 1 FROM org o JOIN member m ON m.org = o.id JOIN profile p ON p.id = m.person
             WHERE p.role = 'admin' AND o.id = subject.tenant)",
    "EXISTS (SELECT 1 FROM member CROSS JOIN profile WHERE member.person = profile.id
             AND profile.org = tenant)",
    "tenant IN (SELECT o.id FROM org o WHERE EXISTS
                (SELECT 1 FROM member m WHERE m.org = o.id AND m.person = owner))",
    "(SELECT role FROM profile WHERE id = auth.uid()) = 'admin'",
    "status = (SELECT role FROM profile WHERE id = auth.uid())",
    "tenant = (SELECT org FROM profile WHERE id = auth.uid() LIMIT 1)",
    "(SELECT is_admin FROM profile WHERE id = auth.uid())",
    "NOT (SELECT is_admin FROM profile WHERE id = auth.uid())",
    "(SELECT is_admin FROM profile WHERE id = owner) IS NOT TRUE",
    "coalesce((SELECT is_admin FROM profile WHERE id = auth.uid()), false)",
    "(SELECT level FROM member WHERE org = tenant AND person = auth.uid()) > 2",
    "label IN (SELECT role FROM member)",
    "label IN (SELECT label FROM member)",
    "status IN (SELECT label FROM member WHERE person = auth.uid())",
    "mood IN (SELECT mood FROM member)",
    "EXISTS (SELECT 1 FROM member WHERE member.mood > subject.mood AND member.org = tenant)",
    "qty IN (SELECT tid FROM org)",
    "price IN (SELECT level FROM member)",
    "owner::text IN (SELECT person::text FROM member)",
    "EXISTS (SELECT 1 FROM sealed)",
    "owner IN (SELECT person FROM sealed) OR is_public",
    "owner NOT IN (SELECT person FROM sealed)",
    "EXISTS (SELECT 1 FROM partly WHERE name = status)",
    "is_public OR EXISTS (SELECT 1 FROM member m WHERE m.org = tenant AND m.person = auth.uid())",
    "owner = auth.uid() OR tenant IN (SELECT org FROM member WHERE person = auth.uid())",
    "EXISTS (SELECT 1 FROM org WHERE org.id = tenant) AND NOT EXISTS
        (SELECT 1 FROM member WHERE member.org = tenant AND member.role = 'admin')",
    "CASE WHEN EXISTS (SELECT 1 FROM org WHERE org.id = tenant) THEN is_public ELSE status = 'open' END",
    "EXISTS (SELECT 1 FROM member m WHERE m.org = tenant AND m.role = auth.role())",
    "EXISTS (SELECT 1 FROM org o WHERE o.id = tenant AND o.name = (SELECT p.role FROM profile p
             WHERE p.id = o.owner))",
    "tenant IN (SELECT id FROM org WHERE owner = auth.uid() OR id IN
                (SELECT org FROM member WHERE person = auth.uid()))",
    "is_member(tenant)",
    "NOT is_member(tenant)",
    "is_member_definer(tenant)",
    "(SELECT is_member_definer(tenant))",
    "is_member_definer(tenant) OR owner = auth.uid()",
    "is_member_of(tenant, auth.uid())",
    "is_member_of(tenant, auth.uid()) IS NULL",
    "has_role('admin')",
    "has_role(status)",
    "my_role() = 'admin'",
    "my_role() IN ('admin', 'open')",
    "(SELECT my_role()) = status",
    "tenant = my_org()",
    "tenant IS DISTINCT FROM my_org()",
    "is_admin_or_owner(owner)",
    "level_in(tenant) > 2",
    "coalesce(level_in(tenant), 0) < 3",
    "at_least(qty, label)",
    "at_least(small, status) IS NULL",
    "shadow(owner)",
    "as_owner(owner)",
    "returns_member(tenant)",
    "into_role()",
    "EXISTS (SELECT 1 FROM org o WHERE o.id = tenant AND is_member_definer(o.id))",
    "tenant IN (SELECT id FROM org WHERE is_member(id))",
    "elsewhere() AND is_public",
    "nested_definer(tenant)",
    "has_role('admin') AND auth.of(owner)",
    "owner IN (SELECT auth.uid())",
    "tenant IN (SELECT orgs())",
    "tenant IN (SELECT o FROM orgs() o)",
    "tenant IN (SELECT orgs.orgs FROM orgs())",
    "tenant = ANY (SELECT orgs())",
    "tenant NOT IN (SELECT orgs())",
    "(tenant IN (SELECT orgs())) IS NOT FALSE",
    "tenant = ANY (ARRAY(SELECT orgs()))",
    "EXISTS (SELECT 1 FROM orgs() o WHERE o = tenant)",
    "EXISTS (SELECT orgs())",
    "NOT EXISTS (SELECT 1 FROM orgs() AS o (id) WHERE o.id = tenant AND o.id IS NOT NULL)",
    "tenant IN (SELECT orgs_of(auth.uid(), 1))",
    "tenant NOT IN (SELECT orgs_of(owner, qty))",
    "tenant IN (SELECT o FROM orgs_of(subject.owner, subject.qty) o)",
    "owner IN (SELECT person FROM members_of(tenant))",
    "EXISTS (SELECT 1 FROM members_of(tenant) m WHERE m.person = auth.uid() AND m.its_role = 'admin')",
    "EXISTS (SELECT 1 FROM members_of(tenant) AS m (a, b) WHERE m.a = owner AND b = status)",
    "tenant IN (SELECT org FROM my_members())",
    "tenant IN (SELECT m.org FROM my_members() m WHERE m.level > 1 AND m.role <> 'open')",
    "tenant IN (SELECT org FROM my_members_again())",
    "tenant IN (SELECT m.org FROM my_members() m JOIN org o ON o.id = m.org WHERE o.is_open)",
    "tenant IN (SELECT id FROM org WHERE id IN (SELECT orgs()))",
    "tenant IN (SELECT org_id FROM shared_orgs())",
    "tenant IN (SELECT orgs_again())",
    "tenant IN (SELECT orgs_by_row())",
    "tenant IN (SELECT claimed_org())",
    "(tenant NOT IN (SELECT claimed_org())) IS NOT FALSE",
    "EXISTS (SELECT 1 FROM claimed_org() o WHERE o = tenant) IS FALSE",
    "status IN (SELECT labels())",
    "status = ANY (ARRAY(SELECT label FROM member))",
    "tenant = ANY (ARRAY(SELECT org FROM member WHERE person = auth.uid()))",
    "tenant <> ALL (ARRAY(SELECT org FROM member WHERE person = auth.uid()))",
    "NOT (owner = ANY (ARRAY(SELECT owner FROM org WHERE is_open)))",
    "(owner = ANY (ARRAY(SELECT owner FROM org))) IS UNKNOWN",
    "qty > ALL (ARRAY(SELECT level FROM member WHERE org = tenant))",
    "tenant = ANY (org_array())",
    "tenant = ANY ((SELECT org_array())::uuid[])",
    "NOT (tenant = ANY (org_array()))",
    "(tenant <> ALL (org_array())) IS NOT TRUE",
    "tenant = ANY (org_array_of(auth.uid()))",
    "tenant <> ALL (org_array_of(owner))",
    "NOT (status = ANY (role_array()))",
    "tenant = ANY ((SELECT array_agg(org) FROM member WHERE person = owner)::uuid[])",
    "(tenant = ANY ((SELECT array_agg(id) FROM org WHERE is_open)::uuid[])) IS UNKNOWN",
    "plain_of(plain) < 'b'",
    "(tenant, owner) IN (SELECT org, person FROM member)",
    "(tenant, auth.uid()) IN (SELECT org, person FROM member WHERE level > 1)",
    "(tenant, owner) NOT IN (SELECT id, owner FROM org)",
    "((owner, tid) IN (SELECT owner, tid FROM org)) IS UNKNOWN",
    "(owner, status::text) IN (SELECT m.person, m.role FROM members_of(tenant) AS m (person, role))",
    "is_member_stored(tenant)",
    "may_see(tenant, is_public)",
    "NOT may_see(owner, false)",
    "may_see(tenant, is_public) IS NULL",
    "is_member_branching(tenant)",
    "level_branching(tenant) > 0",
    "open_branching(status)",
    "open_branching(label) IS NULL",
    "role_stored() = 'admin'",
    "at_least_stored(qty, small) IS NULL",
    "tenant IN (SELECT orgs_stored())",
    "EXISTS (SELECT 1 FROM rows_stored(tenant) r WHERE r.a = owner AND r.b = 'admin')",
    "tenant = ANY (array_stored(owner))",
    "tenant <> ALL (array_stored(auth.uid()))",
    "calls_others_stored(tenant)",
    "calls_hidden_stored() AND is_public",
    "(SELECT count(*) FROM member WHERE org = tenant) > 0",
    "(SELECT count(*) FROM member WHERE org = tenant AND person = auth.uid()) >= 1",
    "0 < (SELECT count(level) FROM member WHERE org = tenant)",
    "(SELECT count(*) FROM member m JOIN org o ON o.id = m.org WHERE o.id = tenant) = 0",
    "NOT ((SELECT count(*) FROM member WHERE org = tenant) <> 0)",
    "(SELECT count(role) FROM member WHERE person = owner) = qty",
    "(SELECT count(*) FROM orgs()) BETWEEN 1 AND 2",
    "counted() > 2",
    "tenant IN (SELECT queried())",
    "owner = ANY (COALESCE((SELECT array_agg(owner) FROM org WHERE is_open), '{}'))",
    "NOT (owner = ANY ((SELECT COALESCE(array_agg(owner), '{}') FROM org)::uuid[]))",
];

/// Policies that are refused for everybody, with a word of the reason.
const REFUSED: &[(&str, &str)] = &[
    ("EXISTS (SELECT 1 FROM closed)", "may not select"),
    ("EXISTS (SELECT secret FROM partly)", "may not select"),
    ("EXISTS (SELECT 1 FROM partly WHERE secret = 'x')", "may not select"),
    ("is_public OR EXISTS (SELECT 1 FROM closed)", "may not select"),
    ("EXISTS (SELECT 1 FROM subject s WHERE s.owner = subject.owner)", "recursion"),
    ("is_public OR qty IN (SELECT qty FROM subject)", "recursion"),
    ("owner = (SELECT person FROM member LIMIT 1)", "several rows"),
    ("owner = (SELECT person FROM member WHERE org = tenant)", "several rows"),
    (
        "tenant = (SELECT org FROM profile WHERE id = (SELECT owner FROM org WHERE id = tenant))",
        "several rows",
    ),
    ("(SELECT count(DISTINCT org) FROM member) > 0", ""),
    ("(SELECT count(*) FROM shared_orgs()) > 1", "DISTINCT"),
    ("(SELECT max(level) FROM member) > 0", ""),
    ("(SELECT bool_or(is_open) FROM org)", ""),
    ("EXISTS (SELECT count(*) FROM member)", ""),
    ("5 IN (SELECT count(*) FROM member)", ""),
    ("EXISTS (SELECT 1 FROM member GROUP BY org)", ""),
    ("EXISTS (SELECT 1 FROM member LIMIT 2)", "limit"),
    ("EXISTS (SELECT 1 FROM member OFFSET 1)", ""),
    ("owner IN (SELECT person FROM member LIMIT 1)", "limit"),
    ("EXISTS (SELECT 1 FROM member m LEFT JOIN org o ON o.id = m.org)", "join"),
    ("EXISTS (SELECT 1 FROM member m JOIN org o ON true, LATERAL (SELECT 1) x)", ""),
    ("EXISTS (SELECT 1 FROM member UNION SELECT 1 FROM org)", ""),
    ("EXISTS (WITH x AS (SELECT 1) SELECT 1 FROM x)", ""),
    ("EXISTS (SELECT 1 FROM generate_series(1, 2))", ""),
    ("EXISTS (SELECT 1 FROM (SELECT 1 FROM member) x)", ""),
    ("EXISTS (SELECT 1 FROM pg_class)", ""),
    ("EXISTS (SELECT 1 FROM member m WHERE m IS NOT NULL)", ""),
    ("EXISTS (SELECT 1 FROM ONLY member)", ""),
    ("(tenant, qty) < ANY (SELECT org, level FROM member)", ""),
    ("ambiguous(owner)", "variable"),
    ("tenant = several()", "several rows"),
    ("tenant IN (SELECT first_orgs())", "order"),
    ("status IN (SELECT queried_wrong())", "another"),
    ("tenant IN (SELECT org FROM queried_unclear())", "variable"),
    ("tenant IN (SELECT queried_twice())", "RETURN QUERY"),
    ("tenant IN (SELECT hidden_orgs())", "may not select"),
    ("tenant IN (SELECT secret_orgs())", "may not call"),
    ("EXISTS (SELECT 1 FROM secret_orgs() o WHERE o = tenant)", "may not call"),
    ("tenant = (SELECT orgs())", "several rows"),
    ("tenant = (SELECT o FROM orgs() o LIMIT 1)", "several rows"),
    ("tenant IN (SELECT o FROM orgs() WITH ORDINALITY AS o (o, n))", ""),
    ("tenant IN (SELECT x.o FROM member m, orgs_of(m.person, 1) x (o))", ""),
    ("tenant IN (SELECT coalesce(f, owner) FROM unnest(members) f)", "function"),
    ("tenant = ANY (strict_array(owner)) IS TRUE", "ARRAY"),
    ("tags && ARRAY(SELECT role FROM member)", "array"),
    ("ARRAY(SELECT role FROM member) IS NULL", "array"),
    ("tenant IN (SELECT orgs() LIMIT 1)", "LIMIT"),
    ("plain_of(status) < 'x'", "locale"),
    ("endless(tenant)", "recursion"),
    ("counted_apart() > 0", "counted_apart"),
    ("defaulted()", "default"),
    ("calls_hidden()", "may not call"),
    ("two_stored()", "ATOMIC"),
    ("unclear_variable(owner)", "variable"),
    ("no_return(owner)", "without a RETURN"),
    ("raises(owner)", "PL/pgSQL"),
];

#[tokio::test]
async fn each_shape_over_other_tables_is_decided_as_postgres_does() {
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
        // Those of people first; of the others some.
        let all = subject::claims();
        let mut asked = vec![all[0].clone(), all[1].clone()];
        asked.extend((0..3).map(|_| all[random.below(all.len())].clone()));
        for claims in &asked {
            refusals.extend(oracle.compare(claims, &web, condition, &mut tally).await);
        }
        if refusals.len() == asked.len() {
            wrong.push(format!("{condition}: {:?}", oracle.reason(&web)));
        }
        oracle.sql.batch_execute("DROP POLICY it ON subject").await.unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{}", tally.end("shapes over other tables", 49_000));
    // Some claims make PostgreSQL raise an error where it looks at a row of the other table, which
    // is said so whether there is one or not.
    assert!(tally.withheld * 20 < tally.verdicts, "{tally:?}");
    assert!(tally.shown * 8 > tally.verdicts, "{tally:?}");
}

/// Policies whose subscribers are found by the values of one column.
const FOUND: &[(&str, &str)] = &[
    ("tenant IN (SELECT org FROM member WHERE person = auth.uid())", "tenant"),
    ("tenant IN (SELECT orgs())", "tenant"),
    ("tenant IN (SELECT o FROM orgs() o)", "tenant"),
    ("EXISTS (SELECT 1 FROM orgs() o WHERE o = tenant)", "tenant"),
    ("tenant IN (SELECT m.org FROM my_members() m WHERE m.level < 9)", "tenant"),
    ("tenant IN (SELECT org_id FROM shared_orgs())", "tenant"),
    ("tenant = ANY (ARRAY(SELECT orgs()))", "tenant"),
    ("tenant = ANY (org_array())", "tenant"),
    ("is_member_branching(tenant)", "tenant"),
    ("tenant = ANY ((SELECT org_array())::uuid[])", "tenant"),
    ("tenant IN (SELECT queried())", "tenant"),
    ("owner IN (SELECT person FROM members_of(tenant))", "tenant"),
    (
        "(SELECT count(*) FROM member m WHERE m.org = tenant AND m.person = auth.uid()) > 0",
        "tenant",
    ),
];

#[tokio::test]
async fn memberships_are_found_by_their_values() {
    let mut oracle = Oracle::new().await;
    oracle.fill(|_| 0).await;
    let web = roles(&oracle.database).swap_remove(0);
    for (condition, column) in FOUND {
        assert_eq!(oracle.guard(condition).await, None);
        let found = oracle.found_by(&subject::claims()[0], &web);
        assert_eq!(found, [(*column).to_owned()], "{condition}");
        oracle.sql.batch_execute("DROP POLICY it ON subject").await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_decided_of_other_tables_is_refused_with_its_reason() {
    let mut oracle = Oracle::new().await;
    oracle.fill(|_| 0).await;
    let mut tally = Tally::default();
    let web = roles(&oracle.database).swap_remove(0);
    let mut wrong = Vec::new();
    for (condition, word) in REFUSED {
        let create = format!("CREATE POLICY it ON subject FOR SELECT USING ({condition})");
        oracle.sql.batch_execute(&create).await.unwrap();
        oracle.refresh().await;
        let refusal = oracle.compare(&subject::claims()[0], &web, condition, &mut tally).await;
        let code = refusal.as_ref().map(Refusal::code);
        let reason = oracle.reason(&web).unwrap_or_default();
        if !matches!(code, Some("policy_unsupported" | "policy_undecidable"))
            || !reason.contains(word)
        {
            wrong.push(format!("{condition}: {code:?} {reason}"));
        }
        oracle.sql.batch_execute("DROP POLICY it ON subject").await.unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
