//! The threads that serve: each one an isolate, with connections, upstreams and a configuration of its own.

use std::{
    cell::RefCell,
    convert::Infallible,
    mem,
    net::{IpAddr, SocketAddr, TcpListener},
    pin::pin,
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use http::{
    HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{HOST, TRANSFER_ENCODING},
    uri::{self, Scheme},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_core::{
    Gateway, Holdings, Platform, body::Body, call::asks_for_websocket, dice::Dice, health, overload,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::JoinSet,
    time,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    body::Inbound,
    clock::SystemClock,
    journal::Lines,
    ledger::Place,
    patient::Patient,
    source::Source,
    tasks::LocalTasks,
    tunnel,
    upstream::{HyperUpstream, Pool},
};

/// How long what runs may go on when the process is to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the records of what was cut off then may take.
const LAST_RECORDS: Duration = Duration::from_secs(1);

/// How long a caller may take to say what it wants.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// The longest head of a request, in bytes; it is also the most that is read ahead of whoever reads the body.
const HEAD: usize = 64 << 10;

/// How often idle connections to upstreams are looked at.
const PRUNE: Duration = Duration::from_secs(10);

/// How long nobody is accepted after the machine has refused to.
const REFUSED: Duration = Duration::from_millis(50);

/// What the threads share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Where the accounts are.
    pub(crate) place: Place,
    /// Where records go.
    pub(crate) lines: Lines,
    /// What they have learnt of those whom they ask.
    pub(crate) health: health::Shared,
    /// What is in progress at those who bear only so much.
    pub(crate) gates: overload::Shared,
    /// The configuration; a new one is built when it changes.
    pub(crate) source: watch::Receiver<Arc<Source>>,
    /// Ends them.
    pub(crate) stop: CancellationToken,
}

/// Starts one thread a listener, and returns once all of them serve.
pub(crate) fn start(
    listeners: Vec<TcpListener>,
    shared: &Shared,
) -> Result<Vec<JoinHandle<()>>, String> {
    let (serving, started) = mpsc::channel();
    let threads = listeners
        .into_iter()
        .enumerate()
        .map(|(index, listener)| {
            let (shared, serving) = (shared.clone(), serving.clone());
            thread::Builder::new()
                .name(format!("gateway-{index}"))
                .spawn(move || {
                    if let Err(problem) = run(index == 0, listener, shared, &serving) {
                        // Nobody listens any more if another thread could not start either.
                        let _ = serving.send(Err(problem));
                    }
                })
                .map_err(|error| error.to_string())
        })
        .collect::<Result<Vec<_>, _>>()?;
    drop(serving);
    for _ in &threads {
        started
            .recv()
            .map_err(|_| "a thread ended before it began")??;
    }
    Ok(threads)
}

/// `is_first`: what has to be done once in a process is done by this one.
fn run(
    is_first: bool,
    listener: TcpListener,
    shared: Shared,
    serving: &mpsc::Sender<Result<(), String>>,
) -> Result<(), String> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        // They look up names, and nothing else.
        .max_blocking_threads(4)
        .build_local(LocalOptions::default())
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let listener =
            tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
        let work = Work::default();
        let mut thread = Thread::new(shared, work.clone())?;
        thread.watches = is_first.then(JoinSet::new);
        thread.watch();
        // Whoever waits for this has given up if it cannot be sent.
        let _ = serving.send(Ok(()));
        thread.accept(listener).await;
        work.end().await;
        Ok(())
    })
}

/// What a thread has begun, and how long that may go on when the process is to end.
#[derive(Clone, Default)]
struct Work {
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Work {
    /// Works on `work` until it is over or cut off.
    fn begin(&self, work: impl Future<Output = ()> + 'static) {
        let cut = self.cut.clone();
        let cut_off = async move { cut.run_until_cancelled_owned(work).await };
        drop(self.tasks.spawn_local(cut_off));
    }

    /// Waits until all of it is over, and cuts off what takes too long.
    async fn end(self) {
        self.tasks.close();
        if time::timeout(PATIENCE, self.tasks.wait()).await.is_err() {
            // Callers first: what they were still getting ends by that, and then its record can be written.
            self.cut.cancel();
            let _ = time::timeout(LAST_RECORDS, self.tasks.wait()).await;
        }
    }
}

struct Thread {
    shared: Shared,
    platform: Platform,
    /// What the thread holds of accounts, whatever the configuration.
    holdings: Holdings,
    pool: Rc<Pool>,
    work: Work,
    gateway: Rc<RefCell<Rc<Gateway>>>,
    /// What asks upstreams how they do, if this thread does it for all.
    watches: Option<JoinSet<()>>,
    /// What callers are shown who come from now on.
    tls: Option<Arc<ServerConfig>>,
}

impl Thread {
    fn new(shared: Shared, work: Work) -> Result<Self, String> {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
        let pool = Rc::new(Pool::default());
        let clock = Rc::new(SystemClock);
        let tracked = Rc::new(LocalTasks(work.tasks.clone()));
        let dice = Rc::new(RefCell::new(Dice::new(seed)));
        let platform = Platform {
            upstream: Rc::new(HyperUpstream::new(Rc::clone(&pool))),
            ledger: shared
                .place
                .ledger(clock.clone(), tracked.clone(), dice.clone()),
            clock,
            tasks: tracked,
            journal: Rc::new(shared.lines.clone()),
            dice,
        };
        let source = Arc::clone(&shared.source.borrow());
        let holdings = Holdings::knowing(
            shared.health.clone(),
            shared.gates.clone(),
            &mut platform.dice.borrow_mut(),
        );
        let gateway =
            build(&source, &platform, &holdings).ok_or("the configuration cannot be built")?;
        Ok(Self {
            shared,
            platform,
            holdings,
            pool,
            work,
            tls: source.tls.clone(),
            gateway: Rc::new(RefCell::new(gateway)),
            watches: None,
        })
    }

