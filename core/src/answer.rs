//! What an upstream's answer is worth: something for the caller, or a reason to ask somebody else.

use std::{cell::Cell, fmt::Display, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, response::Parts};

use crate::{
    body::{Body, join},
    dialect::{
        Meter,
        dify::{self, Wish},
        openai::{self, Opening},
    },
    dispatch::is_for_caller,
    exchange::Reading,
    headers::{from_dify, from_provider, is_encoded, is_type},
    refusal::RETRY_AFTER,
    retry_after,
    sse::Framer,
    time::Timestamp,
    upstream::{Complaint, Failure, FailureReason, Origin, Outcome},
    usage::Usage,
};

/// The longest answer that is read whole, in bytes.
pub(crate) const LONGEST_ANSWER: u64 = 64 << 20;

/// How many bytes of events that say nothing are held back until one says something, which may be as long as any.
const LONGEST_OPENING: usize = 1 << 20;

const EVENTS_TYPE: &str = "text/event-stream";

const EVENTS: HeaderValue = HeaderValue::from_static(EVENTS_TYPE);

const COMPRESSED: &str = "the answer is compressed, which nobody asked for";

/// The caller has left.
pub(crate) const ABANDONED: Outcome = Outcome::Failed(FailureReason::Abandoned);

/// Something for the caller.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
    /// It is for the caller, unless somebody else has something better.
    pub(crate) complaint: Option<Complaint>,
}

impl Reply {
    /// What whoever gave it did.
    pub(crate) fn outcome(&self) -> Outcome {
        let status = Outcome::Status(self.status);
        self.complaint.map_or(status, Outcome::Complained)
    }

    /// What it has cost, if it is a failure that has cost something.
    pub(crate) fn cost(&self) -> Usage {
        match &self.content {
            Content::Whole(_, usage) if !self.status.is_success() => *usage,
            _ => Usage::default(),
        }
    }

    /// Whether whoever gave it does not know what it was asked about.
    pub(crate) fn is_ignorant(&self) -> bool {
        self.complaint == Some(Complaint::Unknown)
    }

    /// Which of several answers, none of which is as it should be, is for the caller: that with the most.
    pub(crate) fn worth(&self) -> u8 {
        match self.status.is_success() {
            true => 2,
            false => u8::from(!self.is_ignorant()),
        }
    }
}

/// How the answer's body goes on.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of it is here.
    Whole(Bytes, Usage),
    /// It goes on event by event.
    Stream(Body, Meter),
    /// It goes on as it comes.
    Untouched(Body),
}

/// Nothing for the caller.
#[derive(Clone, Debug)]
pub(crate) struct Miss {
    pub(crate) outcome: Outcome,
    /// How long the upstream wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
    /// It is no sign of how whoever was asked is.
    pub(crate) is_no_sign: bool,
    /// For the operator.
    pub(crate) detail: Option<String>,
    /// What it has cost all the same, as far as that was said; and what was said of the failure, for the caller.
    pub(crate) cost: Usage,
    pub(crate) said: Option<String>,
}

