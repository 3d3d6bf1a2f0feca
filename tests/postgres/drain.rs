//! A daemon that stops under load and comes back: every client is asked to return, in its turn, and
//! gets each change once.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tungstenite::Message;
use walcast::daemon::Daemon;

use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;

const CLIENTS: usize = 200;
/// Rows carry a bucket, and most clients ask for one.
const BUCKETS: usize = 10;
const BATCH: usize = 3;

/// What a client is told beside rows.
enum Told {
    Subscribed,
    Restart { at: Instant, retry: Duration },
}

/// One client: it follows `retry_ms` and its cursor until it has the last row.
struct Follower {
    request: Value,
    url: String,
    last: watch::Receiver<Option<usize>>,
    told: mpsc::Sender<Told>,
    got: Vec<usize>,
    cursor: Option<String>,
}

impl Follower {
    async fn run(mut self) -> Vec<usize> {
        let mut pause = Duration::ZERO;
        while !self.is_done() {
            // The protocol's delay, not a wait for something to have happened.
            tokio::time::sleep(pause).await;
            // A daemon that is gone, or not there yet, refuses.
            pause = match connect_async(&self.url).await {
                Ok((socket, _)) => self.follow(socket).await,
                Err(_) => Duration::from_millis(100),
            };
        }
        self.got
    }

    /// Whether it has what was written last. The first bucket gets the last row.
    fn is_done(&self) -> bool {
        let last = *self.last.borrow();
        last.is_some_and(|last| self.got.last().is_some_and(|got| got + BUCKETS > last))
    }

    /// Follows one connection to its end; returns how long to stay away.
    async fn follow<S>(&mut self, mut socket: S) -> Duration
    where
        S: StreamExt<Item = Result<Message, tungstenite::Error>>
            + SinkExt<Message, Error = tungstenite::Error>
            + Unpin,
    {
        let mut request = self.request.clone();
        if let Some(cursor) = &self.cursor {
            request["since"] = json!(cursor);
        }
        if socket.send(Message::text(request.to_string())).await.is_err() {
            return Duration::from_millis(100);
        }
        let mut pause = Duration::from_millis(100);
        loop {
            let message = tokio::select! {
                message = timeout(DEADLINE, socket.next()) => message.unwrap(),
                _ = self.last.changed() => None,
            };
            let Some(Ok(message)) = message else { return pause };
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(text.as_str()).unwrap();
            if let Some(cursor) = frame["cursor"].as_str() {
                self.cursor = Some(cursor.to_owned());
            }
            match frame["type"].as_str().unwrap() {
                "row" => {
                    self.got.push(frame["new"]["id"].as_u64().unwrap().try_into().unwrap());
                    if self.is_done() {
                        return pause;
                    }
                }
                "subscribed" => self.told.send(Told::Subscribed).await.unwrap(),
                "restart" => {
                    pause = Duration::from_millis(frame["retry_ms"].as_u64().unwrap());
                    let told = Told::Restart { at: Instant::now(), retry: pause };
                    self.told.send(told).await.unwrap();
                }
                "welcome" | "synced" | "heartbeat" => {}
                other => panic!("{other}: {frame}"),
            }
        }
    }
}

async fn open(set: &[&str]) -> Deployment {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, bucket int, body text)";
    let tables = "[[table]]\nname = 'public.notes'\nopen = true\n";
    Deployment::start(Plan { schema, tables, set, ..Plan::default() }).await
}

