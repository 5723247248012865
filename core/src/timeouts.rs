//! How long an upstream may take, and for what.

use std::time::Duration;

/// How long a connection may take to come about, where the configuration does not say: a packet that is lost once is sent again
/// after one second, and after three if it is lost twice.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the upstreams of one request may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// Until a connection is made, its name looked up and its TLS agreed on: a machine that is gone is not waited for as long as
    /// one that thinks. A connection that is there already takes no time. Workers cannot be held to it.
    pub connect: Duration,
    /// From when a stream is asked for until its first content is there, of each who is asked.
    pub first_token: Duration,
    /// Between two pieces of a stream.
    pub idle: Duration,
    /// All of them together, to the end of the answer.
    pub total: Duration,
}

impl Timeouts {
    /// Of a model, where the configuration does not say: a reasoning model may think for minutes before it says a word, and a
    /// whole answer may take the ten minutes that the providers' own clients wait.
    pub const MODEL: Self = Self {
        connect: CONNECT,
        first_token: Duration::from_secs(300),
        idle: Duration::from_secs(120),
        total: Duration::from_secs(1_200),
    };

    /// Of Dify: as long as its own proxy waits. It says every ten seconds that it is still at work.
    pub const DIFY: Self = Self {
        connect: CONNECT,
        first_token: Duration::from_secs(3_600),
        idle: Duration::from_secs(120),
        total: Duration::from_secs(3_600),
    };

    /// Of a WebSocket of Dify's, which says every 25 seconds that it is still there. It lasts as long as both sides want it to.
    pub const SOCKET: Self = Self {
        connect: CONNECT,
        first_token: Duration::from_secs(60),
        idle: Duration::from_secs(120),
        total: Duration::MAX,
    };

    /// How long one attempt may take until it is known what comes of it, if so much is `left` of the total. A whole answer comes
    /// at once: as long as there are `others` to ask, half of the time is theirs.
    pub fn attempt(&self, is_stream: bool, left: Duration, others: bool) -> Duration {
        match (is_stream, others) {
            (true, _) => left.min(self.first_token),
            (false, true) => left / 2,
            (false, false) => left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_leaves_time_for_the_next() {
        let seconds = Duration::from_secs;
        for (is_stream, left, others, expected) in [
            (true, 1_200, true, 300),
            (true, 1_200, false, 300),
            (true, 20, true, 20),
            (false, 1_200, true, 600),
            (false, 600, false, 600),
            (false, 0, true, 0),
        ] {
            let attempt = Timeouts::MODEL.attempt(is_stream, seconds(left), others);
            assert_eq!(attempt, seconds(expected), "{is_stream} {left} {others}");
        }
    }
}
