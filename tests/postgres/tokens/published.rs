//! Keys at an address: rotation, floods of unknown names, an issuer that is down, tenants.

use jsonwebtoken::Algorithm;
use serde_json::Value;
use serde_json::json;
use tokio::time::timeout;

use crate::deployment::Client;
use crate::deployment::DEADLINE;
use crate::deployment::Deployment;
use crate::tokens::caught_up;
use crate::tokens::client;
use crate::tokens::issuer::Issuer;
use crate::tokens::issuer::fixture;
use crate::tokens::issuer::published;
use crate::tokens::notes;
use crate::tokens::signed;
use crate::tokens::status;

fn claims(deployment: &Deployment, more: &Value) -> Value {
    let mut claims = json!({ "role": deployment.role, "sub": "ann", "exp": 4_102_444_800_u64 });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

async fn believed(deployment: &Deployment, name: &str, kid: &str, algorithm: Algorithm) -> bool {
    let token = signed(name, kid, algorithm, &claims(deployment, &json!({})));
    match status(deployment, &token).await {
        101 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

/// Waits until a condition is raised or not.
async fn condition(deployment: &Deployment, code: &str, is_raised: bool) {
    let settled = async {
        while deployment.daemon.metrics().health.is_raised(code) != is_raised {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, settled).await.unwrap();
}

fn keys(issuer: &Issuer, more: &str) -> String {
    format!("[[auth.jwks]]\nurl = '{}'\n{more}", issuer.url())
}

#[tokio::test]
async fn keys_over_https_are_believed_each_for_its_algorithm_and_are_not_asked_for_at_will() {
    let all: Vec<Value> =
        ["rsa", "ec256", "ec384", "ed25519"].map(|name| published(name, name)).into();
    let issuer = Issuer::secure(&all).await;
    let more = format!("ca_file = '{}'\nrefetch_seconds = 3600\n", fixture("tls/ca.pem").display());
    let set = ["limits.rejected_tokens_per_minute=0"];
    let deployment = notes(&keys(&issuer, &more), &set).await;
    for (name, algorithm) in [
        ("rsa", Algorithm::RS256),
        ("ec256", Algorithm::ES256),
        ("ec384", Algorithm::ES384),
        ("ed25519", Algorithm::EdDSA),
    ] {
        assert!(believed(&deployment, name, name, algorithm).await, "{name}");
    }
    assert!(!believed(&deployment, "rsa", "rsa", Algorithm::RS512).await);
    assert!(!believed(&deployment, "rsa", "rsa", Algorithm::PS256).await);
    assert!(!believed(&deployment, "ed25519", "rsa", Algorithm::EdDSA).await, "another's name");
    for kid in ["", "../../etc/passwd", "' OR 1=1 --", "https://evil.example/jwks.json", "RSA"] {
        assert!(!believed(&deployment, "rsa", kid, Algorithm::RS256).await, "{kid}");
    }
    for number in 0..50 {
        let kid = format!("made up {number}");
        assert!(!believed(&deployment, "rsa", &kid, Algorithm::RS256).await);
    }
    assert_eq!(issuer.asked(), 1, "unknown names bring about no more looks than are allowed");
    assert_eq!(deployment.daemon.metrics().auth.published_keys.get(), 4);
}

#[tokio::test]
async fn a_certificate_of_nobody_known_is_not_believed() {
    let issuer = Issuer::secure(&[published("rsa", "a")]).await;
    let deployment = notes(&keys(&issuer, ""), &[]).await;
    condition(&deployment, "keys_missing", true).await;
    assert!(!believed(&deployment, "rsa", "a", Algorithm::RS256).await);
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test]
async fn a_new_key_counts_for_the_first_token_that_names_it() {
    let issuer = Issuer::new(&[published("rsa", "old")]).await;
    let deployment = notes(&keys(&issuer, "refetch_seconds = 1\n"), &[]).await;
    assert!(believed(&deployment, "rsa", "old", Algorithm::RS256).await);
    issuer.publish(&[published("rsa", "old"), published("ec256", "new")]);
    assert!(believed(&deployment, "ec256", "new", Algorithm::ES256).await);
    assert!(believed(&deployment, "rsa", "old", Algorithm::RS256).await);
    // A name that is not there is known not to be there.
    let asked = issuer.asked();
    for _ in 0..3 {
        assert!(!believed(&deployment, "rsa", "never", Algorithm::RS256).await);
    }
    assert!(issuer.asked() <= asked + 1, "{} looks for one name", issuer.asked() - asked);
}

#[tokio::test]
async fn a_withdrawn_key_ends_what_it_opened_unless_another_token_comes() {
    let both = [published("rsa", "old"), published("ec256", "new")];
    let issuer = Issuer::new(&both).await;
    let more = "refetch_seconds = 1\nrefresh_seconds = 1\n";
    let deployment = notes(&keys(&issuer, more), &["auth.grace_seconds=20"]).await;
    let old = signed("rsa", "old", Algorithm::RS256, &claims(&deployment, &json!({})));
    let new = signed("ec256", "new", Algorithm::ES256, &claims(&deployment, &json!({})));
    let (mut ann, mut bob) = (client(&deployment, &old).await, client(&deployment, &new).await);
    for client in [&mut ann, &mut bob] {
        client.subscribed(json!({"id": "n", "table": "notes"})).await;
    }
    issuer.publish(&both[1..]);
    assert_eq!(ann.expect("expired").await["reason"], "key_withdrawn");
    assert_eq!(status(&deployment, &old).await, 401);
    deployment.execute(&["INSERT INTO notes VALUES (1, 'ann'), (2, 'bob')"]).await;
    assert_eq!(bob.rows(1, "id").await, ["insert 1"], "its key counts");
    ann.send(json!({"type": "auth", "token": new})).await;
    ann.expect("authenticated").await;
    assert_eq!(caught_up(&mut ann).await.0["new"]["id"], 1, "what it missed");
}

#[tokio::test]
async fn the_keys_of_before_count_while_an_issuer_is_down_and_not_for_ever() {
    let issuer = Issuer::new(&[published("rsa", "a")]).await;
    let more = "refetch_seconds = 1\nrefresh_seconds = 1\nkeep_seconds = 3\n";
    let deployment = notes(&keys(&issuer, more), &["auth.grace_seconds=0"]).await;
    let token = signed("rsa", "a", Algorithm::RS256, &claims(&deployment, &json!({})));
    let mut ann = client(&deployment, &token).await;
    issuer.answer_with(500, "", String::new());
    condition(&deployment, "keys_stale", true).await;
    assert_eq!(status(&deployment, &token).await, 101);
    let huge = "x".repeat(300 << 10);
    issuer.answer_with(200, "max-age=0", huge);
    issuer.asked_again(1).await;
    assert_eq!(ann.closed().await, 4401);
    condition(&deployment, "keys_missing", true).await;
    let failed = deployment.daemon.metrics().auth.failed_looks.get();
    assert!(failed.iter().any(|(reason, _)| *reason == "status"), "{failed:?}");
    issuer.publish(&[published("rsa", "a")]);
    condition(&deployment, "keys_missing", false).await;
    assert_eq!(status(&deployment, &token).await, 101);
}

#[tokio::test]
async fn an_issuer_can_t_issue_for_another() {
    let (a, b) = (
        Issuer::new(&[published("rsa", "1")]).await,
        Issuer::new(&[published("ec256", "1"), json!({"kty": "oct", "k": "AAAA", "kid": "s"})])
            .await,
    );
    let auth = format!(
        "{}{}",
        keys(&a, "issuer = 'https://a'\nalgorithms = ['RS256']\n"),
        keys(&b, "issuer = ['https://b']\n")
    );
    let deployment = notes(&auth, &[]).await;
    let token = |name: &str, algorithm, iss: &str| {
        signed(name, "1", algorithm, &claims(&deployment, &json!({ "iss": iss })))
    };
    let of_a = token("rsa", Algorithm::RS256, "https://a");
    assert_eq!(status(&deployment, &of_a).await, 101);
    assert_eq!(status(&deployment, &token("ec256", Algorithm::ES256, "https://b")).await, 101);
    assert_eq!(status(&deployment, &token("rsa", Algorithm::RS256, "https://b")).await, 401);
    assert_eq!(status(&deployment, &token("ec256", Algorithm::ES256, "https://a")).await, 401);
    // The same `sub` of another issuer is somebody else.
    let mut ann: Client = client(&deployment, &of_a).await;
    let of_b = token("ec256", Algorithm::ES256, "https://b");
    ann.send(json!({"type": "auth", "token": of_b})).await;
    assert_eq!(ann.expect("error").await["code"], "subject_changed");
}
