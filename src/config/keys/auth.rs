//! Section `auth`: whose tokens are believed.

use crate::config::keys::kind::{Key, Kind, key, seconds};

pub(super) const KEYS: &[Key] = &[
    key(
        "auth.role_claim",
        Kind::ClaimPath,
        Some("role"),
        "The claim that names the database role; `[\"app_metadata\", \"role\"]` is a claim inside another.",
    ),
    key(
        "auth.roles",
        Kind::Texts,
        Some(""),
        "The database roles that a token may name. Every other is refused.",
    ),
    key(
        "auth.default_role",
        Kind::Text,
        None,
        "The role of a token that names none. Default: such a token is refused.",
    ),
    key(
        "auth.anonymous_role",
        Kind::Text,
        None,
        "The role of a client without a token. Default: a token is required.",
    ),
    key(
        "auth.audience",
        Kind::Texts,
        Some(""),
        "Who a token must be meant for: its `aud` has to hold one of these. Empty: not compared.",
    ),
    key(
        "auth.issuer",
        Kind::Texts,
        Some(""),
        "Who must have issued a token: its `iss` has to be one of these. Empty: not compared.",
    ),
    key(
        "auth.leeway_seconds",
        seconds(0, 3600),
        Some("30"),
        "How far the issuer's clock and ours may be apart.",
    ),
    key(
        "auth.grace_seconds",
        seconds(0, 3600),
        Some("10"),
        "How long a WebSocket session whose token is over may take to bring another by `auth`. Nothing is delivered meanwhile. 0: it is closed at once.",
    ),
    key(
        "auth.expiry_required",
        Kind::Boolean,
        Some("true"),
        "Whether a token must have an `exp`. Without one nothing ends what a leaked token allows.",
    ),
    key(
        "auth.keys[].algorithm",
        Kind::Text,
        None,
        "The one algorithm that the key is for: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA. Required.",
    ),
    key(
        "auth.keys[].secret_file",
        Kind::File,
        None,
        "For HS algorithms: a file with the secret, at least 32 bytes; one line end after it is dropped.",
    ),
    key(
        "auth.keys[].pem_file",
        Kind::File,
        None,
        "For all other algorithms: a file with the public key in PEM.",
    ),
    key(
        "auth.keys[].kid",
        Kind::Text,
        None,
        "The key's name as tokens give it in `kid`. Default: the key is tried for every token of its algorithm that no named key answers to.",
    ),
    key(
        "auth.jwks[].url",
        Kind::Text,
        None,
        "Where an issuer publishes its keys (JWKS), as in `https://login.example.com/.well-known/jwks.json`. No redirect is followed. Required.",
    ),
    key(
        "auth.jwks[].issuer",
        Kind::Texts,
        Some(""),
        "Who issues tokens with these keys: `iss` has to be one of these. Empty: what `auth.issuer` says. With several issuers name each, so that none can issue for another.",
    ),
    key(
        "auth.jwks[].algorithms",
        Kind::Texts,
        Some(""),
        "The algorithms for which its keys count, of those with public keys. Empty: each key says by its `alg` or its curve, and an RSA key without `alg` is for RS256.",
    ),
    key(
        "auth.jwks[].ca_file",
        Kind::File,
        None,
        "The authorities of its certificate, in PEM. Default: the operating system's.",
    ),
    key(
        "auth.jwks[].allow_http",
        Kind::Boolean,
        Some("false"),
        "Whether the address may be `http://` on another machine. Whoever is on the way could then sign tokens.",
    ),
    key(
        "auth.jwks[].refresh_seconds",
        seconds(1, 86_400),
        Some("600"),
        "The longest time between two looks, and so how long a withdrawn key may count. A `max-age` of the answer can make it shorter.",
    ),
    key(
        "auth.jwks[].refetch_seconds",
        seconds(1, 3600),
        Some("10"),
        "The shortest time between two looks, whatever tokens are shown. A token that names an unknown key brings one about.",
    ),
    key(
        "auth.jwks[].keep_seconds",
        seconds(0, 2_592_000),
        Some("86400"),
        "How long its keys count after the last time that the address could be read.",
    ),
    key(
        "auth.settings[].name",
        Kind::Text,
        None,
        "A setting that the database's own policies read with `current_setting`, such as `app.tenant_id`. Required.",
    ),
    key(
        "auth.settings[].claim",
        Kind::ClaimPath,
        None,
        "The claim that the application's gateway sets it to: a name, or a path as in `role_claim`. Required.",
    ),
];
