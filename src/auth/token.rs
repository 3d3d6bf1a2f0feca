//! A token's text in, [`Claims`] out: RFC 7515 (JWS, compact form) and RFC 7519 (JWT).
//!
//! The signature is the library's business; what the header and the claims may say is decided
//! here, strictly, because lenient readings are where tokens have been forged: `none`, an
//! algorithm of the sender's choice, a key in the header, an `exp` that is a string and is
//! therefore skipped.
//!
//! The order is: size, form, header, key, signature, and only then the claims. Nothing in the
//! claims is looked at before the signature over them has been verified.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::{Map, Value};

use super::claims::Claims;
use super::json;
use super::key;
use super::key::{KeyError, ReadyKey, Signer};
use super::settings::Settings;
use super::source::{Source, Wait};

/// How many bytes a token may have. Larger ones are refused before they are looked at.
pub const TOKEN_LEN_MAX: usize = 8 * 1024;

/// Why tokens cannot be verified with these settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A key cannot be used; the source says why.
    #[error("key {position} ({algorithm:?}) cannot be used")]
    Key {
        /// Which of the settings' keys, the first being 1.
        position: usize,
        /// The algorithm that it was to be used for.
        algorithm: Algorithm,
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },

    /// Two keys answer to one name and algorithm.
    #[error("keys {first} and {second} have the same algorithm and the same kid")]
    SameKid {
        /// Which of the settings' keys, the first being 1.
        first: usize,
        /// The other.
        second: usize,
    },

    /// The path to the role is empty.
    #[error("the role claim has no name")]
    NoRoleClaim,
}

/// Why a token is not believed.
///
/// Every message is constant: none holds a part of the token, so all may be logged and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`TOKEN_LEN_MAX`].
    #[error("the token is larger than 8 KiB")]
    TooLarge,
    /// Not three base64url parts, or a part that is not JSON of one meaning.
    #[error("not a token (expected header.claims.signature, each in base64url)")]
    Malformed,
    /// Not one JSON object of one meaning, where claims were to be.
    #[error("the claims are not a JSON object in which each name stands once")]
    Claims,
    /// The header asks for something that has to be understood, and is not.
    #[error("the token's header names a critical extension that is not supported")]
    Critical,
    /// No key of the settings has the header's algorithm (and, where it gives one, its `kid`).
    #[error("no key for the token's algorithm and kid")]
    UnknownKey,
    /// No key that could have signed the token has.
    #[error("the token's signature is not valid")]
    Signature,
    /// `exp` is over, leeway included. The client should come back with a new token.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is in the future, leeway included.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The settings want an `exp` and there is none.
    #[error("the token has no exp")]
    ExpiryMissing,
    /// `exp`, `nbf` or `iat` is there and is not a whole number of seconds.
    #[error("exp, nbf and iat must be whole numbers of seconds")]
    TimeMalformed,
    /// `aud` names none of the settings' audiences.
    #[error("the token is not meant for this service (aud)")]
    Audience,
    /// `iss` is none of the settings' issuers.
    #[error("the token is from an issuer that is not trusted (iss)")]
    Issuer,
    /// The role is not there, and the settings have no default for it.
    #[error("the token names no role")]
    RoleMissing,
    /// The role is not one that the settings list, or not a string.
    #[error("the token names a role that is not allowed")]
    RoleRefused,
}

impl TokenError {
    /// The word for it in metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            TokenError::TooLarge => "too_large",
            TokenError::Malformed => "malformed",
            TokenError::Claims => "claims",
            TokenError::Critical => "critical_extension",
            TokenError::UnknownKey => "unknown_key",
            TokenError::Signature => "signature",
            TokenError::Expired => "expired",
            TokenError::NotYetValid => "not_yet_valid",
            TokenError::ExpiryMissing => "expiry_missing",
            TokenError::TimeMalformed => "time_malformed",
            TokenError::Audience => "audience",
            TokenError::Issuer => "issuer",
            TokenError::RoleMissing => "role_missing",
            TokenError::RoleRefused => "role_refused",
        }
    }
}

