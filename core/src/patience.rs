//! Waiting, but not forever.

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use crate::platform::Clock;

/// What `work` comes to, or nothing if it takes longer than `limit`; it is dropped then.
pub(crate) async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let mut timeout = pin!(clock.sleep(limit));
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => timeout.as_mut().poll(cx).map(|()| None),
    })
    .await
}