    async fn accept(mut self, listener: tokio::net::TcpListener) {
        let mut prune = time::interval(PRUNE);
        loop {
            tokio::select! {
                () = self.shared.stop.cancelled() => return,
                changed = self.shared.source.changed() => match changed {
                    Ok(()) => self.reload(),
                    // Nobody is left to tell it to stop either.
                    Err(_) => return,
                },
                _ = prune.tick() => self.pool.prune(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let caller = Caller {
                            address: peer.ip().to_canonical(),
                            tls: self.tls.clone(),
                            gateway: Rc::clone(&self.gateway),
                            stop: self.shared.stop.clone(),
                            work: self.work.clone(),
                        };
                        self.work.begin(caller.meet(stream));
                    }
                    // The caller is gone already, or the process has no file descriptor left.
                    Err(_) => time::sleep(REFUSED).await,
                },
            }
        }
    }

    /// Requests that run keep the configuration that they began with.
    fn reload(&mut self) {
        let source = Arc::clone(&self.shared.source.borrow_and_update());
        if let Some(gateway) = build(&source, &self.platform, &self.holdings) {
            self.gateway.replace(gateway);
            self.tls.clone_from(&source.tls);
            self.watch();
        }
    }

    /// Begins anew to ask how they do who are to be asked.
    fn watch(&mut self) {
        let Some(watches) = &mut self.watches else {
            return;
        };
        *watches = JoinSet::new();
        for watch in self.gateway.borrow().watches() {
            watches.spawn_local(watch);
        }
    }
}

fn build(source: &Source, platform: &Platform, holdings: &Holdings) -> Option<Rc<Gateway>> {
    // It has been built once before it was handed out.
    let config = source.config().ok()?;
    let gateway = Gateway::with(Rc::new(config), platform.clone(), holdings.clone());
    Some(Rc::new(gateway))
}

/// A caller who has come, and what he needs.
struct Caller {
    address: IpAddr,
    tls: Option<Arc<ServerConfig>>,
    gateway: Rc<RefCell<Rc<Gateway>>>,
    stop: CancellationToken,
    work: Work,
}

impl Caller {
    /// Serves one connection, by TLS if there is something to show.
    async fn meet(mut self, stream: TcpStream) {
        // Without it answers come later, and they come.
        let _ = stream.set_nodelay(true);
        let Some(config) = self.tls.take() else {
            return self.serve(Patient::new(stream), None).await;
        };
        let Ok(here) = stream.local_addr() else {
            return;
        };
        // Below TLS, which takes more than it can hand on.
        let stream = Patient::new(stream);
        let accepted = TlsAcceptor::from(config).accept(stream);
        let accepted = time::timeout(HEAD_TIME, accepted);
        // Whoever does not speak it, or not to us, hears that from TLS itself.
        if let Some(Ok(Ok(stream))) = self.stop.run_until_cancelled(accepted).await {
            self.serve(stream, Some(here)).await;
        }
    }

    /// Serves one connection until either end closes it, or it becomes a WebSocket; `secured` is where it came to by TLS.
    async fn serve<S>(self, stream: S, secured: Option<SocketAddr>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self {
            address,
            gateway,
            stop,
            work,
            ..
        } = self;
        let service = service_fn(move |request: Request<Incoming>| {
            let (gateway, work) = (Rc::clone(&gateway.borrow()), work.clone());
            let wrong = wrong(&request);
            let (caller, request) = inbound(request, secured);
            async move {
                if let Some(status) = wrong {
                    let mut refused = Response::new(Body::empty());
                    *refused.status_mut() = status;
                    return Ok::<_, Infallible>(refused);
                }
                let answer = gateway.serve(request, Some(address)).await;
                Ok(match caller {
                    Some(caller) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => answer
                        .map(|body| {
                            work.begin(caller.carry(body));
                            Body::empty()
                        }),
                    _ => answer,
                })
            }
        });
        // `half_close` stays off: a caller who closes has left, and what it asked for is dropped.
        let mut served = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(HEAD)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
        );
        tokio::select! {
            // What goes wrong with a connection is on the record of the request that it carried.
            _ = &mut served => return,
            () = stop.cancelled() => {}
        }
        served.as_mut().graceful_shutdown();
        let _ = served.await;
    }
}

