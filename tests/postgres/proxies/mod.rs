//! Proxies in front of the daemon, configured by the snippets of `docs/deploy.md` as they stand
//! there: nginx and HAProxy, on ports and with files of the test's own.

mod address;
mod reload;
mod two;

use std::fs;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::Connector;
use tungstenite::client::IntoClientRequest;
use walcast::daemon::Daemon;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::http::Http;
use crate::program::Folder;

/// Which proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nginx,
    Haproxy,
}

/// A proxy that runs until the test is over.
struct Proxy {
    kind: Kind,
    process: Child,
    port: u16,
    folder: Folder,
}

/// Where a daemon is reached, by clients and by operators.
#[derive(Clone, Copy)]
struct Behind {
    public: SocketAddr,
    admin: SocketAddr,
}

impl Behind {
    fn of(daemon: &Daemon) -> Behind {
        Behind { public: daemon.address(), admin: daemon.admin_address().unwrap() }
    }
}

impl Proxy {
    /// HAProxy that passes TCP through and says for whom, by this word of its `server` line.
    async fn passing(behind: &Behind, how: &str) -> Proxy {
        let (folder, port) = (Folder::new(), free_port());
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             listen live\n bind 127.0.0.1:{port}\n server one {} {how}\n",
            behind.public
        );
        let file = folder.write("haproxy.cfg", text);
        let mut command = Command::new(program("haproxy"));
        command.args(["-q", "-db", "-f"]).arg(file);
        Proxy::run(Kind::Haproxy, command, port, folder).await
    }

    /// Starts it in front of one daemon, or of two as the guide has it for two. Of its snippets only
    /// addresses, files and times are others: 90 s are 3 s, and the 10 minutes after a reload one
    /// second.
    async fn start(kind: Kind, behind: &[Behind]) -> Proxy {
        let folder = Folder::new();
        let port = free_port();
        let command = match kind {
            Kind::Nginx => nginx(&folder, port, behind),
            Kind::Haproxy => haproxy(&folder, port, behind),
        };
        Proxy::run(kind, command, port, folder).await
    }

    async fn run(kind: Kind, mut command: Command, port: u16, folder: Folder) -> Proxy {
        let mut proxy = Proxy { kind, process: command.spawn().unwrap(), port, folder };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(began.elapsed() < DEADLINE, "the proxy does not listen");
            assert!(proxy.process.try_wait().unwrap().is_none(), "the proxy has ended");
            sleep(Duration::from_millis(5)).await;
        }
        proxy
    }

    /// Has it read its configuration again, as its unit does.
    fn reload(&self) {
        self.signal(if self.kind == Kind::Nginx { "-HUP" } else { "-USR2" });
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    async fn socket(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// A connection for requests over HTTP/1.1.
    async fn http(&self) -> Http {
        self.over(self.socket().await).await
    }

    /// The same over a connection to it that is there.
    async fn over(&self, socket: TcpStream) -> Http {
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(trust());
        Http::over(connector.connect(name, socket).await.unwrap()).await
    }

    /// A WebSocket with a token among its subprotocols, opened by a page of the proxy's own origin.
    async fn client(&self, token: &str) -> Client {
        let mut request =
            format!("wss://localhost:{}/v1/ws", self.port).into_client_request().unwrap();
        let protocols = format!("walcast.v1, walcast.token.{token}");
        let origin = format!("https://localhost:{}", self.port);
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", protocols.parse().unwrap());
        headers.insert("origin", origin.parse().unwrap());
        let connector = Some(Connector::Rustls(trust()));
        let socket = self.socket().await;
        let connected =
            tokio_tungstenite::client_async_tls_with_config(request, socket, None, connector);
        Client::over(connected.await.unwrap().0).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its workers end with it only where it is asked to end.
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal("-TERM");
            self.process.wait().unwrap();
        }
    }
}

