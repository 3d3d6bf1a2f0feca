//! Pages of other origins.

use serde_json::Value;
use serde_json::json;
use tokio_tungstenite::connect_async;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Request;

use crate::deployment::Deployment;
use crate::transports::http;
use crate::transports::open;

const APP: &str = "https://app.example.com";
const PATH: &str = "/v1/events?table=nothing";

fn handshake(deployment: &Deployment, query: &str, origin: &str) -> Request {
    let mut request = format!("{}{query}", deployment.url()).into_client_request().unwrap();
    request.headers_mut().insert("origin", origin.parse().unwrap());
    request
}

/// The role of a session that a page of that origin opens; an error where it can't.
async fn role(deployment: &Deployment, query: &str, origin: &str) -> Result<Value, String> {
    let request = handshake(deployment, query, origin);
    let (mut socket, _) = connect_async(request).await.map_err(|error| error.to_string())?;
    let welcome = futures_util::StreamExt::next(&mut socket).await.unwrap().unwrap();
    let welcome: Value = serde_json::from_str(welcome.to_text().unwrap()).unwrap();
    Ok(welcome["role"].clone())
}

#[tokio::test]
async fn a_page_of_an_origin_that_nobody_named_is_never_anonymous() {
    let deployment = open(&[]).await;
    let own = format!("http://{}", deployment.daemon.address());
    assert_eq!(role(&deployment, "", &own).await, Ok(json!(deployment.role)));
    assert_eq!(role(&deployment, "", APP).await, Ok(Value::Null));
    let token = deployment.token(json!({}));
    let with_token = role(&deployment, &format!("?token={token}"), APP).await;
    assert_eq!(with_token, Ok(json!(deployment.role)));
    let mut http = http(&deployment).await;
    let answer = http.get(PATH, &[("origin", APP)]).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (403, &json!("origin")));
    assert_eq!(answer.header("access-control-allow-origin"), "");
    let answer = http.get(PATH, &[("origin", "http://walcast")]).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn a_page_of_a_named_origin_may_ask_beforehand_and_read_the_answer() {
    let deployment = open(&["listen.origins=https://app.example.com"]).await;
    assert_eq!(role(&deployment, "", APP).await, Ok(json!(deployment.role)));
    let refused = role(&deployment, "", "https://evil.example.com").await.unwrap_err();
    assert!(refused.contains("403"), "{refused}");
    let mut http = http(&deployment).await;
    let headers = [("origin", APP), ("access-control-request-method", "GET")];
    let answer = http.send("OPTIONS", "/v1/events", &headers, "").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), APP);
    assert!(answer.header("access-control-allow-headers").contains("Last-Event-ID"));
    let answer = http.get(PATH, &[("origin", APP)]).await;
    assert_eq!(answer.header("access-control-allow-origin"), APP);
    assert_eq!(answer.header("vary"), "Origin");
    let answer = http.get(PATH, &[("origin", "https://evil.example.com")]).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (403, &json!("origin")));
    assert_eq!(answer.header("access-control-allow-origin"), "");
}
