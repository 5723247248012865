//! What a request or an answer carries.

use std::{
    any::Any,
    cell::Cell,
    error::Error,
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

/// An error from outside, of which only the text is used.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// As much room is made for a body as it declares, up to this many bytes: what is only announced may never come.
const BELIEVED: u64 = 1 << 20;

/// A body that arrives piece by piece.
pub type Arriving = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError>>>;

/// A message body: absent, whole, the platform's own, or arriving.
///
/// A body of the platform's own stays closed until a stage has to see its bytes; where none has to,
/// the adapter gets it back by [`Body::into_foreign`] and hands it on as it came.
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Whole(Bytes),
    Foreign(Box<dyn Foreign>),
    Watched(Box<Watched>),
    Arriving(Arriving),
}

/// What becomes of a body that is handed through, for whoever wants to know whose fault it is if nothing comes of it.
pub type Watch = Rc<Cell<Course>>;

/// How a body does that is handed through.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Course {
    /// Whoever reads it has what he wants, as far as is known.
    #[default]
    Well,
    /// Whoever reads it waits for whoever sends it.
    Awaited,
    /// It broke off.
    Broken,
    /// Whoever sends it was silent for too long.
    Late,
    /// It is longer than so many bytes.
    TooLong(u64),
}

/// A platform's own body.
#[async_trait(?Send)]
pub trait Foreign: Any {
    /// Opens it, to be read through Rust piece by piece.
    fn open(self: Box<Self>) -> Arriving;

    /// Reads it whole, in as few crossings as the platform can, or fails once it is longer than `limit` bytes.
    async fn read(self: Box<Self>, limit: u64) -> Result<Bytes, BodyError> {
        Body(Kind::Arriving(self.open())).read(limit).await
    }

    /// Its length in bytes, where the platform declares it.
    fn size(&self) -> Option<u64>;

    /// Itself, for the adapter that made it.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Why a body could not be read.
#[derive(Debug)]
pub enum BodyError {
    /// It is longer than what was allowed.
    TooLarge,
    /// Too much of others is kept already for it to be.
    NoRoom,
    /// It broke off.
    Broken(BoxError),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the body is too large"),
            Self::NoRoom => f.write_str("there is no room for the body"),
            Self::Broken(error) => write!(f, "the body broke off: {error}"),
        }
    }
}

impl Error for BodyError {}

impl Body {
    /// No body.
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// A body of the platform's own.
    pub fn foreign(body: impl Foreign) -> Self {
        Self(Kind::Foreign(Box::new(body)))
    }

    /// A body that arrives piece by piece.
    pub fn arriving<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Arriving(Box::pin(Erased(Box::pin(body)))))
    }

    /// The platform's own body, if that is what this is and nobody opened it.
    pub fn into_foreign<T: Foreign>(self) -> Result<Box<T>, Self> {
        match self.0 {
            Kind::Foreign(body) if (&*body as &dyn Any).is::<T>() => {
                body.into_any().downcast::<T>().map_err(|_| Self::empty())
            }
            // What has a length is held to it by the platform, and then nobody can say more of it.
            Kind::Watched(body) if body.inner.is_foreign() && body.inner.size().is_some() => {
                body.inner.into_foreign()
            }
            other => Err(Self(other)),
        }
    }

    /// Whether it is the platform's own, and closed.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self.0, Kind::Foreign(_))
    }

    /// The bytes, if all of them are here already.
    pub fn into_whole(self) -> Result<Bytes, Self> {
        match self.0 {
            Kind::Empty => Ok(Bytes::new()),
            Kind::Whole(bytes) => Ok(bytes),
            other => Err(Self(other)),
        }
    }

    /// The length in bytes, where it is known before reading.
    pub fn size(&self) -> Option<u64> {
        match &self.0 {
            Kind::Foreign(body) => body.size(),
            _ => http_body::Body::size_hint(self).exact(),
        }
    }

    /// Reads the whole of it, or fails once it is longer than `limit` bytes.
    pub async fn read(mut self, limit: u64) -> Result<Bytes, BodyError> {
        let declared = self.size();
        if declared.is_some_and(|size| size > limit) {
            return Err(BodyError::TooLarge);
        }
        match self.0 {
            Kind::Empty => return Ok(Bytes::new()),
            Kind::Whole(bytes) => return Ok(bytes),
            Kind::Foreign(body) => return body.read(limit).await,
            Kind::Arriving(_) | Kind::Watched(_) => {}
        }
        // A body of one piece is not copied; one of many small pieces takes no more room than its bytes.
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(piece) = self.piece().await {
            let data = piece.map_err(BodyError::Broken)?;
            if (first.len() + rest.len() + data.len()) as u64 > limit {
                return Err(BodyError::TooLarge);
            }
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    let room = declared.unwrap_or(0).min(BELIEVED);
                    rest.reserve(usize::try_from(room).unwrap_or(0));
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&data);
            }
        }
        Ok(if rest.is_empty() {
            first
        } else {
            rest.freeze()
        })
    }

    /// The next piece of it; nothing at its end.
    pub(crate) async fn piece(&mut self) -> Option<Result<Bytes, BoxError>> {
        let mut body = Pin::new(self);
        loop {
            let frame =
                std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await?;
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The same body with `first` before it.
    pub(crate) fn behind(self, first: Bytes) -> Self {
        Self(Kind::Arriving(Box::pin(Behind {
            first: Some(first),
            rest: self,
        })))
    }

    /// The same body, which breaks once more than `limit` bytes have come, and tells `watch` how it does: as long as it is the platform's
    /// own, and closed, that is nothing.
    pub fn watched(self, limit: u64, watch: Watch) -> Self {
        Self(Kind::Watched(Box::new(Watched {
            inner: self,
            limit,
            left: limit,
            watch,
        })))
    }

    /// The same body, which holds `companion` until it is over or dropped.
    pub(crate) fn with<T: Unpin + 'static>(self, companion: T) -> Self {
        Self(Kind::Arriving(Box::pin(Accompanied {
            inner: self,
            companion: Some(companion),
        })))
    }
}

