//! A set of public keys as an issuer publishes it (RFC 7517), in; keys that are ready, out.
//!
//! A set is read leniently where that is harmless and strictly where it is not: a key that can't be
//! used is left out and said, and the others count. Nothing in it can widen what is believed:
//!
//! - A secret (`oct`) is refused: whoever can read the address could sign with it.
//! - Each key has its algorithms, from its `alg`, or from its kind: RSA without `alg` is RS256, or
//!   what the settings say, and a curve has one.
//! - A key that is for encryption, or that brings its private part, is left out.
//! - Two different keys of one name and algorithm are both left out.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::AlgorithmFamily;
use jsonwebtoken::DecodingKey;
use serde_json::Map;
use serde_json::Value;

use super::json;
use super::key::ReadyKey;

/// How many keys a set may have.
const KEYS_MAX: usize = 100;
/// How long an RSA key may be, in bytes: 2048 to 8192 bits.
const MODULUS_LEN: std::ops::RangeInclusive<usize> = 256..=1024;

/// The text is no set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// It is not a JSON object, or one that could be read in two ways.
    #[error("not a JSON object in which each name stands once")]
    NotJson,
    /// There is no list in it, or too long a one.
    #[error("no list of at most {KEYS_MAX} keys in it")]
    NoKeys,
}

/// Why a key of a set is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unused {
    /// It is not an object, or a field of it is not what the RFC says.
    #[error("not a key")]
    Malformed,
    /// It is a secret.
    #[error("it is a secret (oct), which must not be published")]
    Secret,
    /// Its private part is there for everybody.
    #[error("it is a private key, which must not be published")]
    Private,
    /// It is not for signatures.
    #[error("it is not for signatures")]
    NotForSignatures,
    /// Its kind or its curve is not known here.
    #[error("its kind is not known")]
    UnknownKind,
    /// Its algorithm is not known here, or not one of those in the settings.
    #[error("its algorithm is not known, or not allowed")]
    Algorithm,
    /// Its algorithm is of another kind than the key.
    #[error("its algorithm is not for such a key")]
    WrongKind,
    /// It is too short, too long, or not a key.
    #[error("it is too weak, or no point of its curve")]
    Weak,
    /// Another key has its name and algorithm.
    #[error("another key has the same kid and algorithm")]
    SameKid,
}

/// What was in a set.
#[derive(Debug, Default)]
pub(super) struct Set {
    pub(super) keys: Vec<ReadyKey>,
    /// The keys that are not used: which one, from 1, and why.
    pub(super) unused: Vec<(usize, Unused)>,
}

/// Reads a set of which only keys for `allowed` algorithms count; empty: for all.
pub(super) fn read(text: &[u8], allowed: &[Algorithm]) -> Result<Set, SetError> {
    let set = json::object(text).map_err(|json::Ambiguous| SetError::NotJson)?;
    let Some(Value::Array(list)) = set.get("keys") else { return Err(SetError::NoKeys) };
    if list.len() > KEYS_MAX {
        return Err(SetError::NoKeys);
    }
    let mut set = Set::default();
    let mut found: Vec<(usize, ReadyKey)> = Vec::new();
    for (position, key) in (1..).zip(list) {
        match one(key, allowed) {
            Ok(keys) => found.extend(keys.into_iter().map(|key| (position, key))),
            Err(why) => set.unused.push((position, why)),
        }
    }
    for (position, key) in &found {
        let twin = |(_, other): &&(usize, ReadyKey)| key.is_named_as(other) && !key.is(other);
        if found.iter().any(|other| twin(&other)) {
            set.unused.push((*position, Unused::SameKid));
        } else if !set.keys.iter().any(|other| other.is(key) && other.kid == key.kid) {
            set.keys.push(key.clone());
        }
    }
    Ok(set)
}

/// One key, once for each of its algorithms.
fn one(key: &Value, allowed: &[Algorithm]) -> Result<Vec<ReadyKey>, Unused> {
    let key = key.as_object().ok_or(Unused::Malformed)?;
    let kid = text(key, "kid")?.map(str::to_owned);
    let parts = Parts::of(key)?;
    is_for_signatures(key)?;
    let algorithms = match text(key, "alg")? {
        Some(name) => vec![name.parse::<Algorithm>().map_err(|_| Unused::Algorithm)?],
        None => parts.algorithms(allowed),
    };
    let is_allowed = |one: &Algorithm| allowed.is_empty() || allowed.contains(one);
    let algorithms: Vec<Algorithm> = algorithms.into_iter().filter(is_allowed).collect();
    if algorithms.is_empty() {
        return Err(Unused::Algorithm);
    }
    let ready = |algorithm: Algorithm| parts.ready(algorithm, kid.clone());
    algorithms.into_iter().map(ready).collect()
}

