//! Who may log in to the console: names, verifiers, levels.
//!
//! The file is that of pgbouncer's `auth_file`: `"name" "SCRAM-SHA-256$4096:salt$stored:server"` on
//! each line, the second as `pg_authid.rolpassword` has it. Only verifiers are taken: from one nobody
//! can log in elsewhere, which can't be said of a password or of an MD5 hash.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// See.
    Stats,
    /// See, and change.
    Admin,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Level::Stats => "stats",
            Level::Admin => "admin",
        }
    }
}

/// Everybody who may log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    verifiers: HashMap<Box<str>, Verifier>,
    admins: Vec<Box<str>>,
    stats: Vec<Box<str>>,
}

/// What a password is checked with, without being known.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(super) iterations: usize,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(..)")
    }
}

/// Why a users' file can't be used. Holds nothing of a verifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    /// A line is not a name and a verifier in double quotes.
    #[error("line {line}: expected \"name\" \"SCRAM-SHA-256$…\"")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// The second text is not a verifier.
    #[error(
        "line {line}: the secret of {name} is not a SCRAM-SHA-256 verifier (as \
         `select rolpassword from pg_authid` shows it)"
    )]
    Verifier {
        /// Its number, from 1.
        line: usize,
        /// The user.
        name: String,
    },
    /// A name comes twice.
    #[error("line {line}: {name} comes twice")]
    Twice {
        /// Its number, from 1.
        line: usize,
        /// The user.
        name: String,
    },
}

impl Users {
    /// Those of a users' file who are among the admins or may see.
    ///
    /// # Errors
    ///
    /// [`UsersError`], the first of them.
    pub fn new(
        file: &str,
        admins: Vec<Box<str>>,
        stats: Vec<Box<str>>,
    ) -> Result<Users, UsersError> {
        let mut verifiers = HashMap::new();
        for (at, text) in file.lines().enumerate() {
            let line = at + 1;
            let text = text.trim();
            if text.is_empty() || text.starts_with([';', '#']) {
                continue;
            }
            let (name, rest) = quoted(text).ok_or(UsersError::Line { line })?;
            let (secret, _) = quoted(rest).ok_or(UsersError::Line { line })?;
            let verifier = Verifier::parse(&secret)
                .ok_or_else(|| UsersError::Verifier { line, name: name.clone() })?;
            if verifiers.insert(name.clone().into(), verifier).is_some() {
                return Err(UsersError::Twice { line, name });
            }
        }
        Ok(Users { verifiers, admins, stats })
    }

    /// What a user may do; absent where that is nothing.
    #[must_use]
    pub fn level(&self, name: &str) -> Option<Level> {
        let among = |names: &[Box<str>]| names.iter().any(|known| &**known == name);
        match () {
            () if among(&self.admins) => Some(Level::Admin),
            () if among(&self.stats) => Some(Level::Stats),
            () => None,
        }
    }

    /// The verifier of a user who has a level.
    #[must_use]
    pub fn verifier(&self, name: &str) -> Option<&Verifier> {
        self.level(name)?;
        self.verifiers.get(name)
    }

    /// Names that have a level and no verifier: they can log in through the socket's owner alone.
    pub fn without_verifier(&self) -> impl Iterator<Item = &str> {
        let names = self.admins.iter().chain(&self.stats);
        names.filter(|name| !self.verifiers.contains_key(*name)).map(|name| &**name)
    }

    /// Whether nobody can log in by a password.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.admins.iter().chain(&self.stats).any(|name| self.verifiers.contains_key(name))
    }

    /// How often a password is hashed by those who are known: an unknown name must not stand out.
    #[must_use]
    pub fn iterations(&self) -> usize {
        self.verifiers.values().map(|verifier| verifier.iterations).min().unwrap_or(4096)
    }
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$iterations:salt$stored_key:server_key`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Verifier> {
        let (how, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = how.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let decode = |text: &str| STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty());
        let key = |text: &str| decode(text).filter(|bytes| bytes.len() == 32);
        let iterations: u32 = iterations.parse().ok().filter(|count| *count >= 4096)?;
        Some(Verifier {
            iterations: usize::try_from(iterations).ok()?,
            salt: decode(salt)?,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }
}

/// A text in double quotes at the beginning, where two stand for one, and what comes after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.trim_start().strip_prefix('"')?;
    let mut found = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        found.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                found.push('"');
                rest = more;
            }
            None => return Some((found, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn line(name: &str) -> String {
        format!("\"{name}\" \"SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}\"\n")
    }

    fn users(file: &str) -> Result<Users, UsersError> {
        Users::new(file, vec!["ann".into(), "zoe".into()], vec!["ben".into()])
    }

    #[test]
    fn a_user_needs_a_level_and_a_verifier() {
        let file = format!("; of the console\n\n{}{}{}", line("ann"), line("ben"), line("eve"));
        let users = users(&file).unwrap();
        assert_eq!(users.level("ann"), Some(Level::Admin));
        assert_eq!(users.level("ben"), Some(Level::Stats));
        assert!(users.verifier("ann").is_some() && users.verifier("ben").is_some());
        assert!(users.verifier("eve").is_none() && users.level("eve").is_none());
        assert_eq!(users.without_verifier().collect::<Vec<_>>(), ["zoe"]);
        assert!(!users.is_empty());
        assert!(!format!("{users:?}").contains("salt"));
    }

    #[test]
    fn what_is_not_a_verifier_is_refused() {
        let refused = |file: &str| users(file).unwrap_err().to_string();
        assert!(refused("ann secret").starts_with("line 1: expected"));
        assert!(refused("\"ann\" \"secret").starts_with("line 1: expected"));
        for secret in [
            "secret",
            "md5abc",
            "SCRAM-SHA-256$1:c2FsdA==$x:y",
            "SCRAM-SHA-256$4096:c2FsdA==$c2FsdA==:c2FsdA==",
        ] {
            let said = refused(&format!("{}\"joe\" \"{secret}\"", line("ann")));
            assert!(said.starts_with("line 2: the secret of joe"), "{said}");
            assert!(!said.contains(secret) || secret == "secret", "{said}");
        }
        assert!(refused(&format!("{}{}", line("ann"), line("ann"))).ends_with("comes twice"));
    }

    #[test]
    fn a_quote_in_a_name_is_doubled() {
        let users = Users::new(&line("a\"\"b"), vec!["a\"b".into()], Vec::new()).unwrap();
        assert!(users.verifier("a\"b").is_some());
    }
}
