//! A stream that is heard as far as its answer goes, and answered at once.

use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;

use crate::{
    body::Body,
    dialect::{Dialect, dify, openai},
    platform::Tasks,
    receipt::Receipt,
    record::Closing,
    refusal::Refusal,
    sse::Framer,
    visit::Visit,
};

/// The longest answer that is put together, in bytes of its stream.
const LONGEST: usize = 64 << 20;

/// What a stream comes to.
pub(crate) struct Assembled {
    pub(crate) status: StatusCode,
    pub(crate) answer: Bytes,
    /// All of it is there, however the stream goes on.
    pub(crate) is_certain: bool,
}

/// What the events of a stream come to, as they would have been answered at once.
enum Whole {
    OpenAi(openai::Whole),
    Dify(dify::Whole),
}

/// What the events of `body` come to, of which no more is taken than that needs; nothing, if that is too long, or cannot be told.
pub(crate) async fn assemble(body: &mut Body, dialect: Dialect) -> Option<Assembled> {
    let mut framer = Framer::default();
    let mut whole = match dialect {
        Dialect::OpenAi => Whole::OpenAi(openai::Whole::default()),
        Dialect::Dify => Whole::Dify(dify::Whole::default()),
    };
    // It is told on behalf of the gateway, and is no part of what the upstream says.
    let broken = Refusal::Truncated.event(dialect);
    let mut taken = 0;
    while !whole.is_over()
        && let Some(piece) = body.piece().await
    {
        let piece = piece.ok()?;
        taken += piece.len();
        if taken > LONGEST {
            return None;
        }
        let add = |event: Bytes| {
            if event != broken {
                whole.add(&event);
            }
        };
        framer.push(piece, add).ok()?;
    }
    whole.add(&framer.finish());
    whole.answer()
}

impl Whole {
    fn add(&mut self, event: &[u8]) {
        match self {
            Self::OpenAi(whole) => whole.add(event),
            Self::Dify(whole) => whole.add(event),
        }
    }

    /// Whether whatever else comes is no part of the answer.
    fn is_over(&self) -> bool {
        match self {
            Self::OpenAi(_) => false,
            Self::Dify(whole) => whole.is_over(),
        }
    }

    fn answer(self) -> Option<Assembled> {
        match self {
            Self::OpenAi(whole) => whole.answer().map(|answer| Assembled {
                status: StatusCode::OK,
                answer,
                is_certain: false,
            }),
            Self::Dify(whole) => whole.answer().map(|(status, answer)| Assembled {
                status,
                answer,
                is_certain: true,
            }),
        }
    }
}

/// A request whose caller waits until a stream is over. If the caller leaves, its record waits for what becomes of the stream.
pub(crate) struct Waiting {
    tasks: Rc<dyn Tasks>,
    /// Until the stream is over.
    open: Option<(Visit, Receipt)>,
}

impl Waiting {
    pub(crate) fn new(visit: Visit, receipt: Receipt, tasks: Rc<dyn Tasks>) -> Self {
        let open = Some((visit, receipt));
        Self { tasks, open }
    }

    /// The request, and how the stream has gone.
    pub(crate) async fn over(mut self) -> Option<(Visit, Closing)> {
        let (_, receipt) = self.open.as_mut()?;
        let closing = receipt.await;
        let (mut visit, _) = self.open.take()?;
        visit.settle(&closing);
        Some((visit, closing))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((visit, receipt)) = self.open.take() {
            let settled = async move { visit.left(&receipt.await) };
            self.tasks.spawn(Box::pin(settled));
        }
    }
}
