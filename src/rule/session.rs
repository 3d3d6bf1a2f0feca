//! What a policy of the database can ask of the session that runs the query.
//!
//! A gateway verifies a token, sets the role that it names and puts the claims into settings of the
//! session; policies read them with `current_setting`. Here is what those settings hold for a
//! client of walcast.
//!
//! # Invariants
//!
//! - A setting that is not known is an error, never NULL: somebody else may set it.
//! - A setting that nobody set is NULL in a fresh session of PostgreSQL and empty in one in which it
//!   was set before. What depends on the difference is not answered: see [`Unset`].

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::rule::error::RuleError;
use crate::rule::expression::Node;

/// The setting that holds all claims, and what stands before the name of one claim's own.
const CLAIMS: &str = "request.jwt.claims";
const LEGACY: &str = "request.jwt.claim.";

/// Where in the claims something is: a name, or names that lead into objects.
pub type ClaimPath = Box<[Box<str>]>;

/// Settings that are made of claims, as the configuration says: the setting's name, and where in
/// the claims its value is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    by_name: BTreeMap<Box<str>, ClaimPath>,
}

/// What a setting that is known but not set is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rule) enum Unset {
    /// As in a session in which it was never set.
    Null,
    /// As in a session in which it was set before.
    Empty,
}

/// Who asks, for the policies of the database.
#[derive(Debug)]
pub struct Session<'a> {
    pub(in crate::rule) claims: &'a Json,
    pub(in crate::rule) role: &'a str,
    settings: &'a Settings,
    unset: Unset,
    /// Whether a setting was asked for that is not set.
    met_unset: Cell<bool>,
    /// Whether it is nobody's: every setting may be anything.
    is_anybody: bool,
}

impl Settings {
    /// Takes pairs of a setting's name and the claim's path.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = (Box<str>, ClaimPath)>) -> Settings {
        let lower = |name: Box<str>| Box::from(name.to_ascii_lowercase());
        let by_name = entries.into_iter().map(|(name, path)| (lower(name), path)).collect();
        Settings { by_name }
    }

    /// The names of all settings that are made of claims, in lower case.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// The places of all claims that settings are made of.
    pub fn paths(&self) -> impl Iterator<Item = &[Box<str>]> {
        self.by_name.values().map(|path| &**path)
    }
}

impl<'a> Session<'a> {
    /// The session of a client with these claims, under the role that they name.
    #[must_use]
    pub const fn new(claims: &'a Json, role: &'a str, settings: &'a Settings) -> Session<'a> {
        let (unset, met_unset) = (Unset::Null, Cell::new(false));
        Session { claims, role, settings, unset, met_unset, is_anybody: false }
    }

    /// The session of anybody under a role, to look at what policies read.
    pub(in crate::rule) const fn of_anybody(role: &'a str, settings: &'a Settings) -> Session<'a> {
        Session { is_anybody: true, ..Session::new(&Json::Null, role, settings) }
    }

    pub(in crate::rule) const fn is_anybody(&self) -> bool {
        self.is_anybody
    }

    /// Every setting that this session has, for one in which PostgreSQL itself judges the rows.
    #[must_use]
    pub fn to_settings(&self) -> Vec<(Box<str>, Box<str>)> {
        let mut all = vec![(Box::from(CLAIMS), Box::from(self.claims.to_string()))];
        let text = |claim: Option<&Json>| text_of(claim?).map(Box::from);
        for name in self.claims.as_object().into_iter().flat_map(|claims| claims.keys()) {
            let value = text(self.claims.get(name)).filter(|_| is_plain(name));
            all.extend(value.map(|value| (format!("{LEGACY}{name}").into(), value)));
        }
        for (name, path) in &self.settings.by_name {
            all.extend(text(self.at(path)).map(|value| (name.clone(), value)));
        }
        all
    }

