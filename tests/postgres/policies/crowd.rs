//! Many subscribers whose policies alone tell them apart: a change costs what it does for one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::json;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::http::Http;

/// Who sees a row of `mine` is in the row, who sees one of `ours` in another table.
const SCHEMA: &str = "
    CREATE SCHEMA auth;
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
      $$ SELECT nullif(current_setting('request.jwt.claims', true)::json ->> 'sub', '')::uuid $$;
    CREATE TABLE members (org int, who uuid, PRIMARY KEY (org, who));
    INSERT INTO members SELECT n, ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
      FROM generate_series(1, 300) n;
    CREATE TABLE mine (id int PRIMARY KEY, owner uuid);
    CREATE TABLE ours (id int PRIMARY KEY, org int);
    ALTER TABLE mine ENABLE ROW LEVEL SECURITY;
    ALTER TABLE ours ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON mine USING (owner = auth.uid());
    CREATE POLICY of_members ON ours USING (
      EXISTS (SELECT FROM members m WHERE m.org = ours.org AND m.who = auth.uid()))";
const PEOPLE: usize = 300;

fn uuid(person: usize) -> String {
    format!("00000000-0000-4000-8000-{person:012}")
}

async fn subscribed(deployment: &Deployment, person: usize) -> Client {
    let mut client = deployment.client_with(json!({"sub": uuid(person)})).await;
    for table in ["mine", "ours"] {
        client.subscribed(json!({"id": table, "table": table})).await;
    }
    client
}

/// How many groups changes had to be decided for, and how many changes there were.
async fn decided(deployment: &Deployment) -> (u64, u64) {
    let mut http = Http::connect(deployment.daemon.admin_address().unwrap()).await;
    let (_, text) = http.text("/metrics").await;
    let numbers: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(' ')).collect();
    let number = |name| numbers.get(name).unwrap().parse().unwrap();
    (number("walcast_route_candidates_total"), number("walcast_route_changes_total"))
}

#[tokio::test]
async fn a_change_is_decided_for_those_who_see_it_and_nobody_else() {
    let deployment = Deployment::start(Plan { schema: SCHEMA, ..Plan::default() }).await;
    let mut clients = HashMap::new();
    let mut next = 0;
    for crowd in [1, PEOPLE] {
        for person in 1..=crowd {
            if let Entry::Vacant(place) = clients.entry(person) {
                place.insert(subscribed(&deployment, person).await);
            }
        }
        let before = decided(&deployment).await;
        let mut seen = Vec::new();
        for person in (1..=crowd).step_by(crowd.div_ceil(50)) {
            next += 1;
            let (mine, ours) = (
                format!("INSERT INTO mine VALUES ({next}, '{}')", uuid(person)),
                format!("INSERT INTO ours VALUES ({next}, {person})"),
            );
            deployment.execute(&[&mine, &ours]).await;
            seen.push((person, next));
        }
        for (person, id) in &seen {
            let row = format!("insert {id}");
            assert_eq!(clients.get_mut(person).unwrap().rows(2, "id").await, [&*row, &*row]);
        }
        let after = decided(&deployment).await;
        let (candidates, changes) = (after.0 - before.0, after.1 - before.1);
        println!("{crowd} subscribers: {candidates} groups for {changes} changes, of all shards");
        // Of a change that is read later than it came nothing is counted.
        let rows = u64::try_from(2 * seen.len()).unwrap();
        assert!(candidates <= rows, "{crowd} subscribers: {candidates} groups for {rows} rows");
        assert!(candidates > 0 && changes > 0);
    }
}
