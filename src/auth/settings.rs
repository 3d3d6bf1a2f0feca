//! What `auth` wants to be told.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use jsonwebtoken::Algorithm;

/// Whose tokens are believed, and what they must say.
///
/// With neither a key nor an anonymous role nobody could connect; the configuration refuses that,
/// this module does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The keys that may have signed a token.
    pub keys: Vec<Key>,

    /// Where issuers publish more of them.
    pub published: Vec<Published>,

    /// Where the role is in the claims: `["role"]`, or a path such as `["app_metadata", "role"]`.
    pub role_claim: Vec<String>,

    /// The database roles that a token may name. A token that names another is refused.
    pub roles: Vec<String>,

    /// The role of a token that names none. Absent: such a token is refused.
    pub default_role: Option<String>,

    /// The role of a client without a token. Absent: a token is required.
    pub anonymous_role: Option<String>,

    /// Who a token must be meant for: its `aud` has to hold one of these. Empty: not compared.
    pub audience: Vec<String>,

    /// Who must have issued a token: its `iss` has to be one of these. Empty: not compared.
    pub issuer: Vec<String>,

    /// How far the issuer's clock and ours may be apart, for `exp`, `nbf` and `iat`.
    ///
    /// 30 s unless told: machines that keep time at all are closer than that.
    pub leeway: Duration,

    /// How long a session whose token is over may take to bring another.
    ///
    /// 10 s unless told: a client that was told of the expiry a minute before needs none of it, and
    /// one that does not listen has no changes meanwhile.
    pub grace: Duration,

    /// Whether a token must have an `exp`. Yes unless told: a session lives for days, and without
    /// an expiry nothing would ever end what a leaked token allows.
    pub expiry_required: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            keys: Vec::new(),
            published: Vec::new(),
            role_claim: vec!["role".to_owned()],
            roles: Vec::new(),
            default_role: None,
            anonymous_role: None,
            audience: Vec::new(),
            issuer: Vec::new(),
            leeway: Duration::from_secs(30),
            grace: Duration::from_secs(10),
            expiry_required: true,
        }
    }
}

/// One key, and the one algorithm that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The algorithm. A token whose header names another is not tried with this key.
    pub algorithm: Algorithm,

    /// The key's name, as the `kid` of a token's header gives it. A key without one is tried for
    /// every token of its algorithm that no named key answers to.
    pub kid: Option<String>,

    /// The key itself.
    pub material: Material,
}

/// Where an issuer publishes its keys: a set (RFC 7517) at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The address; `https`, or `http` where the settings allowed it.
    pub url: Uri,

    /// Who issues tokens that these keys sign: `iss` has to be one of them. Empty: what
    /// [`Settings::issuer`] says.
    pub issuer: Vec<String>,

    /// The algorithms for which its keys count. Empty: each key says.
    pub algorithms: Vec<Algorithm>,

    /// The authorities of its certificate, in PEM. Absent: the operating system's.
    pub ca_file: Option<PathBuf>,

    /// The longest time between two looks at it. It may ask for a shorter one (`max-age`).
    pub refresh: Duration,

    /// The shortest time between two looks, whoever shows tokens with whatever `kid`, and whatever
    /// it asks for.
    pub refetch: Duration,

    /// How long its keys count after the last time that it could be read.
    pub keep: Duration,
}

/// What a signature is checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// The secret of an HMAC algorithm, at least 32 bytes of it.
    Secret(Secret),
    /// A public key in PEM, for every other algorithm.
    PublicPem(Vec<u8>),
}

/// Bytes that are not to be seen: `Debug` hides them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes `bytes` as they are.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes)
    }

    /// The bytes, for the one who needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