/// Whether a body broke off since whoever sends it was silent, or slow, for too long.
pub(crate) fn is_late(error: &BoxError) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// Pieces as one; a single piece is not copied.
pub(crate) fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() < 2 {
        return pieces.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in &pieces {
        whole.extend_from_slice(piece);
    }
    whole.freeze()
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() {
            Kind::Empty
        } else {
            Kind::Whole(bytes)
        })
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the content: it is somebody's prompt.
        f.write_str("Body")
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match &mut self.0 {
                Kind::Empty => return Poll::Ready(None),
                Kind::Arriving(body) => return body.as_mut().poll_frame(cx),
                Kind::Watched(body) => return body.poll_frame(cx),
                Kind::Whole(_) | Kind::Foreign(_) => {}
            }
            match std::mem::take(&mut self.0) {
                Kind::Whole(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Kind::Foreign(body) => self.0 = Kind::Arriving(body.open()),
                other => self.0 = other,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Whole(_) => false,
            Kind::Foreign(body) => body.size() == Some(0),
            Kind::Arriving(body) => body.is_end_stream(),
            Kind::Watched(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Foreign(body) => body
                .size()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            Kind::Arriving(body) => body.size_hint(),
            Kind::Watched(body) => http_body::Body::size_hint(&body.inner),
        }
    }
}

struct Erased<B>(Pin<Box<B>>);

impl<B> http_body::Body for Erased<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.as_mut().poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

struct Behind {
    first: Option<Bytes>,
    rest: Body,
}

impl http_body::Body for Behind {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

struct Accompanied<T> {
    inner: Body,
    companion: Option<T>,
}

impl<T: Unpin> http_body::Body for Accompanied<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.companion = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.inner)
    }
}

struct Watched {
    inner: Body,
    limit: u64,
    left: u64,
    watch: Watch,
}

impl Watched {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.watch.set(Course::Awaited);
        let frame = ready!(http_body::Body::poll_frame(Pin::new(&mut self.inner), cx));
        self.watch.set(match &frame {
            Some(Err(error)) if is_late(error) => Course::Late,
            Some(Err(_)) => Course::Broken,
            _ => Course::Well,
        });
        if let Some(Ok(frame)) = &frame {
            let size = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(size) {
                Some(left) => self.left = left,
                None => {
                    self.inner = Body::empty();
                    self.watch.set(Course::TooLong(self.limit));
                    return Poll::Ready(Some(Err(Box::new(BodyError::TooLarge))));
                }
            }
        }
        Poll::Ready(frame)
    }
}
