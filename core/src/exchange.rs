//! What is asked of an upstream: everything but whom.

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, uri::PathAndQuery};

use crate::{
    body::{Body, Watch},
    claim::{Answer, Cost, STEP},
    dialect::{
        dify::{self, Open, Put, Query, Retelling, Run, UPLOAD, Wish},
        openai::{Asked, Estimate, Most},
    },
    dice::Dice,
    dispatch::{Hedge, Retry, Target},
    limit::Limit,
    time::Timestamp,
    timeouts::Timeouts,
    upstream::Prefill,
    usage::Usage,
};

/// A question, whom it can be put to, and how the answer is read.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) method: Method,
    /// Path and query, to be appended to the target's own.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    /// Who can answer, best first.
    pub(crate) targets: Vec<Target>,
    pub(crate) retry: Retry,
    /// Whether somebody else goes on with a stream that breaks off.
    pub(crate) rescue: bool,
    /// Whether somebody else is asked as well where the first word is late.
    pub(crate) hedge: Option<Hedge>,
    /// What is allowed of requests for the model that it asks for.
    pub(crate) limits: Vec<Rc<Limit>>,
    pub(crate) timeouts: Timeouts,
    pub(crate) reading: Reading,
    /// The caller's own user, if the call names one.
    pub(crate) user: Option<String>,
    /// What it is to an app of Dify's, where one of those can answer.
    pub(crate) query: Option<Box<Query>>,
    /// What it may cost in tokens, if it is counted in them.
    pub(crate) cost: Option<Cost>,
    /// What is known of a run that does not end with its caller's leaving.
    pub(crate) run: Option<Run>,
    /// What it has to do with what was begun before it, where several can answer.
    pub(crate) open: Option<Rc<Open>>,
    /// The number of the target that is asked first however it does.
    pub(crate) lead: Option<usize>,
    /// Whether its answer begins as soon as whoever is asked gets to it, however long it takes then.
    pub(crate) is_soon: bool,
    /// How a payload does that is handed through.
    pub(crate) watch: Watch,
    /// It asks that the connection become a WebSocket; its payload is then what the caller sends once it has.
    pub(crate) switches: bool,
}

/// What is sent with it.
#[derive(Debug)]
pub(crate) enum Payload {
    /// A request that was read, and can be put to one target after another.
    Asked(Box<Asked>),
    /// A body that is handed on, as often as it is asked for.
    Kept(Bytes),
    /// A body that is handed through, once.
    Once(Body),
}

/// A question as it goes to a target: one request, or several.
pub(crate) struct Delivery {
    /// The last one.
    pub(crate) request: Request<Body>,
    /// What must be uploaded before it, and where; its body is not known until then.
    files: Option<Box<(Put, Uri)>>,
}

/// How the answer is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reading {
    /// A model's answer: read whole, or event by event, for what it cost.
    Model(Terms),
    /// Any other answer of a provider: handed through, unless it is a failure.
    Provider,
    /// The answer of an app of Dify's: as a model's, but what Dify says of a failure is for the caller.
    Run(Wish),
    /// Any other answer of Dify's service API: streams are watched, the rest is handed through.
    Service,
    /// Handed through, whatever it is.
    Untouched {
        /// The caller signs in at Dify itself, and gets its cookies.
        cookies: bool,
    },
}

/// How a model's answer is read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Terms {
    /// The caller wants a stream.
    pub(crate) stream: bool,
    /// How many choices it comes in; none, if it does not come in choices.
    pub(crate) choices: u64,
    /// The event that tells the usage of a stream is not for the caller.
    pub(crate) hide_usage: bool,
    /// How many tokens the prompt probably comes to, where the caller is told them.
    pub(crate) prompt: Option<u64>,
    /// What passes of a stream is to be counted.
    pub(crate) counts: bool,
    /// What passes of a stream is to be kept: somebody else may have to go on with it.
    pub(crate) keeps: bool,
}

impl Exchange {
    /// The model that the caller named, if it named one, and whether it wants a stream.
    pub(crate) fn asked(&self) -> (Option<String>, bool) {
        match &self.payload {
            Payload::Asked(asked) => (asked.model.clone(), asked.stream),
            Payload::Kept(_) | Payload::Once(_) => (None, false),
        }
    }

    /// Whether not everybody is let in to all who can answer.
    pub(crate) fn has_gates(&self) -> bool {
        self.targets.iter().any(|target| target.way.is_some())
    }

    /// Whether it can be put more than once: a body that is handed through is there for the first one alone.
    pub(crate) fn is_repeatable(&self) -> bool {
        !matches!(self.payload, Payload::Once(_))
    }

    /// How long one attempt may take, of so much that is `left`, where there are `others` to ask or not.
    pub(crate) fn patience(&self, left: Duration, others: bool) -> Duration {
        // Nobody else is asked after the silence of somebody who may have begun.
        let others = others && self.open.as_ref().is_none_or(|open| open.is_repeatable());
        self.timeouts.attempt(self.is_streamed(), left, others)
    }