/// Takes the answer of `origin` as `reading` says.
pub(crate) async fn take(
    reading: &Reading,
    origin: &Origin,
    response: Response<Body>,
    now: Timestamp,
) -> Result<Reply, Miss> {
    let (mut head, mut body) = response.into_parts();
    let mut complaint = None;
    if head.status.is_informational() {
        return Err(Miss::garbled("neither an answer nor an error"));
    }
    let is_stream = head.status.is_success() && is_stream(&head.headers);
    let (content, mut headers) = match reading {
        Reading::Model(terms) => {
            check_provider(&head, now)?;
            let meter = || {
                let meter = openai::Meter::new(terms.hide_usage, terms.counts);
                let told = terms.prompt.filter(|_| terms.stream);
                let meter = meter.expecting(terms.choices).telling(told);
                Meter::OpenAi(if terms.keeps { meter.keeping() } else { meter })
            };
            let mut is_stream = is_stream;
            if terms.choices > 0 && is_untyped(&head) {
                (is_stream, body) = begins_as_stream(body).await?;
                if is_stream {
                    head.headers.insert(header::CONTENT_TYPE, EVENTS);
                }
            }
            let mut content = if is_stream {
                match begun(body, openai::opening).await? {
                    Begun::Stream(body, is_filtered) => {
                        complaint = is_filtered.then_some(Complaint::ContentFilter);
                        Content::Stream(body, meter())
                    }
                    Begun::Refused(error) => Content::Whole(error, Usage::default()),
                }
            } else {
                let usage = |answer: &[u8]| openai::usage(answer, terms.choices > 0);
                read_whole(&head, body, usage).await?
            };
            if let Content::Whole(bytes, _) = &content {
                if !head.status.is_success() {
                    complaint = openai::complaint(bytes);
                } else if let Some(status) = openai::told(bytes) {
                    if !is_for_caller(status) {
                        return Err(Outcome::Told(status).into());
                    }
                    complaint = openai::complaint(bytes);
                    head.status = status;
                } else if openai::is_filtered(bytes) {
                    complaint = Some(Complaint::ContentFilter);
                }
            }
            if let Content::Whole(said, _) = &mut content
                && !head.status.is_success()
            {
                if let Some(error) = openai::refitted(said, origin.secrets()) {
                    *said = error;
                }
                let json = HeaderValue::from_static("application/json");
                head.headers.insert(header::CONTENT_TYPE, json);
            }
            if let Content::Whole(answer, _) = &content
                && terms.stream
                && head.status.is_success()
                && let Some(stream) = openai::streamed(answer)
            {
                // Some do not stream, whatever they are asked; who asked waits for events.
                content = Content::Stream(stream.into(), meter());
                head.headers.insert(header::CONTENT_TYPE, EVENTS);
            }
            if let Content::Whole(answer, usage) = &mut content
                && head.status.is_success()
                && (usage.tokens_in.is_none() || usage.tokens_out.is_none())
                && let Some(prompt) = terms.prompt
                && let Some(completed) = openai::completed(answer, prompt)
            {
                *answer = completed;
            }
            if terms.choices > 0 && head.status.is_success() {
                // Some say no more of it than that they have taken the request; but this is the answer.
                head.status = StatusCode::OK;
            }
            (content, from_provider(&head.headers))
        }
        Reading::Provider => {
            check_provider(&head, now)?;
            (Content::Untouched(body), from_provider(&head.headers))
        }
        Reading::Run(_) | Reading::Service => {
            check_dify(&head, now)?;
            let is_run = *reading != Reading::Service && head.status.is_success();
            // Who waits for a stream may have been told already that it comes.
            let is_encoded = is_encoded(&head.headers);
            let is_assembled = matches!(reading, Reading::Run(wish) if wish.is_at_once());
            if is_encoded && is_assembled && is_type(&head.headers, EVENTS_TYPE) {
                return Err(Miss::garbled(COMPRESSED));
            }
            let is_awaited =
                *reading == Reading::Run(Wish::Stream) && head.status.is_client_error();
            let content = if is_stream {
                let depends = *reading == Reading::Run(Wish::Unsaid);
                let is_agents = Cell::new(false);
                // What comes first is for the caller in any case: nobody else could be asked.
                let opening = |event: &[u8]| match dify::is_agents(event) {
                    None if depends => Opening::Nothing,
                    agents => {
                        is_agents.set(depends && agents == Some(true));
                        Opening::Content
                    }
                };
                match begun(body, opening).await? {
                    Begun::Stream(body, _) => {
                        let meter = dify::Meter::of_agent(is_agents.get());
                        Content::Stream(body, Meter::Dify(meter))
                    }
                    Begun::Refused(error) => Content::Whole(error, Usage::default()),
                }
            } else if (is_run || is_awaited) && !is_encoded {
                read_whole(&head, body, dify::usage).await?
            } else {
                Content::Untouched(body)
            };
            (content, from_dify(&head.headers, &origin.base, false))
        }
        Reading::Untouched { cookies } => (
            Content::Untouched(body),
            from_dify(&head.headers, &origin.base, *cookies),
        ),
    };
    if !matches!(content, Content::Untouched(_)) {
        headers.remove(header::CONTENT_LENGTH);
    }
    owe_wait(head.status, &mut headers);
    Ok(Reply {
        status: head.status,
        headers,
        content,
        complaint,
    })
}

