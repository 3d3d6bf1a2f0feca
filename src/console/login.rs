//! Who may come in, and what for.
//!
//! Over a Unix socket whoever runs the daemon (the same user of the system, or root) comes in without
//! a password, as with pgbouncer: that user could read the daemon's memory as well. Everybody else
//! shows a password by SCRAM-SHA-256, over TLS with channel binding. An unknown name goes through the
//! same exchange with a verifier that nobody's password fits, so that neither the answer nor the
//! time tells which names there are.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::Sink;
use pgwire::api::ClientInfo;
use pgwire::api::METADATA_USER;
use pgwire::api::auth::AuthDriver;
use pgwire::api::auth::AuthSource;
use pgwire::api::auth::LoginInfo;
use pgwire::api::auth::Password;
use pgwire::api::auth::ServerParameterProvider;
use pgwire::api::auth::StartupHandler;
use pgwire::api::auth::driver::AuthOutcome;
use pgwire::api::auth::mechanism::AuthMechanismFactory;
use pgwire::api::auth::protocol_negotiation;
use pgwire::api::auth::sasl::scram::ScramAuth;
use pgwire::api::auth::sasl::scram::ScramSecret;
use pgwire::api::auth::save_startup_parameters_to_metadata;
use pgwire::error::PgWireError;
use pgwire::error::PgWireResult;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::PgWireFrontendMessage;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::console::Console;
use crate::console::answer::Refused;
use crate::console::handler::Session;
use crate::console::polite;
use crate::console::users::Level;
use crate::console::wire;

/// By which way somebody came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// TCP.
    Tcp,
    /// A Unix socket, and whether the other end is whoever runs this.
    Unix { owner: bool },
}

/// Who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) level: Level,
}

/// How passwords are asked for: as over TLS, or as without it.
#[derive(Debug)]
pub(super) struct Passwords {
    plain: ScramAuth,
    bound: Option<ScramAuth>,
}

impl Passwords {
    /// # Errors
    ///
    /// Where channel binding is not possible with the certificate.
    pub(super) fn new(settings: &crate::console::settings::Settings) -> PgWireResult<Passwords> {
        let random = SystemRandom::new();
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .map_err(|_| PgWireError::ApiError("the system has no random numbers".into()))?;
        let source = Verifiers { users: Arc::clone(&settings.users), secret };
        let plain = ScramAuth::new(Arc::new(source));
        let bound = settings.tls.as_ref().map(|tls| {
            let mut bound = plain.clone();
            bound.configure_certificate(&tls.certificates).map(|()| bound)
        });
        Ok(Passwords { plain, bound: bound.transpose()? })
    }

    /// Without TLS nothing may be offered that needs it: libpq would take it for an attack.
    fn asked_over(&self, secure: bool) -> &ScramAuth {
        self.bound.as_ref().filter(|_| secure).unwrap_or(&self.plain)
    }
}

/// The verifiers, and those of whom there is none.
#[derive(Debug)]
struct Verifiers {
    users: Arc<crate::console::users::Users>,
    secret: hmac::Key,
}

impl Verifiers {
    /// What nobody's password fits; always the same for a name.
    fn invented(&self, name: &str) -> ScramSecret {
        let made = |what: &str| {
            let mut context = hmac::Context::with_key(&self.secret);
            context.update(what.as_bytes());
            context.update(&[0]);
            context.update(name.as_bytes());
            context.sign().as_ref().to_vec()
        };
        let mut salt = made("salt");
        salt.truncate(16);
        let (stored_key, server_key) = (made("stored key"), made("server key"));
        let iterations = self.users.iterations();
        ScramSecret::Verifier { salt, iterations, stored_key, server_key }
    }
}

#[async_trait]
impl AuthSource for Verifiers {
    async fn get_password(&self, _login: &LoginInfo) -> PgWireResult<Password> {
        Err(PgWireError::ApiError("passwords are not known here".into()))
    }

    async fn get_scram_secret(&self, login: &LoginInfo) -> PgWireResult<(ScramSecret, Option<()>)> {
        let name = login.user().unwrap_or_default();
        let secret = match self.users.verifier(name).cloned() {
            Some(it) => ScramSecret::Verifier {
                salt: it.salt,
                iterations: it.iterations,
                stored_key: it.stored_key,
                server_key: it.server_key,
            },
            None => self.invented(name),
        };
        Ok((secret, None))
    }
}

/// What clients are told when they have logged in.
pub(crate) struct Parameters;

