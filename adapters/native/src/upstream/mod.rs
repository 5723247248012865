//! HTTP out: hyper's connections, kept open for the next request.

use std::{error::Error, rc::Rc, time::Duration};

use async_trait::async_trait;
use http::{
    HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{HOST, UPGRADE},
};
use hyper::{body::Incoming, upgrade};
use tidegate_core::{
    body::Body,
    platform::Upstream,
    upstream::{Failure, FailureReason},
};

mod answer;
mod connect;
mod connection;
mod fair;
mod pool;

use answer::Answer;
use connect::Connector;
use connection::Connection;
use pool::Origin;
pub(crate) use pool::Pool;

use crate::tunnel;

/// How a thread asks upstreams: over connections of its own.
pub(crate) struct HyperUpstream {
    pool: Rc<Pool>,
    connector: Connector,
}

#[async_trait(?Send)]
impl Upstream for HyperUpstream {
    async fn send(
        &self,
        request: Request<Body>,
        connect_within: Duration,
    ) -> Result<Response<Body>, Failure> {
        let Some(origin) = Origin::of(request.uri()) else {
            return Err(connect("the upstream's URI has no scheme or host"));
        };
        let target = request.uri().clone();
        let mut request = in_origin_form(request, &origin)?;
        // What comes afterwards is no part of the question.
        let switches = request.headers().contains_key(UPGRADE);
        let afterwards = switches.then(|| std::mem::take(request.body_mut()));
        let request = match self.pool.take(&origin) {
            Some(mut connection) => match connection.send(request).await {
                Ok(response) => return self.answer(origin, connection, response, afterwards).await,
                // It was closed while it lay idle, and nothing of the request has been sent.
                Err(mut error) => match error.take_message() {
                    Some(request) => request,
                    None => return Err(broken(&error.into_error())),
                },
            },
            None => request,
        };
        let mut connection = self.connector.connect(&target, connect_within).await?;
        match connection.send(request).await {
            Ok(response) => self.answer(origin, connection, response, afterwards).await,
            Err(error) => Err(broken(&error.into_error())),
        }
    }
}

impl HyperUpstream {
    /// Asks over the connections of `pool`.
    pub(crate) fn new(pool: Rc<Pool>) -> Self {
        Self {
            pool,
            connector: Connector::new(),
        }
    }

    async fn answer(
        &self,
        origin: Origin,
        connection: Connection,
        mut response: Response<Incoming>,
        afterwards: Option<Body>,
    ) -> Result<Response<Body>, Failure> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(afterwards) = afterwards
        {
            let switched = connection.switch(upgrade::on(&mut response)).await;
            let stream = switched.map_err(|error| broken(&error))?;
            return Ok(response.map(|_| tunnel::upstream(stream, afterwards)));
        }
        let idle_time = pool::idle_time(response.headers());
        let lease = pool::Lease::new(&self.pool, origin, connection, idle_time);
        Ok(response.map(|incoming| Answer::body(incoming, lease)))
    }
}

/// The request as HTTP/1.1 writes it to the one who serves it: a path, and a `host`, if it has none.
fn in_origin_form(mut request: Request<Body>, origin: &Origin) -> Result<Request<Body>, Failure> {
    let host = HeaderValue::from_str(origin.host())
        .map_err(|_| connect("the upstream's host is no header"))?;
    request.headers_mut().entry(HOST).or_insert(host);
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() =
        Uri::from_parts(parts).map_err(|_| connect("the upstream's path is no path"))?;
    // The caller may have come with HTTP/1.0; how far a connection reaches is between its two ends.
    *request.version_mut() = Version::HTTP_11;
    Ok(request)
}

fn connect(detail: &str) -> Failure {
    Failure {
        reason: FailureReason::Connect,
        detail: detail.into(),
    }
}

fn broken(error: &hyper::Error) -> Failure {
    Failure {
        reason: FailureReason::Broken,
        detail: describe(error),
    }
}

/// What happened, from the outside in, and not at length.
pub(crate) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut detail = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !detail.contains(&cause) {
            detail.push_str(": ");
            detail.push_str(&cause);
        }
        source = error.source();
    }
    detail.chars().take(200).collect()
}

#[cfg(test)]
mod tests;
