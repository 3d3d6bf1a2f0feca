//! `curl` and an `EventSource` over TLS, while the certificate is changed.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::process::Command;
use tokio::time::timeout;

use crate::commands::Company;
use crate::commands::Running;
use crate::deployment::DEADLINE;
use crate::transports::node::Line;
use crate::transports::node::Page;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tls")).join(name)
}

/// Puts a certificate and its key where the daemon reads them.
fn show(company: &Company, name: &str) {
    for kind in ["pem", "key"] {
        let read = fs::read(fixture(&format!("{name}.{kind}"))).unwrap();
        company.folder.write(&format!("listen.{kind}"), read);
    }
}

/// A daemon that shows the first certificate.
async fn serve(company: &Company) -> (Running, String) {
    show(company, "server");
    let path = |name| company.folder.path(name).display().to_string();
    let (certificate, key) = (path("listen.pem"), path("listen.key"));
    let environment = [
        ("WALCAST__LISTEN__TLS_CERT_FILE", certificate.as_str()),
        ("WALCAST__LISTEN__TLS_KEY_FILE", key.as_str()),
    ];
    company.serve_with("127.0.0.1:0", &environment).await
}

/// The address of a path at the name that the certificates have.
fn url(address: &str, path: &str) -> String {
    format!("https://localhost:{}{path}", address.rsplit(':').next().unwrap())
}

fn curl(arguments: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--ipv4", "--max-time", "60"]);
    curl.args(arguments).kill_on_drop(true);
    curl
}

async fn output(arguments: &[&str]) -> Output {
    timeout(DEADLINE, curl(arguments).output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn curl_believes_the_certificate_and_follows_changes() {
    let company = Company::new().await;
    let (mut daemon, address) = serve(&company).await;
    let authority = fixture("ca.pem").display().to_string();
    let (rows, stream) =
        (url(&address, "/v1/rows?table=orders"), url(&address, "/v1/events?table=orders"));
    company.execute(&["INSERT INTO orders VALUES (1, 'ann', 'new')"]).await;
    let believed = output(&["--cacert", &authority, &rows]).await;
    let said = String::from_utf8_lossy(&believed.stderr);
    let answer: Value = serde_json::from_slice(&believed.stdout).expect(&said);
    assert_eq!(answer["rows"][0]["customer"], "ann", "{answer}");
    // Without the authority, and by another name.
    let other = rows.replace("localhost", "127.0.0.1");
    for arguments in [&[rows.as_str()][..], &["--cacert", &authority, &other]] {
        let refused = output(arguments).await;
        assert_eq!(refused.status.code(), Some(60), "{refused:?}");
    }

    let mut following = curl(&["--no-buffer", "--cacert", &authority, &stream]);
    let mut following = following.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = async |of: &str| loop {
        let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            let frame: Value = serde_json::from_str(data).unwrap();
            if frame["type"] == of {
                return frame;
            }
        }
    };
    next("subscribed").await;
    for id in 2..5 {
        // Each comes when it is committed: the next is not yet there.
        company.execute(&[&format!("INSERT INTO orders VALUES ({id}, 'bob', 'new')")]).await;
        assert_eq!(next("row").await["new"]["id"], json!(id));
    }
    daemon.signal("-TERM").await;
    assert!(daemon.ended().await.success());
    // The answer has its end, and TLS its own.
    assert!(timeout(DEADLINE, following.wait()).await.unwrap().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_source_stays_while_the_certificate_changes_and_comes_back_to_the_new_one() {
    let company = Company::new().await;
    let (mut daemon, address) = serve(&company).await;
    let line = Line::to(address.parse().unwrap()).await;
    let both = ["ca.pem", "renewed.pem"].map(|name| fs::read_to_string(fixture(name)).unwrap());
    let old = company.folder.write("old.pem", &both[0]);
    let new = company.folder.write("new.pem", &both[1]);
    let both = company.folder.write("both.pem", both.concat());
    let stream = url(&line.address.to_string(), "/v1/events?table=orders");
    let mut page = Page::open_believing(&both, &stream);
    page.prints("subscribed").await;
    let insert = async |id: u32| {
        company.execute(&[&format!("INSERT INTO orders VALUES ({id}, 'ann', 'new')")]).await;
    };
    insert(1).await;
    page.prints("insert 1 true").await;

    show(&company, "renewed");
    daemon.signal("-HUP").await;
    daemon.says("the configuration was reloaded").await;
    // It is connected as before, under the certificate of before.
    insert(2).await;
    page.prints("insert 2 true").await;
    // Who comes now is shown the other.
    Page::open_believing(&old, &stream).prints("lost").await;
    Page::open_believing(&new, &stream).prints("subscribed").await;

    line.cut.send(()).await.unwrap();
    page.prints("lost").await;
    insert(3).await;
    page.prints("subscribed").await;
    page.prints("insert 3 true").await;
}
