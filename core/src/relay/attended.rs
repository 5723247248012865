//! A stream and its caller: read as long as he is there, and what is left to be done of it once he has left.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;

use super::{Relay, Source};
use crate::{
    body::{Body, BoxError},
    dialect::dify::Parting,
    platform::Tasks,
    record::Ending,
};

/// A stream as long as its caller is there.
pub(super) struct Attended(pub(super) Rc<RefCell<Option<Relay>>>);

/// Holds a stream whose caller may not read it to its end: then nothing of it moves, and no time passes for it.
pub(crate) struct Reins(pub(super) Rc<RefCell<Option<Relay>>>);

impl Reins {
    /// Ends the stream where it is, if it is not over.
    pub(crate) fn pull(self, ended: Ending, detail: Option<&str>) {
        let relay = self.0.take();
        if let Some(mut relay) = relay {
            relay.close(ended, detail.map(Into::into), None);
        }
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let relay = self.0.take();
        if let Some(relay) = relay
            && let Some((parting, tasks)) = relay.parting()
        {
            tasks.spawn(Box::pin(relay.part(parting)));
        }
    }
}

impl http_body::Body for Attended {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut relay = self.0.borrow_mut();
        let Some(relay) = &mut *relay else {
            return Poll::Ready(Some(Err("the stream was not read in time".into())));
        };
        let piece = ready!(relay.poll(cx));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

impl Relay {
    /// What is to be done now that the caller has left, and where.
    pub(super) fn parting(&self) -> Option<(Parting, Rc<dyn Tasks>)> {
        if let Source::Search(search) = &self.source {
            return Some((Parting::Listen, search.leave()?));
        }
        if let Source::Ended = self.source {
            return None;
        }
        let pursuit = self.pursuit.as_ref()?;
        Some((pursuit.parting(&self.meter)?, pursuit.tasks()))
    }

    /// What is left to be done once the caller has left. Until then, all that is held for the request stays held.
    async fn part(mut self, mut parting: Parting) {
        self.is_left = true;
        while parting == Parting::Listen {
            if poll_fn(|cx| self.poll(cx)).await.is_none() {
                return;
            }
            let Some((next, _)) = self.parting() else {
                return;
            };
            parting = next;
        }
        if let Parting::Stop { path, body } = parting {
            // Dify has few connections, and the call needs one.
            self.source = Source::Upstream(Body::empty());
            let fault = match &mut self.pursuit {
                Some(pursuit) => pursuit.stop(&path, body).await,
                None => None,
            };
            self.close(Ending::Abandoned, fault, None);
        } else {
            while poll_fn(|cx| self.poll(cx)).await.is_some() {}
        }
    }
}
