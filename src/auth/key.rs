//! A key of the settings, checked and ready to verify with.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use ring::digest;

use super::settings::{Key, Material, Secret};

/// How short an HMAC secret may be, in bytes. RFC 7518 asks for the hash's size, which is 32 for
/// HS256; shorter ones can be guessed offline by whoever holds one token.
const SECRET_LEN_MIN: usize = 32;

/// How short the DER of an RSA public key may be, in bytes: one of 2048 bits takes 270.
const RSA_DER_LEN_MIN: usize = 256;

/// Why a key of the settings cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A public key was given for an HMAC algorithm.
    #[error("the algorithm needs a secret, not a public key")]
    SecretNeeded,
    /// A secret was given for an algorithm with public keys.
    #[error("the algorithm needs a public key in PEM, not a secret")]
    PublicKeyNeeded,
    /// The secret is one that can be guessed.
    #[error("the secret is shorter than 32 bytes")]
    SecretTooShort,
    /// The secret is a PEM file: whoever knows the public key could sign with it.
    #[error("the secret is a PEM file: a public key must never serve as a secret")]
    SecretIsPem,
    /// The PEM holds something else than one public key.
    #[error("not a public key in PEM (expected BEGIN PUBLIC KEY)")]
    NotPublicPem,
    /// The PEM holds a private key, which does not belong on this machine.
    #[error("this is a private key; give the public one (openssl pkey -in KEY -pubout)")]
    PrivateKey,
    /// The PEM holds a certificate.
    #[error("this is a certificate; give its public key (openssl x509 -in CERT -noout -pubkey)")]
    Certificate,
    /// The key is of another kind, or on another curve, than the algorithm's.
    #[error("the key is not of the kind that the algorithm needs")]
    WrongKind,
    /// The RSA key is one that can be factored.
    #[error("the RSA key is shorter than 2048 bits")]
    RsaTooShort,
}

impl Key {
    /// Whether a [`Verifier`](super::Verifier) could use the key.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when the key is not of its algorithm's kind, too weak, or not a key.
    pub fn check(&self) -> Result<(), KeyError> {
        ReadyKey::new(self).map(|_| ())
    }
}

/// A key whose kind has been compared with its algorithm.
#[derive(Clone, Debug)]
pub(super) struct ReadyKey {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    pub(super) decoding: DecodingKey,
    /// What the key is, so that it is known again.
    print: [u8; 32],
    /// What the claims that it has signed hold on to.
    pub(super) signer: Arc<Signer>,
}

/// A key as those see it whose token it has signed: it counts, or it was withdrawn.
#[derive(Debug, Default)]
pub(super) struct Signer {
    withdrawn: AtomicBool,
}

impl Signer {
    /// Ends what was opened with the key.
    pub(super) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }
}

impl ReadyKey {
    /// Checks a key of the settings.
    pub(super) fn new(key: &Key) -> Result<ReadyKey, KeyError> {
        let decoding = match (&key.material, key.algorithm.family()) {
            (Material::Secret(secret), AlgorithmFamily::Hmac) => secret_key(secret)?,
            (Material::Secret(_), _) => return Err(KeyError::PublicKeyNeeded),
            (Material::PublicPem(_), AlgorithmFamily::Hmac) => return Err(KeyError::SecretNeeded),
            (Material::PublicPem(pem), family) => public_key(pem, family)?,
        };
        let bytes = match &key.material {
            Material::Secret(secret) => secret.expose(),
            Material::PublicPem(pem) => pem,
        };
        ReadyKey::of(decoding, key.algorithm, key.kid.clone(), &[bytes])
    }

