//! Connections that become WebSockets, at the caller's end and at the upstream's.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body::Frame;
use hyper::{
    body::Incoming,
    upgrade::{self, OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tidegate_core::body::{Body, BoxError};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split},
    sync::oneshot,
    task::{JoinHandle, spawn_local},
    time::timeout,
};

/// How much is read at once.
const PIECE: usize = 16 << 10;

/// How long one end may take to take a piece.
const PIECE_TIME: Duration = Duration::from_secs(120);

type Stream = TokioIo<Upgraded>;

/// The caller's end, once it has been told that the connection has switched.
pub(crate) struct Caller {
    switched: OnUpgrade,
    reading: oneshot::Sender<ReadHalf<Stream>>,
}

impl Caller {
    /// The end of whoever sent `request`, and what will come from there.
    pub(crate) fn of(request: &mut Request<Incoming>) -> (Self, Body) {
        let (reading, read) = oneshot::channel();
        let caller = Self {
            switched: upgrade::on(request),
            reading,
        };
        (caller, Body::arriving(Arriving::Awaited(read)))
    }

    /// Sends it `body` until either is over.
    pub(crate) async fn carry(self, mut body: Body) {
        let Ok(stream) = self.switched.await else {
            return;
        };
        let (read, mut write) = split(TokioIo::new(stream));
        if self.reading.send(read).is_err() {
            return;
        }
        // Whether it was told of the end does not matter to anybody here.
        let _ = copy(&mut body, &mut write).await;
    }
}

/// The other end: sends it `body`, and gives what comes from there.
pub(crate) fn upstream(stream: Upgraded, mut body: Body) -> Body {
    let (read, mut write) = split(TokioIo::new(stream));
    let sending = spawn_local(async move { copy(&mut body, &mut write).await });
    Body::arriving(Upstream {
        read: Arriving::Here(read),
        sending: Some(sending),
    })
}

/// Sends what comes at once, all of it, and says that nothing more will.
async fn copy(body: &mut Body, write: &mut WriteHalf<Stream>) -> Result<(), BoxError> {
    while let Some(frame) = next(body).await {
        if let Ok(piece) = frame?.into_data() {
            let written = async {
                write.write_all(&piece).await?;
                write.flush().await
            };
            timeout(PIECE_TIME, written).await??;
        }
    }
    Ok(timeout(PIECE_TIME, write.shutdown()).await??)
}

async fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, BoxError>> {
    let mut body = Pin::new(body);
    std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await
}

/// What comes from one end.
enum Arriving {
    /// It has not switched yet.
    Awaited(oneshot::Receiver<ReadHalf<Stream>>),
    Here(ReadHalf<Stream>),
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let read = loop {
            match &mut *self {
                Self::Here(read) => break read,
                Self::Awaited(switched) => match ready!(Pin::new(switched).poll(cx)) {
                    Ok(read) => *self = Self::Here(read),
                    Err(_) => return Poll::Ready(None),
                },
            }
        };
        let mut piece = BytesMut::zeroed(PIECE);
        let mut buffer = ReadBuf::new(&mut piece);
        ready!(Pin::new(read).poll_read(cx, &mut buffer))?;
        let length = buffer.filled().len();
        piece.truncate(length);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(piece.freeze()))))
    }
}

/// What comes from an upstream, as long as somebody wants it.
struct Upstream {
    read: Arriving,
    sending: Option<JoinHandle<Result<(), BoxError>>>,
}

impl http_body::Body for Upstream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.read).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(None);
        };
        let sent = ready!(Pin::new(sending).poll(cx));
        self.sending = None;
        Poll::Ready(sent.map_err(Into::into).flatten().err().map(Err))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(sending) = &self.sending {
            sending.abort();
        }
    }
}
