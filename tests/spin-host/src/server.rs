//! HTTP in.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header::HOST, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Empty, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use wasmtime_wasi_http::{handler::ErrorCode, p3::bindings::http::types};

use crate::instances::Handler;

/// Answers everything that comes to `listener`, which listens at `address`.
pub(crate) async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    handler: Handler,
) -> anyhow::Result<()> {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, say: some will be closed.
                eprintln!("cannot accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let handler = handler.clone();
                async move { Ok::<_, Infallible>(answer(handler, request, address, peer).await) }
            });
            // An error here is a caller who left.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    handler: Handler,
    request: Request<Incoming>,
    address: SocketAddr,
    peer: SocketAddr,
) -> Response<UnsyncBoxBody<Bytes, std::io::Error>> {
    let request = prepare(request, address, peer).map(|body| {
        body.map_err(|_| ErrorCode::P3(types::ErrorCode::HttpProtocolError))
            .boxed_unsync()
    });
    match handler.handle((), request).await {
        Ok(response) => response.map(|body| {
            body.map_err(|error| std::io::Error::other(format!("{error:#}")))
                .boxed_unsync()
        }),
        Err(error) => {
            eprintln!("a request failed: {error:?}");
            let mut response =
                Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// The request as Spin hands it on for the route `/...`: at the address that listens, with Spin's headers.
fn prepare(
    mut request: Request<Incoming>,
    address: SocketAddr,
    peer: SocketAddr,
) -> Request<Incoming> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", PathAndQuery::as_str)
        .to_owned();
    let path_info = request.uri().path().to_owned();
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    let full_url = format!("http://{host}{path}");
    let headers = [
        ("spin-path-info", path_info),
        ("spin-full-url", full_url),
        ("spin-matched-route", "/...".to_owned()),
        ("spin-base-path", "/".to_owned()),
        ("spin-raw-component-route", "/...".to_owned()),
        ("spin-component-route", String::new()),
        ("spin-client-addr", peer.to_string()),
    ];
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            request.headers_mut().insert(name, value);
        }
    }
    if let Ok(uri) = Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query(path)
        .build()
    {
        *request.uri_mut() = uri;
    }
    request
}