fn is_for_signatures(key: &Map<String, Value>) -> Result<(), Unused> {
    if text(key, "use")?.is_some_and(|what| what != "sig") {
        return Err(Unused::NotForSignatures);
    }
    match key.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(what)) if what.iter().any(|one| one == "verify") => Ok(()),
        Some(Value::Array(_)) => Err(Unused::NotForSignatures),
        Some(_) => Err(Unused::Malformed),
    }
}

/// The numbers that a key is made of.
enum Parts {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ec { algorithm: Algorithm, x: Vec<u8>, y: Vec<u8> },
    Ed { x: Vec<u8> },
}

impl Parts {
    fn of(key: &Map<String, Value>) -> Result<Parts, Unused> {
        let kind = text(key, "kty")?.ok_or(Unused::Malformed)?;
        if kind == "oct" {
            return Err(Unused::Secret);
        }
        if key.contains_key("d") {
            return Err(Unused::Private);
        }
        match (kind, text(key, "crv")?) {
            ("RSA", _) => rsa(number(key, "n")?, number(key, "e")?),
            ("EC", Some("P-256")) => ec(Algorithm::ES256, 32, key),
            ("EC", Some("P-384")) => ec(Algorithm::ES384, 48, key),
            ("OKP", Some("Ed25519")) => {
                let x = bytes(key, "x")?;
                // The provider takes the first 32 bytes unasked, and panics where there are fewer.
                if x.len() == 32 { Ok(Parts::Ed { x }) } else { Err(Unused::Weak) }
            }
            _ => Err(Unused::UnknownKind),
        }
    }

    /// The algorithms of a key that does not name one.
    fn algorithms(&self, allowed: &[Algorithm]) -> Vec<Algorithm> {
        match self {
            Parts::Ec { algorithm, .. } => vec![*algorithm],
            Parts::Ed { .. } => vec![Algorithm::EdDSA],
            Parts::Rsa { .. } => {
                let is_rsa = |one: &&Algorithm| one.family() == AlgorithmFamily::Rsa;
                let of_settings: Vec<Algorithm> = allowed.iter().filter(is_rsa).copied().collect();
                if allowed.is_empty() { vec![Algorithm::RS256] } else { of_settings }
            }
        }
    }

    fn ready(&self, algorithm: Algorithm, kid: Option<String>) -> Result<ReadyKey, Unused> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (decoding, parts) = match (self, algorithm.family()) {
            (Parts::Rsa { modulus, exponent }, AlgorithmFamily::Rsa) => (
                Ok(DecodingKey::from_rsa_raw_components(modulus, exponent)),
                vec![modulus.as_slice(), exponent],
            ),
            (Parts::Ec { algorithm: own, x, y }, AlgorithmFamily::Ec) if *own == algorithm => {
                (DecodingKey::from_ec_components(&encode(x), &encode(y)), vec![x.as_slice(), y])
            }
            (Parts::Ed { x }, AlgorithmFamily::Ed) => {
                (DecodingKey::from_ed_components(&encode(x)), vec![x.as_slice()])
            }
            _ => return Err(Unused::WrongKind),
        };
        let decoding = decoding.map_err(|_| Unused::Malformed)?;
        ReadyKey::of(decoding, algorithm, kid, &parts).map_err(|_| Unused::Weak)
    }
}

fn rsa(modulus: Vec<u8>, exponent: Vec<u8>) -> Result<Parts, Unused> {
    let is_long = modulus.first() >= Some(&0x80) || modulus.len() > *MODULUS_LEN.start();
    // With 1 every text would be its own signature.
    let is_odd = exponent.last().is_some_and(|last| last % 2 == 1) && exponent != [1];
    let fits = MODULUS_LEN.contains(&modulus.len()) && is_long && is_odd && exponent.len() <= 8;
    if fits { Ok(Parts::Rsa { modulus, exponent }) } else { Err(Unused::Weak) }
}

fn ec(algorithm: Algorithm, len: usize, key: &Map<String, Value>) -> Result<Parts, Unused> {
    let (x, y) = (bytes(key, "x")?, bytes(key, "y")?);
    if x.len() != len || y.len() != len {
        return Err(Unused::Weak);
    }
    Ok(Parts::Ec { algorithm, x, y })
}

fn text<'a>(key: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Unused> {
    match key.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Unused::Malformed),
    }
}

fn bytes(key: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Unused> {
    let text = text(key, name)?.ok_or(Unused::Malformed)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Unused::Malformed)
}

/// A number without the zeros that may lead it.
fn number(key: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Unused> {
    let bytes = bytes(key, name)?;
    Ok(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
}

#[cfg(test)]
mod tests;
