//! Sessions from inside of the process, as the console has them.

use serde_json::Value;
use serde_json::json;
use tokio::time::timeout;
use walcast::auth::Verifier;
use walcast::dialect::sql::Statement;
use walcast::dialect::sql::parse;
use walcast::route::subscription::Subscribe;
use walcast::serve::inside::Follower;
use walcast::serve::inside::InsideError;

use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;

/// A follower whose lines are taken one by one.
struct Lines {
    follower: Follower,
    taken: Vec<u8>,
}

impl Lines {
    /// The next line other than a heartbeat, which must be of a type.
    async fn of(&mut self, of: &str) -> Value {
        loop {
            let line = self.line().await;
            if line["type"] != "heartbeat" {
                assert_eq!(line["type"], of, "{line}");
                return line;
            }
        }
    }

    async fn line(&mut self) -> Value {
        let end = loop {
            if let Some(end) = self.taken.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            let more = timeout(DEADLINE, self.follower.next()).await.unwrap().unwrap();
            assert_eq!(more.last(), Some(&b'\n'), "a line is cut");
            self.taken.extend(more);
        };
        let line: Vec<u8> = self.taken.drain(..=end).collect();
        serde_json::from_slice(&line).unwrap()
    }

    async fn ended(&mut self) {
        assert_eq!(timeout(DEADLINE, self.follower.next()).await.unwrap(), None);
    }
}

fn read(statement: &str) -> Subscribe {
    match parse(statement).unwrap() {
        Some(Statement::Subscribe(of)) => of.subscribe,
        other => panic!("{other:?}"),
    }
}

async fn follow(deployment: &Deployment, statement: &str) -> Result<Lines, InsideError> {
    let verifier = Verifier::new(deployment.config.auth.clone()).unwrap();
    let claims = json!({ "sub": "7", "role": deployment.role });
    let claims = verifier.assume(&claims.to_string()).unwrap();
    let inspector = deployment.daemon.inspector();
    let follower = inspector.follow(claims, read(statement), None);
    let follower = timeout(DEADLINE, follower).await.unwrap()?;
    Ok(Lines { follower, taken: Vec::new() })
}

async fn followed(deployment: &Deployment, statement: &str) -> Lines {
    let mut lines = follow(deployment, statement).await.unwrap();
    lines.of("subscribed").await;
    lines
}

async fn deployment() -> Deployment {
    let plan = Plan {
        schema: "CREATE TABLE orders (id int PRIMARY KEY, owner int, body text); \
                 ALTER TABLE orders REPLICA IDENTITY FULL",
        tables: "[[table]]\nname = 'orders'\npolicy = \"owner = (claims ->> 'sub')::int\"\n",
        set: &["limits.outbox_bytes_max=65536"],
        ..Plan::default()
    };
    Deployment::start(plan).await
}

#[tokio::test]
async fn it_is_told_what_its_claims_may_see_and_resumes() {
    let deployment = deployment().await;
    let mut lines = followed(&deployment, "SUBSCRIBE TO orders WHERE id > 1").await;
    let rows = "INSERT INTO orders VALUES (1, 7, ''), (2, 8, ''), (3, 7, ''), (4, 7, '')";
    deployment.execute(&[rows]).await;
    let third = lines.of("row").await;
    assert_eq!((&third["op"], &third["new"]["id"]), (&json!("insert"), &json!(3)));
    assert_eq!(lines.of("row").await["new"]["id"], 4);
    drop(lines);
    let cursor = third["cursor"].as_str().unwrap();
    let statement = format!("SUBSCRIBE TO orders SINCE '{cursor}'");
    let mut again = followed(&deployment, &statement).await;
    assert_eq!(again.of("row").await["new"]["id"], 4);
    again.of("synced").await;
}

#[tokio::test]
async fn a_snapshot_comes_first() {
    let deployment = deployment().await;
    deployment.execute(&["INSERT INTO orders VALUES (1, 7, ''), (2, 8, ''), (3, 7, '')"]).await;
    let mut lines = followed(&deployment, "SUBSCRIBE TO orders WITH SNAPSHOT").await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let row = lines.of("row").await;
        assert_eq!(row["op"], "snapshot");
        ids.push(row["new"]["id"].as_i64().unwrap());
    }
    ids.sort_unstable();
    assert_eq!(ids, [1, 3]);
    lines.of("synced").await;
}

#[tokio::test]
async fn who_reads_nothing_falls_behind_and_gets_everything_all_the_same() {
    let deployment = deployment().await;
    let mut lines = followed(&deployment, "SUBSCRIBE TO orders").await;
    let mut witness = followed(&deployment, "SUBSCRIBE TO orders WHERE id = 0").await;
    // Far more than pipe and outbox hold, and then what tells that all of it was routed.
    let fill = "INSERT INTO orders SELECT i, 7, repeat('x', 500) FROM generate_series(1, 2000) i";
    deployment.execute(&[fill, "INSERT INTO orders VALUES (0, 7, '')"]).await;
    witness.of("row").await;
    let inspector = deployment.daemon.inspector();
    let behind = async {
        let is_behind = async || {
            let sessions = inspector.sessions(10).await;
            sessions.is_ok_and(|listed| listed.rows.iter().any(|(_, session)| session.behind))
        };
        while !is_behind().await {}
    };
    timeout(DEADLINE, behind).await.unwrap();
    for id in (1..=2000).chain([0]) {
        assert_eq!(lines.of("row").await["new"]["id"], id);
    }
}

#[tokio::test]
async fn a_refusal_is_an_error_and_who_drops_the_follower_is_gone() {
    let deployment = deployment().await;
    let refused = follow(&deployment, "SUBSCRIBE TO nothing").await.err();
    assert!(matches!(&refused, Some(InsideError::Refused(it)) if it.code() == "unknown_table"));
    let refused = follow(&deployment, "SUBSCRIBE TO orders WHERE nothing = 1").await.err();
    assert!(matches!(&refused, Some(InsideError::Refused(it)) if it.code() == "column_forbidden"));
    let lines = followed(&deployment, "SUBSCRIBE TO orders").await;
    drop(lines);
    let gone = async {
        let inspector = deployment.daemon.inspector();
        while !inspector.sessions(10).await.is_ok_and(|listed| listed.rows.is_empty()) {}
    };
    timeout(DEADLINE, gone).await.unwrap();
}

#[tokio::test]
async fn a_session_ends_when_its_column_is_taken_away_and_when_the_daemon_stops() {
    let deployment = deployment().await;
    let mut ended = followed(&deployment, "SUBSCRIBE TO orders (id) WHERE body <> ''").await;
    let mut stays = followed(&deployment, "SUBSCRIBE TO orders (id)").await;
    let role = &deployment.role;
    let narrow = format!(
        "REVOKE SELECT ON orders FROM {role}; GRANT SELECT (id, owner) ON orders TO {role}"
    );
    deployment.execute(&[&narrow]).await;
    assert_eq!(ended.of("error").await["code"], "column_forbidden");
    ended.ended().await;
    let stop = deployment.daemon.stop();
    let told = async {
        stays.of("restart").await;
        assert_eq!(stays.of("closed").await["code"], 1012);
        stays.ended().await;
    };
    tokio::join!(stop, told);
}
