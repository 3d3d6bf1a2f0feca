//! Tokens end to end: keys that issuers publish, and sessions whose token is over.

mod issuer;
mod backlog;
mod claims;
mod expiry;
mod published;

use jsonwebtoken::Algorithm;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use serde_json::Value;
use tokio_tungstenite::connect_async;

use crate::deployment::Client;
use crate::deployment::Deployment;
use crate::deployment::Plan;
use crate::tokens::issuer::fixture;

/// A daemon that shows each subject its own notes, with more settings of `[auth]` and after it.
async fn notes(auth: &str, set: &[&str]) -> Deployment {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, owner text, body text); \
                  ALTER TABLE notes REPLICA IDENTITY FULL";
    let tables = format!(
        "{auth}\n[[table]]\nname = 'public.notes'\npolicy = \"owner = claims ->> 'sub'\"\n"
    );
    let plan = Plan { schema, tables: &tables, set, anonymous: false };
    Deployment::start(plan).await
}

/// A token signed with a private key of the fixtures.
fn signed(name: &str, kid: &str, algorithm: Algorithm, claims: &Value) -> String {
    let pem = std::fs::read(fixture(&format!("tokens/{name}.key.pem"))).unwrap();
    let key = match name {
        "rsa" => EncodingKey::from_rsa_pem(&pem),
        "ed25519" => EncodingKey::from_ed_pem(&pem),
        _ => EncodingKey::from_ec_pem(&pem),
    };
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, &key.unwrap()).unwrap()
}

/// The status with which a token is refused in the handshake; 101 where it is not.
async fn status(deployment: &Deployment, token: &str) -> u16 {
    match connect_async(format!("{}?token={token}", deployment.url())).await {
        Ok(_) => 101,
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

/// The row that was missed and the `synced` of who goes on; where the daemon was slower than the
/// client, the row comes after it.
async fn caught_up(client: &mut Client) -> (Value, Value) {
    let (one, other) = (client.frame().await, client.frame().await);
    let (row, synced) = if one["type"] == "row" { (one, other) } else { (other, one) };
    assert_eq!((&row["type"], &synced["type"]), (&"row".into(), &"synced".into()));
    (row, synced)
}

async fn client(deployment: &Deployment, token: &str) -> Client {
    Client::connect(&format!("{}?token={token}", deployment.url())).await
}
