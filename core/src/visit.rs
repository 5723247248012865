//! What is known of a request while it is being answered, and its one record.

use std::mem;

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::{
    admission::Denial,
    body::Body,
    budget::Budget,
    call::Call,
    dialect::Dialect,
    limit::Standing,
    platform::Platform,
    record::{Closing, Ending, Record},
    refusal::{Refusal, whole_seconds},
    time::{Timestamp, millis},
    timeouts::Timeouts,
    trail::Trail,
};

/// What the record says where nobody was left to hear a status; nginx's number for it.
const CALLER_LEFT: u16 = 499;

const REQUEST: HeaderName = HeaderName::from_static("x-tidegate-request");
const ROUTE: HeaderName = HeaderName::from_static("x-tidegate-route");
const SERVED_BY: HeaderName = HeaderName::from_static("x-tidegate-served-by");
const DEGRADED: HeaderName = HeaderName::from_static("x-tidegate-degraded");
const CACHE: HeaderName = HeaderName::from_static("x-tidegate-cache");
pub(crate) const ATTEMPTS: HeaderName = HeaderName::from_static("x-tidegate-attempts");
const LIMIT: HeaderName = HeaderName::from_static("x-tidegate-limit");
const LIMIT_OF: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// How many of these an answer has at most.
const SAID: usize = 10;

/// What is known of a request while it is being answered. Its record is written once, however it ends: a caller who leaves
/// before there is an answer takes everything else with it.
pub(crate) struct Visit {
    platform: Platform,
    pub(crate) record: Record,
    /// Who was asked.
    pub(crate) trail: Trail,
    is_recorded: bool,
    pub(crate) dialect: Dialect,
    /// How long its upstreams may take.
    pub(crate) timeouts: Timeouts,
    /// Where the tightest of its limits stands.
    pub(crate) standing: Option<Standing>,
    /// A limit could not be checked, and the request was let in.
    pub(crate) degraded: bool,
    /// What it may cost, and what is held for it as long as it is in progress.
    pub(crate) budget: Budget,
}

impl Visit {
    /// A request that came just now.
    pub(crate) fn begin(platform: Platform, call: &Call) -> Self {
        let id = platform.dice.borrow_mut().id();
        let record = Record::begin(id, platform.clock.now(), call.method.as_str(), &call.path);
        Self {
            platform,
            record,
            trail: Trail::default(),
            is_recorded: false,
            dialect: Dialect::OpenAi,
            timeouts: Timeouts::MODEL,
            standing: None,
            degraded: false,
            budget: Budget::default(),
        }
    }

    /// What tells the time.
    #[cfg(feature = "websocket")]
    pub(crate) fn clock(&self) -> &dyn crate::platform::Clock {
        &*self.platform.clock
    }

    /// Notes what a limit, or the ledger, has said against it.
    pub(crate) fn limited(&mut self, denial: Denial) -> Refusal {
        match &denial {
            Denial::Limited(standing) | Denial::Shed(standing) => {
                self.standing = Some(standing.clone());
            }
            Denial::Unknown(fault) => self.record.fault = Some(format!("ledger: {fault}")),
        }
        denial.into()
    }

    /// Notes how a stream has gone.
    pub(crate) fn settle(&mut self, closing: &Closing) {
        let record = &mut self.record;
        if let Some(target) = &closing.served_by {
            record.served_by = Some(target.clone());
        }
        record.refusal = closing.refusal;
        record.usage = closing.usage;
        record.counted = Some(closing.counted);
        record.fault = record.fault.take().or_else(|| closing.detail.clone());
    }

    /// Writes the record of an answer that ended as `ended`; its first byte went out at `first_byte`, or now.
    pub(crate) fn close(&mut self, ended: Ending, first_byte: Option<Timestamp>) {
        let now = self.platform.clock.now();
        self.record.attempts = self.trail.attempts();
        self.record.waited_ms = self.trail.waited().map(millis);
        self.record.fault = self.record.fault.take().or_else(|| self.trail.fault());
        self.record.close(ended, first_byte.unwrap_or(now), now);
        self.platform.journal.write(&self.record);
        self.is_recorded = true;
    }

    /// Writes the record of an answer whose caller has left before it was there, and how it has gone.
    pub(crate) fn left(mut self, closing: &Closing) {
        self.settle(closing);
        self.record.status = CALLER_LEFT;
        self.close(Ending::Abandoned, None);
    }

    /// All of it, for whoever sees it to its end: here nothing more is said of it.
    pub(crate) fn take(&mut self) -> Self {
        let blank = Record::begin(String::new(), self.record.time, "", "");
        Self {
            platform: self.platform.clone(),
            record: mem::replace(&mut self.record, blank),
            trail: self.trail.clone(),
            is_recorded: mem::replace(&mut self.is_recorded, true),
            dialect: self.dialect,
            timeouts: self.timeouts,
            standing: self.standing.take(),
            degraded: self.degraded,
            budget: mem::take(&mut self.budget),
        }
    }

    /// Says no, in the caller's dialect.
    pub(crate) fn refuse(self, refusal: &Refusal) -> Response<Body> {
        self.end(refusal, Ending::Refused)
    }

    /// Says no, in the caller's dialect, to a request that `ended` so.
    pub(crate) fn end(mut self, refusal: &Refusal, ended: Ending) -> Response<Body> {
        let mut response = refusal.answer(self.dialect);
        self.stamp(response.headers_mut());
        self.record.status = refusal.status().as_u16();
        self.record.refusal = Some(refusal.code());
        if let Refusal::NoModel(name) = refusal {
            self.record.model = Some(name.clone());
        }
        self.close(ended, None);
        response
    }

    /// Says on every answer whose it is and how it came about.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap) {
        headers.reserve(SAID);
        let mut say = |name: HeaderName, value: &str| {
            // A name with characters that no header can carry is left out: the record has it.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        say(REQUEST, &self.record.id);
        if let Some(route) = &self.record.route {
            say(ROUTE, route);
        }
        if let Some(target) = &self.record.served_by {
            say(SERVED_BY, target);
        }
        if self.degraded {
            say(DEGRADED, "ledger");
        }
        if let Some(standing) = &self.standing {
            if let Some(label) = &standing.limit.label {
                headers.insert(LIMIT, label.clone());
            }
            headers.insert(LIMIT_OF, standing.allowed().into());
            headers.insert(REMAINING, standing.remaining.into());
            headers.insert(RESET, whole_seconds(standing.reset).into());
        }
        headers.insert(CACHE, HeaderValue::from_static("bypass"));
        headers.insert(ATTEMPTS, self.trail.len().into());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if !self.is_recorded {
            if self.record.status == 0 {
                self.record.status = CALLER_LEFT;
            }
            self.close(Ending::Abandoned, None);
        }
    }
}
