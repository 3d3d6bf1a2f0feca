//! The same subscription over HTTP: as a stream of events, or asked for again and again.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Empty;
use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::dice::Dice;
use crate::plan::Watch;

/// How much the client's socket buffers.
const BUFFER: u32 = 32 << 10;

/// One connection.
struct Http {
    sender: SendRequest<Empty<Bytes>>,
    /// What stands in `Authorization`.
    bearer: Option<String>,
    _connection: JoinSet<()>,
}

impl Http {
    async fn connect(port: u16, token: Option<&str>) -> Result<Http, String> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(BUFFER).unwrap();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let stream = socket.connect(address).await.map_err(|error| error.to_string())?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| error.to_string())?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ended = connection.await;
        });
        let bearer = token.map(|token| format!("Bearer {token}"));
        Ok(Http { sender, bearer, _connection: driver })
    }

    async fn get(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, String> {
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let mut request = Request::get(path).header("host", "walcast");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        let request = request.body(Empty::new()).unwrap();
        self.sender.send_request(request).await.map_err(|error| error.to_string())
    }
}

/// A stream of events.
pub(crate) struct Events {
    http: Http,
    body: Option<Incoming>,
    unread: Vec<u8>,
    /// A frame that stands for a refusal.
    refusal: Option<String>,
    /// Whether the cursor is sent in the header that a browser would send it in.
    by_header: bool,
}

impl Events {
    pub(crate) async fn connect(
        port: u16,
        token: Option<&str>,
        dice: &mut Dice,
    ) -> Result<Events, String> {
        let (http, by_header) = (Http::connect(port, token).await?, dice.chance(50));
        Ok(Events { http, body: None, unread: Vec::new(), refusal: None, by_header })
    }

    pub(crate) async fn ask(&mut self, watch: &Watch, since: Option<String>) -> Result<(), String> {
        let mut path = format!("/v1/events?id={}&{}", watch.id, parameters(watch));
        if watch.snapshot {
            path.push_str("&snapshot=true");
        }
        let mut headers = Vec::new();
        match &since {
            Some(since) if self.by_header => headers.push(("last-event-id", since.as_str())),
            Some(since) => write!(path, "&since={since}").unwrap(),
            None => {}
        }
        let response = self.http.get(&path, &headers).await?;
        if response.status().is_success() {
            self.body = Some(response.into_body());
        } else {
            self.refusal = Some(refusal(watch, response).await?);
        }
        Ok(())
    }

    pub(crate) async fn next(&mut self) -> Result<Option<String>, String> {
        if let Some(refusal) = self.refusal.take() {
            return Ok(Some(refusal));
        }
        let Some(body) = &mut self.body else { return Err("refused".to_owned()) };
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = String::from_utf8(line).unwrap();
                let data = line.trim_end_matches('\n').strip_prefix("data:");
                return match data.map(str::trim_start) {
                    Some(data) if data.starts_with("{\"type\":\"closed\"") => Err(data.to_owned()),
                    data => Ok(data.map(str::to_owned)),
                };
            }
            let more = body.frame().await.ok_or("end")?.map_err(|error| error.to_string())?;
            self.unread.extend_from_slice(&more.into_data().unwrap());
        }
    }
}

/// Asking for what came, again and again.
pub(crate) struct Changes {
    http: Http,
    watch: Option<Watch>,
    cursor: Option<String>,
    came: VecDeque<String>,
    refused: bool,
    dice: Dice,
}

impl Changes {
    pub(crate) async fn connect(
        port: u16,
        token: Option<&str>,
        dice: &mut Dice,
    ) -> Result<Changes, String> {
        let (http, dice) = (Http::connect(port, token).await?, Dice::new(dice.next(), 1));
        let (cursor, came) = (None, VecDeque::new());
        Ok(Changes { http, watch: None, cursor, came, refused: false, dice })
    }

    pub(crate) async fn ask(&mut self, watch: &Watch, since: Option<String>) -> Result<(), String> {
        let rows = watch.snapshot && since.is_none();
        if rows || since.is_some() {
            // Nobody says so here; it only means that what comes counts.
            self.came.push_back(json!({ "type": "subscribed", "id": watch.id }).to_string());
        }
        (self.watch, self.cursor) = (Some(watch.clone()), since);
        if rows { self.ask_rows(watch).await } else { Ok(()) }
    }

