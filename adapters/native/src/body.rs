//! What a caller sends, and how long it may keep us waiting.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tidegate_core::body::{Body, BoxError};
use tokio::time::{Sleep, sleep};

/// How long a caller may take from one piece of a body to the next.
const PIECE_TIME: Duration = Duration::from_secs(30);

/// A request's body as it comes from the caller's connection; it breaks when the caller falls silent.
pub(crate) struct Inbound {
    incoming: Incoming,
    silence: Option<Pin<Box<Sleep>>>,
}

impl Inbound {
    /// The body of a request; one that is over before it begins is none.
    pub(crate) fn body(incoming: Incoming) -> Body {
        if incoming.is_end_stream() {
            Body::empty()
        } else {
            Body::arriving(Self {
                incoming,
                silence: None,
            })
        }
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.silence = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // Time runs only while somebody waits for the caller: a slow upstream is not its fault.
        let silence = self
            .silence
            .get_or_insert_with(|| Box::pin(sleep(PIECE_TIME)));
        ready!(silence.as_mut().poll(cx));
        let silent = format!("nothing more came for {} s", PIECE_TIME.as_secs());
        Poll::Ready(Some(Err(silent.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::{Request, Response, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_may_be_slow_and_not_silent() {
        let second = PIECE_TIME.saturating_sub(Duration::from_secs(1));
        assert_eq!(read("abc", second).await, "3 bytes");
        assert_eq!(
            read("ab", second).await,
            "the body broke off: nothing more came for 30 s"
        );
    }

    /// What comes of a body of three bytes of which `sent` are sent, one at a time with `pause` before each.
    async fn read(sent: &str, pause: Duration) -> String {
        let (mut caller, ours) = duplex(1024);
        let service = service_fn(|request: Request<Incoming>| async {
            let read = Inbound::body(request.into_body()).read(1024).await;
            let said = read.map_or_else(
                |error| error.to_string(),
                |bytes| format!("{} bytes", bytes.len()),
            );
            Ok::<_, Infallible>(Response::new(said))
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(ours), service);
        let calling = async {
            let head = b"POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: 3\r\n\r\n";
            caller.write_all(head).await.unwrap();
            for byte in sent.bytes() {
                sleep(pause).await;
                caller.write_all(&[byte]).await.unwrap();
            }
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (served, answer) = tokio::join!(serving, calling);
        served.unwrap();
        answer.split("\r\n\r\n").nth(1).unwrap().to_owned()
    }
}
