//! A verified token's content.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

/// What a client has proved about itself.
///
/// Made only by [`Verifier::verify`](super::Verifier::verify),
/// [`Verifier::anonymous`](super::Verifier::anonymous) and, for operators,
/// [`Verifier::assume`](super::Verifier::assume). Cloning shares the content: one
/// allocation per token, however many subscriptions are judged by it.
///
/// `Debug` shows nothing of the content, so that a struct with claims in it can be logged.
#[derive(Clone)]
pub struct Claims {
    verified: Arc<Verified>,
}

struct Verified {
    json: Value,
    role: Box<str>,
    expires_at: Option<SystemTime>,
}

impl Claims {
    /// Only for `token`, which has just verified `json`.
    pub(super) fn new(json: Value, role: &str, expires_at: Option<SystemTime>) -> Claims {
        Claims { verified: Arc::new(Verified { json, role: role.into(), expires_at }) }
    }

    /// Every claim, as the token has them: an object without a key given twice, numbers with all
    /// their digits. What `current_setting('request.jwt.claims')` would hold.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.verified.json
    }

    /// The database role; one that the settings list, or their anonymous or default role.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.verified.role
    }

    /// The claim `sub`, where it is a string.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.verified.json.get("sub").and_then(Value::as_str)
    }

    /// From when on these claims admit nothing more: the token's `exp` and the leeway after it.
    ///
    /// Absent for anonymous claims, and for a token without `exp` where the settings allow that.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.verified.expires_at
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(..)")
    }
}