/// Says how long to wait where that is owed, and nobody has said it.
pub(crate) fn owe_wait(status: StatusCode, headers: &mut HeaderMap) {
    let owes_wait = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    if owes_wait && !headers.contains_key(header::RETRY_AFTER) {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
    }
}

/// How a stream has begun.
enum Begun {
    /// With something for its caller; or with the word that its provider does not want to answer.
    Stream(Body, bool),
    /// With this error, which is the caller's own: there is no stream.
    Refused(Bytes),
}

/// The same stream once its first content is there: until then nothing has gone to the caller, and somebody else can be asked.
async fn begun(mut body: Body, opening: impl Fn(&[u8]) -> Opening) -> Result<Begun, Miss> {
    let mut framer = Framer::default();
    let mut pieces = Vec::new();
    let mut silent = 0;
    let mut begins = Opening::Nothing;
    let mut refused = None;
    let refusal = |begins: &Opening, event: &[u8]| match begins {
        Opening::Error(_) => openai::refused(event),
        _ => None,
    };
    while begins == Opening::Nothing {
        let Some(piece) = body.piece().await else {
            // The blank line behind the last event is sometimes forgotten.
            let event = framer.finish();
            begins = opening(&event);
            refused = refusal(&begins, &event);
            if begins == Opening::Nothing {
                begins = Opening::End;
            }
            break;
        };
        let piece = piece.map_err(Miss::broken)?;
        // Of what says nothing nothing is kept, however often it comes.
        pieces.extend((!piece.is_empty()).then(|| piece.clone()));
        let pushed = framer.push(piece, |event| {
            if begins == Opening::Nothing {
                begins = opening(&event);
                refused = refusal(&begins, &event);
                silent += event.len();
            }
        });
        pushed.map_err(|oversized| Miss::garbled(&oversized.to_string()))?;
        if begins == Opening::Nothing && silent > LONGEST_OPENING {
            return Err(Miss::garbled("too much came before it said anything"));
        }
    }
    match begins {
        Opening::Garbled => Err(Miss::garbled("its first event is not JSON")),
        Opening::End => Err(Miss::garbled("the stream ended before it said anything")),
        Opening::Error(status) if !is_for_caller(status) => Err(Outcome::Told(status).into()),
        Opening::Error(_) | Opening::Content | Opening::Filtered | Opening::Nothing => {
            let is_filtered = begins == Opening::Filtered;
            Ok(match refused {
                Some(error) => Begun::Refused(error),
                None => Begun::Stream(body.behind(join(pieces)), is_filtered),
            })
        }
    }
}

impl Miss {
    /// One that says nothing of how whoever was to be asked is.
    pub(crate) fn no_sign(outcome: Outcome) -> Self {
        Self {
            is_no_sign: true,
            ..outcome.into()
        }
    }

    pub(crate) fn garbled(why: &str) -> Self {
        Self {
            detail: Some(why.into()),
            ..Outcome::Garbled.into()
        }
    }

    /// Whether the connection broke.
    pub(crate) fn is_broken(&self) -> bool {
        self.outcome == Outcome::Failed(FailureReason::Broken)
    }

    /// What came broke off.
    pub(crate) fn broken(error: impl Display) -> Self {
        Self {
            detail: Some(error.to_string()),
            ..Outcome::Failed(FailureReason::Broken).into()
        }
    }
}

