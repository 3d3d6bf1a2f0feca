//! Spans to a collector: OTLP over HTTP, as protobuf.
//!
//! ```text
//! span ends ─▶ queue (2048, more are dropped) ─▶ the exporter's own thread ─▶ POST, every 5 s
//! ```
//!
//! Nothing of the daemon waits for a collector. One that does not answer is told to the log once,
//! and once more when it answers again.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::Bytes;
use opentelemetry_http::HttpClient;
use opentelemetry_http::HttpError;
use opentelemetry_http::Request;
use opentelemetry_http::Response;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_otlp::Protocol;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_otlp::WithHttpConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracer;
use opentelemetry_sdk::trace::SdkTracerProvider;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::Metadata;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;

use crate::tls;
use crate::tls::Verify;
use crate::trace::Endpoint;
use crate::trace::TARGET;

/// How long a collector may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of the daemon waits for what was not sent yet.
const FAREWELL: Duration = Duration::from_secs(3);
/// The longest answer that is read.
const ANSWER_MAX: usize = 64 << 10;

/// Why spans can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no thread or runtime for it.
    #[error("starting to send traces")]
    Process(#[source] io::Error),
    /// The exporter can't be made.
    #[error("sending traces")]
    Exporter(#[from] ExporterBuildError),
    /// The certificates to believe a collector by can't be had.
    #[error("TLS to the collector of traces")]
    Tls(#[from] tls::TlsError),
}

/// A place in the subscriber for who sends spans, and who fills it.
type Place<S> = reload::Layer<Option<OpenTelemetryLayer<S, SdkTracer>>, S>;

/// Fills the place, once the configuration says where spans go.
type Fill = Box<dyn Fn(SdkTracer) + Send + Sync>;

/// What fills the place in the process's subscriber.
static FILL: OnceLock<Fill> = OnceLock::new();

/// Whether spans are wanted.
static STARTED: AtomicBool = AtomicBool::new(false);

/// A layer that does nothing until [`start`].
pub(crate) fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
{
    let (place, handle): (Place<S>, _) = reload::Layer::new(None);
    let _first = FILL.set(Box::new(move |tracer| {
        let layer = OpenTelemetryLayer::new(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false);
        // It can't be gone: the subscriber is the process's.
        let _filled = handle.reload(Some(layer));
    }));
    place.with_filter(filter_fn(is_span))
}

/// Whether something is a span of [`TARGET`].
pub(crate) fn is_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

/// Whether spans are wanted.
pub(crate) fn is_started() -> bool {
    STARTED.load(Ordering::Relaxed)
}

/// Sends what is there when it is dropped.
#[derive(Debug)]
pub struct Export {
    provider: SdkTracerProvider,
}

impl Drop for Export {
    fn drop(&mut self) {
        STARTED.store(false, Ordering::Relaxed);
        if let Err(error) = self.provider.shutdown_with_timeout(FAREWELL) {
            tracing::debug!(%error, "the last traces were not sent");
        }
    }
}

/// Begins to send spans. The levels of the log have to be set after it.
///
/// # Errors
///
/// [`ExportError`], where this machine has not what it takes. Whether a collector answers is not
/// looked at.
pub fn start(endpoint: &Endpoint) -> Result<Export, ExportError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Sender::new(endpoint)?)
        .with_endpoint(endpoint.uri.to_string())
        .with_protocol(Protocol::HttpBinary)
        .build()?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name("walcast").with_attribute(version).build();
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    if let Some(fill) = FILL.get() {
        fill(provider.tracer("walcast"));
    }
    STARTED.store(true, Ordering::Relaxed);
    Ok(Export { provider })
}

/// Sends requests from the exporter's own thread, which has no runtime, each over a connection of its
/// own: there is one in five seconds.
#[derive(Debug)]
struct Sender {
    runtime: Mutex<Runtime>,
    tls: Option<Arc<ClientConfig>>,
    /// Whether the collector did not answer last time.
    silent: AtomicBool,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Nobody else uses it: the lock is there because the trait wants this to be shared.
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = runtime.block_on(async {
            timeout(PATIENCE, self.send(request)).await.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into())
            })
        });
        drop(runtime);
        self.note(&sent);
        sent
    }
}

impl Sender {
    fn new(endpoint: &Endpoint) -> Result<Sender, ExportError> {
        let is_secure = endpoint.uri.scheme_str() == Some("https");
        let tls = is_secure.then(|| tls::client_config(None, Verify::AuthorityAndHost));
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Sender {
            runtime: Mutex::new(runtime.map_err(ExportError::Process)?),
            tls: tls.transpose()?.map(Arc::new),
            silent: AtomicBool::new(false),
        })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = request.uri().port_u16().unwrap_or(default);
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let socket = TcpStream::connect((bare.as_str(), port)).await?;
        match &self.tls {
            None => exchange(socket, request).await,
            Some(config) => {
                let name = ServerName::try_from(bare)?;
                let connector = TlsConnector::from(Arc::clone(config));
                exchange(connector.connect(name, socket).await?, request).await
            }
        }
    }

    /// Tells the log when it begins to go wrong and when that is over.
    fn note(&self, sent: &Result<Response<Bytes>, HttpError>) {
        let wrong = match sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("status {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        let was = self.silent.swap(wrong.is_some(), Ordering::Relaxed);
        match wrong {
            Some(error) if !was => tracing::warn!(error, "traces can't be sent; they are dropped"),
            None if was => tracing::info!("traces are sent again"),
            _ => {}
        }
    }
}

/// One request over one connection.
async fn exchange(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, HttpError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let (mut head, body) = request.into_parts();
    if let Some(authority) = head.uri.authority() {
        head.headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse()?;
    let asked = async {
        let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await?.to_bytes();
        Ok::<_, HttpError>(Response::from_parts(head, body))
    };
    let mut asked = std::pin::pin!(asked);
    tokio::select! {
        answer = &mut asked => answer,
        ended = connection => match ended {
            Ok(()) => asked.await,
            Err(error) => Err(error.into()),
        },
    }
}
