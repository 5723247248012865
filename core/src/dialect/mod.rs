//! The languages that callers and upstreams speak.

pub mod dify;
mod fields;
pub(crate) mod json;
pub mod openai;

use bytes::Bytes;

use crate::{sse, usage::Usage};

/// A language.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// OpenAI's API.
    OpenAi,
    /// Dify's service API.
    Dify,
}

impl Dialect {
    /// What a stream says so that whoever waits for it knows that it goes on; nobody takes it for a part of the answer.
    pub fn ping(self) -> Bytes {
        match self {
            Self::OpenAi => Bytes::from_static(b": ping\n\n"),
            Self::Dify => Bytes::from_static(b"event: ping\n\n"),
        }
    }

    /// What an upstream has said in place of a stream, within one.
    pub(crate) fn event(self, error: &[u8]) -> Bytes {
        match self {
            Self::OpenAi => sse::event(error),
            Self::Dify => dify::event(error),
        }
    }

    /// How what a whole `answer` of a success tells of has not gone well, if it says so.
    pub(crate) fn fault(self, answer: &[u8]) -> Option<&'static str> {
        match self {
            Self::OpenAi => None,
            Self::Dify => dify::run_fault(answer),
        }
    }

    /// A whole `answer` that says all of what it has cost, where it says only a part; its prompt probably comes to so many tokens.
    pub(crate) fn completed(self, answer: &[u8], prompt: u64) -> Option<Bytes> {
        match self {
            Self::OpenAi => openai::completed(answer, prompt),
            Self::Dify => None,
        }
    }
}

/// Reads the events of a stream as they pass.
#[derive(Debug)]
pub enum Meter {
    /// Of OpenAI's API.
    OpenAi(openai::Meter),
    /// Of Dify's service API.
    Dify(dify::Meter),
}

/// What becomes of an event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It goes to the caller as it came.
    Pass,
    /// This goes to the caller in its place.
    Anew(Bytes),
    /// It was for the gateway alone.
    Keep,
    /// It is none: the upstream has lost its way.
    Garbled,
    /// It says that all is said, of something that has not come to its end.
    Unfinished,
}

impl Meter {
    /// Reads one event.
    pub fn read(&mut self, event: &[u8]) -> Verdict {
        match self {
            Self::OpenAi(meter) => meter.read(event),
            Self::Dify(meter) => {
                meter.read(event);
                Verdict::Pass
            }
        }
    }

    /// Whether an event of which the end is missing is no more than its beginning. Of OpenAI's it shows when they are read.
    pub(crate) fn is_half(&self, event: &[u8]) -> bool {
        match self {
            Self::OpenAi(_) => false,
            Self::Dify(_) => dify::is_half(event),
        }
    }

    /// What has been said so far, if somebody else can go on with it.
    pub fn told(&self) -> Option<&openai::Transcript> {
        match self {
            Self::OpenAi(meter) => meter.told(),
            Self::Dify(_) => None,
        }
    }

    /// Reads what is said behind this text.
    pub fn behind(self, text: &str) -> Self {
        match self {
            Self::OpenAi(meter) => Self::OpenAi(meter.behind(text)),
            Self::Dify(meter) => Self::Dify(meter),
        }
    }

    /// Whether the stream has said that it is over, so that nothing is missing if it ends here.
    pub fn is_over(&self) -> bool {
        match self {
            Self::OpenAi(meter) => meter.is_over(),
            Self::Dify(meter) => meter.over,
        }
    }

    /// Whether it streams though nobody has asked it to, so that its caller is used to that.
    pub fn is_unasked(&self) -> bool {
        matches!(self, Self::Dify(meter) if meter.unasked)
    }

    /// Whether all that was asked for has come, whatever else the stream may say.
    pub fn has_finished(&self) -> bool {
        match self {
            Self::OpenAi(meter) => meter.has_finished(),
            Self::Dify(meter) => meter.over,
        }
    }

    /// Whether the stream has said that it has failed: then the caller has heard so, and it is not whole.
    pub fn has_failed(&self) -> bool {
        match self {
            Self::OpenAi(meter) => meter.failed,
            Self::Dify(meter) => meter.failed,
        }
    }

    /// How what it tells of has gone by its own word, if not well.
    pub(crate) fn fault(&self) -> Option<String> {
        match self {
            Self::OpenAi(_) => None,
            Self::Dify(meter) => meter.fault.map(Into::into),
        }
    }

    /// Whether what it has cost in all was said in an event of its own, however it has ended then.
    pub fn has_counted(&self) -> bool {
        matches!(self, Self::OpenAi(meter) if meter.has_counted)
    }

    /// The event that tells what the answer has cost to a caller who asked for that, where nobody else has told it; `splice` has made
    /// one of two.
    pub fn owed(&mut self, splice: Option<&openai::Splice>) -> Option<String> {
        match self {
            Self::OpenAi(meter) => meter.owed(splice),
            Self::Dify(_) => None,
        }
    }

    /// What its caller is told in place of `said`, by which the upstream has told that it has failed, if it is told anything of that.
    pub fn failure(&self, said: Bytes) -> Option<Bytes> {
        match self {
            Self::OpenAi(meter) => meter.failure(&said),
            Self::Dify(_) => Some(said),
        }
    }

    /// The events that end the stream here because `why`, where its dialect has such an end, and tell what is `owed`; `last` was its
    /// last event.
    pub fn cut(&self, last: &[u8], why: &str, owed: &str) -> Option<Bytes> {
        match self {
            Self::OpenAi(meter) => Some(meter.cut(last, why, owed)),
            Self::Dify(_) => None,
        }
    }

    /// How many tokens of an answer have passed at most: their bytes, and what is not shown of them.
    pub fn passed(&self) -> u64 {
        match self {
            Self::OpenAi(meter) => meter.passed,
            Self::Dify(meter) => meter.passed,
        }
    }

    /// What the stream has cost so far, as the upstream counted it.
    pub fn usage(&self) -> Usage {
        match self {
            Self::OpenAi(meter) => meter.usage,
            Self::Dify(meter) => meter.usage(),
        }
    }
}
