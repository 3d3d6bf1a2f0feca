//! The beginning of a connection: who we are, and how we prove it.
//!
//! ```text
//! Opened ──greet──▶ Greeted ──authenticate──▶ Authenticated ──ready──▶ Commands
//! ```
//!
//! Each step is a type of its own that the next one consumes, because here the order of the calls
//! is the protocol.

use std::collections::HashMap;
use std::io;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl;
use postgres_protocol::authentication::sasl::ScramSha256;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio_postgres::Config;
use tokio_postgres::config::ChannelBinding;

use crate::change::value::SESSION;
use crate::ingest::connect::Opened;
use crate::ingest::frames::FrameError;
use crate::ingest::frames::Frames;
use crate::ingest::frames::Reading;
use crate::ingest::walsender::Commands;
use crate::ingest::walsender::ServerError;
use crate::ingest::walsender::WalsenderError;

/// A connection on which the start-up message was sent.
pub(crate) struct Greeted<'a> {
    frames: Frames,
    config: &'a Config,
    end_point: Option<Vec<u8>>,
}

/// A connection whose user is proven.
pub(crate) struct Authenticated {
    frames: Frames,
}

/// Sends the start-up message.
pub(crate) async fn greet<'a>(
    opened: Opened,
    config: &'a Config,
    reading: Reading,
) -> Result<Greeted<'a>, WalsenderError> {
    let mut frames = Frames::new(opened.transport, reading);
    let user = config.get_user().unwrap_or_default();
    let pinned = SESSION.map(|(name, setting)| format!("-c {name}={setting}")).join(" ");
    let options = match config.get_options() {
        // Ours come last, and so win.
        Some(options) => format!("{options} {pinned}"),
        None => pinned,
    };
    let parameters = [
        ("user", user),
        ("database", config.get_dbname().unwrap_or(user)),
        ("replication", "database"),
        ("client_encoding", "UTF8"),
        ("application_name", config.get_application_name().unwrap_or("walcast")),
        ("options", &options),
    ];
    let mut bytes = BytesMut::new();
    frontend::startup_message(parameters, &mut bytes).map_err(FrameError::Io)?;
    frames.send(&bytes).await?;
    Ok(Greeted { frames, config, end_point: opened.end_point })
}

impl Greeted<'_> {
    /// Proves the user in the way that the server asks for.
    pub(crate) async fn authenticate(mut self) -> Result<Authenticated, WalsenderError> {
        let config = self.config;
        let bound = config.get_channel_binding() == ChannelBinding::Require;
        match next(&mut self.frames).await? {
            Message::AuthenticationOk if !bound => {
                return Ok(Authenticated { frames: self.frames });
            }
            Message::AuthenticationCleartextPassword if !bound => {
                let password = self.password()?.to_vec();
                self.answer(|out| frontend::password_message(&password, out)).await?;
            }
            Message::AuthenticationMd5Password(body) if !bound => {
                let user = config.get_user().unwrap_or_default();
                let hash = md5_hash(user.as_bytes(), self.password()?, body.salt());
                self.answer(|out| frontend::password_message(hash.as_bytes(), out)).await?;
            }
            Message::AuthenticationSasl(body) => {
                let mechanisms = body.mechanisms().map(|name| Ok(name.to_owned()));
                let offered: Vec<String> = mechanisms.collect().map_err(FrameError::Io)?;
                self.scram(&offered).await?;
            }
            Message::AuthenticationOk
            | Message::AuthenticationCleartextPassword
            | Message::AuthenticationMd5Password(_) => return Err(WalsenderError::NotBound),
            _ => return Err(WalsenderError::UnknownAuthentication),
        }
        match next(&mut self.frames).await? {
            Message::AuthenticationOk => Ok(Authenticated { frames: self.frames }),
            _ => Err(WalsenderError::UnknownAuthentication),
        }
    }

    async fn scram(&mut self, offered: &[String]) -> Result<(), WalsenderError> {
        let wanted = self.config.get_channel_binding();
        let offers = |name: &str| offered.iter().any(|offered| offered == name);
        let end_point = self.end_point.take().filter(|_| wanted != ChannelBinding::Disable);
        let (mechanism, binding) = match end_point {
            Some(end_point) if offers(sasl::SCRAM_SHA_256_PLUS) => {
                let binding = sasl::ChannelBinding::tls_server_end_point(end_point);
                (sasl::SCRAM_SHA_256_PLUS, binding)
            }
            _ if wanted == ChannelBinding::Require => return Err(WalsenderError::NotBound),
            _ if !offers(sasl::SCRAM_SHA_256) => return Err(WalsenderError::UnknownAuthentication),
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        let mut scram = ScramSha256::new(self.password()?, binding);
        let first = scram.message().to_vec();
        self.answer(|out| frontend::sasl_initial_response(mechanism, &first, out)).await?;
        let Message::AuthenticationSaslContinue(body) = next(&mut self.frames).await? else {
            return Err(WalsenderError::UnknownAuthentication);
        };
        scram.update(body.data()).map_err(WalsenderError::Scram)?;
        let second = scram.message().to_vec();
        self.answer(|out| frontend::sasl_response(&second, out)).await?;
        let Message::AuthenticationSaslFinal(body) = next(&mut self.frames).await? else {
            return Err(WalsenderError::UnknownAuthentication);
        };
        scram.finish(body.data()).map_err(WalsenderError::Scram)
    }

    fn password(&self) -> Result<&[u8], WalsenderError> {
        self.config.get_password().ok_or(WalsenderError::NoPassword)
    }

    async fn answer(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), WalsenderError> {
        let mut bytes = BytesMut::new();
        encode(&mut bytes).map_err(FrameError::Io)?;
        self.frames.send(&bytes).await?;
        Ok(())
    }
}

impl Authenticated {
    /// Waits until the server takes commands.
    pub(crate) async fn ready(mut self) -> Result<Commands, WalsenderError> {
        let mut parameters = HashMap::new();
        loop {
            match next(&mut self.frames).await? {
                Message::ParameterStatus(body) => {
                    let name = body.name().map_err(FrameError::Io)?.to_owned();
                    parameters.insert(name, body.value().map_err(FrameError::Io)?.to_owned());
                }
                Message::ReadyForQuery(_) => return Ok(Commands::new(self.frames, parameters)),
                _ => {}
            }
        }
    }
}

/// The next message that is not a notice.
async fn next(frames: &mut Frames) -> Result<Message, WalsenderError> {
    loop {
        frames.fill().await?;
        let Some(frame) = frames.take()? else { continue };
        match frame.tag {
            b'E' => return Err(WalsenderError::Refused(ServerError::decode(frame.body))),
            b'N' => continue,
            _ => {}
        }
        let mut whole = BytesMut::with_capacity(frame.body.len() + 5);
        whole.extend_from_slice(&[frame.tag]);
        let length = u32::try_from(frame.body.len() + 4).unwrap_or(u32::MAX);
        whole.extend_from_slice(&length.to_be_bytes());
        whole.extend_from_slice(frame.body);
        let message = Message::parse(&mut whole).map_err(FrameError::Io)?;
        return message.ok_or(WalsenderError::Frames(FrameError::Closed));
    }
}
