//! One connection to an upstream, and who moves its bytes.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Waker},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1::SendRequest},
    upgrade::{OnUpgrade, Upgraded},
};
use tidegate_core::body::Body;
use tokio::task::yield_now;

/// A connection to an upstream. Dropping it closes it at once, whatever is under way.
///
/// It has no task of its own: whoever waits for its answer moves its bytes. So all that has arrived of an answer is had at
/// once; between two tasks that take turns, each piece of it would go to the caller by itself.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    driver: Driver,
}

/// What moves the bytes; gone once the connection is closed.
type Driver = Option<Pin<Box<dyn Future<Output = ()>>>>;

impl Connection {
    /// A connection that `driver` moves bytes for.
    pub(super) fn new(
        sender: SendRequest<Body>,
        driver: impl Future<Output = ()> + 'static,
    ) -> Self {
        Self {
            sender,
            driver: Some(Box::pin(driver)),
        }
    }

    /// Sends `request`, and waits for the head of its answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        // Everybody else who is ready goes first, here and below: what many have to write is then written in a row, and whoever
        // reads it is woken once. Under load that saves more than the turn costs.
        yield_now().await;
        let driver = &mut self.driver;
        let mut answer = pin!(self.sender.try_send_request(request));
        let answer = poll_fn(|cx| {
            drive(driver, cx);
            answer.as_mut().poll(cx)
        })
        .await;
        yield_now().await;
        answer
    }

    /// What it becomes once its answer has said that it switches.
    pub(super) async fn switch(mut self, switched: OnUpgrade) -> hyper::Result<Upgraded> {
        let mut switched = pin!(switched);
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            switched.as_mut().poll(cx)
        })
        .await
    }

    /// Moves what bytes can be moved.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, cx);
    }

    /// Whether it can take a request. Nobody has looked at it while it lay idle, so this does.
    pub(super) fn is_open(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }
}

fn drive(driver: &mut Driver, cx: &mut Context<'_>) {
    if let Some(running) = driver
        && running.as_mut().poll(cx).is_ready()
    {
        *driver = None;
    }
}
