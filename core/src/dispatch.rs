//! Whom to ask, and whom to ask next.

use std::{num::NonZeroU32, rc::Rc};

use http::StatusCode;

use crate::upstream::{Origin, Outcome};

/// A model by the name that callers use, and who can answer for it.
#[derive(Debug)]
pub struct Model {
    /// The name that callers use.
    pub name: Rc<str>,
    /// Who can answer, best first; never empty.
    pub targets: Vec<Target>,
    /// When to ask again.
    pub retry: Retry,
}

/// A model of a provider.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name in the configuration: `openai/gpt-4.1`.
    pub name: Rc<str>,
    /// The provider.
    pub origin: Rc<Origin>,
    /// The name that the provider calls the model by.
    pub model: Rc<str>,
}

/// When to ask again, or somebody else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retry {
    /// How many may be asked in all.
    pub attempts: NonZeroU32,
    /// After no answer: no connection, a broken one, or none in time.
    pub connect: bool,
    /// After 429.
    pub limited: bool,
    /// After a 5xx, or an answer that is none.
    pub failing: bool,
}

/// The way of one request through the targets.
#[derive(Debug)]
pub struct Attempts {
    retry: Retry,
    targets: usize,
    asked: u32,
}

impl Retry {
    /// Never.
    pub const NEVER: Self = Self {
        attempts: NonZeroU32::MIN,
        connect: false,
        limited: false,
        failing: false,
    };

    fn covers(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Failed(_) => self.connect,
            Outcome::Garbled => self.failing,
            Outcome::Status(StatusCode::TOO_MANY_REQUESTS) => self.limited,
            Outcome::Status(status) if refuses_gateway(status) => true,
            Outcome::Status(status) => self.failing && status.is_server_error(),
        }
    }
}

impl Attempts {
    /// The way through so many targets.
    pub fn new(targets: usize, retry: Retry) -> Self {
        Self {
            retry,
            targets,
            asked: 0,
        }
    }

    /// The number of the target to ask, given what the last one did; nobody, if it is enough. Those who were asked once
    /// are asked again in the same order while attempts are left.
    pub fn next(&mut self, last: Option<Outcome>) -> Option<usize> {
        let go_on = last.is_none_or(|outcome| {
            self.asked < self.retry.attempts.get() && self.retry.covers(outcome)
        });
        let target = (self.asked as usize).checked_rem(self.targets)?;
        self.asked += 1;
        go_on.then_some(target)
    }
}

/// Whether the caller should hear this status of a provider as it is: a success, or a fault of the caller's own.
pub fn is_for_caller(status: StatusCode) -> bool {
    status.is_success()
        || (status.is_client_error()
            && !refuses_gateway(status)
            && status != StatusCode::TOO_MANY_REQUESTS)
}

/// The provider does not refuse the caller, whom it does not know, but the gateway: its key, its account, its region.
fn refuses_gateway(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::PAYMENT_REQUIRED
            | StatusCode::FORBIDDEN
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::FailureReason;

    fn status(code: u16) -> Outcome {
        Outcome::Status(StatusCode::from_u16(code).unwrap())
    }

    fn retry(attempts: u32) -> Retry {
        Retry {
            attempts: NonZeroU32::new(attempts).unwrap(),
            connect: true,
            limited: true,
            failing: true,
        }
    }

    #[test]
    fn targets_are_asked_in_order_and_again_while_attempts_are_left() {
        for (targets, attempts, expected) in [
            (1, 1, &[0][..]),
            (2, 2, &[0, 1]),
            (3, 2, &[0, 1]),
            (2, 5, &[0, 1, 0, 1, 0]),
            (0, 3, &[]),
        ] {
            let mut way = Attempts::new(targets, retry(attempts));
            let mut asked = Vec::new();
            let mut last = None;
            while let Some(target) = way.next(last) {
                asked.push(target);
                last = Some(status(503));
            }
            assert_eq!(asked, expected, "{targets} targets, {attempts} attempts");
        }
    }

    #[test]
    fn only_what_is_not_the_callers_fault_goes_on() {
        let all = retry(2);
        let none = Retry {
            connect: false,
            limited: false,
            failing: false,
            ..all
        };
        let table = [
            (status(500), true, false),
            (status(529), true, false),
            (status(429), true, false),
            (status(401), true, true),
            (status(403), true, true),
            (status(400), false, false),
            (status(404), false, false),
            (status(200), false, false),
            (Outcome::Garbled, true, false),
            (Outcome::Failed(FailureReason::Connect), true, false),
            (Outcome::Failed(FailureReason::Timeout), true, false),
        ];
        for (outcome, with_all, with_none) in table {
            assert_eq!(
                (all.covers(outcome), none.covers(outcome)),
                (with_all, with_none),
                "{outcome}"
            );
        }
    }
}
