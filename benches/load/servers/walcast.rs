//! walcast itself: the release program, with generated settings. All that the harness knows of
//! walcast's settings and protocol is in this file.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use jsonwebtoken::Algorithm;
use serde_json::Value;
use serde_json::json;
use walcast::auth::Secret;
use walcast::auth::sign::development_token;

use super::Ground;
use super::Tuning;
use crate::Fallible;
use crate::database::PUBLICATION;
use crate::database::SLOT;
use crate::process::guarded;
use crate::script::Script;
use crate::script::Talk;
use crate::tally::Wanted;

/// What tokens are signed with.
const SECRET: &str = "thirty-two bytes or more, for benchmarks only";

/// The native dialect: one subscription per connection, no token.
pub(super) fn script(wanted: Wanted) -> Script {
    let request = match wanted {
        Wanted::Everything => r#"{"type":"subscribe","id":"{id}","table":"public.locations"}"#,
        Wanted::Own { .. } => {
            r#"{"type":"subscribe","id":"{id}","table":"public.orders","where":"customer_id = {key}"}"#
        }
    };
    let answer = r#""type":"subscribed""#;
    Script::new("/v1/ws", Talk::Json { subprotocol: Some("walcast.v1"), request, answer })
}

/// How row-level security says who sees a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secured {
    /// The row names its owner.
    Owner,
    /// Another table says who may see it.
    Member,
    /// A function says it that walcast does not look into.
    Asked,
}

impl Secured {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Secured::Owner => "owner",
            Secured::Member => "member",
            Secured::Asked => "asked",
        }
    }
}

/// Whoever the token is for gets what the database lets them see.
pub(crate) fn secured_script(secured: Secured) -> Script {
    let request = r#"{"type":"subscribe","id":"{id}","table":"public.orders"}"#;
    let answer = r#""type":"subscribed""#;
    let talk = Talk::Json { subprotocol: Some("walcast.v1"), request, answer };
    Script::new("/v1/ws?token={token}", talk).with_token(match secured {
        Secured::Owner => |key| token("bench_owner", key),
        Secured::Member => |key| token("bench_member", key),
        Secured::Asked => |key| token("bench_asked", key),
    })
}

fn token(role: &str, key: u64) -> String {
    let claims = json!({ "role": role, "sub": key.to_string(), "exp": 4_102_444_800_u64 });
    let Value::Object(claims) = claims else { unreachable!("it was written as an object") };
    development_token(Algorithm::HS256, None, &Secret::new(SECRET.into()), &claims)
        .expect("a secret is a key for HS256")
}

/// Where an operator asks by SQL.
pub(super) fn console(ground: &Ground, operators: SocketAddr) -> PathBuf {
    ground.folder.join(format!(".s.PGSQL.{}", operators.port()))
}

pub(super) fn command(
    ground: &Ground,
    (address, operators): (SocketAddr, SocketAddr),
    tuning: Tuning,
) -> Fallible<Command> {
    let database = ground.database.connection_string();
    let ring_bytes = tuning.ring_bytes;
    let secret = ground.folder.join("secret");
    let secret_file = secret.display();
    let (window_bytes, counts) = (ring_bytes / 2, tuning.counts);
    let console = console(ground, operators);
    let console = console.display();
    let settings = format!(
        r#"# Written by the load harness.
[database]
url = "{database}"
slot = "{SLOT}"
publication = "{PUBLICATION}"
create_slot = false

[window]
bytes = {window_bytes}

[ring]
bytes_max = {ring_bytes}

[listen]
address = "{address}"

# All clients have one address here.
[limits]
connections_per_address = 0
handshakes_per_second_per_address = 0
[admin]
address = "{operators}"
metrics = {counts}

[console]
socket = "{console}"

[auth]
roles = ["bench_owner", "bench_member", "bench_asked"]
anonymous_role = "bench_reader"

# It is to be seen what can be asked, not what may.
[rls]
questions_per_second = 1000000

[[auth.keys]]
algorithm = "HS256"
secret_file = "{secret_file}"

[[table]]
name = "public.locations"
open = true

[[table]]
name = "public.orders"
open = true
"#
    );
    fs::write(&secret, SECRET)?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let file = ground.folder.join("walcast.toml");
    fs::write(&file, settings)?;
    let mut command = guarded(env!("CARGO_BIN_EXE_walcast"));
    command.arg("serve").arg("--config").arg(file);
    Ok(command)
}
