//! Section `auth`: keys, where keys are published, and what tokens must say.

use std::net::IpAddr;
use std::time::Duration;

use hyper::Uri;
use jsonwebtoken::{Algorithm, AlgorithmFamily};

use crate::auth;
use crate::auth::Material;
use crate::auth::Published;
use crate::config::read::Reader;
use crate::rule::ClaimPath;
use crate::rule::Settings;
use crate::rule::is_setting_name;

/// Whose tokens are believed.
pub(super) fn settings(reader: &mut Reader) -> auth::Settings {
    let count = reader.entries.count("auth.keys");
    let mut keys: Vec<auth::Key> = Vec::with_capacity(count);
    for index in 0..count {
        let Some(key) = auth_key(reader, index) else { continue };
        let twin = keys.iter().any(|other| {
            other.kid.is_some() && other.kid == key.kid && other.algorithm == key.algorithm
        });
        if twin {
            let name = format!("auth.keys.{index}.kid");
            reader.mistake(&name, "another key has the same kid and algorithm".to_owned());
        }
        keys.push(key);
    }
    let published: Vec<Published> =
        (0..reader.entries.count("auth.jwks")).filter_map(|index| jwks(reader, index)).collect();
    let count = count + reader.entries.count("auth.jwks");
    let settings = auth::Settings {
        keys,
        published,
        role_claim: reader.claim_path("auth.role_claim"),
        roles: reader.texts("auth.roles"),
        default_role: reader.text("auth.default_role"),
        anonymous_role: reader.text("auth.anonymous_role"),
        audience: reader.texts("auth.audience"),
        issuer: reader.texts("auth.issuer"),
        leeway: Duration::from_secs(reader.integer("auth.leeway_seconds")),
        grace: Duration::from_secs(reader.integer("auth.grace_seconds")),
        expiry_required: reader.boolean("auth.expiry_required"),
    };
    if count == 0 && settings.anonymous_role.is_none() {
        let message = "missing, and auth.anonymous_role is too, so that nobody could connect; add \
                       [[auth.keys]] with algorithm and secret_file or pem_file, or [[auth.jwks]]";
        reader.mistake("auth.keys.0.algorithm", message.to_owned());
    }
    let names_no_role = settings.roles.is_empty() && settings.default_role.is_none();
    if count > 0 && names_no_role && !reader.entries.mistakes.iter().any(|m| m.key == "auth.roles")
    {
        let message = "empty, so that every token would be refused; list the roles that tokens may \
                       name, as in [\"customer\", \"driver\"]";
        reader.mistake("auth.roles", message.to_owned());
    }
    settings
}

/// Where an issuer publishes its keys.
fn jwks(reader: &mut Reader, index: usize) -> Option<Published> {
    let name = |leaf: &str| format!("auth.jwks.{index}.{leaf}");
    let text = reader.required(&name("url"), "https://login.example.com/.well-known/jwks.json");
    let allow_http = reader.boolean(&name("allow_http"));
    let url = if text.is_empty() { None } else { address(reader, &name("url"), &text, allow_http) };
    let names = reader.texts(&name("algorithms"));
    let algorithms: Vec<Algorithm> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let is_public = |one: &Algorithm| one.family() != AlgorithmFamily::Hmac;
    if algorithms.len() < names.len() || !algorithms.iter().all(is_public) {
        let expected = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";
        reader.wrong::<()>(&name("algorithms"), expected);
    }
    let ca_file = if reader.is_given(&name("ca_file")) {
        // It is opened at each look, so that another one counts; that it is there counts now.
        reader.content(&name("ca_file"))?;
        reader.file(&name("ca_file"))
    } else {
        None
    };
    Some(Published {
        issuer: reader.texts(&name("issuer")),
        algorithms,
        ca_file,
        refresh: Duration::from_secs(reader.integer(&name("refresh_seconds"))),
        refetch: Duration::from_secs(reader.integer(&name("refetch_seconds"))),
        keep: Duration::from_secs(reader.integer(&name("keep_seconds"))),
        url: url?,
    })
}

fn address(reader: &mut Reader, name: &str, text: &str, allow_http: bool) -> Option<Uri> {
    let url = text.parse::<Uri>().ok().filter(|url| {
        let plain = url.authority().is_some_and(|it| !it.as_str().contains('@'));
        plain && matches!(url.scheme_str(), Some("https" | "http"))
    });
    let Some(url) = url else {
        return reader.wrong(name, "an address that begins with https://, without a password");
    };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse().is_ok_and(|it: IpAddr| it.is_loopback());
    if url.scheme_str() == Some("http") && !is_here && !allow_http {
        let message = "whoever is on the way could put keys of his own there: https:// is needed, \
                       or allow_http = true";
        reader.mistake(name, message.to_owned());
        return None;
    }
    Some(url)
}

fn auth_key(reader: &mut Reader, index: usize) -> Option<auth::Key> {
    let name = |leaf: &str| format!("auth.keys.{index}.{leaf}");
    let kid = reader.text(&name("kid"));
    let text = reader.required(&name("algorithm"), "HS256");
    let algorithm = if text.is_empty() { None } else { text.parse::<Algorithm>().ok() };
    if !text.is_empty() && algorithm.is_none() {
        let expected = "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, \
                        ES384 or EdDSA";
        reader.wrong::<()>(&name("algorithm"), expected);
    }
    let (secret_file, pem_file) = (name("secret_file"), name("pem_file"));
    let (leaf, material) = match (reader.is_given(&secret_file), reader.is_given(&pem_file)) {
        (true, false) => (secret_file, reader.secret(&name("secret_file")).map(Material::Secret)),
        (false, true) => (pem_file, reader.content(&name("pem_file")).map(Material::PublicPem)),
        (true, true) => {
            reader.mistake(&pem_file, "a key has a secret_file or a pem_file, not both".to_owned());
            return None;
        }
        (false, false) => {
            let hmac = algorithm.is_none_or(|known| known.family() == AlgorithmFamily::Hmac);
            let missing = if hmac { secret_file } else { pem_file };
            reader.mistake(&missing, "missing: the key has to come from a file".to_owned());
            return None;
        }
    };
    let key = auth::Key { algorithm: algorithm?, kid, material: material? };
    if let Err(error) = key.check() {
        reader.mistake(&leaf, error.to_string());
        return None;
    }
    Some(key)
}

/// Settings of the database's sessions, and the claims that they are made of.
pub(super) fn made_of_claims(reader: &mut Reader) -> Settings {
    let mut entries: Vec<(Box<str>, ClaimPath)> = Vec::new();
    for index in 0..reader.entries.count("auth.settings") {
        let key = |leaf: &str| format!("auth.settings.{index}.{leaf}");
        let name = reader.required(&key("name"), "app.tenant_id");
        // PostgreSQL's own settings have no dot, and the gateway's are known.
        if !name.is_empty() && !is_setting_name(&name) {
            let expected = "a setting of the application, with a dot, such as app.tenant_id";
            reader.wrong::<()>(&key("name"), expected);
        }
        let claim = reader.claim_path(&key("claim")).into_iter().map(String::into_boxed_str);
        let lower = Box::from(name.to_ascii_lowercase());
        if entries.iter().any(|(other, _)| *other == lower) {
            reader.mistake(&key("name"), "this setting was named before".to_owned());
        }
        entries.push((lower, claim.collect()));
    }
    Settings::new(entries)
}
