use super::*;
use serde_json::json;

/// The public keys of `fixtures/tokens`, as a set would have them.
fn published(name: &str) -> Value {
    let path = format!("{}/fixtures/tokens/jwks.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let keys = all["keys"].as_array().unwrap();
    keys.iter().find(|key| key["kid"] == name).unwrap().clone()
}

/// The key with some of its fields replaced; by null: left out.
fn changed(name: &str, fields: &Value) -> Value {
    let mut key = published(name);
    for (name, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => drop(key.as_object_mut().unwrap().remove(name)),
            value => key[name] = value.clone(),
        }
    }
    key
}

fn set(keys: &[Value], allowed: &[Algorithm]) -> Set {
    read(json!({ "keys": keys }).to_string().as_bytes(), allowed).unwrap()
}

fn algorithms(key: Value, allowed: &[Algorithm]) -> Vec<Algorithm> {
    set(&[key], allowed).keys.iter().map(|key| key.algorithm).collect()
}

fn unused(key: &Value) -> Unused {
    let set = set(std::slice::from_ref(key), &[]);
    assert!(set.keys.is_empty(), "{key}");
    let [(1, why)] = set.unused[..] else { panic!("{:?}", set.unused) };
    why
}

#[test]
fn a_key_has_the_algorithm_that_it_says_or_that_its_kind_has() {
    let no_alg = json!({ "alg": null });
    for (kid, own) in [
        ("rsa", Algorithm::RS256),
        ("ec256", Algorithm::ES256),
        ("ec384", Algorithm::ES384),
        ("ed25519", Algorithm::EdDSA),
    ] {
        assert_eq!(algorithms(published(kid), &[]), [own], "{kid}");
        assert_eq!(algorithms(changed(kid, &no_alg), &[]), [own], "{kid} without alg");
        assert_eq!(algorithms(published(kid), &[own]), [own]);
        assert_eq!(algorithms(published(kid), &[Algorithm::PS512]), []);
    }
    let two = [Algorithm::PS256, Algorithm::RS512];
    assert_eq!(algorithms(changed("rsa", &no_alg), &two), two, "as the settings say");
    assert_eq!(algorithms(changed("rsa", &json!({"alg": "PS384"})), &[]), [Algorithm::PS384]);
}

#[test]
fn a_key_that_can_t_be_used_is_left_out_and_said() {
    let one = |name: &str, fields: Value| unused(&changed(name, &fields));
    let secret = json!({"kty": "oct", "k": "AAAA", "alg": "HS256"});
    assert_eq!(unused(&secret), Unused::Secret);
    assert_eq!(one("rsa", json!({"d": "AAAA"})), Unused::Private);
    assert_eq!(one("rsa", json!({"use": "enc"})), Unused::NotForSignatures);
    assert_eq!(one("rsa", json!({"key_ops": ["encrypt"]})), Unused::NotForSignatures);
    assert_eq!(one("rsa", json!({"kty": "AKP"})), Unused::UnknownKind);
    assert_eq!(one("ec256", json!({"crv": "secp256k1"})), Unused::UnknownKind);
    assert_eq!(one("ed25519", json!({"crv": "X25519"})), Unused::UnknownKind);
    assert_eq!(one("rsa", json!({"alg": "RSA-OAEP"})), Unused::Algorithm);
    assert_eq!(one("rsa", json!({"alg": "none"})), Unused::Algorithm);
    for alg in ["HS256", "ES256", "EdDSA"] {
        assert_eq!(one("rsa", json!({"alg": alg})), Unused::WrongKind, "{alg}");
    }
    assert_eq!(one("ec256", json!({"alg": "ES384"})), Unused::WrongKind);
    assert_eq!(one("rsa", json!({"e": "AQ"})), Unused::Weak, "an exponent of 1");
    assert_eq!(one("rsa", json!({"e": "Ag"})), Unused::Weak);
    assert_eq!(one("rsa", json!({"n": "AQAB"})), Unused::Weak);
    assert_eq!(one("ec256", json!({"crv": "P-384", "alg": null})), Unused::Weak);
    let (x, y) = (published("ec256")["y"].clone(), published("ec256")["x"].clone());
    assert_eq!(one("ec256", json!({"x": x, "y": y})), Unused::Weak, "no point of the curve");
    assert_eq!(one("ed25519", json!({"x": "AAAA"})), Unused::Weak);
    assert_eq!(one("rsa", json!({"kid": 1})), Unused::Malformed);
    assert_eq!(one("rsa", json!({"n": null})), Unused::Malformed);
    assert_eq!(one("rsa", json!({"n": "a+b/"})), Unused::Malformed);
    assert_eq!(unused(&json!("key")), Unused::Malformed);
}

#[test]
fn others_count_where_one_is_left_out() {
    let keys = [json!({"kty": "oct", "k": "AAAA"}), published("rsa"), json!({"kty": "new"})];
    let set = set(&keys, &[]);
    assert_eq!(set.keys.len(), 1);
    assert_eq!(set.unused, [(1, Unused::Secret), (3, Unused::UnknownKind)]);
}

#[test]
fn of_two_keys_of_one_name_neither_counts_unless_they_are_the_same() {
    let (rsa, twin) = (published("ec256"), changed("ec256", &json!({"use": "sig"})));
    assert_eq!(set(&[rsa.clone(), twin], &[]).keys.len(), 1);
    // Another key of the same kind under the same name.
    let (ec384, ed) = (published("ec384"), changed("ed25519", &json!({"kid": "ec384"})));
    assert_eq!(set(&[ec384, ed], &[]).keys.len(), 2, "their algorithms differ");
    let negated = changed("rsa", &json!({"e": "AQAD"}));
    let set = set(&[published("rsa"), negated, rsa], &[]);
    assert_eq!(set.keys.len(), 1);
    assert_eq!(set.unused, [(1, Unused::SameKid), (2, Unused::SameKid)]);
}

#[test]
fn what_is_no_set_is_refused_as_a_whole() {
    let many = json!({ "keys": vec![published("rsa"); KEYS_MAX + 1] }).to_string();
    for (text, error) in [
        ("", SetError::NotJson),
        ("<html>", SetError::NotJson),
        ("[]", SetError::NotJson),
        (r#"{"keys":[],"keys":[]}"#, SetError::NotJson),
        (r#"{"keys":[{"kty":"RSA","kty":"oct"}]}"#, SetError::NotJson),
        ("{}", SetError::NoKeys),
        (r#"{"keys":{}}"#, SetError::NoKeys),
        (&many, SetError::NoKeys),
    ] {
        assert_eq!(read(text.as_bytes(), &[]).unwrap_err(), error, "{text}");
    }
    let set = read(br#"{"keys":[]}"#, &[]).unwrap();
    assert!(set.keys.is_empty() && set.unused.is_empty());
}

#[test]
fn a_key_of_a_set_is_the_same_as_long_as_it_is_there() {
    use crate::auth::key::{succeed, withdraw};
    let old = set(&[published("rsa"), published("ec256")], &[]).keys;
    let mut new = set(&[changed("rsa", &json!({"kid": "renamed"}))], &[]).keys;
    succeed(&old, &mut new);
    assert_eq!(withdraw(&old, &new), 1);
    assert!(!old[0].signer.is_withdrawn() && old[1].signer.is_withdrawn());
    assert!(std::sync::Arc::ptr_eq(&old[0].signer, &new[0].signer));
}