    fn at(&self, path: &[Box<str>]) -> Option<&'a Json> {
        path.iter().try_fold(self.claims, |json, key| json.get(&**key))
    }

    /// The same session where what is not set is taken for `unset`.
    pub(in crate::rule) const fn taking(&self, unset: Unset) -> Session<'a> {
        let Session { claims, role, settings, is_anybody, .. } = *self;
        Session { claims, role, settings, unset, met_unset: Cell::new(false), is_anybody }
    }

    /// Whether an answer depended on a setting that is not set.
    pub(in crate::rule) const fn met_unset(&self) -> bool {
        self.met_unset.get()
    }

    /// `current_setting(name, missing_ok)`.
    pub(in crate::rule) fn setting(
        &self,
        name: &str,
        missing_ok: bool,
        token: &Node,
    ) -> Result<Option<String>, RuleError> {
        let name = name.to_ascii_lowercase();
        let claim = match &*name {
            CLAIMS => return Ok(Some(self.claims.to_string())),
            "role" => return Ok(Some(self.role.to_owned())),
            "request.jwt.claim" => None,
            _ => match name.strip_prefix(LEGACY) {
                Some(key) => self.legacy(key, token)?,
                None => {
                    let path = self.settings.by_name.get(&*name).ok_or_else(|| {
                        let reason = "it is not known what clients of walcast have there";
                        let hint = "name the claim that it is made of: [[auth.settings]]";
                        RuleError::unsupported(token, reason, hint)
                    })?;
                    self.at(path)
                }
            },
        };
        match claim {
            Some(Json::Array(_) | Json::Object(_)) => {
                let reason = "the claim is an object or an array, which has no one text";
                Err(RuleError::unsupported(token, reason, ""))
            }
            claim => match claim.and_then(text_of) {
                Some(text) => Ok(Some(text)),
                None => self.nothing(missing_ok, token),
            },
        }
    }

    /// A claim of its own setting, as gateways had it before there was one for all.
    fn legacy(&self, key: &str, token: &Node) -> Result<Option<&'a Json>, RuleError> {
        let Some(claims) = self.claims.as_object() else { return Ok(None) };
        // A setting of another name can't be set.
        if !is_plain(key) {
            return Ok(None);
        }
        let mut named = claims.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        let found = named.next().map(|(_, value)| value);
        if named.next().is_some() {
            let reason = "the names of two claims differ by case only";
            return Err(RuleError::unsupported(token, reason, ""));
        }
        Ok(found)
    }

    fn nothing(&self, missing_ok: bool, token: &Node) -> Result<Option<String>, RuleError> {
        self.met_unset.set(true);
        match self.unset {
            Unset::Empty => Ok(Some(String::new())),
            Unset::Null if missing_ok => Ok(None),
            Unset::Null => Err(RuleError::types(token, "the setting is not set", "")),
        }
    }
}

/// The text of a claim that has one.
fn text_of(claim: &Json) -> Option<String> {
    match claim {
        Json::String(text) => Some(text.clone()),
        Json::Bool(_) | Json::Number(_) => Some(claim.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// Whether a part of a setting's name is one that PostgreSQL takes.
fn is_plain(part: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let rest = |byte: u8| first(byte) || byte.is_ascii_digit() || byte == b'$';
    part.bytes().next().is_some_and(first) && part.bytes().all(rest)
}

/// Whether an application may have a setting of this name.
#[must_use]
pub fn is_setting_name(name: &str) -> bool {
    name.contains('.') && name.split('.').all(is_plain) && !name.starts_with("request.jwt.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(claims: &Json, name: &str) -> String {
        let path: ClaimPath = Box::new(["org".into(), "id".into()]);
        let settings = Settings::new([("App.Org".into(), path)]);
        let session = Session::new(claims, "web", &settings);
        let token = Node::Null;
        let answers = [Unset::Null, Unset::Empty].map(|unset| {
            let session = session.taking(unset);
            match session.setting(name, true, &token) {
                Ok(value) => format!("{value:?} {}", session.met_unset()),
                Err(error) => error.code().to_owned(),
            }
        });
        answers.join(", ")
    }

    #[test]
    fn settings_hold_what_a_gateway_puts_there() {
        let claims = json!({"sub": "7", "n": 1.50, "org": {"id": "x"}, "null": null, "a/b": "c"});
        assert_eq!(shown(&claims, "role"), "Some(\"web\") false, Some(\"web\") false");
        assert_eq!(shown(&claims, "APP.ORG"), "Some(\"x\") false, Some(\"x\") false");
        assert_eq!(shown(&claims, "request.jwt.claim.sub"), "Some(\"7\") false, Some(\"7\") false");
        assert_eq!(shown(&claims, "request.jwt.claim.null"), "None true, Some(\"\") true");
        assert_eq!(shown(&claims, "request.jwt.claim.a/b"), "None true, Some(\"\") true");
        assert_eq!(shown(&claims, "request.jwt.claim"), "None true, Some(\"\") true");
        assert_eq!(shown(&json!({}), "app.org"), "None true, Some(\"\") true");
    }

    #[test]
    fn what_is_not_known_is_no_null() {
        let claims = json!({"sub": "7", "org": {"id": []}, "Sub": "8"});
        for name in ["app.other", "timezone", "request.jwt.claim.sub", "app.org"] {
            assert_eq!(shown(&claims, name), "rule_unsupported, rule_unsupported", "{name}");
        }
    }

    #[test]
    fn a_question_gets_every_setting_that_has_a_text() {
        let claims = json!({"sub": "7", "a/b": "c", "o": {}, "org": {"id": true}});
        let path: ClaimPath = Box::new(["org".into(), "id".into()]);
        let settings = Settings::new([("app.org".into(), path)]);
        let all = Session::new(&claims, "web", &settings).to_settings();
        let names: Vec<&str> = all.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["request.jwt.claims", "request.jwt.claim.sub", "app.org"]);
    }
}
