//! A caller's connection, whose patience with a caller who takes nothing has an end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long a caller may take nothing of what there is for him; nginx's `send_timeout` is as long.
const SEND_TIME: Duration = Duration::from_secs(60);

/// Reads and writes as `S` does, and breaks once that has taken no byte for too long. Whoever reads slowly goes on reading; where
/// there is nothing to write, no time runs.
pub(crate) struct Patient<S> {
    stream: S,
    /// Runs while something is to be written and cannot be.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            stalled: None,
        }
    }

    /// What has become of writing, or that it has been waited for for too long.
    fn while_patient<T>(
        &mut self,
        cx: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(SEND_TIME)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the caller takes nothing",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.while_patient(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.while_patient(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.while_patient(cx, closed)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible, rc::Rc};

    use bytes::Bytes;
    use http_body::Frame;
    use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tidegate_core::body::Body;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Whether all is sent to a caller who takes `take` bytes at a time, with a `pause` before each.
    async fn sent(take: usize, pause: Duration) -> io::Result<()> {
        let (mut caller, ours) = duplex(4);
        let mut ours = Patient::new(ours);
        let writing = async {
            ours.write_all(b"0123456789").await?;
            // Nothing runs while there is nothing to write.
            sleep(SEND_TIME * 2).await;
            ours.write_all(b"a").await
        };
        let reading = async {
            let mut piece = vec![0; take];
            loop {
                sleep(pause).await;
                caller.read_exact(&mut piece).await?;
            }
        };
        tokio::select! {
            done = writing => done,
            done = reading => done,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_may_take_little_and_not_nothing() {
        let second = Duration::from_secs(1);
        sent(1, SEND_TIME - second).await.unwrap();
        let error = sent(1, SEND_TIME + second).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = sent(0, second).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    /// An answer without an end; it says when nobody wants it any more.
    struct Endless(Rc<Cell<bool>>);

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1024])))))
        }
    }

    impl Drop for Endless {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_dropped() {
        let (mut caller, ours) = duplex(4096);
        let dropped = Rc::new(Cell::new(false));
        let service = service_fn(|_: Request<Incoming>| {
            let body = Body::arriving(Endless(dropped.clone()));
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
        let asking = caller.write_all(b"GET / HTTP/1.1\r\n\r\n");
        asking.await.unwrap();
        let stream = TokioIo::new(Patient::new(ours));
        let serving = http1::Builder::new().serve_connection(stream, service);
        let served = tokio::time::timeout(SEND_TIME * 2, serving).await;
        assert!(served.unwrap().is_err());
        assert!(dropped.get());
    }
}
