//! Who can answer, and what became of asking.

use std::{fmt, rc::Rc};

use http::{HeaderValue, StatusCode, Uri};

/// Somebody who answers: a model provider, or a Dify service.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its name in the configuration, as records show it.
    pub name: Rc<str>,
    /// Where it is: scheme, authority and the path that every request's path is appended to.
    pub base: Uri,
    /// What opens it; nothing, if it asks for nothing.
    pub keys: Vec<OriginKey>,
    /// How it is told to go on behind the beginning of an answer, if it can.
    pub prefill: Option<Prefill>,
    /// The app of Dify's that it is, if it stands for a model and is one.
    pub app: Option<Form>,
    /// What becomes of a run of that app whose caller has left; nothing, if Dify is to go on with it unheard.
    pub on_abort: Option<OnAbort>,
}

/// What an operator wants to become of a run of Dify's whose caller has left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnAbort {
    /// Dify is told to end it.
    Stop,
    /// It is heard to its end, so that what it has cost is known.
    Drain,
}

/// What kind of app it is that stands for a model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Form {
    /// It keeps conversations: a chatbot, an agent, a chatflow.
    Chat,
    /// It writes a text, out of what is in this input.
    Completion(Box<str>),
    /// It is a workflow.
    Workflow {
        /// The input that takes what is asked.
        input: Box<str>,
        /// The output that is the answer.
        output: Box<str>,
    },
}

impl Form {
    /// Where it is run.
    pub(crate) fn path(&self) -> &'static str {
        match self {
            Self::Chat => "/chat-messages",
            Self::Completion(_) => "/completion-messages",
            Self::Workflow { .. } => "/workflows/run",
        }
    }
}

/// How a provider is told that the last message is the beginning of its answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Prefill {
    /// By nothing else: it goes on behind the last message if that is its own.
    Plain,
    /// By `"prefix": true` in that message, as at DeepSeek and Mistral.
    Prefix,
    /// By `"continue_final_message": true` in the request, as at vLLM and SGLang.
    ContinueFinalMessage,
}

/// One of the keys that open an origin.
#[derive(Clone, Debug)]
pub struct OriginKey {
    /// A number that is its own, whatever else is configured: a part of its hash.
    pub number: u64,
    /// The whole `authorization` header.
    pub authorization: HeaderValue,
}

impl Origin {
    /// The numbers of its keys.
    pub fn numbers(&self) -> Vec<u64> {
        self.keys.iter().map(|key| key.number).collect()
    }

    /// The keys themselves, which nobody is told.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let said = self
            .keys
            .iter()
            .filter_map(|key| key.authorization.to_str().ok());
        said.filter_map(|said| said.split(' ').next_back())
    }

    /// Whether it is OpenAI itself, whose API has names that no other provider of its dialect knows.
    pub fn is_openai(&self) -> bool {
        let host = self.base.host().unwrap_or_default();
        host == "api.openai.com" || host.ends_with(".openai.azure.com")
    }
}

impl Outcome {
    /// The status that it answered with, or would have, had it known in time.
    pub fn status(self) -> Option<StatusCode> {
        match self {
            Self::Status(status) | Self::Told(status) => Some(status),
            Self::Complained(_) => Some(StatusCode::BAD_REQUEST),
            Self::Failed(_) | Self::Garbled => None,
        }
    }

    /// Whether an upstream that did this may have begun with what it was asked for, so that it would do it twice if it were asked again.
    pub fn may_have_begun(self) -> bool {
        let waited = |status: StatusCode| matches!(status.as_u16(), 504 | 520 | 522 | 524);
        self.may_have_cost() || self.status().is_some_and(waited)
    }

    /// Whether an upstream that did this may have done work that somebody pays for.
    pub fn may_have_cost(self) -> bool {
        match self {
            Self::Status(_)
            | Self::Told(_)
            | Self::Complained(_)
            | Self::Failed(FailureReason::Connect | FailureReason::Crowded) => false,
            Self::Failed(
                FailureReason::Broken | FailureReason::Timeout | FailureReason::Abandoned,
            )
            | Self::Garbled => true,
        }
    }
}

/// Why a request got no answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// How far it came.
    pub reason: FailureReason,
    /// What the platform said of it, for the operator.
    pub detail: String,
}

/// How far a request came that got no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureReason {
    /// No connection: refused, unreachable, unknown name, TLS. The upstream has seen nothing.
    Connect,
    /// The connection broke, or what came was not HTTP. The upstream may have begun to work.
    Broken,
    /// Nothing came in time.
    Timeout,
    /// It was not let in: what is asked has as much to do as it bears. The upstream has seen nothing.
    Crowded,
    /// Its caller has left.
    Abandoned,
}

/// Why a target does not answer a request that another one might.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Complaint {
    /// It is too long.
    ContextLength,
    /// The provider does not want to answer it.
    ContentFilter,
    /// It is about something that the target does not know.
    Unknown,
    /// The target takes it for wrong because its own plugins do not answer.
    Plugins,
    /// It is forbidden to whoever makes it: nobody else would allow it.
    Denied,
    /// The target has begun with it, and a person has stopped it, or is waited for: nobody else is to begin it.
    Stopped,
}

/// What an upstream did when it was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It answered with this status.
    Status(StatusCode),
    /// It answered with success, and then told of an error that it would have given this status.
    Told(StatusCode),
    /// It cannot answer this, and says why: another one might.
    Complained(Complaint),
    /// It gave no answer.
    Failed(FailureReason),
    /// It answered with something that its protocol does not know: HTML in place of JSON, an empty body, half an answer.
    Garbled,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.as_u16().fmt(f),
            Self::Told(status) => write!(f, "error {}", status.as_u16()),
            Self::Complained(Complaint::ContextLength) => f.write_str("context_length"),
            Self::Complained(Complaint::ContentFilter) => f.write_str("content_filter"),
            Self::Complained(Complaint::Unknown) => f.write_str("unknown"),
            Self::Complained(Complaint::Plugins) => f.write_str("plugin_daemon"),
            Self::Complained(Complaint::Denied) => f.write_str("denied"),
            Self::Complained(Complaint::Stopped) => f.write_str("stopped"),
            Self::Failed(FailureReason::Connect) => f.write_str("connect"),
            Self::Failed(FailureReason::Broken) => f.write_str("broken"),
            Self::Failed(FailureReason::Timeout) => f.write_str("timeout"),
            Self::Failed(FailureReason::Crowded) => f.write_str("crowded"),
            Self::Failed(FailureReason::Abandoned) => f.write_str("abandoned"),
            Self::Garbled => f.write_str("garbled"),
        }
    }
}
