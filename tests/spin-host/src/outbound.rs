//! HTTP out: pooled connections, no redirects, and the error codes that Spin gives.

use std::{error::Error as _, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Uri, header::HOST, uri::Scheme};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpStream, time::timeout};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi_http::p3::{
    RequestOptions, WasiHttpHooks,
    bindings::http::types::{DnsErrorPayload, ErrorCode},
};

type Body = UnsyncBoxBody<Bytes, ErrorCode>;
type Io = Box<dyn Future<Output = Result<(), ErrorCode>> + Send>;
type Sent = Result<(Response<Body>, Io), TrappableError<ErrorCode>>;

/// The client that all instances share.
#[derive(Clone)]
pub(crate) struct Outbound(Client<Connector, Body>);

impl Outbound {
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build(Connector))
    }
}

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: Request<Body>,
        options: Option<RequestOptions>,
        _end: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let client = self.0.clone();
        Box::new(async move { Ok(send(client, request, options.unwrap_or_default()).await?) })
    }
}

async fn send(
    client: Client<Connector, Body>,
    mut request: Request<Body>,
    options: RequestOptions,
) -> Result<(Response<Body>, Io), ErrorCode> {
    if request.uri().scheme() == Some(&Scheme::HTTPS) {
        return Err(ErrorCode::InternalError(Some(
            "this test host does not speak TLS".into(),
        )));
    }
    // hyper sets it from the URI.
    request.headers_mut().remove(HOST);
    let connect = options.connect_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let first_byte = options.first_byte_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let response = timeout(first_byte, CONNECT.scope(connect, client.request(request)))
        .await
        .map_err(|_| ErrorCode::ConnectionReadTimeout)?
        .map_err(|error| {
            let cause = error
                .source()
                .and_then(|cause| cause.downcast_ref::<ErrorCode>());
            cause.cloned().unwrap_or(ErrorCode::HttpProtocolError)
        })?;
    let end: Io = Box::new(async { Ok(()) });
    Ok((
        response.map(|body| {
            body.map_err(|_| ErrorCode::HttpProtocolError)
                .boxed_unsync()
        }),
        end,
    ))
}

/// How Spin waits where the component does not say: for an answer, and for a connection.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

tokio::task_local! {
    /// How long a connection may take that the request of this task has to make: hyper's client has no other way to say it.
    static CONNECT: Duration;
}

/// Opens connections without TLS.
#[derive(Clone)]
struct Connector;

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = ErrorCode;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ErrorCode>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), ErrorCode>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // Here and not later: another task may finish a connection that this one has begun.
        let patience = CONNECT.get();
        Box::pin(async move { connect(&uri, patience).await.map(TokioIo::new) })
    }
}

async fn connect(uri: &Uri, patience: Duration) -> Result<TcpStream, ErrorCode> {
    let host = uri.host().ok_or(ErrorCode::HttpRequestUriInvalid)?;
    // An IPv6 address stands in brackets in a URI, and without them everywhere else.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let unknown = || {
        ErrorCode::DnsError(DnsErrorPayload {
            rcode: Some("address not available".into()),
            info_code: Some(0),
        })
    };
    let addresses: Vec<_> = tokio::net::lookup_host((host, uri.port_u16().unwrap_or(80)))
        .await
        .map_err(|_| unknown())?
        .collect();
    let stream = timeout(patience, TcpStream::connect(&*addresses))
        .await
        .map_err(|_| ErrorCode::ConnectionTimeout)?
        .map_err(|_| ErrorCode::ConnectionRefused)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
