//! `walcast token`: a token for development.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::{Map, Value};

use crate::auth::sign::{SignError, development_token};
use crate::auth::{Material, Secret, Settings};
use crate::cli::{CliError, ConfigArguments};

/// Makes a token for development, signed with a key of the configuration
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    walcast token --sub 7 --role customer\n  \
    walcast token --sub 7 --role driver --claim 'areas=[\"north\"]' --expires 8h\n  \
    walcast token --secret-file secret.txt --role customer\n  \
    walcast tail orders --token \"$(walcast token --role customer --sub 7)\"\n\n\
    The secret is the configuration's first HS key, unless a file is named. Services that issue\n\
    tokens in earnest sign them themselves.")]
pub struct Token {
    #[command(flatten)]
    config: ConfigArguments,

    /// Who: the claim sub
    #[arg(long, value_name = "TEXT")]
    sub: Option<String>,

    /// The database role: the claim that `auth.role_claim` names
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,

    /// Another claim, as JSON, or as text where it is none; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,

    /// How long it is good for: 90s, 15m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    expires: Duration,

    /// Signs with this secret instead of the configuration's
    #[arg(long, value_name = "FILE", conflicts_with = "private_key_file")]
    secret_file: Option<PathBuf>,

    /// Signs with this private key (PEM, PKCS#8) instead of a secret
    #[arg(long, value_name = "FILE", requires = "algorithm")]
    private_key_file: Option<PathBuf>,

    /// The algorithm, where a file is named [default: HS256]
    #[arg(long, value_name = "NAME")]
    algorithm: Option<Algorithm>,

