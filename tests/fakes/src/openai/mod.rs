//! A provider that speaks as OpenAI does.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    counts::Visit,
    mode::{Fault, Mode},
    play::{Reply, Step},
    server::{Asked, page},
    wire::{self, Event},
};

mod chat;
mod responses;

/// One call, with what its answer is made of.
struct Call<'a> {
    mode: &'a Mode,
    /// Which call of this provider it is.
    number: u64,
    body: Value,
}

/// An answer that is an error, in OpenAI's shape.
struct Failure {
    status: u16,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<&'static str>,
    message: String,
}

/// Answers `asked`.
pub(crate) fn answer(asked: &Asked, mode: &Mode, visit: &Visit) -> Reply {
    if let Some(reply) = mode.fault.and_then(page) {
        return reply;
    }
    if asked.path == "/metrics" {
        return metrics(visit);
    }
    let reply = serve(asked, mode, visit).unwrap_or_else(|failure| failure.reply());
    reply
        .with("server", "cloudflare")
        .with("set-cookie", "__cf_bm=fake; path=/; HttpOnly")
        .with("openai-organization", "org-fake")
        .with("openai-processing-ms", "1")
        .with("x-request-id", &format!("req_{:012}", visit.call))
        .with("x-ratelimit-limit-requests", "10000")
        .with("x-ratelimit-remaining-requests", "9999")
}

fn serve(asked: &Asked, mode: &Mode, visit: &Visit) -> Result<Reply, Failure> {
    check_key(asked.bearer())?;
    if let Some(failure) = refusal(mode, visit) {
        return Err(failure);
    }
    let path = asked.path.strip_prefix("/v1/").unwrap_or_default();
    if let Some(pieces) = mode.raw {
        return Ok(if pieces == 0 {
            chat::raw()
        } else {
            chat::raw_stream(pieces)
        });
    }
    if asked.method == http::Method::GET {
        return models(path).ok_or_else(|| no_such(asked));
    }
    match path {
        "audio/transcriptions" => return Ok(Reply::json(200, &json!({"text": "The tide is in."}))),
        "audio/speech" | "chat/completions" | "completions" | "embeddings" | "rerank"
        | "responses" => {}
        _ => return Err(no_such(asked)),
    }
    let call = Call {
        mode,
        number: visit.call,
        body: asked.json().ok_or_else(Failure::not_json)?,
    };
    let model = call.body["model"]
        .as_str()
        .ok_or_else(|| Failure::missing("model", "you must provide a model parameter"))?;
    if model.starts_with("no-") {
        return Err(Failure::no_model(model));
    }
    match path {
        "chat/completions" => chat::chat(&call),
        "completions" => chat::completion(&call),
        "responses" => responses::respond(&call),
        "embeddings" => embeddings(&call),
        "rerank" => rerank(&call),
        _ => speech(&call),
    }
}

fn check_key(key: Option<&str>) -> Result<(), Failure> {
    let failure = |status, kind, code, message: String| Failure {
        status,
        kind,
        code,
        param: None,
        message,
    };
    match key {
        Some(key) if key.starts_with("sk-fake-quota") => Err(failure(
            429,
            "insufficient_quota",
            Some("insufficient_quota"),
            "You exceeded your current quota, please check your plan and billing details.".into(),
        )),
        Some(key) if key.starts_with("sk-fake-") => Ok(()),
        Some(key) => {
            let shown = key.get(..4).unwrap_or("");
            let message = format!(
                "Incorrect API key provided: {shown}****. You can find your API key in your account."
            );
            Err(failure(
                401,
                "invalid_request_error",
                Some("invalid_api_key"),
                message,
            ))
        }
        None => {
            let message = "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth.";
            Err(failure(401, "invalid_request_error", None, message.into()))
        }
    }
}

