//! An issuer of tokens: a little server that publishes keys, over HTTP or HTTPS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::deployment::DEADLINE;

/// What is answered: a status, what the body may be kept for, the body.
type Answer = (u16, &'static str, String);

/// The server; it ends when this is dropped.
pub(crate) struct Issuer {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    answer: Arc<Mutex<Answer>>,
    asked: watch::Receiver<usize>,
    _serving: JoinSet<()>,
}

pub(crate) fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// The published form of a key of the fixtures, under a name of its own.
pub(crate) fn published(name: &str, kid: &str) -> Value {
    let text = std::fs::read_to_string(fixture("tokens/jwks.json")).unwrap();
    let set: Value = serde_json::from_str(&text).unwrap();
    let keys = set["keys"].as_array().unwrap();
    let mut key = keys.iter().find(|key| key["kid"] == name).unwrap().clone();
    key["kid"] = json!(kid);
    key
}

impl Issuer {
    /// Publishes keys over plain HTTP.
    pub(crate) async fn new(keys: &[Value]) -> Issuer {
        Issuer::start(keys, None).await
    }

    /// The same over HTTPS, by the certificate of the fixtures.
    pub(crate) async fn secure(keys: &[Value]) -> Issuer {
        let chain = CertificateDer::pem_file_iter(fixture("tls/server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(fixture("tls/server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        Issuer::start(keys, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start(keys: &[Value], tls: Option<TlsAcceptor>) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let answer = Arc::new(Mutex::new((200, "", String::new())));
        let (count, asked) = watch::channel(0);
        let mut serving = JoinSet::new();
        let answers = Arc::clone(&answer);
        serving.spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let answer = answers.lock().unwrap().clone();
                match &tls {
                    None => respond(socket, answer).await,
                    Some(tls) => match tls.accept(socket).await {
                        Ok(socket) => respond(socket, answer).await,
                        Err(_) => continue,
                    },
                }
                count.send_modify(|count| *count += 1);
            }
        });
        let issuer = Issuer { address, scheme, answer, asked, _serving: serving };
        issuer.publish(keys);
        issuer
    }

    pub(crate) fn publish(&self, keys: &[Value]) {
        self.answer_with(200, "", json!({ "keys": keys }).to_string());
    }

    pub(crate) fn answer_with(&self, status: u16, cache: &'static str, body: String) {
        *self.answer.lock().unwrap() = (status, cache, body);
    }

    /// Where its keys are.
    pub(crate) fn url(&self) -> String {
        format!("{}://localhost:{}/keys.json", self.scheme, self.address.port())
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    /// Waits until it was asked so much more often.
    pub(crate) async fn asked_again(&self, more: usize) {
        let (mut asked, until) = (self.asked.clone(), self.asked() + more);
        let reached = asked.wait_for(|count| *count >= until);
        timeout(DEADLINE, reached).await.unwrap().unwrap();
    }
}

async fn respond<S>(socket: S, (status, cache, body): Answer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(|_| async {
        let response = Response::builder().status(status).header("cache-control", cache);
        Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body.clone()))).unwrap())
    });
    let served =
        http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(socket), answer);
    let _gave_up = served.await.is_err();
}