    /// Whether an app is given files before it is asked.
    pub(crate) fn has_files(&self) -> bool {
        self.query.as_ref().is_some_and(|query| query.has_files)
    }

    /// Whether targets stream the answer.
    fn is_streamed(&self) -> bool {
        matches!(&self.payload, Payload::Asked(asked) if asked.is_streamed())
    }

    /// Whether its caller can be told that the answer is on its way, and hear in the stream what became of it.
    pub(crate) fn can_be_awaited(&self) -> bool {
        match &self.reading {
            Reading::Model(terms) => terms.stream,
            reading => *reading == Reading::Run(Wish::Stream),
        }
    }

    /// When somebody else is asked as well. Whole answers take as long as they take.
    pub(crate) fn hedge(&self) -> Option<Hedge> {
        self.hedge.filter(|_| self.is_streamed())
    }

    /// Estimates what a model's answer may cost: only where somebody counts tokens, since the whole prompt is read for it.
    ///
    /// `least` is the tightest limit on tokens that is kept strictly. Where it has no room for pieces, an answer is held for as a
    /// whole, and kept to that.
    pub(crate) fn estimate(&mut self, least: u64) {
        let (Payload::Asked(asked), Reading::Model(_)) = (&self.payload, &self.reading) else {
            return;
        };
        let prompt = asked.estimate();
        let in_pieces = least > prompt.bound.saturating_add(STEP);
        self.cost = Some(Cost {
            prompt,
            answer: match (
                asked.generates(),
                asked.stream && !asked.most.hides && in_pieces,
            ) {
                (false, _) => Answer::Free,
                (true, true) => Answer::Stream(Most {
                    // What no app has been told it need not keep to.
                    tokens: asked.most.tokens.filter(|_| self.query.is_none()),
                    ..asked.most
                }),
                (true, false) => Answer::Whole(asked.most),
            },
        });
    }

    /// What passes of a stream is to be counted.
    pub(crate) fn count(&mut self) {
        if let Reading::Model(terms) = &mut self.reading {
            terms.counts = true;
        }
    }

    /// What passes of a stream is to be kept, if somebody else `could` go on with it.
    pub(crate) fn keep(&mut self, could: bool) {
        let can_go_on = matches!(&self.payload, Payload::Asked(asked) if asked.can_go_on());
        if let Reading::Model(terms) = &mut self.reading {
            terms.keeps = could && self.rescue && can_go_on;
        }
    }

    /// Lets go of the question: it will not be put again.
    pub(crate) fn let_go(&mut self) {
        self.payload = Payload::Once(Body::empty());
        self.query = None;
        self.headers = HeaderMap::new();
    }

    /// The run that `target` begins with it, if that does not end with its caller's leaving.
    pub(crate) fn run_at(&self, target: &Target) -> Option<Run> {
        let Some(query) = &self.query else {
            return self.run.clone();
        };
        let form = target.origin.app.as_ref().zip(target.origin.on_abort);
        form.map(|(form, on_abort)| Run {
            path: form.path().into(),
            user: Some(query.user().into()),
            on_abort,
        })
    }

    /// What has been spent on an answer of which so many bytes were heard, as far as can be guessed.
    pub(crate) fn guess(&self, heard: usize) -> Usage {
        let Payload::Asked(asked) = &self.payload else {
            return Usage::default();
        };
        Usage {
            tokens_in: Some(asked.estimate().likely),
            tokens_out: Some(Estimate::of_bytes(heard as u64).likely),
            tokens: None,
        }
    }

    /// Whether a caller who breaks off looks like one of Dify's services that does: what is sent is handed through.
    pub(crate) fn is_broken_by_either(&self) -> bool {
        let is_model = matches!(self.reading, Reading::Model(_) | Reading::Provider);
        !is_model && !self.is_repeatable()
    }

    /// Whether its caller has used words by which a dead plugin daemon is known, so that an answer may only repeat them.
    pub(crate) fn is_suspect(&self) -> bool {
        let mut words = form_urlencoded::parse(self.path.as_bytes());
        let of_path = words.any(|(name, value)| {
            dify::is_suspect(name.as_bytes()) || dify::is_suspect(value.as_bytes())
        });
        of_path || matches!(&self.payload, Payload::Kept(body) if dify::is_suspect(body))
    }

    /// How many tokens the prompt probably comes to, where the caller is told them.
    pub(crate) fn prompt(&self) -> Option<u64> {
        match &self.reading {
            Reading::Model(terms) => terms.prompt,
            _ => None,
        }
    }

    /// Whether a stream of it is put together to one answer, since its caller wants it at once.
    pub(crate) fn is_assembled(&self) -> bool {
        match &self.payload {
            Payload::Asked(asked) => asked.is_assembled(),
            Payload::Kept(_) | Payload::Once(_) => {
                matches!(self.reading, Reading::Run(wish) if wish.is_at_once())
            }
        }
    }