fn refusal(mode: &Mode, visit: &Visit) -> Option<Failure> {
    let over = mode.cap.is_some_and(|cap| visit.active > cap as u64);
    let status = match mode.fault {
        _ if over => 429,
        Some(Fault::Status(status)) => status,
        _ => return None,
    };
    let (kind, code, message) = match status {
        400 => (
            "invalid_request_error",
            None,
            "The request is refused, as the mode says.",
        ),
        401 => (
            "invalid_request_error",
            Some("invalid_api_key"),
            "Incorrect API key provided.",
        ),
        403 => (
            "invalid_request_error",
            Some("unsupported_country_region_territory"),
            "Country, region, or territory not supported",
        ),
        404 => (
            "invalid_request_error",
            Some("model_not_found"),
            "The model does not exist or you do not have access to it.",
        ),
        429 => (
            "requests",
            Some("rate_limit_exceeded"),
            "Rate limit reached for requests. Please try again in 7s.",
        ),
        503 => (
            "server_error",
            None,
            "The engine is currently overloaded, please try again later",
        ),
        _ => (
            "server_error",
            None,
            "The server had an error while processing your request. Sorry about that!",
        ),
    };
    Some(Failure {
        status,
        kind,
        code,
        param: None,
        message: message.into(),
    })
}

impl Failure {
    fn reply(&self) -> Reply {
        let reply = Reply::json(self.status, &self.body());
        if matches!(self.status, 429 | 503) {
            reply.with("retry-after", "7")
        } else {
            reply
        }
    }

    fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }

    fn invalid(
        code: Option<&'static str>,
        param: Option<&'static str>,
        status: u16,
        message: String,
    ) -> Self {
        Self {
            status,
            kind: "invalid_request_error",
            code,
            param,
            message,
        }
    }

    fn missing(param: &'static str, message: &str) -> Self {
        Self::invalid(
            Some("missing_required_parameter"),
            Some(param),
            400,
            message.into(),
        )
    }

    fn not_json() -> Self {
        let message =
            "We could not parse the JSON body of your request. The API expects a JSON payload.";
        Self::invalid(None, None, 400, message.into())
    }

    fn no_model(model: &str) -> Self {
        let message =
            format!("The model `{model}` does not exist or you do not have access to it.");
        Self::invalid(Some("model_not_found"), None, 404, message)
    }

    /// What is said when it breaks in the middle of an answer.
    fn midway() -> Self {
        let message = "The server had an error while processing your request. Sorry about that!";
        Self {
            status: 500,
            kind: "server_error",
            code: None,
            param: None,
            message: message.into(),
        }
    }
}

impl Call<'_> {
    fn model(&self) -> &str {
        self.body["model"].as_str().unwrap_or_default()
    }

    fn streams(&self) -> bool {
        self.body["stream"] == true
    }

    /// The steps of a stream of `events`, with the error in it if the mode says so.
    fn stream(&self, mut events: Vec<Event>, midway: Event, done: bool) -> Reply {
        if self.mode.fail_midway {
            events.truncate(2);
            events.push(midway);
        } else if done && !self.mode.no_done {
            events.push(Event::Data("[DONE]".into()));
        }
        Reply::new(
            200,
            "text/event-stream; charset=utf-8",
            wire::stream(events, self.mode),
        )
        .with("cache-control", "no-cache")
    }

    /// An answer that is no stream, worth `pieces` events of one.
    fn whole(&self, pieces: usize, body: &Value) -> Result<Reply, Failure> {
        if self.mode.fail_midway {
            return Err(Failure::midway());
        }
        let mut reply = Reply::json(200, body);
        wire::hurt(&mut reply, pieces, self.mode);
        Ok(reply)
    }
}

fn no_such(asked: &Asked) -> Failure {
    Failure::invalid(
        None,
        None,
        404,
        format!("Invalid URL ({} {})", asked.method, asked.path),
    )
}

fn models(path: &str) -> Option<Reply> {
    let model =
        |id: &str| json!({"id": id, "object": "model", "created": CREATED, "owned_by": "fakes"});
    if path == "models" {
        let data: Vec<Value> = ["gpt-4.1", "gpt-4.1-mini", "text-embedding-3-small", "tts-1"]
            .into_iter()
            .map(model)
            .collect();
        return Some(Reply::json(200, &json!({"object": "list", "data": data})));
    }
    let id = path.strip_prefix("models/")?;
    Some(if id.starts_with("no-") {
        Failure::no_model(id).reply()
    } else {
        Reply::json(200, &model(id))
    })
}

