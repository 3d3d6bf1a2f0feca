//! The table whose policies are tried, the roles and the claims that they are tried with.

use serde_json::Value;
use serde_json::json;

/// Functions as gateways have them, in their forms through the years, and others.
pub(crate) const FUNCTIONS: &str = "
    CREATE SCHEMA auth;
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
      select
      coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
      )::uuid
    $$;
    CREATE FUNCTION auth.uid_legacy() RETURNS uuid LANGUAGE sql STABLE AS $$
      select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid;
    $$;
    CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS $$
      select coalesce(
        nullif(current_setting('request.jwt.claim', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')
      )::jsonb
    $$;
    CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS $$
      select coalesce(
        nullif(current_setting('request.jwt.claim.role', true), ''),
        (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
      )::text
    $$;
    CREATE FUNCTION auth.email() RETURNS text LANGUAGE sql STABLE AS $$
      SELECT auth.jwt() ->> 'email'
    $$;
    CREATE FUNCTION auth.is_admin() RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
      SET search_path = '' AS $$ SELECT (auth.jwt() -> 'app_metadata' ->> 'role') = 'admin' $$;
    CREATE FUNCTION auth.org() RETURNS uuid LANGUAGE sql STABLE AS $$
      SELECT (current_setting('request.jwt.claims')::json -> 'app_metadata' ->> 'org')::uuid
    $$;
    CREATE FUNCTION auth.owner_user() RETURNS name LANGUAGE sql STABLE SECURITY DEFINER
      AS $$ SELECT current_user $$;
    CREATE FUNCTION auth.branching() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
      BEGIN IF true THEN RETURN true; END IF; RETURN false; END $$;
    CREATE FUNCTION auth.stored() RETURNS boolean STABLE RETURN true;
    CREATE FUNCTION auth.twice() RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT true $$;
    CREATE FUNCTION auth.twice(int) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT true $$;
    CREATE FUNCTION auth.of(uuid) RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT $1 = auth.uid() $$;
    CREATE FUNCTION auth.secret() RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT true $$;
    REVOKE EXECUTE ON FUNCTION auth.secret FROM PUBLIC;
";

/// Functions that read tables.
pub(crate) const TABLE_FUNCTIONS: &str = "
    CREATE FUNCTION is_member(of uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
      SELECT EXISTS (SELECT 1 FROM member WHERE member.org = of AND member.person = auth.uid())
    $$;
    CREATE FUNCTION is_member_definer(of uuid) RETURNS boolean LANGUAGE sql SECURITY DEFINER
      SET search_path = public AS $$
      -- As its owner, who sees everything.
      SELECT EXISTS (SELECT 1 FROM member WHERE org = of AND person = auth.uid());
    $$;
    CREATE FUNCTION is_member_of(uuid, uuid) RETURNS boolean LANGUAGE sql STRICT
      SECURITY DEFINER SET search_path = '' AS $$
      SELECT EXISTS (SELECT 1 FROM public.member m WHERE m.org = $1 AND m.person = $2)
    $$;
    CREATE FUNCTION has_role(wanted text) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
      SET search_path TO 'public', 'pg_temp' AS $$
      SELECT EXISTS (SELECT 1 FROM profile WHERE profile.id = auth.uid() AND role = wanted)
    $$;
    CREATE FUNCTION my_role() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER AS $$
      SELECT role FROM profile WHERE id = auth.uid()
    $$;
    CREATE FUNCTION my_org() RETURNS uuid LANGUAGE sql STABLE AS
      'SELECT p.org FROM public.profile p WHERE p.id = auth.uid() LIMIT 1';
    CREATE FUNCTION is_admin_or_owner(it uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
      SELECT has_role('admin') OR it = auth.uid()
    $$;
    CREATE FUNCTION level_in(it uuid) RETURNS int LANGUAGE sql STABLE SECURITY DEFINER AS $$
      SELECT level FROM member WHERE org = it AND person = auth.uid()
    $$;
    CREATE FUNCTION at_least(bigint, text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS
      $$ SELECT $1 >= 3 AND $2 <> 'x' $$;
    CREATE FUNCTION shadow(id uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
      SELECT EXISTS (SELECT 1 FROM profile WHERE id = auth.uid() AND is_admin)
    $$;
    CREATE FUNCTION as_owner(it uuid) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER AS $$
      SELECT current_user = 'postgres' OR it = auth.uid()
    $$;
    CREATE FUNCTION returns_member(it uuid) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
      RETURN EXISTS (SELECT 1 FROM public.member m WHERE m.org = it AND m.person = auth.uid());
    END;
    $$;
    CREATE FUNCTION into_role() RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
    DECLARE
      v_role text;
    BEGIN
      SELECT p.role INTO v_role FROM profile p WHERE p.id = auth.uid();
      RETURN v_role = 'admin';
    END $$;
    CREATE FUNCTION ambiguous(id uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    BEGIN
      RETURN EXISTS (SELECT 1 FROM profile WHERE id = auth.uid());
    END $$;
    CREATE FUNCTION several() RETURNS uuid LANGUAGE sql STABLE AS 'SELECT org FROM member';
    CREATE FUNCTION orgs() RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER AS
      'SELECT org FROM member WHERE person = auth.uid()';
    CREATE FUNCTION orgs_of(uuid, min_level int) RETURNS SETOF uuid LANGUAGE sql STABLE STRICT
      SET search_path = '' AS $$
      SELECT m.org FROM public.member m WHERE m.person = $1 AND m.level >= min_level
    $$;
    CREATE FUNCTION members_of(of uuid) RETURNS TABLE (person uuid, its_role text) LANGUAGE sql STABLE
      SECURITY DEFINER SET search_path = public AS $$
      SELECT m.person, m.role FROM member m WHERE m.org = of
    $$;
    CREATE FUNCTION my_members() RETURNS SETOF member LANGUAGE sql STABLE SECURITY DEFINER AS $$
      SELECT * FROM member WHERE person = auth.uid()
    $$;
    CREATE FUNCTION my_members_again() RETURNS SETOF member LANGUAGE sql STABLE AS $$
      SELECT m.* FROM member m JOIN org o ON o.id = m.org WHERE m.person = auth.uid()
    $$;
    CREATE FUNCTION shared_orgs() RETURNS TABLE (org_id uuid) LANGUAGE sql STABLE AS $$
      SELECT DISTINCT m.org FROM member m WHERE m.org IN (SELECT orgs())
    $$;
    CREATE FUNCTION orgs_again() RETURNS SETOF uuid LANGUAGE sql STABLE AS 'SELECT orgs()';
    CREATE FUNCTION orgs_by_row() RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER AS
      'SELECT it.org FROM my_members() it WHERE it.role IS NOT NULL';
    CREATE FUNCTION claimed_org() RETURNS SETOF uuid LANGUAGE sql STABLE AS
      $$ SELECT (auth.jwt() -> 'app_metadata' ->> 'org')::uuid $$;
    CREATE FUNCTION labels() RETURNS SETOF varchar LANGUAGE sql STABLE AS 'SELECT label FROM member';
    CREATE FUNCTION org_array() RETURNS uuid[] LANGUAGE sql STABLE SECURITY DEFINER AS $$
      SELECT array_agg(m.org) FROM member m WHERE m.person = auth.uid()
    $$;
    CREATE FUNCTION org_array_of(it uuid) RETURNS uuid[] LANGUAGE sql STABLE AS
      'SELECT ARRAY(SELECT org FROM member WHERE person = it)';
    CREATE FUNCTION role_array() RETURNS text[] LANGUAGE sql STABLE SECURITY DEFINER AS
      $$ SELECT COALESCE(array_agg(role), '{}') FROM member $$;
    CREATE FUNCTION strict_array(uuid) RETURNS uuid[] LANGUAGE sql STABLE STRICT AS
      'SELECT ARRAY(SELECT org FROM member WHERE person = $1)';
    CREATE FUNCTION first_orgs() RETURNS SETOF uuid LANGUAGE sql STABLE AS
      'SELECT org FROM member ORDER BY org LIMIT 1';
    CREATE FUNCTION queried() RETURNS SETOF uuid LANGUAGE plpgsql STABLE AS
      'BEGIN RETURN QUERY SELECT org FROM member; END';
    CREATE FUNCTION queried_wrong() RETURNS SETOF text LANGUAGE plpgsql STABLE AS
      'BEGIN RETURN QUERY SELECT label FROM member; END';
    CREATE FUNCTION queried_unclear() RETURNS TABLE (org uuid) LANGUAGE plpgsql STABLE AS
      'BEGIN RETURN QUERY SELECT org FROM member; END';
    CREATE FUNCTION queried_twice() RETURNS SETOF uuid LANGUAGE plpgsql STABLE AS
      'BEGIN RETURN QUERY SELECT org FROM member; RETURN QUERY SELECT id FROM org; END';
    CREATE FUNCTION is_member_stored(of uuid) RETURNS boolean STABLE BEGIN ATOMIC
      SELECT EXISTS (SELECT 1 FROM member WHERE org = of AND person = auth.uid()); END;
    CREATE FUNCTION role_stored() RETURNS text STABLE SECURITY DEFINER
      RETURN (SELECT p.role FROM profile p WHERE p.id = auth.uid());
    CREATE FUNCTION at_least_stored(it int, most int) RETURNS boolean STRICT
      RETURN most <= 3 AND it > 0;
    CREATE FUNCTION orgs_stored() RETURNS SETOF uuid STABLE SECURITY DEFINER BEGIN ATOMIC
      SELECT m.org FROM member m WHERE m.person = auth.uid(); END;
    CREATE FUNCTION rows_stored(of uuid) RETURNS TABLE (a uuid, b text) STABLE BEGIN ATOMIC
      SELECT m.person, m.role FROM member m JOIN org o ON o.id = m.org WHERE m.org = of; END;
    CREATE FUNCTION array_stored(uuid) RETURNS uuid[] STABLE SECURITY DEFINER
      RETURN (SELECT COALESCE(array_agg(org), '{}') FROM member WHERE person = $1);
    CREATE FUNCTION two_stored() RETURNS boolean BEGIN ATOMIC SELECT 1; SELECT true; END;
    CREATE FUNCTION may_see(it uuid, public bool) RETURNS boolean LANGUAGE plpgsql STABLE
      SECURITY DEFINER SET search_path = public AS $$
    DECLARE
      v_role text;
      v_user uuid := auth.uid();
    BEGIN
      SELECT p.role INTO v_role FROM profile p WHERE p.id = v_user;
      -- Nobody sees nothing.
      IF v_user IS NULL THEN
        RETURN false;
      END IF;
      IF v_role = 'admin' THEN RETURN true;
      ELSIF v_role = 'open' THEN
        IF public THEN RETURN NULL; ELSE RETURN it = v_user; END IF;
      END IF;
      RETURN EXISTS (SELECT 1 FROM member m WHERE m.org = it AND m.person = v_user);
    END $$;
    CREATE FUNCTION is_member_branching(it uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    BEGIN
      IF EXISTS (SELECT 1 FROM member m WHERE m.org = it AND m.person = auth.uid()) THEN
        RETURN TRUE;
      END IF;
      RETURN FALSE;
    END; $$;
    CREATE FUNCTION level_branching(it uuid) RETURNS int LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
    DECLARE v_level int;
    BEGIN
      SELECT level INTO v_level FROM member WHERE org = it AND person = auth.uid();
      IF v_level IS NULL THEN RETURN -1; ELSE RETURN v_level; END IF;
    END $$;
    CREATE FUNCTION open_branching(of text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE STRICT AS $$
    BEGIN
      IF of IN ('open', CASE WHEN of = 'ok' THEN of END) THEN RETURN of <> 'x'; ELSE RETURN NULL; END IF;
    END $$;
    CREATE FUNCTION unclear_variable(it uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    DECLARE role text := 'admin';
    BEGIN RETURN EXISTS (SELECT 1 FROM profile WHERE id = it AND role = 'admin'); END $$;
    CREATE FUNCTION no_return(it uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    BEGIN IF it IS NULL THEN RETURN true; END IF; END $$;
    CREATE FUNCTION raises(it uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    BEGIN IF it IS NULL THEN RAISE EXCEPTION 'no'; END IF; RETURN true; END $$;
    CREATE FUNCTION plain_of(it text) RETURNS text LANGUAGE sql STABLE AS 'SELECT it';
    CREATE FUNCTION hidden_orgs() RETURNS SETOF uuid LANGUAGE sql STABLE AS 'SELECT id FROM closed';
    CREATE FUNCTION secret_orgs() RETURNS SETOF uuid LANGUAGE sql STABLE AS 'SELECT org FROM member';
    REVOKE EXECUTE ON FUNCTION secret_orgs FROM PUBLIC;
    CREATE FUNCTION endless(it uuid) RETURNS boolean LANGUAGE sql STABLE AS
      'SELECT EXISTS (SELECT 1 FROM subject s WHERE s.tenant = it)';
    CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM member';
    CREATE FUNCTION counted_apart() RETURNS bigint LANGUAGE sql STABLE AS
      'SELECT count(DISTINCT org) FROM member';
    CREATE FUNCTION defaulted(it uuid DEFAULT NULL) RETURNS boolean LANGUAGE sql STABLE AS
      'SELECT it IS NULL';
    CREATE FUNCTION elsewhere() RETURNS boolean LANGUAGE sql STABLE SET search_path = '' AS
      'SELECT true';
    CREATE SCHEMA app;
    CREATE FUNCTION app.hidden() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true';
    CREATE FUNCTION calls_hidden() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT app.hidden()';
    CREATE FUNCTION calls_hidden_stored() RETURNS boolean STABLE RETURN app.hidden();
    CREATE FUNCTION calls_others_stored(it uuid) RETURNS boolean STABLE
      RETURN is_member_stored(it) OR has_role('admin');
    CREATE FUNCTION nested_definer(it uuid) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER AS
      'SELECT is_member(it)';
";

/// The table, with what policies like to read.
pub(crate) const TABLE: &str = "
    CREATE TYPE mood AS ENUM ('ok', 'sad', 'glad');
    CREATE DOMAIN address AS text;
    CREATE TABLE subject (
        id int PRIMARY KEY,
        gone int,
        owner uuid,
        tenant uuid,
        tid bigint,
        qty int,
        small smallint,
        price numeric,
        ratio float8,
        status text,
        label varchar(20),
        code char(4),
        plain text COLLATE \"C\",
        email address,
        mood mood,
        is_public bool,
        tags text[],
        members uuid[],
        meta jsonb,
        day date,
        at timestamptz,
        claims text,
        hour time,
        span interval
    );
    ALTER TABLE subject DROP COLUMN gone;
    ALTER TABLE subject ENABLE ROW LEVEL SECURITY;
    CREATE TABLE other (id int PRIMARY KEY, owner uuid);
    ALTER TABLE other ENABLE ROW LEVEL SECURITY;
    CREATE TABLE member (
        org uuid, person uuid, role text, level int, label varchar(20), mood mood,
        PRIMARY KEY (org, person)
    );
    CREATE TABLE org (id uuid PRIMARY KEY, owner uuid, name text, is_open bool, tid bigint);
    CREATE TABLE profile (unread int, org uuid, id uuid PRIMARY KEY, role text, is_admin bool);
    CREATE TABLE sealed (id uuid PRIMARY KEY, person uuid);
    CREATE TABLE partly (id uuid PRIMARY KEY, name text, secret text);
    CREATE TABLE closed (id uuid PRIMARY KEY, name text);
    ALTER TABLE member ENABLE ROW LEVEL SECURITY;
    ALTER TABLE org ENABLE ROW LEVEL SECURITY;
    ALTER TABLE sealed ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON member USING (person = auth.uid());
    CREATE POLICY low ON member USING (level < 3);
    CREATE POLICY admins ON member AS RESTRICTIVE USING (role IS DISTINCT FROM 'hidden');
    CREATE POLICY mine ON org USING (owner = auth.uid());
    CREATE POLICY open ON org USING (is_open);
    CREATE POLICY members ON org
        USING (EXISTS (SELECT 1 FROM member m WHERE m.org = org.id AND m.person = auth.uid()));
";

pub(crate) const COLUMNS: &[&str] = &[
    "id",
    "owner",
    "tenant",
    "tid",
    "qty",
    "small",
    "price",
    "ratio",
    "status",
    "label",
    "code",
    "plain",
    "email",
    "mood",
    "is_public",
    "tags",
    "members",
    "meta",
    "day",
    "at",
    "claims",
    "hour",
    "span",
];

pub(crate) const ANN: &str = "a0000000-0000-4000-8000-00000000000a";
pub(crate) const BOB: &str = "b0000000-0000-4000-8000-00000000000b";
pub(crate) const ACME: &str = "c0000000-0000-4000-8000-00000000000c";
pub(crate) const BETA: &str = "d0000000-0000-4000-8000-00000000000d";

/// Values for the columns after `id`, in their order.
const VALUES: &[&[&str]] = &[
    &[ANN, BOB, "NULL"],
    &[ACME, BETA, "NULL"],
    &["7", "8", "0", "NULL"],
    &["0", "3", "5", "100", "NULL"],
    &["0", "3", "-5", "NULL"],
    &["2.5", "2.50", "3", "0", "-1", "NULL"],
    &["0.1", "2.5", "'NaN'", "NULL"],
    &["'open'", "'closed'", "'ok'", "'admin'", "''", "NULL"],
    &["'x'", "'open'", "'Y'", "NULL"],
    &["'AB'", "'A'", "''", "NULL"],
    &["'a'", "'B'", "'é'", "NULL"],
    &["'ann@x.org'", "'bob@x.org'", "'ANN@x.org'", "NULL"],
    &["'ok'", "'sad'", "'glad'", "NULL"],
    &["true", "false", "NULL"],
    &["'{a,b}'", "'{}'", "'{NULL,a}'", "'{admin}'", "NULL"],
    &["ARRAYS", "'{}'", "NULL"],
    &["'{\"k\": \"v\", \"n\": 3}'", "'{\"a\": [1, 2]}'", "'[]'", "'3'", "NULL"],
    &["'2024-01-01'", "'2023-12-31'", "'infinity'", "NULL"],
    &["'2024-01-01 00:00:00+00'", "'2024-06-01 12:00:00+02'", "NULL"],
    &["'a'", "NULL"],
    &["'08:00'", "'24:00'", "'00:00:00.000001'", "NULL"],
    &[
        "'1 day'",
        "'24:00'",
        "'1 month'",
        "'-2 days 01:00'",
        "'1 year 2 mons 3 days 04:05:06.7'",
        "NULL",
    ],
];

/// How many rows there are.
pub(crate) const ROWS: usize = 128;

/// What fills the other tables.
fn fill_others(pick: &mut impl FnMut(usize) -> usize) -> String {
    let mut sql = String::from(
        "DELETE FROM member; DELETE FROM org; DELETE FROM profile; DELETE FROM sealed;
         DELETE FROM partly;",
    );
    let mut one = |values: &[&str]| values[pick(values.len())].to_owned();
    let ids = [ANN, BOB, ACME, BETA];
    for org in [ACME, BETA, ANN] {
        for person in [ANN, BOB, BETA] {
            if one(&["x", "", "x"]).is_empty() {
                continue;
            }
            let role = one(&["'admin'", "'open'", "'hidden'", "NULL"]);
            let level = one(&["0", "3", "5", "NULL"]);
            let label = one(&["'x'", "'Y'", "'open'", "NULL"]);
            let mood = one(&["'ok'", "'sad'", "NULL"]);
            sql.push_str(&format!(
                "INSERT INTO member VALUES ('{org}', '{person}', {role}, {level}, {label}, {mood});"
            ));
        }
    }
    for id in ids {
        let owner = one(&[&format!("'{ANN}'"), &format!("'{BOB}'"), "NULL"]);
        let name = one(&["'x'", "'open'", "'admin'", "NULL"]);
        let flag = one(&["true", "false", "NULL"]);
        let tid = one(&["7", "8", "NULL"]);
        let rest = one(&["", "x", "x"]);
        if !rest.is_empty() {
            sql.push_str(&format!(
                "INSERT INTO org VALUES ('{id}', {owner}, {name}, {flag}, {tid});"
            ));
        }
        let org = one(&[&format!("'{ACME}'"), &format!("'{BETA}'"), "NULL"]);
        let role = one(&["'admin'", "'open'", "NULL"]);
        let flag = one(&["true", "false", "NULL"]);
        sql.push_str(&format!("INSERT INTO profile VALUES (1, {org}, '{id}', {role}, {flag});"));
        sql.push_str(&format!("INSERT INTO sealed VALUES ('{id}', {owner});"));
        sql.push_str(&format!("INSERT INTO partly VALUES ('{id}', {name}, 'x');"));
    }
    sql
}

/// Statements that fill the table, with values that `pick` chooses.
pub(crate) fn fill(mut pick: impl FnMut(usize) -> usize) -> String {
    let mut sql = fill_others(&mut pick);
    sql.push_str("DELETE FROM subject; INSERT INTO subject VALUES ");
    for id in 0..ROWS {
        let values = VALUES.iter().map(|values| {
            let value = values[pick(values.len())];
            match value {
                "ARRAYS" => format!("'{{{ANN},{ACME}}}'"),
                uuid if uuid.len() == 36 => format!("'{uuid}'"),
                other => other.to_owned(),
            }
        });
        let values: Vec<String> = values.collect();
        let comma = if id == 0 { "" } else { "," };
        sql.push_str(&format!("{comma} ({id}, {})", values.join(", ")));
    }
    sql
}

/// What the claims of a token may hold. `db_role` is filled in by the caller.
pub(crate) fn claims() -> Vec<Value> {
    vec![
        json!({"sub": ANN, "role": "authenticated", "email": "ann@x.org", "lvl": 3, "tid": 7,
               "app_metadata": {"org": ACME, "role": "admin"}, "tenant": ACME}),
        json!({"sub": BOB.to_uppercase(), "role": "admin", "email": "bob@x.org", "lvl": "5",
               "app_metadata": {"org": BETA, "tags": ["a"]}, "tenant": BETA, "tid": "8"}),
        json!({"role": "anon"}),
        json!({"sub": "not-a-uuid", "role": "authenticated", "tenant": ACME, "tid": 7}),
        json!({"sub": "", "role": "authenticated", "tenant": "", "app_metadata": null}),
        json!({"sub": format!("{{{ANN}}}"), "tid": " 7 ", "lvl": 3.0, "app_metadata": "x"}),
        json!({"sub": null, "role": "admin", "email": null, "lvl": null, "tid": 7.5,
               "tenant": ACME.replace('-', "")}),
        json!({"sub": ANN, "role": "admin", "app_metadata": {"role": "admin", "org": {"id": ACME}},
               "lvl": -3, "tid": true, "tenant": "x"}),
    ]
}
