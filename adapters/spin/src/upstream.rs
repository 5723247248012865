//! HTTP out, by the host's client: it pools connections and follows no redirect.

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
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let method = request.method().clone();
        let request = wire::request(request).map_err(|code| failure(&code))?;
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
        ErrorCode::DnsError(_)
        | ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpProhibited
        | ErrorCode::DestinationIpUnroutable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionLimitReached
        | ErrorCode::TlsProtocolError
        | ErrorCode::TlsCertificateError
        | ErrorCode::TlsAlertReceived(_)
        | ErrorCode::HttpRequestDenied
        | ErrorCode::HttpRequestMethodInvalid
        | ErrorCode::HttpRequestUriInvalid
        | ErrorCode::HttpRequestUriTooLong => FailureReason::Connect,
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
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
