//! The same question to both: which rows of `subject` do these claims see?

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use serde_json::Value;
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::SimpleQueryMessage;
use walcast::auth;
use walcast::auth::Claims;
use walcast::auth::Verifier;
use walcast::catalog::Catalog;
use walcast::catalog::TableName;
use walcast::catalog::replicas::Tier;
use walcast::catalog::snapshot::Snapshot;
use walcast::change::id::RelationId;
use walcast::change::tuple::Cell;
use walcast::change::value::BigNumbers;
use walcast::route::plan;
use walcast::route::plan::Context;
use walcast::route::plan::Refusal;
use walcast::route::policy::Policies;
use walcast::route::subscription::Events;
use walcast::route::subscription::Request;
use walcast::rule::Cover;
use walcast::rule::Others;
use walcast::rule::Rule;
use walcast::rule::RuleError;
use walcast::rule::Session;
use walcast::rule::Settings;
use walcast::rule::Source;
use walcast::rule::Undecided;
use walcast::rule::Verdict;
use walcast::rule::Visit;
use walcast::rule::Wanted;
use walcast::rule::policy::tables::Guarded;
use walcast::rule::policy::visible;
use walcast::tls::TlsMode;

use crate::policies::subject;
use crate::support;
use crate::support::Database;

const SECRET: &[u8] = b"a secret of the tests, of thirty-two bytes or more";

/// The settings that gateways of the test's application set, and the claims in them.
const SETTINGS: &[(&str, &str)] = &[("app.tenant", "tenant"), ("app.tenant_id", "tid")];

/// Both sides.
pub(crate) struct Oracle {
    pub(crate) database: Database,
    /// As the owner of everything.
    pub(crate) sql: Client,
    pub(crate) catalog: Catalog,
    policies: Policies,
    verifier: Verifier,
    /// A session in which every setting was set before.
    used: Client,
    /// For each of the claims a session in which only its own settings ever were.
    fresh: HashMap<String, Client>,
    rows: Vec<Vec<Option<String>>>,
    others: Rows,
    wanted: Vec<Wanted>,
}

/// What came of the comparisons.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) verdicts: usize,
    pub(crate) shown: usize,
    pub(crate) refused: usize,
    /// Refused because no policy or no grant lets the role see anything: hidden, for certain.
    pub(crate) closed: usize,
    /// Shown by PostgreSQL, while the subscription was refused.
    pub(crate) withheld: usize,
    /// Queries for which PostgreSQL raised an error.
    pub(crate) raised: usize,
    /// Those of `withheld`, by what is said of them: to the operator beforehand, by the role, or,
    /// where it depends on the claims, to who has them.
    pub(crate) classes: BTreeMap<String, usize>,
}

impl Tally {
    /// There are enough verdicts, and what was withheld was said to be, every one of it. To be printed.
    pub(crate) fn end(&self, what: &str, least: usize) -> String {
        assert!(self.verdicts >= least, "{self:?}");
        assert_eq!(self.classes.values().sum::<usize>(), self.withheld, "{self:?}");
        format!("{what}: {self:#?}")
    }
}

/// The client roles. The first is an ordinary one, the second a member of `staff`.
pub(crate) fn roles(database: &Database) -> Vec<String> {
    let name = |role: &str| format!("{role}_{}", database.name);
    ["web", "clerk", "staff", "owner", "bypass", "guest"].map(name).into()
}

