//! How a connection asks each kind of server for its rows.

/// What one connection says until it is subscribed. `{key}` stands for the connection's key.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// The path of the upgrade request.
    pub(crate) path: &'static str,
    pub(crate) talk: Talk,
    /// How many subscriptions a JSON client makes on one connection: its key, and then every
    /// [`KEY_STRIDE`] further on.
    subscriptions: u64,
    /// The key that every connection asks for instead of its own.
    key: Option<u64>,
    /// What stands for `{token}` in the path.
    token: Option<fn(u64) -> String>,
}

/// The distance between the keys that one connection subscribes to.
pub(crate) const KEY_STRIDE: u64 = 100;

/// The conversation after the upgrade.
#[derive(Clone, Debug)]
pub(crate) enum Talk {
    /// None: the path said it all.
    Path,
    /// Text frames; one that contains `answer` means that a subscription stands. `{id}` stands for
    /// its number.
    Json { subprotocol: Option<&'static str>, request: &'static str, answer: &'static str },
    /// Engine.IO 4 and Socket.IO: open, connect, emit `join` with the room, wait for its ack.
    SocketIo { room: &'static str },
}

/// What a script wants done after a frame came.
#[derive(Debug)]
pub(crate) enum Step {
    Wait,
    Say(Vec<String>),
    /// One of the subscriptions stands.
    Answered,
    Ready,
    Refused(String),
}

impl Script {
    pub(crate) fn new(path: &'static str, talk: Talk) -> Script {
        Script { path, talk, subscriptions: 1, key: None, token: None }
    }

    /// The same with so many subscriptions on each connection.
    pub(crate) fn with_subscriptions(mut self, subscriptions: u64) -> Script {
        self.subscriptions = subscriptions;
        self
    }

    /// The same with one key for every connection.
    pub(crate) fn with_key(mut self, key: u64) -> Script {
        self.key = Some(key);
        self
    }

    /// The same with a token for each key.
    pub(crate) fn with_token(mut self, token: fn(u64) -> String) -> Script {
        self.token = Some(token);
        self
    }

    /// How many answers a connection has when it is subscribed.
    pub(crate) fn answers(&self) -> u64 {
        self.subscriptions
    }

    /// The upgrade request.
    pub(crate) fn upgrade(&self, key: u64) -> String {
        let key = self.key.unwrap_or(key);
        let token = self.token.map(|token| token(key)).unwrap_or_default();
        let protocol = match &self.talk {
            Talk::Json { subprotocol: Some(name), .. } => {
                format!("Sec-WebSocket-Protocol: {name}\r\n")
            }
            Talk::Path | Talk::Json { .. } | Talk::SocketIo { .. } => String::new(),
        };
        format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: d2FsY2FzdCBiZW5jaG1hcg==\r\n{protocol}\r\n",
            with_key(self.path, key).replace("{token}", &token),
        )
    }

    /// What to say as soon as the upgrade was answered.
    pub(crate) fn opening(&self, key: u64) -> Step {
        let key = self.key.unwrap_or(key);
        match &self.talk {
            Talk::Path => Step::Ready,
            Talk::Json { request, .. } => Step::Say(
                (0..self.subscriptions)
                    .map(|id| (with_key(request, key + id * KEY_STRIDE), id))
                    .map(|(request, id)| request.replace("{id}", &id.to_string()))
                    .collect(),
            ),
            Talk::SocketIo { .. } => Step::Wait,
        }
    }

    /// What to do about a text frame that came before the subscription stood.
    pub(crate) fn hear(&self, key: u64, frame: &[u8]) -> Step {
        let key = self.key.unwrap_or(key);
        let text = String::from_utf8_lossy(frame);
        match &self.talk {
            Talk::Json { answer, .. } if text.contains(answer) => Step::Answered,
            Talk::Json { .. } if text.contains("\"error\"") => Step::Refused(text.into_owned()),
            Talk::Path | Talk::Json { .. } => Step::Wait,
            Talk::SocketIo { room } => {
                if text.starts_with("0{") {
                    Step::Say(vec!["40".to_owned()])
                } else if text.starts_with("40") {
                    Step::Say(vec![format!("420[\"join\",\"{}\"]", with_key(room, key))])
                } else if text.starts_with("430") {
                    Step::Ready
                } else {
                    Step::Wait
                }
            }
        }
    }

    /// The answer that a frame wants once the subscription stands: Engine.IO pings in text.
    pub(crate) fn answer(&self, frame: &[u8]) -> Option<&'static str> {
        (matches!(self.talk, Talk::SocketIo { .. }) && frame == b"2").then_some("3")
    }
}

fn with_key(text: &str, key: u64) -> String {
    text.replace("{key}", &key.to_string())
}