impl From<Outcome> for Miss {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            retry_after: None,
            is_no_sign: false,
            detail: None,
            cost: Usage::default(),
            said: None,
        }
    }
}

impl From<Failure> for Miss {
    fn from(failure: Failure) -> Self {
        Self {
            detail: Some(failure.detail),
            ..Outcome::Failed(failure.reason).into()
        }
    }
}

/// A provider's failure is not for the caller; neither is what nobody asked for, such as a redirect, nor an error that
/// the provider's own API would put differently, such as a proxy's page.
fn check_provider(head: &Parts, now: Timestamp) -> Result<(), Miss> {
    if head.status == StatusCode::PARTIAL_CONTENT {
        return Err(Miss::garbled("a part, which nobody asked for"));
    }
    if is_for_caller(head.status) {
        return if head.status.is_success() || is_readable(head) {
            Ok(())
        } else {
            // Whoever stands before the provider does not like the request: the provider may be well.
            Err(Miss {
                is_no_sign: true,
                ..Miss::garbled("an error that is not JSON")
            })
        };
    }
    if head.status.is_redirection() {
        return Err(Miss::garbled("neither an answer nor an error"));
    }
    Err(failed(head, now))
}

/// What Dify says of failures is for the caller; what a proxy before it says is not.
fn check_dify(head: &Parts, now: Timestamp) -> Result<(), Miss> {
    let is_failure = head.status.as_u16() >= 400;
    if is_failure && !is_type(&head.headers, "application/json") {
        Err(failed(head, now))
    } else {
        Ok(())
    }
}

fn is_readable(head: &Parts) -> bool {
    let is_json = ["application/json", "application/problem+json"]
        .iter()
        .any(|kind| is_type(&head.headers, kind));
    is_json && !is_encoded(&head.headers)
}

fn failed(head: &Parts, now: Timestamp) -> Miss {
    Miss {
        retry_after: retry_after::said(&head.headers, now),
        ..Outcome::Status(head.status).into()
    }
}

async fn read_whole(
    head: &Parts,
    body: Body,
    usage: impl FnOnce(&[u8]) -> Option<Usage>,
) -> Result<Content, Miss> {
    let bytes = body.read(LONGEST_ANSWER).await.map_err(Miss::broken)?;
    if !head.status.is_success() {
        return Ok(Content::Whole(bytes, Usage::default()));
    }
    match usage(&bytes) {
        Some(usage) => Ok(Content::Whole(bytes, usage)),
        None if is_encoded(&head.headers) => Err(Miss::garbled(COMPRESSED)),
        None => Err(Miss::garbled(
            "the answer is not a JSON object, or says nothing",
        )),
    }
}

/// Whether it is not said what comes with success, or no more than that it is text.
fn is_untyped(head: &Parts) -> bool {
    let is_said = head.headers.contains_key(header::CONTENT_TYPE);
    let is_text = is_type(&head.headers, "text/plain");
    head.status.is_success() && (is_text || !is_said) && !is_encoded(&head.headers)
}

/// Whether `body` begins as a stream of events does, and the same body again.
async fn begins_as_stream(mut body: Body) -> Result<(bool, Body), Miss> {
    let beginnings = ["data:", "event:", "id:", "retry:", ":"].map(str::as_bytes);
    let mut taken = Vec::new();
    loop {
        let begun = taken.trim_ascii_start();
        let is_stream = beginnings.iter().any(|all| begun.starts_with(all));
        let may_be = beginnings.iter().any(|all| all.starts_with(begun));
        if is_stream || !may_be || taken.len() > LONGEST_OPENING {
            return Ok((is_stream, body.behind(taken.into())));
        }
        match body.piece().await {
            Some(piece) => taken.extend_from_slice(&piece.map_err(Miss::broken)?),
            None => return Ok((false, body.behind(taken.into()))),
        }
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    is_type(headers, EVENTS_TYPE) && !is_encoded(headers)
}