impl ServerParameterProvider for Parameters {
    fn server_parameters<C>(&self, client: &C) -> Option<HashMap<String, String>>
    where
        C: ClientInfo,
    {
        let user = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
        let application = client.metadata().get("application_name").cloned().unwrap_or_default();
        let parameters = [
            ("server_version", polite::SERVER_VERSION.to_owned()),
            ("server_encoding", "UTF8".to_owned()),
            ("client_encoding", "UTF8".to_owned()),
            ("DateStyle", "ISO, MDY".to_owned()),
            ("IntervalStyle", "postgres".to_owned()),
            ("TimeZone", "UTC".to_owned()),
            ("integer_datetimes", "on".to_owned()),
            ("standard_conforming_strings", "on".to_owned()),
            ("is_superuser", "off".to_owned()),
            ("in_hot_standby", "off".to_owned()),
            ("default_transaction_read_only", "off".to_owned()),
            ("session_authorization", user),
            ("application_name", application),
        ];
        Some(parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

impl Session {
    pub(super) fn new(console: Arc<Console>, door: Door, seated: bool) -> Session {
        let driver = AuthDriver::new(Parameters);
        let driver = driver.with_connection_manager(Arc::clone(&console.cancels));
        Session { console, door, seated, driver }
    }

    /// What somebody may do who needs no password.
    fn trusted(&self, user: &str) -> Option<Level> {
        match self.door {
            // Whoever wants to be careful takes a name that may only see.
            Door::Unix { owner: true } => {
                Some(self.console.settings.users.level(user).unwrap_or(Level::Admin))
            }
            Door::Unix { owner: false } | Door::Tcp => None,
        }
    }

    async fn begin<C>(&self, client: &mut C) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let user = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
        if user.is_empty() {
            return Err(wire::fatal(Refused::new("28000", "no user name was given")));
        }
        if !self.seated {
            self.console.view.metrics.logins_refused.one("full");
            let refused = Refused::new("53300", "the console has too many connections already");
            return Err(wire::fatal(refused.hint("console.connections_max says how many.")));
        }
        if let Some(level) = self.trusted(&user) {
            client.session_extensions().insert(Login { user, level });
            return self.driver.complete_authentication(client, None).await;
        }
        let mechanism = self.console.passwords.asked_over(client.is_secure()).create();
        self.driver.begin_authentication(client, mechanism).await.map(drop)
    }
}

#[async_trait]
impl StartupHandler for Session {
    async fn on_startup<C>(
        &self,
        client: &mut C,
        message: PgWireFrontendMessage,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match message {
            PgWireFrontendMessage::Startup(startup) => {
                protocol_negotiation(client, &startup).await?;
                save_startup_parameters_to_metadata(client, &startup);
                self.begin(client).await
            }
            PgWireFrontendMessage::PasswordMessageFamily(message) => {
                let user = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
                let level = self.console.settings.users.level(&user);
                match (self.driver.advance_authentication(client, message).await, level) {
                    (Ok(AuthOutcome::InProgress), _) => Ok(()),
                    (Ok(AuthOutcome::Authenticated { final_message, .. }), Some(level)) => {
                        client.session_extensions().insert(Login { user, level });
                        self.driver.complete_authentication(client, final_message).await
                    }
                    (Err(error @ PgWireError::IoError(_)), _) => Err(error),
                    (Ok(AuthOutcome::Authenticated { .. }) | Err(_), _) => {
                        self.console.view.metrics.logins_refused.one("password");
                        Err(refused(&user))
                    }
                }
            }
            _ => {
                let message = "expected a start of a connection, or a password";
                Err(wire::fatal(Refused::new("08P01", message)))
            }
        }
    }
}

/// One answer for whatever was wrong, as Postgres gives it.
fn refused(user: &str) -> PgWireError {
    let shown: String = user.chars().take(63).collect();
    tracing::warn!(user = shown, "a login to the console was refused");
    let message = format!("password authentication failed for user \"{shown}\"");
    wire::fatal(Refused::new("28P01", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_has_a_verifier_of_its_own() {
        let random = SystemRandom::new();
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &random).unwrap();
        let verifiers = Verifiers { users: Arc::default(), secret };
        let of = |name: &str| match verifiers.invented(name) {
            ScramSecret::Verifier { salt, iterations, stored_key, server_key } => {
                assert_eq!((salt.len(), iterations, stored_key.len()), (16, 4096, 32));
                (salt, stored_key, server_key)
            }
            other @ ScramSecret::SaltedPassword { .. } => panic!("{other:?}"),
        };
        assert_eq!(of("ann"), of("ann"));
        assert_ne!(of("ann").0, of("ben").0);
        assert_ne!(of("ann").1, of("ann").2);
    }
}
