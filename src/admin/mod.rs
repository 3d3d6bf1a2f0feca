//! The operator's HTTP side: metrics, and whether the daemon does its work.
//!
//! It has a thread of its own (`daemon::operators`), and of the rest of the daemon it knows what all
//! write and nobody locks for long: [`Metrics`]. So it answers also where the data path does not,
//! which is when it is asked.
//!
//! ```text
//! GET /metrics   every metric, in the form of OpenMetrics
//! GET /readyz    200 where clients may come, else 503 and why
//! GET /healthz   200: the process answers
//! ```
//!
//! # Invariants
//!
//! - Nothing here waits for a shard, for ingest or for Postgres.
//! - Where the process is out of descriptors, the operator can still ask ([`spare`]).

pub mod ready;
mod listener;
mod spare;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::ALLOW;
use hyper::header::CACHE_CONTROL;
use hyper::header::CONTENT_TYPE;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::listener::Connection;
use crate::admin::listener::Listening;
use crate::admin::spare::Spare;
use crate::inherit::Listener;
use crate::metrics::Metrics;
use crate::metrics::exposition::CONTENT_TYPE as METRICS_TYPE;
use crate::metrics::exposition::Exposition;

/// Connections at once. Monitoring has a few; whoever else has got to the port gets no further.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(75);
/// How long to wait after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the side is started with.
#[derive(Debug)]
pub struct Stage {
    listeners: Vec<Listener>,
    metrics: Arc<Metrics>,
    exposition: Exposition,
    spare: Spare,
    stop: CancellationToken,
}

impl Stage {
    /// Tells `metrics` to those who come to `listeners`, an address of its own or what systemd holds,
    /// until it is stopped. It takes the descriptors that it will need now, before there are clients
    /// who could.
    #[must_use]
    pub fn new(listeners: Vec<Listener>, metrics: Arc<Metrics>, stop: CancellationToken) -> Stage {
        let exposition = Exposition::new(Arc::clone(&metrics));
        Stage { listeners, metrics, exposition, spare: Spare::new(), stop }
    }
}

/// Listens at an address.
///
/// # Errors
///
/// The system's: the address is in use, or not ours.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers until it is stopped. Wants a `LocalSet`.
///
/// # Errors
///
/// Where a socket can't be waited for.
pub async fn run(stage: Stage) -> io::Result<()> {
    let Stage { listeners, metrics, exposition, spare, stop } = stage;
    let office = Rc::new(Office {
        metrics,
        exposition,
        tasks: TaskTracker::new(),
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        spare: RefCell::new(spare),
    });
    for listener in listeners {
        let listening = Listening::new(listener)?;
        office.tasks.spawn_local(accept(Rc::clone(&office), listening, stop.clone()));
    }
    stop.cancelled().await;
    Ok(())
}

/// What all connections share.
#[derive(Debug)]
struct Office {
    metrics: Arc<Metrics>,
    exposition: Exposition,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
    spare: RefCell<Spare>,
}

async fn accept(office: Rc<Office>, listening: Listening, stop: CancellationToken) {
    loop {
        let accepting = async {
            // The semaphore is never closed.
            let place = Arc::clone(&office.places).acquire_owned().await;
            (place, listening.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = accepting => accepted,
        };
        let accepted = match accepted {
            Ok(connection) => Ok(Some(connection)),
            Err(error) => office.spare.borrow_mut().accept(&listening, error),
        };
        match accepted {
            Ok(Some(connection)) => {
                office.spare.borrow_mut().refill();
                let here = Rc::clone(&office);
                office.tasks.spawn_local(async move {
                    let ended = match connection {
                        Connection::Tcp(socket) => {
                            serve(&here, socket).await.into_std().map(OwnedFd::from)
                        }
                        Connection::Unix(socket) => {
                            serve(&here, socket).await.into_std().map(OwnedFd::from)
                        }
                    };
                    if let Ok(ended) = ended {
                        here.spare.borrow_mut().keep(ended);
                    }
                    drop(place);
                });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "an operator's connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection to its end, and gives it back.
async fn serve<S>(office: &Rc<Office>, socket: S) -> S
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request| {
        let office = Rc::clone(office);
        async move { Ok::<_, Infallible>(office.respond(&request)) }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(socket), service);
    if let Err(error) = (&mut connection).await {
        tracing::debug!(%error, "an operator's connection ended");
    }
    connection.into_parts().io.into_inner()
}

impl Office {
    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned());
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/metrics" => answer(StatusCode::OK, METRICS_TYPE, self.exposition.text()),
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => {
                let report = ready::Report::of(&self.metrics);
                let status = match report.ready {
                    true => StatusCode::OK,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                answer(status, "application/json", report.json())
            }
            "/" => text(StatusCode::OK, "walcast: /metrics /readyz /healthz\n".to_owned()),
            _ => {
                let there = "there are /metrics, /readyz and /healthz\n".to_owned();
                text(StatusCode::NOT_FOUND, there)
            }
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", body)
}

fn answer(status: StatusCode, of: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(of));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
