//! The native protocol over WebSocket.

use std::net::Ipv4Addr;

use futures_util::SinkExt;
use futures_util::StreamExt;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;

use crate::plan::Watch;

/// How much the client's socket buffers: little, so that a reader that stops is felt.
const BUFFER: u32 = 32 << 10;

/// One connection.
pub(crate) struct WebSocket(WebSocketStream<TcpStream>);

impl WebSocket {
    pub(crate) async fn connect(port: u16, token: Option<&str>) -> Result<WebSocket, String> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(BUFFER).unwrap();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let stream = socket.connect(address).await.map_err(|error| error.to_string())?;
        let url = format!("ws://127.0.0.1:{port}/v1/ws");
        let mut request = url.into_client_request().unwrap();
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        let connected = tokio_tungstenite::client_async(request, stream).await;
        connected.map(|(socket, _)| WebSocket(socket)).map_err(|error| error.to_string())
    }

    pub(crate) async fn ask(&mut self, watch: &Watch, since: Option<String>) -> Result<(), String> {
        let mut request = json!({ "type": "subscribe", "id": watch.id, "table": watch.table });
        let filter = watch.filter.sql();
        if watch.postgrest && !watch.filter.postgrest().is_empty() {
            request["filter"] = json!(watch.filter.postgrest());
        } else if filter != "true" {
            request["where"] = json!(filter);
        }
        if let Some(columns) = &watch.columns {
            request["columns"] = json!(columns);
        }
        if watch.snapshot {
            request["snapshot"] = json!(true);
        }
        if let Some(interval_ms) = watch.throttle_ms {
            request["throttle"] = json!({ "interval_ms": interval_ms });
        }
        if let Some(since) = since {
            request["since"] = json!(since);
        }
        let sent = self.0.send(Message::text(request.to_string())).await;
        sent.map_err(|error| error.to_string())
    }

    /// The next frame; none where what came is a sign of life and nothing else.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, String> {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Ok(Some(text.as_str().to_owned())),
            Some(Ok(Message::Close(frame))) => Err(format!("closed: {frame:?}")),
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("end".to_owned()),
        }
    }
}
