//! Sees to it that a stream goes on, and that whoever waits for it knows that it does.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use crate::{platform::Clock, time::Timestamp};

/// After how long without a word a caller is told that the stream goes on, so that no proxy between takes it for dead.
pub(crate) const PING: Duration = Duration::from_secs(15);

/// How long an upstream may take to close a stream that is over, so that its connection can be used again.
const LINGER: Duration = Duration::from_secs(1);

/// Watches over one stream.
pub(crate) struct Vigil {
    clock: Rc<dyn Clock>,
    idle: Duration,
    until: Timestamp,
    /// When something came from the upstream, and when something went to the caller.
    heard: Timestamp,
    said: Timestamp,
    sleep: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Alarm {
    /// The caller has heard nothing for a while.
    Ping,
    /// Nothing has come for too long.
    Idle,
    /// It has taken too long in all.
    Over,
}

impl Vigil {
    /// Over a stream in which something must come every `idle`, and which must be over at `until`.
    pub(crate) fn new(clock: Rc<dyn Clock>, idle: Duration, until: Timestamp) -> Self {
        let now = clock.now();
        Self {
            clock,
            idle,
            until,
            heard: now,
            said: now,
            sleep: None,
        }
    }

    /// The caller has heard nothing since then.
    pub(crate) fn silent_since(&mut self, since: Timestamp) {
        self.said = since;
    }

    /// Something has come from the upstream.
    pub(crate) fn heard(&mut self) {
        self.heard = self.clock.now();
    }

    /// Whether it has taken too long in all, by the time that something came last.
    pub(crate) fn is_over(&self) -> bool {
        self.heard >= self.until
    }

    /// Something has gone to the caller.
    pub(crate) fn said(&mut self) {
        self.said = self.clock.now();
    }

    /// Everything has been said: for what it has cost, and for the last word, nobody is waited for longer than for any other word,
    /// whatever comes meanwhile.
    pub(crate) fn wind_up(&mut self) {
        self.until = self.until.min(self.clock.now().after(self.idle));
        self.sleep = None;
    }

    /// The last word has come: an upstream that does not close then is not waited for as long as for a word.
    pub(crate) fn linger(&mut self) {
        self.idle = self.idle.min(LINGER);
        self.wind_up();
    }

    /// What is to be done, once something is.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Alarm> {
        loop {
            let now = self.clock.now();
            if now >= self.until {
                return Poll::Ready(Alarm::Over);
            }
            if now >= self.heard.after(self.idle) {
                return Poll::Ready(Alarm::Idle);
            }
            if now >= self.said.after(PING) {
                self.said = now;
                return Poll::Ready(Alarm::Ping);
            }
            // What comes moves these only on, so a sleep ends in time, or too early, and then there is another one.
            let next = self.until.min(self.heard.after(self.idle));
            let next = next.min(self.said.after(PING));
            let clock = self.clock.clone();
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(async move { clock.sleep(next.since(now)).await }));
            match sleep.as_mut().poll(cx) {
                Poll::Ready(()) => self.sleep = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