impl Oracle {
    pub(crate) async fn new() -> Oracle {
        let database = support::database().await;
        let sql = database.connect().await;
        let roles = roles(&database);
        let [web, clerk, staff, owner, bypass, guest] =
            [0, 1, 2, 3, 4, 5].map(|at: usize| roles[at].as_str());
        let script = format!(
            "{}{}{}
             CREATE ROLE {web}; CREATE ROLE {staff}; CREATE ROLE {clerk} IN ROLE {staff};
             CREATE ROLE {owner}; CREATE ROLE {bypass} BYPASSRLS; CREATE ROLE {guest};
             GRANT USAGE ON SCHEMA auth TO {web}, {staff}, {owner}, {bypass};
             GRANT SELECT ON subject, other TO {web}, {staff}, {guest}, {bypass};
             GRANT SELECT ON member, org, profile, sealed TO {web}, {staff}, {owner}, {bypass};
             GRANT SELECT (id, name) ON partly TO {web}, {staff}, {owner};
             ALTER TABLE subject OWNER TO {owner};
             CREATE PUBLICATION walcast FOR ALL TABLES",
            subject::FUNCTIONS,
            subject::TABLE,
            subject::TABLE_FUNCTIONS
        );
        sql.batch_execute(&script).await.unwrap();
        sql.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
        let catalog = Catalog::connect(walcast::catalog::Settings {
            connection: database.connection_string().parse().unwrap(),
            tls_mode: TlsMode::Disable,
            tls_ca_file: None,
            publication: "walcast".into(),
            roles: roles.iter().map(|role| role.as_str().into()).collect(),
            tables: Vec::new(),
        });
        let catalog = catalog.await.unwrap();
        let entries = SETTINGS.iter().map(|(name, claim)| {
            let path: Box<[Box<str>]> = Box::new([Box::from(*claim)]);
            (Box::from(*name), path)
        });
        let policies = Policies::default().with_settings(Settings::new(entries));
        let verifier = Verifier::new(auth::Settings {
            keys: vec![auth::Key {
                algorithm: jsonwebtoken::Algorithm::HS256,
                kid: None,
                material: auth::Material::Secret(auth::Secret::new(SECRET.to_vec())),
            }],
            role_claim: vec!["db_role".to_owned()],
            roles,
            ..auth::Settings::default()
        });
        let used = database.connect().await;
        let (verifier, fresh, rows) = (verifier.unwrap(), HashMap::new(), Vec::new());
        let (others, wanted) = (Rows::default(), Vec::new());
        let oracle = Oracle {
            database,
            sql,
            catalog,
            policies,
            verifier,
            used,
            fresh,
            rows,
            others,
            wanted,
        };
        for claims in subject::claims() {
            let once = format!("BEGIN; {} COMMIT", settings(&claims));
            oracle.used.batch_execute(&once).await.unwrap();
        }
        oracle
    }

    /// Gives the table the policy of this condition, called `it`; tells why it is not read, if so.
    pub(crate) async fn guard(&mut self, condition: &str) -> Option<String> {
        let create = format!("CREATE POLICY it ON subject FOR SELECT USING ({condition})");
        self.sql.batch_execute(&create).await.unwrap();
        self.refresh().await;
        let snapshot = self.catalog.current();
        let policy = &snapshot.table("public", "subject").unwrap().policies.policies[0];
        policy.read.as_ref().err().map(|error| format!("{condition}: {error}"))
    }

    /// Lets walcast read the policies anew.
    pub(crate) async fn refresh(&mut self) {
        self.catalog.refresh().await.unwrap();
        self.wanted = self.catalog.current().replicas();
    }

    /// Fills the table, and remembers the rows as the stream would carry them.
    pub(crate) async fn fill(&mut self, pick: impl FnMut(usize) -> usize) {
        self.sql.batch_execute(&subject::fill(pick)).await.unwrap();
        let query = format!("SELECT {} FROM subject ORDER BY id", subject::COLUMNS.join(", "));
        self.rows = texts(&self.sql.simple_query(&query).await.unwrap());
        assert_eq!(self.rows.len(), subject::ROWS);
        self.others = Rows::of(&self.sql, &self.catalog.current()).await;
    }

    /// The verified claims, which name the role.
    fn claims(&self, claims: &Value, role: &str) -> (Claims, Value) {
        let mut claims = claims.clone();
        claims["db_role"] = json!(role);
        claims["exp"] = json!(4_102_444_800_u64);
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        (self.verifier.verify(&token).unwrap(), claims)
    }

    /// What walcast decides: the rows that are seen, or why that is not decided.
    fn decided(&self, claims: &Claims) -> Result<BTreeSet<String>, Refusal> {
        let catalog = self.catalog.current();
        let context = Context { catalog: &catalog, policies: &self.policies, replicas: None };
        let request = Request {
            table: TableName::parse("subject"),
            filter: None,
            columns: None,
            events: Events::ALL,
            big_numbers: BigNumbers::AsNumbers,
            throttle: None,
        };
        let rule = match plan::plan(context, claims, &request) {
            Ok(plan) => plan.rule,
            Err(refusal) => self.rule(claims).ok_or(refusal)?,
        };
        let admitted = self.rows.iter().filter(|row| {
            let cells = row.iter().map(Option::as_ref);
            let cells: Vec<Cell<'_>> = cells
                .map(|cell| cell.map_or(Cell::Null, |text| Cell::Text(text.as_bytes())))
                .collect();
            let verdict = rule.evaluate_among(&cells, &self.others);
            assert!(!matches!(verdict, Verdict::Undecided(_)), "{verdict:?}: {row:?}");
            verdict == Verdict::Admits
        });
        Ok(admitted.filter_map(|row| row[0].clone()).collect())
    }