/// What is wrong with the head of a request, that somebody in between could take for another one's: it does not say whom it asks, though
/// its version has to (RFC 9112, 3.2); or its body comes in a coding that nobody takes off here (6.1).
fn wrong<B>(request: &Request<B>) -> Option<StatusCode> {
    let (version, headers) = (request.version(), request.headers());
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if version == Version::HTTP_11 && !headers.contains_key(HOST) {
        Some(StatusCode::BAD_REQUEST)
    } else if !headers.get_all(TRANSFER_ENCODING).iter().all(is_chunked) {
        Some(StatusCode::NOT_IMPLEMENTED)
    } else {
        None
    }
}

/// The request for the gateway; and the caller's end of its connection, if it asks that this switch.
fn inbound(
    request: Request<Incoming>,
    secured: Option<SocketAddr>,
) -> (Option<tunnel::Caller>, Request<Body>) {
    let (head, incoming) = request.into_parts();
    let switches = asks_for_websocket(&head);
    let mut request = Request::from_parts(head, incoming);
    let (caller, request) = if switches {
        let (caller, body) = tunnel::Caller::of(&mut request);
        (Some(caller), request.map(|_| body))
    } else {
        (None, request.map(Inbound::body))
    };
    let request = in_origin_form(request);
    let request = match secured {
        Some(here) => by_tls(request, here),
        None => request,
    };
    (caller, request)
}

/// The request as if it had come in origin form: an authority in its target takes the place of `host`, and a scheme, which the
/// caller can only claim, is gone.
fn in_origin_form(mut request: Request<Body>) -> Request<Body> {
    let Some(authority) = request.uri().authority() else {
        return request;
    };
    // An authority has no character that a header may not have, and a path alone is a target.
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(HOST, host);
    }
    let mut parts = uri::Parts::default();
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}

/// The request as one that came to `here` by TLS, which the scheme of its target says.
fn by_tls(mut request: Request<Body>, here: SocketAddr) -> Request<Body> {
    let mut parts = mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    // What a caller says in `host` goes before it. A link's own addresses have a part that no URI has.
    let here = SocketAddr::new(here.ip(), here.port());
    parts.authority = here.to_string().parse().ok();
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_whom_it_asks_where_its_version_has_to() {
        for (version, target, host, expected) in [
            (Version::HTTP_11, "/", None, true),
            (Version::HTTP_11, "http://a.example/", None, true),
            (Version::HTTP_11, "/", Some(""), false),
            (Version::HTTP_11, "/", Some("a.example"), false),
            (Version::HTTP_10, "/", None, false),
            (Version::HTTP_2, "https://a.example/", None, false),
        ] {
            let mut request = Request::get(target).version(version).body(()).unwrap();
            let host = host.map(HeaderValue::from_static);
            request.headers_mut().extend(host.map(|host| (HOST, host)));
            let expected = expected.then_some(StatusCode::BAD_REQUEST);
            assert_eq!(wrong(&request), expected, "{version:?} {target}");
        }
    }

    #[test]
    fn what_comes_by_tls_says_so_in_its_target() {
        for (here, target, expected) in [
            (
                "127.0.0.1:8443",
                "/v1/models?a=b",
                "https://127.0.0.1:8443/v1/models?a=b",
            ),
            ("[::1]:8443", "/", "https://[::1]:8443/"),
            ("[fe80::1%3]:8443", "/x", "https://[fe80::1]:8443/x"),
        ] {
            let request = Request::get(target).body(Body::empty()).unwrap();
            let request = by_tls(request, here.parse().unwrap());
            assert_eq!(request.uri().to_string(), expected);
        }
    }

    #[test]
    fn a_target_with_an_authority_becomes_a_path_and_a_host() {
        for (target, path, host) in [
            ("/v1/models?a=b", "/v1/models?a=b", "written"),
            ("https://said:8/v1/models?a=b", "/v1/models?a=b", "said:8"),
            ("http://said", "/", "said"),
        ] {
            let request = Request::get(target).header(HOST, "written");
            let request = in_origin_form(request.body(Body::empty()).unwrap());
            assert_eq!(request.uri().to_string(), path, "{target}");
            assert_eq!(
                request.headers().get_all(HOST).iter().collect::<Vec<_>>(),
                [host]
            );
        }
    }
}
