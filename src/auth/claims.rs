//! A verified token's content.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use super::key::Signer;

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
    /// The key that has signed them; absent where none has.
    signer: Option<Arc<Signer>>,
}

impl Claims {
    /// Only for `token`, which has just verified `json`.
    pub(super) fn new(
        json: Value,
        role: &str,
        expires_at: Option<SystemTime>,
        signer: Option<Arc<Signer>>,
    ) -> Claims {
        Claims { verified: Arc::new(Verified { json, role: role.into(), expires_at, signer }) }
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

    /// Whether a token with these claims may take the place of one with `before`, on one session.
    ///
    /// # Errors
    ///
    /// [`Succession`]: it is somebody else's, or it is older, and then perhaps one that was replaced
    /// because it said too much.
    pub fn may_follow(&self, before: &Claims) -> Result<(), Succession> {
        let (old, new) = (&before.verified.json, &self.verified.json);
        // A `sub` says nothing without who gave it.
        if old.get("sub").is_some()
            && (old.get("sub") != new.get("sub") || old.get("iss") != new.get("iss"))
        {
            return Err(Succession::OtherSubject);
        }
        let seconds = |of: &Value, name: &str| of.get(name).and_then(Value::as_u64);
        let age = |name: &str| seconds(new, name).zip(seconds(old, name));
        match age("iat").or_else(|| age("exp")) {
            Some((new, old)) if new < old => Err(Succession::Older),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the key that has signed them does not count any more. It costs one relaxed load.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.verified.signer.as_ref().is_some_and(|signer| signer.is_withdrawn())
    }

    /// From when on these claims admit nothing more: the token's `exp` and the leeway after it.
    ///
    /// Absent for anonymous claims, and for a token without `exp` where the settings allow that.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.verified.expires_at
    }
}

/// Why a token can't take the place of another on one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Succession {
    /// Its `sub`, or the `iss` that gave it, is another.
    #[error("the token is of another subject than the session")]
    OtherSubject,
    /// Its `iat` (its `exp`, where not both have one) is earlier.
    #[error("the token is older than the one that the session has")]
    Older,
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(..)")
    }
}
