//! Who watches in the demo: three people of fixtures/demo/data.sql, and their tokens.

use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use jsonwebtoken::Algorithm;
use serde_json::Map;
use serde_json::Value;

use crate::auth::Secret;
use crate::auth::sign::development_token;

/// How long the tokens are good for.
const GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Somebody with a token.
#[derive(Clone, Debug)]
pub struct Person {
    /// The role that the token names.
    pub role: &'static str,
    /// As the company knows them.
    pub name: &'static str,
    /// The subject of the token.
    pub id: &'static str,
    /// Where the token is.
    pub token_file: PathBuf,
}

/// The admin, a customer and a driver, in that order.
const PEOPLE: &[(&str, &str, &str)] = &[
    ("admin", "Alma", "a0000000-0000-4000-8000-000000000001"),
    ("customer", "Ada", "c0000000-0000-4000-8000-000000000001"),
    ("driver", "Ulf", "d0000000-0000-4000-8000-000000000001"),
];

/// A secret that nobody else has.
///
/// # Errors
///
/// When the system has no random bytes to give.
pub fn new_secret() -> io::Result<String> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Signs a token for each of them, into a file in `folder`.
///
/// # Errors
///
/// When a file can't be written.
pub fn with_tokens(folder: &Path, secret: &str) -> io::Result<Vec<Person>> {
    let key = Secret::new(secret.as_bytes().to_vec());
    let expires = SystemTime::now().checked_add(GOOD_FOR);
    let expires = expires.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let expires = expires.unwrap_or(GOOD_FOR).as_secs();
    let mut people = Vec::new();
    for (role, name, id) in PEOPLE {
        let claims = Map::from_iter([
            ("sub".to_owned(), Value::from(*id)),
            ("role".to_owned(), Value::from(*role)),
            ("name".to_owned(), Value::from(*name)),
            ("exp".to_owned(), Value::from(expires)),
        ]);
        let token =
            development_token(Algorithm::HS256, None, &key, &claims).map_err(io::Error::other)?;
        let token_file = folder.join(format!("{role}.token"));
        write_private(&token_file, &token)?;
        people.push(Person { role, name, id, token_file });
    }
    Ok(people)
}

/// Writes a file that nobody else can read.
///
/// # Errors
///
/// When it can't be written, or was there.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")
}
