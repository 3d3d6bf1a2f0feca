//! What one client, or very many, can't do to the others.

mod connections;
mod descriptors;
mod proxies;
mod rates;
mod slow;
mod tls;

use std::net::Ipv4Addr;
use std::net::SocketAddr;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio::time::timeout;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::client_async;
use tungstenite::Error;
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::deployment::Plan;

/// A daemon with a table that everybody may see, and these settings.
async fn open(set: &[&str]) -> Deployment {
    let schema = "CREATE TABLE t (id int PRIMARY KEY)";
    let tables = "[[table]]\nname = 'public.t'\nopen = true\n";
    Deployment::start(Plan { schema, tables, set, ..Plan::default() }).await
}

/// How a handshake was refused.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    status: u16,
    code: String,
    /// What `Retry-After` says.
    seconds: u64,
}

/// A connection from another address of this machine.
async fn dial(host: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into()).unwrap();
    timeout(DEADLINE, socket.connect(to)).await.unwrap().unwrap()
}

/// A client that connects from 127.0.0.`host`, with these headers.
async fn knock(
    deployment: &Deployment,
    host: u8,
    headers: &[(&'static str, &str)],
) -> Result<Client, Refused> {
    let mut request = deployment.url().into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let socket = MaybeTlsStream::Plain(dial(host, deployment.daemon.address()).await);
    let shaken = timeout(DEADLINE, client_async(request, socket)).await.unwrap();
    match shaken {
        Ok((mut socket, _)) => {
            let welcome = timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap();
            let Message::Text(text) = welcome else { panic!("not a frame: {welcome:?}") };
            Ok(Client { socket, welcome: serde_json::from_str(text.as_str()).unwrap() })
        }
        Err(Error::Http(answer)) => {
            let (head, body) = answer.into_parts();
            let json: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
            let seconds = head.headers.get("retry-after").map(|it| it.to_str().unwrap());
            Err(Refused {
                status: head.status.as_u16(),
                code: json["code"].as_str().unwrap_or_default().to_owned(),
                seconds: seconds.map_or(0, |it| it.parse().unwrap()),
            })
        }
        Err(error) => panic!("neither let in nor refused: {error}"),
    }
}

/// The same, until it is let in.
async fn knock_until_in(deployment: &Deployment, host: u8) -> Client {
    let until_in = async {
        loop {
            match knock(deployment, host, &[]).await {
                Ok(client) => return client,
                // The daemon has yet to see that somebody went.
                Err(_) => sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    timeout(DEADLINE, until_in).await.unwrap()
}

/// How often something was refused.
fn refused(deployment: &Deployment, code: &str) -> u64 {
    let name = format!("refused.{code}");
    let all = deployment.daemon.metrics().read();
    all.into_iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
}