    /// A key of that algorithm, made of `parts`.
    pub(super) fn of(
        decoding: DecodingKey,
        algorithm: Algorithm,
        kid: Option<String>,
        parts: &[&[u8]],
    ) -> Result<ReadyKey, KeyError> {
        // The provider looks at the key (the point is on the curve, the length is right) before it
        // looks at the signature, and says so only here; an empty signature is merely `false`.
        jsonwebtoken::crypto::verify("", b"", &decoding, algorithm)
            .map_err(|_| KeyError::WrongKind)?;
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in parts {
            hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let mut print = [0; 32];
        print.copy_from_slice(hash.finish().as_ref());
        Ok(ReadyKey { algorithm, kid, decoding, print, signer: Arc::default() })
    }

    /// Whether it answers to the same name and algorithm, so that a token can't say which it means.
    pub(super) fn is_named_as(&self, other: &ReadyKey) -> bool {
        self.kid.is_some() && self.kid == other.kid && self.algorithm == other.algorithm
    }

    /// Whether it is the same key for the same algorithm, whatever it is called.
    pub(super) fn is(&self, other: &ReadyKey) -> bool {
        self.algorithm == other.algorithm && self.print == other.print
    }
}

/// Lets `new` keys follow on `old` ones: a key that stays is the same to whom it has signed for.
pub(super) fn succeed(old: &[ReadyKey], new: &mut [ReadyKey]) {
    for key in new.iter_mut() {
        let before = old.iter().find(|before| before.is(key) && !before.signer.is_withdrawn());
        if let Some(before) = before {
            key.signer = Arc::clone(&before.signer);
        }
    }
}

/// Withdraws those of `old` that are not among `new`; gives how many.
pub(super) fn withdraw(old: &[ReadyKey], new: &[ReadyKey]) -> usize {
    let gone = old.iter().filter(|key| !new.iter().any(|other| other.is(key)));
    gone.map(|key| key.signer.withdraw()).count()
}

fn secret_key(secret: &Secret) -> Result<DecodingKey, KeyError> {
    let bytes = secret.expose();
    if bytes.windows(10).any(|window| window == b"-----BEGIN") {
        return Err(KeyError::SecretIsPem);
    }
    if bytes.len() < SECRET_LEN_MIN {
        return Err(KeyError::SecretTooShort);
    }
    Ok(DecodingKey::from_secret(bytes))
}

fn public_key(pem: &[u8], family: AlgorithmFamily) -> Result<DecodingKey, KeyError> {
    let text = std::str::from_utf8(pem).map_err(|_| KeyError::NotPublicPem)?;
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyError::PrivateKey);
    }
    if text.contains("BEGIN CERTIFICATE-----") {
        return Err(KeyError::Certificate);
    }
    if text.matches("-----BEGIN ").count() != 1 || !text.contains("PUBLIC KEY-----") {
        return Err(KeyError::NotPublicPem);
    }
    let generic = text.contains("-----BEGIN PUBLIC KEY-----");
    if !generic && !matches!(family, AlgorithmFamily::Rsa) {
        return Err(KeyError::WrongKind);
    }
    let decoding = match family {
        AlgorithmFamily::Rsa => rsa_key(pem, generic)?,
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem).map_err(|_| KeyError::WrongKind)?,
        AlgorithmFamily::Ed => ed_key(pem)?,
        AlgorithmFamily::Hmac => return Err(KeyError::SecretNeeded),
    };
    Ok(decoding)
}

fn rsa_key(pem: &[u8], generic: bool) -> Result<DecodingKey, KeyError> {
    // The library takes any key's bytes for an RSA key's; the other two readers know better.
    let other = DecodingKey::from_ec_pem(pem).is_ok() || DecodingKey::from_ed_pem(pem).is_ok();
    if generic && other {
        return Err(KeyError::WrongKind);
    }
    let decoding = DecodingKey::from_rsa_pem(pem).map_err(|_| KeyError::WrongKind)?;
    match decoding.try_get_as_bytes() {
        Ok(der) if der.len() >= RSA_DER_LEN_MIN => Ok(decoding),
        Ok(_) => Err(KeyError::RsaTooShort),
        Err(_) => Err(KeyError::WrongKind),
    }
}

fn ed_key(pem: &[u8]) -> Result<DecodingKey, KeyError> {
    let decoding = DecodingKey::from_ed_pem(pem).map_err(|_| KeyError::WrongKind)?;
    // The provider takes the first 32 bytes unasked, and panics where there are fewer.
    match decoding.try_get_as_bytes() {
        Ok(point) if point.len() == 32 => Ok(decoding),
        Ok(_) | Err(_) => Err(KeyError::WrongKind),
    }
}
