//! Making tokens, for development: what `walcast token` and `walcast demo` print.
//!
//! The daemon never signs; a service that issues tokens in earnest has a library of its own.

use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde_json::{Map, Value};

use super::settings::Secret;

/// Why a token cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key is not of the algorithm's kind.
    #[error(
        "not a key for this algorithm (expected a secret for HS256, else a PKCS#8 private key)"
    )]
    WrongKey,
}

/// Signs `claims`.
///
/// `key` is an HMAC algorithm's secret as it stands, or a private key in PEM (PKCS#8, `BEGIN
/// PRIVATE KEY`) for the other algorithms. The claims are not looked at.
///
/// # Errors
///
/// [`SignError`] when the key is not of the algorithm's kind.
pub fn development_token(
    algorithm: Algorithm,
    kid: Option<&str>,
    key: &Secret,
    claims: &Map<String, Value>,
) -> Result<String, SignError> {
    let bytes = key.expose();
    let key = match algorithm.family() {
        AlgorithmFamily::Hmac => Ok(EncodingKey::from_secret(bytes)),
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(bytes),
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(bytes),
        AlgorithmFamily::Ed => EncodingKey::from_ed_pem(bytes),
    };
    let key = key.map_err(|_| SignError::WrongKey)?;
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, &key).map_err(|_| SignError::WrongKey)
}
