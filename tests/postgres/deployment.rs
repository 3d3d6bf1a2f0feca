//! A daemon on a test's database, and clients of it over real sockets.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::Client as Sql;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use walcast::config::Config;
use walcast::config::Layers;
use walcast::daemon::Daemon;

use crate::support;
use crate::support::Database;

/// How long anything may take that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A database with tables, a daemon that serves them, and a role that clients act under.
pub(crate) struct Deployment {
    pub(crate) sql: Sql,
    pub(crate) daemon: Daemon,
    /// The client role; it may select every table of the schema.
    pub(crate) role: String,
    pub(crate) config: Config,
    pub(crate) files: Files,
}

/// The configuration file and the secret in it; they go with this.
pub(crate) struct Files {
    pub(crate) config: PathBuf,
    pub(crate) secret: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_file(&self.config).unwrap();
        std::fs::remove_file(&self.secret).unwrap();
    }
}

/// What a deployment is made of.
pub(crate) struct Plan<'a> {
    /// Statements that make the schema.
    pub(crate) schema: &'a str,
    /// The `[[table]]` sections.
    pub(crate) tables: &'a str,
    /// More settings, `section.key=value`.
    pub(crate) set: &'a [&'a str],
    /// Whether a client without a token acts under the client role.
    pub(crate) anonymous: bool,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Plan { schema: "", tables: "", set: &[], anonymous: true }
    }
}

impl Deployment {
    /// Makes the schema and the publication, and starts a daemon that is live.
    pub(crate) async fn start(plan: Plan<'_>) -> Deployment {
        Deployment::on(support::database().await, plan).await
    }

    /// The same on a database that is already there.
    pub(crate) async fn on(database: Database, plan: Plan<'_>) -> Deployment {
        Deployment::beside(&database, plan).await
    }

    /// The same on a database that the test goes on to use.
    pub(crate) async fn beside(database: &Database, plan: Plan<'_>) -> Deployment {
        let sql = database.connect().await;
        let role = format!("web_{}", database.name);
        let statements = format!(
            "{}; CREATE ROLE {role} NOLOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; \
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role}; \
             CREATE PUBLICATION walcast FOR ALL TABLES",
            plan.schema
        );
        sql.batch_execute(&statements).await.unwrap();
        let (config, files) = configuration(database, &role, &plan);
        let daemon = start(&config).await;
        Deployment { sql, daemon, role, config, files }
    }

    /// Stops the daemon in order and starts another with the same settings.
    pub(crate) async fn restart(mut self) -> Deployment {
        self.daemon.stop().await;
        self.daemon = start(&self.config).await;
        self
    }

    /// A client without a token: it acts under the client role.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.url()).await
    }

    /// A client with a token for the client role and these claims.
    pub(crate) async fn client_with(&self, claims: Value) -> Client {
        let url = format!("{}?token={}", self.url(), self.token(claims));
        Client::connect(&url).await
    }

    /// A token for the client role, with these claims beside `role` and `exp`.
    pub(crate) fn token(&self, mut claims: Value) -> String {
        let object = claims.as_object_mut().unwrap();
        object.entry("role").or_insert_with(|| json!(self.role));
        object.entry("exp").or_insert_with(|| json!(4_102_444_800_u64));
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/v1/ws", self.daemon.address())
    }

    /// Runs statements, each in a transaction of its own.
    pub(crate) async fn execute(&self, statements: &[&str]) {
        for statement in statements {
            self.sql.batch_execute(statement).await.unwrap();
        }
    }
}

/// The secret that the tests' tokens are signed with.
pub(crate) const SECRET: &[u8] = b"a secret of the tests, of thirty-two bytes or more";

pub(crate) async fn start(config: &Config) -> Daemon {
    let mut daemon = Daemon::start(config).unwrap();
    timeout(DEADLINE, daemon.live()).await.unwrap().unwrap();
    daemon
}

