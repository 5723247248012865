//! What a caller sends, and how long it may keep us waiting.

use std::{
    any::Any,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tidegate_core::body::{Arriving, Body, BodyError, BoxError, Foreign};
use tokio::time::{Instant, Sleep, sleep};

use crate::room::{ROOM, Share};

/// How long a caller may take from one piece of a body to the next.
const PIECE_TIME: Duration = Duration::from_secs(30);

/// How long a body may be waited for in all; each byte of it adds what it takes at [`RATE`], and never makes this more. So does Apache's
/// `RequestReadTimeout body=60,MinRate=500`, where a first rush of bytes buys hours.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many bytes a second are not too slow.
const RATE: u32 = 500;

/// A request's body as it comes from the caller's connection; it breaks when the caller falls silent, or is too slow.
pub(crate) struct Inbound {
    incoming: Incoming,
    /// Since when a piece is waited for, and until when.
    wait: Option<(Instant, Pin<Box<Sleep>>)>,
    /// How long it may be waited for yet.
    patience: Duration,
    /// What it takes of the memory that there is, if it is kept.
    share: Option<Arc<Share>>,
}

impl Inbound {
    /// The body of a request; one that is over before it begins is none.
    pub(crate) fn body(incoming: Incoming) -> Body {
        if incoming.is_end_stream() {
            Body::empty()
        } else {
            Body::foreign(Self::new(incoming))
        }
    }

    fn new(incoming: Incoming) -> Self {
        Self {
            incoming,
            wait: None,
            patience: PATIENCE,
            share: None,
        }
    }

    /// Reads it whole, with a share of what there is room for until nobody needs its bytes any more.
    async fn keep(mut self, limit: u64, share: Share) -> Result<Bytes, BodyError> {
        let share = Arc::new(share);
        self.share = Some(share.clone());
        match Body::arriving(self).read(limit).await {
            Ok(bytes) if share.taken() == 0 => Ok(bytes),
            Ok(bytes) => Ok(Bytes::from_owner(Kept {
                bytes,
                _share: share,
            })),
            Err(BodyError::Broken(error)) if error.is::<BodyError>() => Err(BodyError::NoRoom),
            Err(error) => Err(error),
        }
    }
}

#[async_trait(?Send)]
impl Foreign for Inbound {
    fn open(self: Box<Self>) -> Arriving {
        Box::pin(*self)
    }

    async fn read(self: Box<Self>, limit: u64) -> Result<Bytes, BodyError> {
        self.keep(limit, Share::of(&ROOM)).await
    }

    fn size(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// What was read whole.
struct Kept {
    bytes: Bytes,
    _share: Arc<Share>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
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
            if let Some((since, _)) = self.wait.take() {
                self.patience = self.patience.saturating_sub(since.elapsed());
            }
            let data = frame
                .as_ref()
                .and_then(|frame| frame.as_ref().ok()?.data_ref());
            let size = data.map_or(0, Bytes::len);
            let bought = Duration::from_secs(size as u64) / RATE;
            self.patience = self.patience.saturating_add(bought).min(PATIENCE);
            let has_room = self.share.as_ref().is_none_or(|share| share.grow(size));
            if !has_room {
                return Poll::Ready(Some(Err(BodyError::NoRoom.into())));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // Time runs only while somebody waits for the caller: a slow upstream is not its fault.
        let patience = self.patience.min(PIECE_TIME);
        let (_, end) = self
            .wait
            .get_or_insert_with(|| (Instant::now(), Box::pin(sleep(patience))));
        ready!(end.as_mut().poll(cx));
        let late = if patience < PIECE_TIME {
            format!("less came than {RATE} bytes a second")
        } else {
            format!("nothing more came for {} s", PIECE_TIME.as_secs())
        };
        Poll::Ready(Some(Err(
            io::Error::new(io::ErrorKind::TimedOut, late).into()
        )))
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
    use std::{convert::Infallible, sync::mpsc};

    use hyper::{Request, Response, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::room::Room;

    #[tokio::test(start_paused = true)]
    async fn a_caller_may_be_slow_and_neither_silent_nor_for_ever() {
        let second = Duration::from_secs(1);
        let long = PIECE_TIME.saturating_sub(second);
        let too_slow = "the body broke off: less came than 500 bytes a second";
        let silent = "the body broke off: nothing more came for 30 s";
        for (pieces, missing, pause, expected) in [
            (vec![1; 3], 0, second, "3 bytes"),
            (vec![15_000; 20], 0, long, "300000 bytes"),
            (vec![15_000; 2], 1, long, silent),
            (vec![1; 3], 0, long, too_slow),
            (vec![400; 300], 0, second, too_slow),
            // A rush is followed by drops.
            (
                [vec![200_000], vec![1; 20]].concat(),
                0,
                second * 20,
                too_slow,
            ),
        ] {
            assert_eq!(read(&pieces, missing, pause).await, expected, "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn who_finds_no_room_is_told_so_and_leaves_it_as_it_was() {
        static SHARED: Room = Room::of(1 << 20);
        let other = Share::of(&SHARED);
        assert!(other.grow(1 << 20));
        for (size, expected) in [
            (1000, "1000 bytes"),
            (200_000, "there is no room for the body"),
        ] {
            let read = in_room(&SHARED, size).await;
            assert_eq!(
                read.map_or_else(
                    |error| error.to_string(),
                    |kept| format!("{} bytes", kept.len())
                ),
                expected
            );
        }
        drop(other);
        let kept = in_room(&SHARED, 900_000).await.unwrap();
        let part = kept.slice(1..2);
        drop(kept);
        assert!(in_room(&SHARED, 900_000).await.is_err());
        drop(part);
        assert!(in_room(&SHARED, 900_000).await.is_ok());
    }

    /// A body of so many bytes, read whole where there is this room.
    async fn in_room(room: &'static Room, size: usize) -> Result<Bytes, BodyError> {
        let (kept, received) = mpsc::channel();
        let read = move |inbound: Inbound| {
            let kept = kept.clone();
            async move {
                kept.send(inbound.keep(1 << 20, Share::of(room)).await)
                    .unwrap();
                String::new()
            }
        };
        call(&[size], 0, Duration::ZERO, read).await;
        received.recv().unwrap()
    }

    /// What comes of a body of `pieces`, sent with `pause` before each, which is to be longer by `missing` bytes.
    async fn read(pieces: &[usize], missing: usize, pause: Duration) -> String {
        let read = async |inbound: Inbound| {
            let read = Body::foreign(inbound).read(1 << 20).await;
            read.map_or_else(
                |error| error.to_string(),
                |bytes| format!("{} bytes", bytes.len()),
            )
        };
        call(pieces, missing, pause, read).await
    }

    async fn call<F: Future<Output = String>>(
        pieces: &[usize],
        missing: usize,
        pause: Duration,
        read: impl Fn(Inbound) -> F,
    ) -> String {
        let (mut caller, ours) = duplex(1 << 20);
        let service = service_fn(|request: Request<Incoming>| {
            let said = read(Inbound::new(request.into_body()));
            async { Ok::<_, Infallible>(Response::new(said.await)) }
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(ours), service);
        let calling = async {
            let length = pieces.iter().sum::<usize>() + missing;
            let head =
                format!("POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            caller.write_all(head.as_bytes()).await.unwrap();
            for size in pieces {
                sleep(pause).await;
                // Whoever was too slow is not heard any more.
                if caller.write_all(&vec![b'x'; *size]).await.is_err() {
                    break;
                }
            }
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (_, answer) = tokio::join!(serving, calling);
        answer.split("\r\n\r\n").nth(1).unwrap().to_owned()
    }
}