fn embeddings(call: &Call<'_>) -> Result<Reply, Failure> {
    let inputs = match &call.body["input"] {
        Value::Null => {
            return Err(Failure::missing(
                "input",
                "Missing required parameter: 'input'.",
            ));
        }
        // A list of numbers is one text, as tokens.
        Value::Array(items) if !items.iter().all(Value::is_number) => items.clone(),
        one => vec![one.clone()],
    };
    let size = call.body["dimensions"].as_u64().unwrap_or(8);
    let base64 = call.body["encoding_format"] == "base64";
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = vector(&input.to_string(), size);
            let embedding = if base64 {
                let bytes: Vec<u8> = vector
                    .iter()
                    .flat_map(|number| number.to_le_bytes())
                    .collect();
                json!(BASE64_STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let tokens: usize = inputs.iter().map(|input| words(&input.to_string())).sum();
    let mut body = json!({"object": "list", "data": data, "model": call.model()});
    if !call.mode.no_usage {
        body["usage"] = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    }
    call.whole(1, &body)
}

/// Numbers between -1 and 1 that depend on the text and are exact in binary.
fn vector(text: &str, size: u64) -> Vec<f32> {
    let mut state = text.bytes().fold(0x811C_9DC5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(i16::from_le_bytes([
            state.to_be_bytes()[0],
            state.to_be_bytes()[1],
        ])) / 32768.0
    };
    (0..size).map(|_| next()).collect()
}

fn rerank(call: &Call<'_>) -> Result<Reply, Failure> {
    let documents = call.body["documents"]
        .as_array()
        .ok_or_else(|| Failure::missing("documents", "Missing required parameter: 'documents'."))?;
    let query = call.body["query"].as_str().unwrap_or_default();
    let score = |document: &Value| {
        if document.to_string().contains(query) {
            0.95
        } else {
            0.05
        }
    };
    let mut results: Vec<Value> = documents
        .iter()
        .enumerate()
        .map(|(index, document)| json!({"index": index, "relevance_score": score(document), "document": {"text": document}}))
        .collect();
    results.sort_by(|one, other| {
        other["relevance_score"]
            .as_f64()
            .partial_cmp(&one["relevance_score"].as_f64())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    results.truncate(
        usize::try_from(call.body["top_n"].as_u64().unwrap_or(u64::MAX)).unwrap_or(usize::MAX),
    );
    call.whole(1, &json!({"id": format!("rerank-{:012}", call.number), "model": call.model(), "results": results}))
}

/// A sound that is none: every byte there is, so that nothing may take it for text.
fn speech(call: &Call<'_>) -> Result<Reply, Failure> {
    if call.body["input"].as_str().is_none() {
        return Err(Failure::missing(
            "input",
            "Missing required parameter: 'input'.",
        ));
    }
    let bytes: Vec<u8> = (0..4096_u32).map(|index| (index % 256) as u8).collect();
    let steps = bytes
        .chunks(1024)
        .map(|part| Step::Write(part.to_vec().into()))
        .collect();
    Ok(Reply::new(200, "audio/mpeg", steps))
}

fn metrics(visit: &Visit) -> Reply {
    let running = visit.active - 1;
    let text = format!(
        "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{model_name=\"fake\"}} {running}.0\n\
         # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{model_name=\"fake\"}} 0.0\n\
         # TYPE vllm:gpu_cache_usage_perc gauge\nvllm:gpu_cache_usage_perc{{model_name=\"fake\"}} 0.0\n"
    );
    Reply::whole(200, "text/plain; version=0.0.4", text)
}

/// How many tokens a text is here: its words.
fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

const CREATED: u64 = 1_700_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_depend_on_the_text_only() {
        assert_eq!(vector("a", 8), vector("a", 8));
        assert_ne!(vector("a", 8), vector("b", 8));
        assert!(vector("a", 64).iter().all(|number| number.abs() <= 1.0));
    }

    #[test]
    fn a_key_is_right_or_the_answer_says_which_way_it_is_not() {
        let status = |key| check_key(key).err().map(|failure| failure.status);
        assert_eq!(status(Some("sk-fake-a")), None);
        assert_eq!(status(Some("sk-fake-quota")), Some(429));
        assert_eq!(status(Some("sk-real")), Some(401));
        assert_eq!(status(Some("é")), Some(401));
        assert_eq!(status(None), Some(401));
    }
}