    /// The rule of policies that read other tables.
    fn rule(&self, claims: &Claims) -> Option<Rule> {
        let catalog = self.catalog.current();
        let table = catalog.table("public", "subject")?;
        let guards = Guarded::guards(&**table, claims.role())?;
        if table.granted(claims.role()).is_none() || guards.is_empty() {
            return None;
        }
        let session = Session::new(claims.json(), claims.role(), self.policies.settings());
        let rule = visible(&guards, &table.relation, &session, &*catalog).ok()?;
        check_wanted(&catalog, &self.wanted, &rule);
        (!rule.sources().is_empty()).then_some(rule)
    }

    /// The columns by whose values subscriptions with these claims are found.
    pub(crate) fn found_by(&self, claims: &Value, role: &str) -> Vec<String> {
        let (claims, _) = self.claims(claims, role);
        let Cover::Values(columns) = self.rule(&claims).unwrap().cover(&self.others) else {
            return Vec::new();
        };
        let names = columns.iter().map(|column| subject::COLUMNS[column.column].to_owned());
        names.collect()
    }

    /// Why the policies are not decided for a role; absent where they are.
    pub(crate) fn reason(&self, role: &str) -> Option<String> {
        let catalog = self.catalog.current();
        let table = catalog.table("public", "subject")?;
        let guards = Guarded::guards(&**table, role)?;
        let (claims, _) = self.claims(&subject::claims()[0], role);
        let session = Session::new(claims.json(), role, self.policies.settings());
        let rule = visible(&guards, &table.relation, &session, &*catalog);
        rule.err().map(|(_, error)| error.to_string())
    }

    /// What is said of a refusal: whether `walcast check` and `SHOW TABLES` said beforehand that the
    /// role is asked about or refused, or that these claims are; and why.
    fn said(&self, claims: &Claims, refusal: &Refusal) -> Option<String> {
        let catalog = self.catalog.current();
        let table = catalog.table("public", "subject")?;
        let asked = |error: &RuleError| if error.can_be_asked() { "asked" } else { "refused" };
        if let Tier::Elsewhere { why, .. } = catalog.tier(table, claims.role()) {
            return Some(format!("role {}: {}", asked(&why), class(&why)));
        }
        let guards = Guarded::guards(&**table, claims.role())?;
        let session = Session::new(claims.json(), claims.role(), self.policies.settings());
        let (_, error) = visible(&guards, &table.relation, &session, &*catalog).err()?;
        // What these claims alone do, they are told: by the code of their refusal, or by asking.
        let is_wrong = matches!(error, RuleError::Type { .. } | RuleError::Value { .. });
        let how = if is_wrong { refusal.code() } else { asked(&error) };
        Some(format!("claims {how}: {}", class(&error)))
    }

    /// Compares both for these claims. `what` is for the message of a failure.
    pub(crate) async fn compare(
        &mut self,
        claims: &Value,
        role: &str,
        what: &str,
        tally: &mut Tally,
    ) -> Option<Refusal> {
        let (verified, claims) = self.claims(claims, role);
        // One session for each set of claims: what is never set there stays NULL.
        let name = claims.to_string();
        if !self.fresh.contains_key(&name) {
            let client = self.database.connect().await;
            self.fresh.insert(name.clone(), client);
        }
        let fresh = seen(&self.fresh[&name], &claims, role).await;
        let used = seen(&self.used, &claims, role).await;
        tally.raised += usize::from(fresh.is_none() || used.is_none());
        let expected: BTreeSet<String> = match (fresh, used) {
            (Some(fresh), Some(used)) => fresh.intersection(&used).cloned().collect(),
            _ => BTreeSet::new(),
        };
        tally.verdicts += self.rows.len();
        match self.decided(&verified) {
            Ok(seen) => {
                let leaked: Vec<_> = seen.difference(&expected).collect();
                assert!(
                    leaked.is_empty(),
                    "SHOWN, BUT HIDDEN: {leaked:?}\n{what}\n{role} {claims}"
                );
                let lost: Vec<_> = expected.difference(&seen).collect();
                assert!(lost.is_empty(), "hidden, but shown: {lost:?}\n{what}\n{role} {claims}");
                tally.shown += seen.len();
                None
            }
            Err(refusal) if matches!(refusal.code(), "no_policy" | "table_forbidden") => {
                assert!(expected.is_empty(), "{refusal}, but shown: {expected:?}\n{what}\n{role}");
                tally.closed += self.rows.len();
                Some(refusal)
            }
            Err(refusal) => {
                tally.refused += self.rows.len();
                tally.withheld += expected.len();
                if !expected.is_empty() {
                    let class = self.said(&verified, &refusal).unwrap_or_else(|| {
                        panic!("{refusal}, without a word of why\n{what}\n{role} {claims}")
                    });
                    *tally.classes.entry(class).or_default() += expected.len();
                }
                Some(refusal)
            }
        }
    }
}