/// Verifies tokens by settings that were checked once.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<ReadyKey>,
    /// Keys that issuers publish.
    sources: Vec<Arc<Source>>,
    settings: Settings,
    /// Made once: every client without a token shares them.
    anonymous: Option<Claims>,
}

impl Verifier {
    /// Reads and checks the keys.
    ///
    /// # Errors
    ///
    /// [`AuthError`] for the first key that cannot be used; the daemon must not start then.
    pub fn new(mut settings: Settings) -> Result<Verifier, AuthError> {
        if settings.role_claim.is_empty() {
            return Err(AuthError::NoRoleClaim);
        }
        let mut keys: Vec<ReadyKey> = Vec::with_capacity(settings.keys.len());
        for (index, key) in settings.keys.iter().enumerate() {
            let position = index + 1;
            let ready = ReadyKey::new(key).map_err(|source| AuthError::Key {
                position,
                algorithm: key.algorithm,
                source,
            })?;
            if let Some(first) = keys.iter().position(|other| other.is_named_as(&ready)) {
                return Err(AuthError::SameKid { first: first + 1, second: position });
            }
            keys.push(ready);
        }
        settings.keys.clear();
        let published = std::mem::take(&mut settings.published).into_iter();
        let sources = published.map(|one| Arc::new(Source::new(one))).collect();
        let anonymous = anonymous(&settings);
        Ok(Verifier { keys, sources, settings, anonymous })
    }

    /// The same, following on the one that verified before: a key that stays is the same key to
    /// those whose tokens it has signed, and what was fetched need not be fetched again.
    ///
    /// # Errors
    ///
    /// As [`Verifier::new`]; nothing has changed then.
    pub fn after(before: &Verifier, settings: Settings) -> Result<Verifier, AuthError> {
        let mut verifier = Verifier::new(settings)?;
        key::succeed(&before.keys, &mut verifier.keys);
        for source in &mut verifier.sources {
            let same = |other: &&Arc<Source>| other.settings() == source.settings();
            if let Some(same) = before.sources.iter().find(same) {
                *source = Arc::clone(same);
            }
        }
        Ok(verifier)
    }

    /// Withdraws every key that `next`, which was made [`after`](Verifier::after) this one, does not
    /// have: what their tokens opened ends.
    pub fn give_way_to(&self, next: &Verifier) {
        key::withdraw(&self.keys, &next.keys);
        let is_next = |source: &Arc<Source>| next.sources.iter().any(|it| Arc::ptr_eq(it, source));
        for source in self.sources.iter().filter(|source| !is_next(source)) {
            source.abandon();
        }
    }

    /// The keys that issuers publish, for who looks after them.
    #[must_use]
    pub fn sources(&self) -> &[Arc<Source>] {
        &self.sources
    }

    /// Lets the key be looked for that a token names, where no key has that name. What is returned
    /// waits for the end of that; then the token may be verified again. Nothing is returned where
    /// it would be of no use.
    #[must_use]
    pub fn look_for_key(&self, token: &str) -> Option<Wait> {
        if self.sources.is_empty() || token.len() > TOKEN_LEN_MAX {
            return None;
        }
        let header = Header::read(token.split('.').next()?).ok()?;
        let kid = header.kid.as_deref()?;
        let keys = Keys::of(self);
        if header.algorithm.family() == AlgorithmFamily::Hmac || keys.has(&header) {
            return None;
        }
        Wait::new(self.sources.iter().filter_map(|source| source.want(kid)).collect())
    }