/// Writes rows until it is told to stop, and as many more as are needed to end with bucket 0.
async fn write(sql: &tokio_postgres::Client, stop: &mut watch::Receiver<bool>) -> usize {
    let mut next = 0;
    while !*stop.borrow_and_update() || next % (BATCH * BUCKETS) != 1 {
        let end = if next == 0 { 1 } else { next + BATCH };
        let insert = format!(
            "INSERT INTO notes SELECT n, n % {BUCKETS} FROM generate_series({next}, {}) n",
            end - 1
        );
        sql.batch_execute(&insert).await.unwrap();
        next = end;
        // A rate, so that the load does not depend on the machine.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    next - 1
}

struct Crowd {
    followers: JoinSet<(Option<usize>, Vec<usize>)>,
    told: mpsc::Receiver<Told>,
    last: watch::Sender<Option<usize>>,
}

impl Crowd {
    /// Everybody is subscribed.
    async fn gather(deployment: &Deployment) -> Crowd {
        let (last, lasts) = watch::channel(None);
        let (tell, told) = mpsc::channel(CLIENTS * 4);
        let mut followers = JoinSet::new();
        for number in 0..CLIENTS {
            let bucket = Some(number % BUCKETS).filter(|_| number >= BUCKETS);
            let mut request = json!({"type": "subscribe", "id": "n", "table": "notes"});
            if let Some(bucket) = bucket {
                request["where"] = json!(format!("bucket = {bucket}"));
            }
            let follower = Follower {
                request,
                url: deployment.url(),
                last: lasts.clone(),
                told: tell.clone(),
                got: Vec::new(),
                cursor: None,
            };
            followers.spawn(async move { (bucket, follower.run().await) });
        }
        let mut crowd = Crowd { followers, told, last };
        for _ in 0..CLIENTS {
            assert!(matches!(crowd.told().await, Told::Subscribed));
        }
        crowd
    }

    async fn told(&mut self) -> Told {
        timeout(DEADLINE, self.told.recv()).await.unwrap().unwrap()
    }

    /// What everybody was told at the stop: when, and to come back after what time.
    async fn asked_to_return(&mut self) -> Vec<(Instant, Duration)> {
        let mut asked = Vec::new();
        while asked.len() < CLIENTS {
            if let Told::Restart { at, retry } = self.told().await {
                asked.push((at, retry));
            }
        }
        asked
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_sent_away_in_turn_and_gets_each_change_once() {
    let deployment = open(&["drain.seconds=3"]).await;
    let mut crowd = Crowd::gather(&deployment).await;
    let (stop, mut stopped) = watch::channel(false);
    let (sql, config) = (&deployment.sql, &deployment.config);
    let address = deployment.daemon.address();
    let restart = async {
        let stopping = tokio::join!(deployment.daemon.stop(), crowd.asked_to_return()).1;
        let mut config = config.clone();
        config.listen.address = address;
        let mut daemon = Daemon::start(&config).unwrap();
        timeout(DEADLINE, daemon.live()).await.unwrap().unwrap();
        // Some of what is written now is written before they come back.
        for _ in 0..CLIENTS {
            assert!(matches!(crowd.told().await, Told::Subscribed));
        }
        stop.send_replace(true);
        (daemon, stopping)
    };
    let (last, (daemon, asked)) = tokio::join!(write(sql, &mut stopped), restart);
    crowd.last.send_replace(Some(last));
    let mut of_bucket = HashMap::new();
    while let Some(follower) = timeout(DEADLINE, crowd.followers.join_next()).await.unwrap() {
        let (bucket, got) = follower.unwrap();
        let wanted = |id: &usize| bucket.is_none_or(|bucket| id % BUCKETS == bucket);
        let expected: Vec<usize> = (0..=last).filter(wanted).collect();
        assert!(got == expected, "bucket {bucket:?}: {got:?}");
        *of_bucket.entry(bucket).or_insert(0) += 1;
    }
    assert_eq!(of_bucket.len(), BUCKETS + 1);
    let (first, end) = (asked.iter().map(|it| it.0).min(), asked.iter().map(|it| it.0).max());
    // Two hundred go at least at a hundred a second.
    let took = end.unwrap() - first.unwrap();
    assert!(took >= Duration::from_secs(1), "all were told within {took:?}");
    let returns: Vec<Instant> = asked.iter().map(|(at, retry)| *at + *retry).collect();
    let spread = *returns.iter().max().unwrap() - *returns.iter().min().unwrap();
    assert!(spread >= Duration::from_secs(2), "all come back within {spread:?}");
    println!("{CLIENTS} clients, {last} rows; told over {took:?}, back over {spread:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_lets_those_go_who_are_waited_for() {
    let deployment = open(&["drain.seconds=300", "ring.bytes_max=268435456"]).await;
    let mut stuck = deployment.client().await;
    stuck.subscribed(json!({"id": "n", "table": "notes"})).await;
    let mut quick = deployment.client().await;
    quick.subscribed(json!({"id": "n", "table": "notes", "where": "bucket = 1"})).await;
    let insert =
        "INSERT INTO notes SELECT n, 0, repeat('x', 1000) FROM generate_series(1, 30000) n";
    deployment.execute(&[insert, "INSERT INTO notes VALUES (0, 1)"]).await;
    quick.row().await;
    let began = Instant::now();
    let (hurry, hurried) = tokio::sync::oneshot::channel::<()>();
    let stop = deployment.daemon.drain(async { hurried.await.unwrap() });
    let quick = async {
        let restart = quick.expect("restart").await;
        assert!(restart["cursor"].is_string(), "{restart}");
        assert_eq!(quick.closed().await, 1012);
        hurry.send(()).unwrap();
    };
    tokio::join!(stop, quick);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    drop(stuck);
}
