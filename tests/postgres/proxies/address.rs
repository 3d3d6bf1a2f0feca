//! For whom a proxy asks: the address that it saw, whatever the client says of itself.

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::http::Http;
use crate::proxies::Behind;
use crate::proxies::Kind;
use crate::proxies::Proxy;

/// A connection to the proxy from an address of this machine.
async fn from(proxy: &Proxy, address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    socket.connect(([127, 0, 0, 1], proxy.port).into()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_the_address_that_the_guide_s_proxy_saw() {
    let deployment = Deployment::start(Plan {
        schema: "CREATE TABLE notes (id int PRIMARY KEY)",
        tables: "[[table]]\nname = 'public.notes'\nopen = true\n",
        set: &["listen.trusted_proxies=127.0.0.1", "limits.connections_per_address=1"],
        ..Plan::default()
    })
    .await;
    let bearer = format!("Bearer {}", deployment.token(json!({})));
    let cases =
        [(Kind::Nginx, "127.0.0.5", "127.0.0.6"), (Kind::Haproxy, "127.0.0.7", "127.0.0.8")];
    for (kind, one, other) in cases {
        let proxy = Proxy::start(kind, &[Behind::of(&deployment.daemon)]).await;
        let path = "/v1/events?table=notes";
        let says = |address| [("authorization", &*bearer), ("x-forwarded-for", address)];
        let http = proxy.over(from(&proxy, one).await).await;
        let mut first = http.events(path, &says("203.0.113.7")).await;
        first.expect("subscribed").await;
        let mut http = proxy.over(from(&proxy, one).await).await;
        let answer = http.get(path, &says("203.0.113.8")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json["code"]),
            (429, &json!("too_many_from_address"))
        );
        let http = proxy.over(from(&proxy, other).await).await;
        let mut second = http.events(path, &says("203.0.113.7")).await;
        second.expect("subscribed").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_passes_tcp_through_says_by_the_proxy_protocol_for_whom() {
    let deployment = Deployment::start(Plan {
        schema: "CREATE TABLE notes (id int PRIMARY KEY)",
        tables: "[[table]]\nname = 'public.notes'\nopen = true\n",
        set: &[
            "listen.trusted_proxies=127.0.0.1",
            "listen.forwarded_header=proxy-protocol",
            "limits.connections_per_address=1",
        ],
        ..Plan::default()
    })
    .await;
    let path = "/v1/events?table=notes";
    for (version, one, other) in
        [("send-proxy", "127.0.0.5", "127.0.0.6"), ("send-proxy-v2", "127.0.0.7", "127.0.0.8")]
    {
        let proxy = Proxy::passing(&Behind::of(&deployment.daemon), version).await;
        let mut first = Http::over(from(&proxy, one).await).await.events(path, &[]).await;
        first.expect("subscribed").await;
        let mut http = Http::over(from(&proxy, one).await).await;
        // What the client says itself is not believed.
        let answer = http.get(path, &[("x-forwarded-for", "203.0.113.8")]).await;
        assert_eq!(answer.json["code"], "too_many_from_address", "{}", answer.json);
        let mut second = Http::over(from(&proxy, other).await).await.events(path, &[]).await;
        second.expect("subscribed").await;
    }
    // From somebody else it is no HTTP, and a trusted proxy has to say it.
    let public = deployment.daemon.address();
    for (address, sent, expected) in [
        ("127.0.0.9", "PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n", "HTTP/1.1 400"),
        ("127.0.0.1", "", ""),
    ] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
        let mut socket = socket.connect(public).await.unwrap();
        let request = format!("{sent}GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _end = timeout(DEADLINE, socket.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(expected) && !answer.contains(" 200 "), "{answer}");
    }
}