    /// Begins with the rows that are there, told in the frames in which a WebSocket tells them.
    async fn ask_rows(&mut self, watch: &Watch) -> Result<(), String> {
        let path = format!("/v1/rows?{}", parameters(watch));
        let response = self.http.get(&path, &[]).await?;
        if !response.status().is_success() {
            self.refused = true;
            self.came.push_back(refusal(watch, response).await?);
            return Ok(());
        }
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        let answer: Value =
            serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())?;
        for row in answer["rows"].as_array().unwrap() {
            let frame = json!({ "type": "row", "id": watch.id, "op": "snapshot", "new": row });
            self.came.push_back(frame.to_string());
        }
        for change in answer["changes"].as_array().unwrap() {
            let mut frame = change.clone();
            frame["id"] = json!(watch.id);
            self.came.push_back(frame.to_string());
        }
        let cursor = answer["cursor"].as_str().unwrap().to_owned();
        let synced = json!({ "type": "synced", "id": watch.id, "cursor": cursor });
        self.came.push_back(synced.to_string());
        self.cursor = Some(cursor);
        Ok(())
    }

    pub(crate) async fn next(&mut self) -> Result<Option<String>, String> {
        if let Some(frame) = self.came.pop_front() {
            return Ok(Some(frame));
        }
        if self.refused {
            return Err("refused".to_owned());
        }
        let watch = self.watch.clone().ok_or("nothing asked")?;
        let mut path = format!(
            "/v1/changes?id={}&{}&wait={}",
            watch.id,
            parameters(&watch),
            self.dice.below(3)
        );
        let mut headers = Vec::new();
        let quoted = self.cursor.as_ref().map(|cursor| format!("\"{cursor}\""));
        match (&self.cursor, &quoted) {
            (Some(_), Some(quoted)) if self.dice.chance(50) => {
                headers.push(("if-none-match", quoted.as_str()));
            }
            (Some(cursor), _) => write!(path, "&since={cursor}").unwrap(),
            _ => {}
        }
        let response = self.http.get(&path, &headers).await?;
        if response.status() == 304 {
            let tag = response.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned();
            return Ok(Some(self.advance(tag)));
        }
        if !response.status().is_success() {
            self.refused = true;
            return refusal(&watch, response).await.map(Some);
        }
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
        self.take(&answer);
        Ok(self.came.pop_front())
    }

    /// Takes the frames of an answer, or only some of them, and goes on after those.
    fn take(&mut self, answer: &Value) {
        let frames = answer["frames"].as_array().unwrap();
        let is_resync = |frame: &&Value| frame["type"] == "resync";
        if self.watch.as_ref().is_some_and(|watch| watch.snapshot)
            && let Some(resync) = frames.iter().find(is_resync)
        {
            // What it holds is void; it comes back and asks for the rows.
            let mut resync = resync.clone();
            resync.as_object_mut().unwrap().remove("cursor");
            self.came.push_back(resync.to_string());
            self.refused = true;
            return;
        }
        if frames.len() > 1
            && frames.iter().all(|frame| frame["type"] == "row")
            && self.dice.chance(20)
        {
            let count = usize::try_from(self.dice.between(1, 10)).unwrap().min(frames.len());
            self.came.extend(frames[..count].iter().map(Value::to_string));
            self.cursor = frames[count - 1]["cursor"].as_str().map(str::to_owned);
            return;
        }
        self.came.extend(frames.iter().map(Value::to_string));
        self.refused = frames.iter().any(|frame| frame["type"] == "error");
        let heartbeat = self.advance(answer["cursor"].as_str().unwrap().to_owned());
        self.came.push_back(heartbeat);
    }

    /// Everything up to a cursor has come.
    fn advance(&mut self, cursor: String) -> String {
        let heartbeat = json!({ "type": "heartbeat", "cursor": cursor }).to_string();
        self.cursor = Some(cursor);
        heartbeat
    }
}

/// A refusal as the frame that a WebSocket would have got; one that is about walcast itself, and
/// not about the subscription, is an end of the connection.
async fn refusal(watch: &Watch, response: Response<Incoming>) -> Result<String, String> {
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
    let mut frame: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    if frame["code"] == "restart" {
        return Err(frame.to_string());
    }
    frame["type"] = json!("error");
    frame["id"] = json!(watch.id);
    frame["status"] = json!(status.as_u16());
    Ok(frame.to_string())
}

fn parameters(watch: &Watch) -> String {
    let mut text = format!("table={}", watch.table);
    let (sql, postgrest) = (watch.filter.sql(), watch.filter.postgrest());
    if watch.postgrest && !postgrest.is_empty() {
        write!(text, "&filter={}", encoded(&postgrest)).unwrap();
    } else if sql != "true" {
        write!(text, "&where={}", encoded(&sql)).unwrap();
    }
    if let Some(columns) = &watch.columns {
        write!(text, "&columns={}", columns.join(",")).unwrap();
    }
    if let Some(interval_ms) = watch.throttle_ms {
        let throttle = json!({ "interval_ms": interval_ms });
        write!(text, "&throttle={}", encoded(&throttle.to_string())).unwrap();
    }
    text
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}
