//! An HTTP client that reads what it is told, and fails rather than wait for ever.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::HeaderMap;
use hyper::Request;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::deployment::DEADLINE;

/// One connection, which is kept from request to request.
pub(crate) struct Http {
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection, and ends it when this is dropped.
    _connection: JoinSet<()>,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Null where there is no body.
    pub(crate) json: Value,
}

impl Answer {
    /// A header, empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Http {
        Http::over(TcpStream::connect(address).await.unwrap()).await
    }

    /// The same over a connection that is there.
    pub(crate) async fn over<S>(socket: S) -> Http
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ended = connection.await;
        });
        Http { sender, _connection: driver }
    }

    /// A GET request with these headers.
    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, "").await
    }

    /// The status and the text of an answer that is not JSON.
    pub(crate) async fn text(&mut self, path: &str) -> (StatusCode, String) {
        let response = self.begin("GET", path, &[], "").await;
        let status = response.status();
        let body = timeout(DEADLINE, response.into_body().collect()).await.unwrap().unwrap();
        (status, String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }

    /// The status of the answer, whose body may be anything.
    pub(crate) async fn status(&mut self, path: &str, headers: &[(&str, &str)]) -> u16 {
        self.begin("GET", path, headers, "").await.status().as_u16()
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let response = self.begin(method, path, headers, body).await;
        let (head, body) = response.into_parts();
        let bytes = timeout(DEADLINE, body.collect()).await.unwrap().unwrap().to_bytes();
        let json =
            if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status: head.status, headers: head.headers, json }
    }

    async fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> hyper::Response<Incoming> {
        timeout(DEADLINE, self.sender.ready()).await.unwrap().unwrap();
        let mut request = Request::builder().method(method).uri(path).header("host", "walcast");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        timeout(DEADLINE, self.sender.send_request(request)).await.unwrap().unwrap()
    }

    /// A stream of events.
    pub(crate) async fn events(mut self, path: &str, headers: &[(&str, &str)]) -> Events {
        let response = self.begin("GET", path, headers, "").await;
        self.stream(response)
    }

    /// The same, asked for in a body.
    pub(crate) async fn events_of(mut self, path: &str, body: &str) -> Events {
        let response = self.begin("POST", path, &[], body).await;
        self.stream(response)
    }

    fn stream(self, response: hyper::Response<Incoming>) -> Events {
        assert_eq!(response.status(), StatusCode::OK);
        let (head, body) = response.into_parts();
        Events {
            headers: head.headers,
            last_id: String::new(),
            retry_ms: None,
            body,
            unread: String::new(),
            _http: self,
        }
    }
}

/// A stream of events, read as a browser reads it.
pub(crate) struct Events {
    pub(crate) headers: HeaderMap,
    /// The id of the last event that had one.
    pub(crate) last_id: String,
    /// After how long the client shall come back.
    pub(crate) retry_ms: Option<u64>,
    body: Incoming,
    unread: String,
    _http: Http,
}

impl Events {
    /// The next frame; `None` where the stream has ended.
    pub(crate) async fn any_frame(&mut self) -> Option<Value> {
        Some(serde_json::from_str(&self.data().await?).unwrap())
    }

    /// The next event's data; `None` where the stream has ended.
    pub(crate) async fn data(&mut self) -> Option<String> {
        let mut data = Vec::new();
        loop {
            let line = self.line().await?;
            match line.split_once(':').map(|(field, value)| (field, value.trim_start())) {
                Some(("id", id)) => id.clone_into(&mut self.last_id),
                Some(("data", value)) => data.push(value.to_owned()),
                Some(("retry", value)) => self.retry_ms = Some(value.parse().unwrap()),
                Some(("", _comment)) => {}
                None if line.is_empty() && !data.is_empty() => {
                    return Some(data.join("\n"));
                }
                None if line.is_empty() => {}
                _ => panic!("not a line of an event: {line:?}"),
            }
        }
    }

    /// The next frame other than a heartbeat.
    pub(crate) async fn frame(&mut self) -> Value {
        loop {
            let frame = self.any_frame().await.expect("the stream has ended");
            if frame["type"] != "heartbeat" {
                return frame;
            }
        }
    }

    /// The next frame, which must be of a type.
    pub(crate) async fn expect(&mut self, of: &str) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame["type"], of, "{frame}");
        frame
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.unread.split_once('\n') {
                let line = line.to_owned();
                self.unread = rest.to_owned();
                return Some(line);
            }
            let more = timeout(DEADLINE, self.body.frame()).await.expect("nothing comes")?;
            let data = more.ok()?.into_data().unwrap();
            self.unread.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
}