fn nginx(folder: &Folder, port: u16, behind: &[Behind]) -> Command {
    let [main, site, two] = snippets("nginx").try_into().unwrap();
    let main = put(
        &main,
        &[
            ("timeout 10m", "timeout 1s"),
            ("rlimit_nofile 65536", "rlimit_nofile 1024"),
            ("connections 30000", "connections 1000"),
        ],
    );
    let log = folder.path("access.log");
    let site = put(
        &site,
        &[
            ("listen 443 ", &format!("listen 127.0.0.1:{port} ")),
            ("/etc/ssl/live.example.com.pem", &fixture("server.pem")),
            ("/etc/ssl/live.example.com.key", &fixture("server.key")),
            ("/var/log/nginx/walcast.log", log.to_str().unwrap()),
            ("timeout 90s", "timeout 3s"),
        ],
    );
    let site = match behind {
        [one] => put(&site, &[("127.0.0.1:4480", &one.public.to_string())]),
        _ => {
            let (before, rest) = site.split_once("upstream walcast {").unwrap();
            let (_, after) = rest.split_once("}\n").unwrap();
            format!("{before}{}{after}", reach(&two, behind))
        }
    };
    let prefix = folder.path("");
    let prefix = prefix.to_str().unwrap();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {prefix}{what};\n"))
        .concat();
    let all = format!(
        "daemon off;\npid {prefix}pid;\nerror_log stderr warn;\n{main}\nhttp {{\n{temporary}{site}}}\n"
    );
    let file = folder.write("nginx.conf", all);
    let mut command = Command::new(program("nginx"));
    command.args(["-e", "stderr", "-p", prefix, "-c"]).arg(file);
    command
}

fn haproxy(folder: &Folder, port: u16, behind: &[Behind]) -> Command {
    let [all, two] = snippets("haproxy").try_into().unwrap();
    let pem = ["server.pem", "server.key"].map(|name| fs::read(fixture(name)).unwrap()).concat();
    let pem = folder.write("live.pem", pem);
    let all = put(
        &all,
        &[
            ("bind :443 ", &format!("bind 127.0.0.1:{port} ")),
            ("/etc/haproxy/live.example.com.pem", pem.to_str().unwrap()),
            ("maxconn 20000", "maxconn 200"),
            ("hard-stop-after 10m", "hard-stop-after 1s"),
            (" 90s", " 3s"),
        ],
    );
    let (front, one) = all.split_once("\nbackend walcast\n").unwrap();
    let back = match behind {
        [_] => reach(
            &format!("backend walcast\n{one}").replace("127.0.0.1:4480", "10.0.0.1:4480"),
            behind,
        ),
        _ => reach(&two, behind),
    };
    let file = folder.write("haproxy.cfg", format!("{front}\n{back}"));
    let mut command = Command::new(program("haproxy"));
    command.args(["-W", "-db", "-f"]).arg(file);
    command
}

/// The guide's snippet for two machines, for daemons that are on this one: each has its own port for
/// operators.
fn reach(snippet: &str, behind: &[Behind]) -> String {
    let mut snippet = snippet.replace(" port 4481", "");
    for (number, behind) in (1..).zip(behind) {
        let mut to = behind.public.to_string();
        if snippet.contains("httpchk") {
            to.push_str(&format!(" port {}", behind.admin.port()));
        }
        snippet = put(&snippet, &[(&format!("10.0.0.{number}:4480"), &to)]);
    }
    snippet
}

/// The guide's code blocks of a language.
fn snippets(language: &str) -> Vec<String> {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/deploy.md");
    let guide = fs::read_to_string(guide).unwrap();
    let fence = format!("```{language}\n");
    let blocks = guide.split(&fence).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The text with other words, each of which must be in it.
fn put(text: &str, replacements: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in replacements {
        assert!(text.contains(from), "docs/deploy.md has no {from:?}");
        text = text.replace(from, to);
    }
    text
}

fn fixture(name: &str) -> String {
    format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Trusts whom the fixtures' authority has signed.
fn trust() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(fixture("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// Servers are installed beside what is for everybody.
fn program(name: &str) -> PathBuf {
    let system = PathBuf::from("/usr/sbin").join(name);
    if system.exists() { system } else { PathBuf::from(name) }
}

/// A port that nothing has, from among those that the system gives to nobody by itself.
fn free_port() -> u16 {
    let first = u16::try_from(std::process::id() % 20_000).unwrap();
    let mut ports = (0..20_000).map(|next| 10_000 + (first + next) % 20_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