fn configuration(database: &Database, role: &str, plan: &Plan<'_>) -> (Config, Files) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let name = format!("{}-{}.toml", std::process::id(), database.name);
    let file = folder.join(&name);
    let secret = folder.join(format!("{name}.secret"));
    let anonymous =
        if plan.anonymous { format!("anonymous_role = '{role}'\n") } else { String::new() };
    // All clients have one address here, and ask again and again until something is so.
    let text = format!(
        "[limits]\nconnections_per_address = 0\nhandshakes_per_second_per_address = 0\n\
         requests_per_second = 0\n[admin]\naddress = '127.0.0.1:0'\n[database]\nurl = '{}'\nslot = '{}'\n[drain]\nseconds = 0\n[listen]\naddress = '127.0.0.1:0'\n\
         [auth]\nroles = ['{role}']\n{anonymous}\
         [[auth.keys]]\nalgorithm = 'HS256'\nsecret_file = '{}'\n{}",
        database.connection_string(),
        database.name,
        secret.display(),
        plan.tables
    );
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::write(&file, text).unwrap();
    let flags = plan.set.iter().map(|flag| (*flag).to_owned()).collect();
    let layers = Layers { file: Some(file.clone()), flags, ..Layers::default() };
    let config = Config::load(&layers).unwrap_or_else(|error| panic!("{error}"));
    (config, Files { config: file, secret })
}

/// A WebSocket client that reads what it is told, and fails rather than wait for ever.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The `welcome` frame.
    pub(crate) welcome: Value,
}

impl Client {
    /// Connects and takes the `welcome` frame.
    pub(crate) async fn connect(url: &str) -> Client {
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        Client::over(socket).await
    }

    /// The same on a WebSocket that is there.
    pub(crate) async fn over(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Client {
        let mut client = Client { socket, welcome: Value::Null };
        client.welcome = client.frame().await;
        assert_eq!(client.welcome["type"], "welcome");
        client
    }

    /// Sends a request.
    pub(crate) async fn send(&mut self, request: Value) {
        self.socket.send(Message::text(request.to_string())).await.unwrap();
    }

    /// Sends a subscribe request and takes its answer.
    pub(crate) async fn subscribe(&mut self, request: Value) -> Value {
        let mut request = request;
        request["type"] = json!("subscribe");
        self.send(request).await;
        self.frame().await
    }

    /// Subscribes and must succeed.
    pub(crate) async fn subscribed(&mut self, request: Value) -> Value {
        let answer = self.subscribe(request).await;
        assert_eq!(answer["type"], "subscribed", "{answer}");
        answer
    }

    /// The next frame other than a heartbeat.
    pub(crate) async fn frame(&mut self) -> Value {
        loop {
            let message = timeout(DEADLINE, self.socket.next()).await.unwrap().unwrap().unwrap();
            if let Message::Text(text) = message {
                let frame: Value = serde_json::from_str(text.as_str()).unwrap();
                if frame["type"] != "heartbeat" {
                    return frame;
                }
            }
        }
    }

    /// The next frame, which must be of a type.
    pub(crate) async fn expect(&mut self, of: &str) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame["type"], of, "{frame}");
        frame
    }

    /// The next row frame.
    pub(crate) async fn row(&mut self) -> Value {
        self.expect("row").await
    }

    /// The next rows, each as `op` and a column of its image.
    pub(crate) async fn rows(&mut self, count: usize, column: &str) -> Vec<String> {
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            let row = self.row().await;
            let image = if row["new"].is_null() { &row["old"] } else { &row["new"] };
            rows.push(format!("{} {}", row["op"].as_str().unwrap(), image[column]));
        }
        rows
    }

    /// The close code that the server ends with.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match timeout(DEADLINE, self.socket.next()).await.unwrap() {
                Some(Ok(Message::Close(frame))) => {
                    // Sends the answer; then the server closes the connection, and soon.
                    let end = timeout(Duration::from_secs(2), self.socket.next()).await;
                    assert!(end.is_ok_and(|end| end.is_none()), "the connection stays open");
                    return frame.unwrap().code.into();
                }
                Some(Ok(_)) => {}
                other => panic!("closed without a code: {other:?}"),
            }
        }
    }
}
