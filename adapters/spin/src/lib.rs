//! Tidegate as a Spin component: the entry, and the ports that the core asks for.
//!
//! Spin keeps an instance for many requests, up to sixteen of them at once, in one thread. A trap would end all of
//! them, so nothing here panics and nothing blocks. Every file translates between one interface of the host
//! and one port of the core; what to do is the core's to say.
//!
//! A connection cannot become a WebSocket here: WASI's HTTP has no way to switch one. Whoever asks for that at Dify's `/socket.io`
//! hears 501, and Socket.IO goes on by one request after another; a configuration with `websocket` is refused.
//!
//! An upstream is told the host of its own URL, and what the caller has called only as `x-forwarded-host`: the engine takes no other.
//!
//! How slowly a caller may send its body, or take its answer, is the engine's to say: nothing bounds it but `spin up --request-timeout`,
//! which bounds streams too. Where anybody may call, a proxy before it has to. What bodies take together that are read whole is
//! bounded by the memory of an instance, which carries sixteen calls at most.
//!
//! What has been learnt of upstreams (who fails, which key rests) is each instance's own, and goes with it.
//!
//! How many calls a Dify bears (`overload`, `permits`) they learn together: calls that come at once are spread over instances, and the ledger
//! lends each of them places for some seconds. An instance asks it before it lets anybody in.

mod ambient;
mod body;
mod boot;
mod ledger;
mod tasks;
mod upstream;
mod wire;

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use spin_sdk::wasip3::{
    exports::http::handler::Guest,
    http::{service::export, types},
    http_compat::http_from_wasi_request,
};

struct Component;

export!(Component with_types_in spin_sdk::wasip3);

impl Guest for Component {
    async fn handle(request: types::Request) -> Result<types::Response, types::ErrorCode> {
        let request = body::arrived(http_from_wasi_request(request)?);
        let (mut parts, body) = request.into_parts();
        let peer = take_peer(&mut parts.headers);
        let method = parts.method.clone();
        let answer = match boot::gateway().await {
            Ok(gateway) => {
                let request = http::Request::from_parts(parts, body);
                tasks::woken(gateway.serve(request, peer)).await
            }
            Err(trouble) => trouble.answer(),
        };
        wire::answer(&method, answer)
    }
}

/// The address that Spin vouches for, with Spin's own headers taken off: they are no part of what the caller sent.
fn take_peer(headers: &mut HeaderMap) -> Option<IpAddr> {
    let peer = headers
        .get("spin-client-addr")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| {
            text.parse::<SocketAddr>()
                .map(|address| address.ip())
                .or_else(|_| text.parse())
                .ok()
        });
    let spins: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("spin-"))
        .cloned()
        .collect();
    for name in spins {
        headers.remove(name);
    }
    peer
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_peer_is_read_and_spins_headers_are_gone() {
        let mut headers = HeaderMap::new();
        headers.insert("spin-client-addr", HeaderValue::from_static("[::1]:8777"));
        headers.insert(
            "spin-full-url",
            HeaderValue::from_static("http://localhost/"),
        );
        headers.insert("accept", HeaderValue::from_static("*/*"));
        assert_eq!(
            take_peer(&mut headers),
            Some(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]))
        );
        assert_eq!(
            headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(),
            ["accept"]
        );
    }
}