    /// Verifies one token, as of now.
    ///
    /// Costs one signature check per key that could have signed it: microseconds for HMAC, a
    /// fraction of a millisecond for the others.
    ///
    /// # Errors
    ///
    /// [`TokenError`]; the client is told its text, and that it needs another token.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        self.verify_at(token, SystemTime::now())
    }

    /// The claims of a client without a token: nothing but the anonymous role. `None` where the
    /// settings require a token.
    #[must_use]
    pub fn anonymous(&self) -> Option<Claims> {
        self.anonymous.clone()
    }

    /// The claims of a JSON object that somebody said who may act as anybody: an operator. Role and
    /// times count as in a token; who issued it and for whom does not, and no `exp` is needed.
    ///
    /// # Errors
    ///
    /// [`TokenError`]; the text is refused where a token with it would be.
    pub fn assume(&self, json: &str) -> Result<Claims, TokenError> {
        if json.len() > TOKEN_LEN_MAX {
            return Err(TokenError::TooLarge);
        }
        let claims = json::object(json.as_bytes()).map_err(|json::Ambiguous| TokenError::Claims)?;
        let expires_at = match self.check_times(&claims, SystemTime::now()) {
            Err(TokenError::ExpiryMissing) => None,
            checked => checked?,
        };
        let claims = Value::Object(claims);
        let role = self.role(&claims)?.to_owned();
        Ok(Claims::new(claims, &role, expires_at, None))
    }

    fn verify_at(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(TokenError::TooLarge);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header = Header::read(header)?;
        let payload = decode(payload)?;
        decode(signature)?;
        let keys = Keys::of(self);
        let (signer, issuer) = keys.signer(&header, message, signature)?;

        let claims = json::object(&payload).map_err(|json::Ambiguous| TokenError::Malformed)?;
        let expires_at = self.check_times(&claims, now)?;
        self.check_audience(&claims)?;
        check_issuer(issuer, &claims)?;
        let claims = Value::Object(claims);
        let role = self.role(&claims)?.to_owned();
        Ok(Claims::new(claims, &role, expires_at, Some(Arc::clone(signer))))
    }

    /// Compares `exp`, `nbf` and `iat` with the clock; gives the time when the leeway after `exp`
    /// ends.
    fn check_times(
        &self,
        claims: &Map<String, Value>,
        now: SystemTime,
    ) -> Result<Option<SystemTime>, TokenError> {
        let leeway = self.settings.leeway;
        for name in ["nbf", "iat"] {
            if let Some(from) = seconds(claims, name)?
                && from.duration_since(now).is_ok_and(|ahead| ahead > leeway)
            {
                return Err(TokenError::NotYetValid);
            }
        }
        let Some(expiry) = seconds(claims, "exp")? else {
            let required = self.settings.expiry_required;
            return if required { Err(TokenError::ExpiryMissing) } else { Ok(None) };
        };
        let end = expiry.checked_add(leeway).ok_or(TokenError::TimeMalformed)?;
        if end <= now { Err(TokenError::Expired) } else { Ok(Some(end)) }
    }

    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let wanted = &self.settings.audience;
        if wanted.is_empty() {
            return Ok(());
        }
        let is_wanted = |value: &Value| {
            value.as_str().is_some_and(|audience| wanted.iter().any(|one| one == audience))
        };
        let meant = match claims.get("aud") {
            Some(Value::Array(audiences)) => {
                audiences.iter().all(Value::is_string) && audiences.iter().any(is_wanted)
            }
            Some(audience) => is_wanted(audience),
            None => false,
        };
        if meant { Ok(()) } else { Err(TokenError::Audience) }
    }

    fn role<'a>(&'a self, claims: &'a Value) -> Result<&'a str, TokenError> {
        let path = &self.settings.role_claim;
        match path.iter().try_fold(claims, |value, name| value.get(name)) {
            Some(Value::String(role)) if self.settings.roles.contains(role) => Ok(role),
            Some(_) => Err(TokenError::RoleRefused),
            None => self.settings.default_role.as_deref().ok_or(TokenError::RoleMissing),
        }
    }
}

