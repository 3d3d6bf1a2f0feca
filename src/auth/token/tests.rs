use super::*;
use crate::auth::settings::{Key, Material, Secret};
use crate::auth::sign::development_token;
use serde_json::json;

const NOW: u64 = 1_800_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/tokens/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn secret(bytes: impl AsRef<[u8]>) -> Material {
    Material::Secret(Secret::new(bytes.as_ref().to_vec()))
}

fn pem(name: &str) -> Material {
    Material::PublicPem(fixture(name))
}

fn key(algorithm: Algorithm, material: Material) -> Key {
    Key { algorithm, kid: None, material }
}

fn settings(keys: Vec<Key>) -> Settings {
    let roles = vec!["customer".to_owned(), "driver".to_owned()];
    Settings { keys, roles, ..Settings::default() }
}

fn hmac() -> Settings {
    settings(vec![key(Algorithm::HS256, secret(SECRET))])
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

/// A token from its parts as text, signed by HS256 with [`SECRET`] whatever the header says.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn with_claims(claims: &str) -> Result<Claims, TokenError> {
    verify(hmac(), &signed(r#"{"alg":"HS256"}"#, claims))
}

fn with_header(header: &str) -> Result<Claims, TokenError> {
    verify(hmac(), &signed(header, &good_claims()))
}

fn good_claims() -> String {
    format!(r#"{{"sub":"7","role":"customer","exp":{}}}"#, NOW + 60)
}

fn verify(settings: Settings, token: &str) -> Result<Claims, TokenError> {
    Verifier::new(settings).unwrap().verify_at(token, now())
}

fn refused(result: Result<Claims, TokenError>) -> TokenError {
    result.unwrap_err()
}

#[test]
fn a_good_token_becomes_claims() {
    let claims = with_claims(&good_claims()).unwrap();
    assert_eq!(claims.role(), "customer");
    assert_eq!(claims.subject(), Some("7"));
    assert_eq!(claims.expires_at(), Some(now() + Duration::from_secs(60 + 30)));
    assert_eq!(claims.json(), &json!({"sub": "7", "role": "customer", "exp": NOW + 60}));
}

#[test]
fn verify_uses_the_clock() {
    let verifier = Verifier::new(hmac()).unwrap();
    let in_2286 = r#"{"role":"customer","exp":9999999999}"#;
    verifier.verify(&signed(r#"{"alg":"HS256"}"#, in_2286)).unwrap();
    let in_2001 = r#"{"role":"customer","exp":999999999}"#;
    let token = signed(r#"{"alg":"HS256"}"#, in_2001);
    assert_eq!(verifier.verify(&token).unwrap_err(), TokenError::Expired);
}

/// Every algorithm with the key that it signs with and the one that it verifies with.
const KEYS: &[(Algorithm, &str, &str)] = &[
    (Algorithm::HS256, "secret.txt", "secret.txt"),
    (Algorithm::HS384, "secret.txt", "secret.txt"),
    (Algorithm::HS512, "secret.txt", "secret.txt"),
    (Algorithm::RS256, "rsa.key.pem", "rsa.pub.pem"),
    (Algorithm::RS384, "rsa.key.pem", "rsa.pub.pem"),
    (Algorithm::RS512, "rsa.key.pem", "rsa.pub.pem"),
    (Algorithm::PS256, "rsa.key.pem", "rsa.pub.pem"),
    (Algorithm::PS384, "rsa.key.pem", "rsa.pub.pem"),
    (Algorithm::PS512, "rsa.key.pem", "rsa.pub.pem"),
    (Algorithm::ES256, "ec256.key.pem", "ec256.pub.pem"),
    (Algorithm::ES384, "ec384.key.pem", "ec384.pub.pem"),
    (Algorithm::EdDSA, "ed25519.key.pem", "ed25519.pub.pem"),
];

fn material(name: &str) -> Material {
    if name.ends_with(".pem") { pem(name) } else { secret(fixture(name)) }
}

fn token_of(algorithm: Algorithm, private: &str, kid: Option<&str>) -> String {
    let claims = json!({"role": "driver", "exp": NOW + 60});
    let private = Secret::new(fixture(private));
    development_token(algorithm, kid, &private, claims.as_object().unwrap()).unwrap()
}

#[test]
fn each_algorithm_is_believed_with_its_own_key_and_with_no_other() {
    for (algorithm, private, _) in KEYS {
        let token = token_of(*algorithm, private, None);
        for (other, _, public) in KEYS {
            let result = verify(settings(vec![key(*other, material(public))]), &token);
            if algorithm == other {
                assert_eq!(result.unwrap().role(), "driver");
            } else {
                assert_eq!(refused(result), TokenError::UnknownKey, "{algorithm:?} at {other:?}");
            }
        }
    }
}

#[test]
fn a_key_of_another_kind_is_refused_at_start() {
    for (algorithm, _, _) in KEYS {
        for file in
            ["secret.txt", "rsa.pub.pem", "ec256.pub.pem", "ec384.pub.pem", "ed25519.pub.pem"]
        {
            let own = KEYS.iter().any(|(name, _, public)| name == algorithm && *public == file);
            let result = Verifier::new(settings(vec![key(*algorithm, material(file))]));
            assert_eq!(result.is_ok(), own, "{algorithm:?} with {file}: {result:?}");
        }
    }
}

fn key_error(algorithm: Algorithm, material: Material) -> KeyError {
    match Verifier::new(settings(vec![key(algorithm, material)])).unwrap_err() {
        AuthError::Key { position: 1, source, .. } => source,
        other => panic!("{other}"),
    }
}

#[test]
fn a_public_key_never_serves_as_a_secret() {
    let public = fixture("rsa.pub.pem");
    for prefix in ["", " ", "\n", "\t\r\n ", "\u{feff}"] {
        let bytes = [prefix.as_bytes(), public.as_slice()].concat();
        assert_eq!(key_error(Algorithm::HS256, secret(bytes)), KeyError::SecretIsPem);
    }
    assert_eq!(key_error(Algorithm::HS256, pem("rsa.pub.pem")), KeyError::SecretNeeded);
}

#[test]
fn a_key_that_does_not_belong_here_is_named() {
    let cases = [
        (Algorithm::RS256, "rsa.key.pem", KeyError::PrivateKey),
        (Algorithm::ES256, "ec256.key.pem", KeyError::PrivateKey),
        (Algorithm::RS256, "rsa.cert.pem", KeyError::Certificate),
        (Algorithm::RS256, "rsa1024.pub.pem", KeyError::RsaTooShort),
        (Algorithm::RS256, "secret.txt", KeyError::NotPublicPem),
        (Algorithm::RS256, "ec256.pub.pem", KeyError::WrongKind),
        (Algorithm::ES256, "ec384.pub.pem", KeyError::WrongKind),
        (Algorithm::EdDSA, "rsa.pub.pem", KeyError::WrongKind),
    ];
    for (algorithm, file, error) in cases {
        assert_eq!(key_error(algorithm, pem(file)), error, "{algorithm:?} with {file}");
    }
    assert_eq!(key_error(Algorithm::HS256, secret("short")), KeyError::SecretTooShort);
    assert_eq!(key_error(Algorithm::RS256, secret(SECRET)), KeyError::PublicKeyNeeded);
    let cut = b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n";
    assert_eq!(key_error(Algorithm::EdDSA, Material::PublicPem(cut.to_vec())), KeyError::WrongKind);
}

#[test]
fn an_algorithm_of_the_senders_choice_finds_no_key() {
    for name in ["none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", "HS257", "RS256", "ES256K"]
    {
        let token = signed(&json!({"alg": name}).to_string(), &good_claims());
        assert_eq!(refused(verify(hmac(), &token)), TokenError::UnknownKey, "{name}");
        let (message, _) = token.rsplit_once('.').unwrap();
        assert_eq!(refused(verify(hmac(), &format!("{message}."))), TokenError::UnknownKey);
    }
    for alg in ["null", "256", "[\"HS256\"]", "{}"] {
        assert_eq!(refused(with_header(&format!(r#"{{"alg":{alg}}}"#))), TokenError::Malformed);
    }
    assert_eq!(refused(with_header("{}")), TokenError::Malformed);
    assert_eq!(refused(with_header(r#"{"alg":"none","alg":"HS256"}"#)), TokenError::Malformed);
}

#[test]
fn a_token_signed_by_a_public_key_as_a_secret_is_refused() {
    let claims = json!({"role": "driver", "exp": NOW + 60});
    let public = Secret::new(fixture("rsa.pub.pem"));
    let token = development_token(Algorithm::HS256, None, &public, claims.as_object().unwrap());
    let rsa = settings(vec![key(Algorithm::RS256, pem("rsa.pub.pem"))]);
    assert_eq!(refused(verify(rsa, &token.unwrap())), TokenError::UnknownKey);
}

#[test]
fn a_signature_must_be_there_and_right() {
    let token = signed(r#"{"alg":"HS256"}"#, &good_claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let forged = [
        format!("{message}."),
        format!("{message}.AAAA"),
        format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 32])),
        token.replacen("eyJzdWIi", "eyJzdWJi", 1),
    ];
    for token in forged {
        let error = refused(verify(hmac(), &token));
        assert_eq!(error, TokenError::Signature, "{token}");
    }
    for token in [format!("{message}.{signature}="), format!("{message}.{signature}!")] {
        assert_eq!(refused(verify(hmac(), &token)), TokenError::Malformed, "{token}");
    }
}

#[test]
fn what_is_not_three_parts_is_no_token() {
    for token in ["", ".", "..", "a.b", "a.b.c.d", "Bearer x.y.z", "\0.\0.\0", "é.é.é"] {
        assert_eq!(refused(verify(hmac(), token)), TokenError::Malformed, "{token}");
    }
    let large = "a".repeat(TOKEN_LEN_MAX + 1);
    assert_eq!(refused(verify(hmac(), &large)), TokenError::TooLarge);
}

#[test]
fn the_header_cannot_bring_its_own_key() {
    let rsa = || settings(vec![key(Algorithm::RS256, pem("rsa.pub.pem"))]);
    for field in ["jwk", "jku", "x5u", "x5c"] {
        let header = json!({"alg": "HS256", field: "https://evil.example/keys"}).to_string();
        assert!(with_header(&header).is_ok(), "{field} is ignored, not obeyed");
        let header = json!({"alg": "RS256", field: {"kty": "oct", "k": "AAAA"}}).to_string();
        assert_eq!(refused(verify(rsa(), &signed(&header, &good_claims()))), TokenError::Signature);
    }
    let critical = r#"{"alg":"HS256","crit":["b64"],"b64":false}"#;
    assert_eq!(refused(with_header(critical)), TokenError::Critical);
}

#[test]
fn a_kid_selects_among_the_keys_of_the_settings() {
    let other = "ffffffffffffffffffffffffffffffff";
    let named = |kid: &str, bytes: &str| Key {
        kid: Some(kid.to_owned()),
        ..key(Algorithm::HS256, secret(bytes))
    };
    let two = || settings(vec![named("new", SECRET), named("old", other)]);
    let with_kid =
        |kid: &str| signed(&json!({"alg": "HS256", "kid": kid}).to_string(), &good_claims());
    assert!(verify(two(), &with_kid("new")).is_ok());
    assert_eq!(refused(verify(two(), &with_kid("old"))), TokenError::Signature);
    let hostile =
        ["../../dev/null", "' OR 1=1 --", "https://evil.example/k", "", "NEW", "new\u{0301}"];
    for kid in hostile {
        assert_eq!(refused(verify(two(), &with_kid(kid))), TokenError::UnknownKey, "{kid}");
        assert!(verify(hmac(), &with_kid(kid)).is_ok(), "one key without a name: {kid}");
    }
    assert_eq!(refused(with_header(r#"{"alg":"HS256","kid":1}"#)), TokenError::Malformed);
    assert!(verify(two(), &signed(r#"{"alg":"HS256"}"#, &good_claims())).is_ok());
    let error = Verifier::new(settings(vec![named("a", SECRET), named("a", other)])).unwrap_err();
    assert_eq!(error, AuthError::SameKid { first: 1, second: 2 });
}

#[test]
fn times_are_whole_numbers_of_seconds() {
    for name in ["exp", "nbf", "iat"] {
        for value in [
            "\"1800000060\"",
            "1800000060.5",
            "1.8e9",
            "-1",
            "null",
            "1e400",
            "[1800000060]",
            "{}",
            "true",
            "18446744073709551616",
            "18446744073709551615",
        ] {
            let mut claims = format!(r#"{{"role":"customer","{name}":{value}"#);
            if name != "exp" {
                claims.push_str(r#","exp":1800000060"#);
            }
            claims.push('}');
            assert_eq!(refused(with_claims(&claims)), TokenError::TimeMalformed, "{claims}");
        }
    }
}

#[test]
fn leeway_is_on_the_tokens_side_by_exactly_its_length() {
    let at = |exp: u64, nbf: u64, iat: u64| {
        with_claims(&json!({"role": "driver", "exp": exp, "nbf": nbf, "iat": iat}).to_string())
    };
    assert!(at(NOW - 29, NOW + 30, NOW + 30).is_ok());
    assert_eq!(refused(at(NOW - 30, NOW, NOW)), TokenError::Expired);
    assert_eq!(refused(at(NOW + 9, NOW + 31, NOW)), TokenError::NotYetValid);
    assert_eq!(refused(at(NOW + 9, NOW, NOW + 31)), TokenError::NotYetValid);
    assert_eq!(refused(at(0, 0, 0)), TokenError::Expired);
}

#[test]
fn an_expiry_is_required_unless_the_settings_say_otherwise() {
    let token = signed(r#"{"alg":"HS256"}"#, r#"{"role":"customer"}"#);
    assert_eq!(refused(verify(hmac(), &token)), TokenError::ExpiryMissing);
    let claims = verify(Settings { expiry_required: false, ..hmac() }, &token).unwrap();
    assert_eq!(claims.expires_at(), None);
}

#[test]
fn audience_and_issuer_keep_tenants_apart() {
    let tenant_a = Settings {
        audience: vec!["a".to_owned(), "a2".to_owned()],
        issuer: vec!["https://a".to_owned()],
        ..hmac()
    };
    let token = |aud: Value, iss: Value| {
        let claims = json!({"role": "driver", "exp": NOW + 9, "aud": aud, "iss": iss});
        verify(tenant_a.clone(), &signed(r#"{"alg":"HS256"}"#, &claims.to_string()))
    };
    assert!(token(json!("a"), json!("https://a")).is_ok());
    assert!(token(json!(["x", "a2"]), json!("https://a")).is_ok());
    for aud in [
        json!("b"),
        json!([]),
        json!(["b"]),
        json!(null),
        json!("A"),
        json!({"a": 1}),
        json!(["a", 1]),
    ] {
        assert_eq!(refused(token(aud, json!("https://a"))), TokenError::Audience);
    }
    for iss in [json!("https://b"), json!(null), json!(["https://a"]), json!("https://a/")] {
        assert_eq!(refused(token(json!("a"), iss)), TokenError::Issuer);
    }
    let bare = signed(r#"{"alg":"HS256"}"#, &good_claims());
    assert_eq!(refused(verify(tenant_a, &bare)), TokenError::Audience);
}

#[test]
fn only_a_listed_role_is_taken() {
    for role in [
        "\"postgres\"",
        "\"service_role\"",
        "\"Customer\"",
        "\"customer \"",
        "null",
        "1",
        "[\"customer\"]",
    ] {
        let claims = format!(r#"{{"role":{role},"exp":{}}}"#, NOW + 9);
        assert_eq!(refused(with_claims(&claims)), TokenError::RoleRefused, "{role}");
    }
    let none = format!(r#"{{"exp":{}}}"#, NOW + 9);
    assert_eq!(refused(with_claims(&none)), TokenError::RoleMissing);
    let token = signed(r#"{"alg":"HS256"}"#, &none);
    let with_default = Settings { default_role: Some("member".to_owned()), ..hmac() };
    assert_eq!(verify(with_default, &token).unwrap().role(), "member");
}

#[test]
fn the_role_may_lie_deeper() {
    let nested = Settings {
        role_claim: vec!["app_metadata".to_owned(), "role".to_owned()],
        anonymous_role: Some("visitor".to_owned()),
        ..hmac()
    };
    let claims = json!({"role": "x", "app_metadata": {"role": "driver"}, "exp": NOW + 9});
    let token = signed(r#"{"alg":"HS256"}"#, &claims.to_string());
    assert_eq!(verify(nested.clone(), &token).unwrap().role(), "driver");
    let anonymous = Verifier::new(nested).unwrap().anonymous().unwrap();
    assert_eq!(anonymous.role(), "visitor");
    assert_eq!(anonymous.json(), &json!({"app_metadata": {"role": "visitor"}}));
    assert_eq!(anonymous.expires_at(), None);
}

#[test]
fn without_an_anonymous_role_a_token_is_required() {
    assert!(Verifier::new(hmac()).unwrap().anonymous().is_none());
}

#[test]
fn a_claim_given_twice_is_refused() {
    let twice = format!(r#"{{"role":"customer","exp":{},"role":"driver"}}"#, NOW + 9);
    assert_eq!(refused(with_claims(&twice)), TokenError::Malformed);
    let deep = format!(r#"{{"role":"customer","exp":{},"x":[{{"a":1,"\u0061":2}}]}}"#, NOW + 9);
    assert_eq!(refused(with_claims(&deep)), TokenError::Malformed);
}

#[test]
fn nothing_of_a_token_or_key_is_shown() {
    let verifier = Verifier::new(hmac()).unwrap();
    let token = signed(r#"{"alg":"HS256"}"#, &good_claims());
    let claims = verifier.verify_at(&token, now()).unwrap();
    let mut shown = format!("{verifier:?} {claims:?} {:?}", hmac());
    for broken in [format!("{token}x"), token.replace("eyJ", "eyK"), token.to_uppercase()] {
        let error = refused(verifier.verify_at(&broken, now()));
        shown.push_str(&format!("{error} {error:?}"));
    }
    for part in token.split('.').chain([SECRET, "\"7\"", "48, 49, 50"]) {
        assert!(!shown.contains(part), "{part} in {shown}");
    }
}