    /// Whether a provider can be asked to go on behind the text that has been heard.
    pub(crate) fn takes_prefill(&self) -> bool {
        matches!(&self.payload, Payload::Asked(asked) if asked.takes_prefill())
    }

    /// Each choice of the answer may be so many tokens long, and no longer; or as long as the caller says.
    pub(crate) fn cap(&mut self, tokens: Option<u64>) {
        if let Payload::Asked(asked) = &mut self.payload {
            asked.cap(tokens);
        }
    }

    /// The request as it goes to `target`, which is to go on behind the text of `prefill`, if there is one. A body that is handed through is there for the first one alone.
    pub(crate) fn request(
        &mut self,
        target: &Target,
        authorization: Option<HeaderValue>,
        prefill: Option<(Prefill, &str)>,
    ) -> Option<Delivery> {
        let put = self.query.as_ref().zip(target.origin.app.as_ref());
        let put = put.map(|(query, form)| query.put(form));
        let path = put.as_ref().map_or(&*self.path, |put| put.path);
        let base = &target.origin.base;
        let uri = join(base, path)?;
        let is_put = put.is_some();
        let (put, files) = match put {
            Some(put) if put.has_uploads() => (None, Some(Box::new((put, join(base, UPLOAD)?)))),
            put => (put, None),
        };
        let mut request = Request::new(match (put, &mut self.payload) {
            (Some(put), _) => put.body().into(),
            (None, _) if is_put => Body::empty(),
            (None, Payload::Asked(asked)) => asked
                .body_for(&target.model, target.origin.is_openai(), prefill)
                .into(),
            (None, Payload::Kept(body)) => body.clone().into(),
            (None, Payload::Once(body)) => std::mem::take(body),
        });
        *request.uri_mut() = uri;
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        if is_put {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        if is_put || self.is_assembled() {
            // It must be read here.
            let plain = HeaderValue::from_static("identity");
            request.headers_mut().insert(header::ACCEPT_ENCODING, plain);
        }
        if let Some(authorization) = authorization {
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, authorization);
        }
        Some(Delivery { request, files })
    }

    /// Who tells the answer of `target` in the words of the caller, where it speaks others.
    pub(crate) fn retelling(&self, target: &Target, now: Timestamp) -> Option<Retelling> {
        let (Some(query), Some(_), Payload::Asked(asked)) =
            (&self.query, &target.origin.app, &self.payload)
        else {
            return None;
        };
        let model = asked.model.clone().unwrap_or_default();
        let telling = Retelling::new(target.origin.clone(), model, now.0 / 1_000);
        let telling = telling.as_text(query.is_text).at_once(!asked.is_streamed());
        let telling = telling.suspecting(query.is_suspect);
        Some(telling.keeping(query.keeper.as_ref() == Some(&target.name)))
    }
}

impl Delivery {
    /// The next upload, if there is one, as a form whose parts are held apart by what is thrown.
    pub(crate) fn upload(&mut self, dice: &RefCell<Dice>) -> Option<Request<Body>> {
        let (put, uri) = &mut **self.files.as_mut()?;
        let boundary = &*dice.borrow_mut().id();
        let mut headers = self.request.headers().clone();
        let form = ["multipart/form-data; boundary=", boundary].concat();
        headers.insert(header::CONTENT_TYPE, form.try_into().ok()?);
        Some(post(uri.clone(), headers, put.upload(boundary)?.into()))
    }

    /// Takes down what was said to the last upload; nothing, if that is not how a file is taken.
    pub(crate) fn uploaded(&mut self, said: &[u8]) -> Option<()> {
        self.files.as_mut()?.0.uploaded(said)
    }

    /// The question itself, once all is uploaded.
    pub(crate) fn question(&mut self) -> Request<Body> {
        let mut request = std::mem::take(&mut self.request);
        if let Some(files) = self.files.take() {
            *request.body_mut() = files.0.body().into();
        }
        request
    }
}

/// A request that posts `body`.
pub(crate) fn post(uri: Uri, headers: HeaderMap, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// `path` below `base`.
pub(crate) fn join(base: &Uri, path: &str) -> Option<Uri> {
    let mut parts = base.clone().into_parts();
    let below = base.path().trim_end_matches('/');
    let joined: Result<PathAndQuery, _> = if below.is_empty() {
        path.parse()
    } else {
        format!("{below}{path}").parse()
    };
    parts.path_and_query = Some(joined.ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_appended_to_the_targets_own() {
        let table = [
            ("http://h", "/x?y=1", "http://h/x?y=1"),
            ("http://h/", "/x", "http://h/x"),
            ("https://h:1/v1", "/chat", "https://h:1/v1/chat"),
            ("https://h/v1/", "/?q", "https://h/v1/?q"),
        ];
        for (base, path, expected) in table {
            assert_eq!(
                join(&base.parse().unwrap(), path).unwrap().to_string(),
                expected
            );
        }
    }
}