/// Whatever a rule reads of other tables was to be held.
fn check_wanted(catalog: &Snapshot, wanted: &[Wanted], rule: &Rule) {
    for source in rule.sources() {
        let of_it = wanted.iter().find(|wanted| wanted.table == source.table);
        let of_it = of_it.unwrap_or_else(|| panic!("{source:?} is not in {wanted:?}"));
        let columns = &catalog.by_id(source.table).unwrap().relation.columns;
        let name = |at: usize| &columns[source.columns[at]].name;
        for at in 0..source.columns.len() {
            assert!(of_it.columns.contains(name(at)), "{source:?} {of_it:?}");
        }
    }
}

/// A reason without the names and values in it.
fn class(error: &RuleError) -> String {
    let text = error.to_string();
    let quoted = text.split(['"', '`', '\'']).step_by(2).collect::<Vec<_>>().join("…");
    quoted.chars().filter(|letter| !letter.is_ascii_digit()).take(120).collect()
}

fn texts(messages: &[SimpleQueryMessage]) -> Vec<Vec<Option<String>>> {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        }
        _ => None,
    });
    rows.collect()
}

/// The rows of all tables.
#[derive(Debug, Default)]
pub(crate) struct Rows(HashMap<RelationId, Vec<Vec<Option<String>>>>);

impl Rows {
    /// As they are now.
    pub(crate) async fn of(sql: &Client, catalog: &Snapshot) -> Rows {
        let mut rows = HashMap::new();
        for table in catalog.tables() {
            let relation = &table.relation;
            let columns = relation.columns.iter().map(|column| format!("{:?}", column.name));
            let columns: Vec<String> = columns.collect();
            let query =
                format!("SELECT {} FROM {}.{}", columns.join(", "), relation.schema, relation.name);
            rows.insert(relation.id, texts(&sql.simple_query(&query).await.unwrap()));
        }
        Rows(rows)
    }
}

impl Others for Rows {
    fn visit(
        &self,
        source: &Source,
        by: Option<(usize, &[u8])>,
        each: &mut Visit<'_>,
    ) -> Result<(), Undecided> {
        for row in self.0.get(&source.table).ok_or(Undecided::Unheld)? {
            let cells = source.columns.iter().map(|at| match &row[*at] {
                None => Cell::Null,
                Some(text) => Cell::Text(text.as_bytes()),
            });
            let cells: Vec<Cell<'_>> = cells.collect();
            let fits = by.is_none_or(|(at, text)| cells[at] == Cell::Text(text));
            if fits && each(&cells).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The settings that a gateway makes of claims, for the transaction.
fn settings(claims: &Value) -> String {
    let mut settings = vec![("request.jwt.claims".to_owned(), claims.to_string())];
    let text = |value: &Value| match value {
        Value::Null | Value::Object(_) | Value::Array(_) => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    for (name, value) in claims.as_object().unwrap() {
        let value = text(value);
        settings.extend(value.map(|value| (format!("request.jwt.claim.{name}"), value)));
    }
    for (name, claim) in SETTINGS {
        let value = claims.get(*claim).and_then(text);
        settings.extend(value.map(|value| ((*name).to_owned(), value)));
    }
    settings.iter().map(|(name, value)| format!("SET LOCAL {name} = $v${value}$v$;")).collect()
}

/// What PostgreSQL shows; absent where it raises an error. One message, and its answer.
async fn seen(client: &Client, claims: &Value, role: &str) -> Option<BTreeSet<String>> {
    let settings = settings(claims);
    let question =
        format!("BEGIN; {settings} SET LOCAL ROLE {role}; SELECT id FROM subject; ROLLBACK");
    let Ok(rows) = client.simple_query(&question).await else {
        client.batch_execute("ROLLBACK").await.unwrap();
        return None;
    };
    let ids = rows.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Some(ids.collect())
}