/// Every key that may have signed a token, as of one moment, with who may have issued it then.
struct Keys<'a> {
    own: &'a Verifier,
    published: Vec<(Arc<Vec<ReadyKey>>, &'a [String])>,
}

impl Keys<'_> {
    fn of(verifier: &Verifier) -> Keys<'_> {
        let global = &verifier.settings.issuer;
        let published = verifier.sources.iter().map(|source| {
            let issuer = &source.settings().issuer;
            (source.keys(), if issuer.is_empty() { global } else { issuer }.as_slice())
        });
        Keys { own: verifier, published: published.collect() }
    }

    fn all(&self) -> impl Iterator<Item = (&ReadyKey, &[String])> {
        let issuer = self.own.settings.issuer.as_slice();
        let own = self.own.keys.iter().map(move |key| (key, issuer));
        let published = self.published.iter();
        own.chain(published.flat_map(|(keys, issuer)| keys.iter().map(|key| (key, *issuer))))
    }

    /// Whether there is a key of the name and algorithm that a token's header gives.
    fn has(&self, header: &Header) -> bool {
        header.kid.is_some()
            && self.all().any(|(key, _)| header.algorithm == key.algorithm && key.kid == header.kid)
    }

    /// The key that has signed the message, and who may have issued it.
    fn signer(
        &self,
        header: &Header,
        message: &str,
        signature: &str,
    ) -> Result<(&Arc<Signer>, &[String]), TokenError> {
        let named = self.has(header);
        let mut tried = false;
        for (key, issuer) in self.all().filter(|(key, _)| key.algorithm == header.algorithm) {
            let meant = match (&header.kid, named) {
                (None, _) => true,
                (Some(_), true) => key.kid == header.kid,
                (Some(_), false) => key.kid.is_none(),
            };
            if !meant {
                continue;
            }
            tried = true;
            let verdict = jsonwebtoken::crypto::verify(
                signature,
                message.as_bytes(),
                &key.decoding,
                key.algorithm,
            );
            if matches!(verdict, Ok(true)) {
                return Ok((&key.signer, issuer));
            }
        }
        Err(if tried { TokenError::Signature } else { TokenError::UnknownKey })
    }
}

fn check_issuer(wanted: &[String], claims: &Map<String, Value>) -> Result<(), TokenError> {
    let issuer = claims.get("iss").and_then(Value::as_str);
    let trusted = issuer.is_some_and(|issuer| wanted.iter().any(|one| one == issuer));
    if trusted || wanted.is_empty() { Ok(()) } else { Err(TokenError::Issuer) }
}

fn anonymous(settings: &Settings) -> Option<Claims> {
    let role = settings.anonymous_role.as_deref()?;
    let mut claims = Value::String(role.to_owned());
    for name in settings.role_claim.iter().rev() {
        claims = Value::Object(Map::from_iter([(name.clone(), claims)]));
    }
    Some(Claims::new(claims, role, None, None))
}

/// The two fields of a token's header that are obeyed. `jwk`, `jku`, `x5u` and `x5c` are not among
/// them: they let the sender choose the key.
struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
}

impl Header {
    fn read(encoded: &str) -> Result<Header, TokenError> {
        let header = decode(encoded)?;
        let mut header = json::object(&header).map_err(|json::Ambiguous| TokenError::Malformed)?;
        if header.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => name.parse().map_err(|_| TokenError::UnknownKey)?,
            Some(_) | None => return Err(TokenError::Malformed),
        };
        let kid = match header.remove("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid),
            Some(_) => return Err(TokenError::Malformed),
        };
        Ok(Header { algorithm, kid })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}

/// A point in time given in whole seconds since 1970, as all of RFC 7519's are in practice.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_u64().ok_or(TokenError::TimeMalformed)?;
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    time.map(Some).ok_or(TokenError::TimeMalformed)
}

#[cfg(test)]
mod tests;
