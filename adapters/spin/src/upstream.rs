//! HTTP out, by the host's client: it pools connections and follows no redirect.
//!
//! How long a connection may take is told to the host. Spin counts the connection itself and the turn that is waited for where
//! the number of connections is bounded; how long a name or TLS takes, the attempt's own bound says.

use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response};
use spin_sdk::wasip3::{
    http::{client, types::ErrorCode},
    http_compat::http_from_wasi_response,
};
use tidegate_core::{
    body::Body,
    platform,
    upstream::{Failure, FailureReason},
};

use crate::{body, wire};

/// The host's HTTP client.
pub(crate) struct Upstream;

#[async_trait(?Send)]
impl platform::Upstream for Upstream {
    async fn send(
        &self,
        request: Request<Body>,
        connect: Duration,
    ) -> Result<Response<Body>, Failure> {
        let method = request.method().clone();
        let request = wire::request(request, connect).map_err(|code| failure(&code))?;
        let response = client::send(request).await.map_err(|code| failure(&code))?;
        let response = http_from_wasi_response(response).map_err(|code| Failure {
            // The upstream did answer; its head makes no sense.
            reason: FailureReason::Broken,
            detail: wire::describe(&code),
        })?;
        Ok(body::answered(&method, response))
    }
}

fn failure(code: &ErrorCode) -> Failure {
    let reason = match code {
        ErrorCode::DnsTimeout
        | ErrorCode::DnsError(_)
        | ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpProhibited
        | ErrorCode::DestinationIpUnroutable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionLimitReached
        | ErrorCode::TlsProtocolError
        | ErrorCode::TlsCertificateError
        | ErrorCode::TlsAlertReceived(_)
        | ErrorCode::HttpRequestDenied
        | ErrorCode::HttpRequestMethodInvalid
        | ErrorCode::HttpRequestUriInvalid
        | ErrorCode::HttpRequestUriTooLong => FailureReason::Connect,
        ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => FailureReason::Timeout,
        _ => FailureReason::Broken,
    };
    Failure {
        reason,
        detail: wire::describe(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_reached_the_upstream_is_told_from_what_may_have() {
        assert_eq!(
            failure(&ErrorCode::ConnectionRefused).reason,
            FailureReason::Connect
        );
        assert_eq!(
            failure(&ErrorCode::HttpRequestDenied).reason,
            FailureReason::Connect
        );
        // Whoever never got through to the upstream is not one whose answer is late.
        for code in [ErrorCode::ConnectionTimeout, ErrorCode::DnsTimeout] {
            assert_eq!(failure(&code).reason, FailureReason::Connect, "{code:?}");
        }
        assert_eq!(
            failure(&ErrorCode::ConnectionReadTimeout).reason,
            FailureReason::Timeout
        );
        assert_eq!(
            failure(&ErrorCode::HttpProtocolError).reason,
            FailureReason::Broken
        );
        assert_eq!(
            failure(&ErrorCode::InternalError(None)).reason,
            FailureReason::Broken
        );
    }
}