    /// The key's name, for the token's header
    #[arg(long, value_name = "TEXT")]
    kid: Option<String>,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum TokenCommandError {
    /// The key's file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration has no secret, as where all keys are public ones.
    #[error("the configuration has no HS key (expected --secret-file or --private-key-file)")]
    NoSecret,
    /// The file does not hold a key of this kind.
    #[error("the algorithm does not go with the file (--secret-file is for HS algorithms)")]
    WrongFile,
    /// `--claim` is not `name=value`.
    #[error("--claim: expected NAME=VALUE")]
    Claim,
    /// The expiry is further away than a clock can say.
    #[error("--expires is too long")]
    TooLong,
    /// The key does not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// What signs, and what the tokens of these settings have to say besides.
struct Signer {
    algorithm: Algorithm,
    kid: Option<String>,
    secret: Secret,
    settings: Settings,
}

impl Token {
    pub(super) fn run(self) -> Result<ExitCode, CliError> {
        let signer = self.signer()?;
        self.warn_about_role(&signer.settings);
        let claims = self.claims(&signer.settings, SystemTime::now())?;
        let kid = signer.kid.as_deref();
        let token = development_token(signer.algorithm, kid, &signer.secret, &claims)
            .map_err(TokenCommandError::from)?;
        writeln!(std::io::stdout(), "{token}").map_err(CliError::Output)?;
        Ok(ExitCode::SUCCESS)
    }

    fn signer(&self) -> Result<Signer, CliError> {
        let file = self.secret_file.as_ref().or(self.private_key_file.as_ref());
        let settings = if file.is_none() || self.config.is_given() {
            self.config.load()?.auth
        } else {
            Settings::default()
        };
        let Some(path) = file else {
            let secret = settings.keys.iter().find_map(|key| match &key.material {
                Material::Secret(secret) => Some((key.algorithm, key.kid.clone(), secret.clone())),
                Material::PublicPem(_) => None,
            });
            let (algorithm, kid, secret) = secret.ok_or(TokenCommandError::NoSecret)?;
            return Ok(Signer { algorithm, kid: self.kid.clone().or(kid), secret, settings });
        };
        let algorithm = self.algorithm.unwrap_or(Algorithm::HS256);
        let hmac = algorithm.family() == AlgorithmFamily::Hmac;
        if hmac != self.secret_file.is_some() {
            return Err(TokenCommandError::WrongFile.into());
        }
        let mut bytes = std::fs::read(path)
            .map_err(|source| TokenCommandError::Unreadable { path: path.clone(), source })?;
        if hmac && bytes.ends_with(b"\n") {
            bytes.pop();
        }
        if hmac && bytes.ends_with(b"\r") {
            bytes.pop();
        }
        Ok(Signer { algorithm, kid: self.kid.clone(), secret: Secret::new(bytes), settings })
    }

    fn claims(
        &self,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Map<String, Value>, TokenCommandError> {
        let mut claims = Map::new();
        for (name, wanted) in [("aud", &settings.audience), ("iss", &settings.issuer)] {
            if let Some(first) = wanted.first() {
                claims.insert(name.to_owned(), Value::from(first.as_str()));
            }
        }
        if let Some(sub) = &self.sub {
            claims.insert("sub".to_owned(), Value::from(sub.as_str()));
        }
        if let (Some(role), Some((first, rest))) = (&self.role, settings.role_claim.split_first()) {
            let value = rest.iter().rev().fold(Value::from(role.as_str()), |inner, name| {
                Value::Object(Map::from_iter([(name.clone(), inner)]))
            });
            claims.insert(first.clone(), value);
        }
        let seconds = |time: Option<SystemTime>| {
            let since = time?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(Value::from(since.as_secs()))
        };
        let issued = seconds(Some(now)).ok_or(TokenCommandError::TooLong)?;
        let expires = seconds(now.checked_add(self.expires)).ok_or(TokenCommandError::TooLong)?;
        claims.insert("iat".to_owned(), issued);
        claims.insert("exp".to_owned(), expires);
        for claim in &self.claims {
            let (name, value) = claim.split_once('=').ok_or(TokenCommandError::Claim)?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            claims.insert(name.to_owned(), value);
        }
        Ok(claims)
    }

    fn warn_about_role(&self, settings: &Settings) {
        let listed = |role: &String| settings.roles.contains(role);
        match &self.role {
            Some(role) if !settings.roles.is_empty() && !listed(role) => {
                tracing::warn!(role, "auth.roles does not list this role: it will be refused");
            }
            None if settings.default_role.is_none() => {
                tracing::warn!("the token names no role and will be refused: add --role");
            }
            Some(_) | None => {}
        }
    }
}

/// Reads `90s`, `15m`, `1h`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number and s, m, h or d, as in 1h".to_owned();
    let unit = text.chars().last().ok_or_else(expected)?;
    let digits = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = digits.parse().map_err(|_| expected())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(expected()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Key, Verifier};
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        token: Token,
    }

    fn parse(arguments: &[&str]) -> Token {
        Alone::try_parse_from([&["token"], arguments].concat()).unwrap().token
    }

    #[test]
    fn a_token_is_believed_by_the_settings_it_was_made_for() {
        let secret = Secret::new(b"0123456789abcdef0123456789abcdef".to_vec());
        let key = Key {
            algorithm: Algorithm::HS256,
            kid: None,
            material: Material::Secret(secret.clone()),
        };
        let settings = Settings {
            keys: vec![key],
            role_claim: vec!["app".to_owned(), "role".to_owned()],
            roles: vec!["customer".to_owned()],
            audience: vec!["walcast".to_owned()],
            issuer: vec!["me".to_owned()],
            ..Settings::default()
        };
        let command = parse(&[
            "--sub",
            "7",
            "--role",
            "customer",
            "--claim",
            "areas=[1]",
            "--claim",
            "x=a b",
        ]);
        let claims = command.claims(&settings, SystemTime::now()).unwrap();
        let token = development_token(Algorithm::HS256, None, &secret, &claims).unwrap();
        let claims = Verifier::new(settings).unwrap().verify(&token).unwrap();
        assert_eq!((claims.role(), claims.subject()), ("customer", Some("7")));
        assert_eq!(claims.json()["areas"], json!([1]));
        assert_eq!(claims.json()["x"], json!("a b"));
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in ["", "h", "1", "-1h", "1.5h", "1y", "1é", "999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
