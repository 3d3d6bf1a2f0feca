//! A second daemon that takes over from the first, behind proxies that know both.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;
use walcast::daemon::Daemon;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::proxies::Behind;
use crate::proxies::Kind;
use crate::proxies::Proxy;

/// Waits until the proxy has somebody who serves.
async fn served(proxy: &Proxy, bearer: &str) {
    let began = Instant::now();
    loop {
        let mut http = proxy.http().await;
        // What the proxy itself says is no JSON.
        let answer = http.status("/v1/rows?table=notes", &[("authorization", bearer)]).await;
        if answer == 200 {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "nobody serves: {answer}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn subscribe(client: &mut Client, since: Option<&str>) {
    client.subscribed(json!({"id": "n", "table": "notes", "since": since})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_one_takes_over_behind_the_proxies_of_the_guide() {
    let deployment = Deployment::start(Plan {
        schema: "CREATE TABLE notes (id int PRIMARY KEY)",
        tables: "[[table]]\nname = 'public.notes'\nopen = true\n",
        anonymous: false,
        ..Plan::default()
    })
    .await;
    let mut second = Daemon::start(&deployment.config).unwrap();
    let behind = [Behind::of(&deployment.daemon), Behind::of(&second)];
    let token = deployment.token(json!({}));
    let bearer = format!("Bearer {token}");
    let proxies =
        [Proxy::start(Kind::Nginx, &behind).await, Proxy::start(Kind::Haproxy, &behind).await];
    let mut clients = Vec::new();
    for proxy in &proxies {
        served(proxy, &bearer).await;
        let mut client = proxy.client(&token).await;
        subscribe(&mut client, None).await;
        clients.push(client);
    }
    let insert = async |id: u32| {
        let insert = format!("INSERT INTO notes VALUES ({id})");
        deployment.sql.batch_execute(&insert).await.unwrap();
    };
    insert(1).await;
    let mut cursors = Vec::new();
    for client in &mut clients {
        let row = client.row().await;
        assert_eq!(row["new"]["id"], 1);
        cursors.push(row["cursor"].as_str().unwrap().to_owned());
    }

    deployment.daemon.stop().await;
    insert(2).await;
    for client in &mut clients {
        client.expect("restart").await;
        assert_eq!(client.closed().await, 1012);
    }
    timeout(DEADLINE, second.live()).await.unwrap().unwrap();
    for (proxy, cursor) in proxies.iter().zip(&cursors) {
        served(proxy, &bearer).await;
        let mut client = proxy.client(&token).await;
        subscribe(&mut client, Some(cursor)).await;
        assert_eq!(client.row().await["new"]["id"], 2);
    }
    second.stop().await;
}
