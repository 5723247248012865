//! What a caller sends and what an upstream answers, down to the bytes.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A text many times over.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fill {
    /// What.
    pub text: String,
    /// How many times.
    pub times: usize,
}

/// What a caller sends.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Call {
    /// The method; `POST` if there is a body, else `GET`.
    pub method: Option<String>,
    /// The request's target.
    pub path: String,
    /// The `host` header.
    pub host: Option<String>,
    /// The name of the secret that is sent as `authorization: Bearer …`.
    pub key: Option<String>,
    /// Further headers; `$NAME` in them is the secret's value.
    pub headers: BTreeMap<String, OneOrMany<String>>,
    /// So many headers besides, each as long as `text`.
    pub many_headers: Option<Fill>,
    /// The body, as JSON unless `headers` say otherwise.
    pub body: Option<String>,
    /// The body, one byte a character (up to `\u00ff`).
    pub bytes: Option<String>,
    /// Stands where `{fill}` stands in the body or in `raw`.
    pub fill: Option<Fill>,
    /// Sends the body in chunks, its length undeclared.
    pub chunked: bool,
    /// Sends the body in chunks, and what is none in place of the next one.
    pub garbled: bool,
    /// The whole request as it goes over the wire, one byte a character.
    pub raw: Option<String>,
    /// The caller hangs up when it has said that.
    pub hang_up: bool,
    /// The caller hangs up when the first piece of the answer's body is there.
    pub leave: bool,
    /// The caller hangs up after so long, whatever is there.
    pub leave_after_ms: Option<u64>,
}

impl Call {
    /// The body's bytes, or those of the whole raw request.
    pub fn payload(&self) -> Result<Option<Vec<u8>>, String> {
        let written = [
            self.body.is_some(),
            self.bytes.is_some(),
            self.raw.is_some(),
        ];
        if written.iter().filter(|is| **is).count() > 1 {
            return Err("a call has one of `body`, `bytes` and `raw`".into());
        }
        let text = self
            .body
            .as_ref()
            .or(self.bytes.as_ref())
            .or(self.raw.as_ref());
        text.map(|text| encode(text, self.fill.as_ref(), self.body.is_some()))
            .transpose()
    }

    /// The method.
    pub fn method(&self) -> &str {
        match &self.method {
            Some(method) => method,
            None if self.body.is_some() || self.bytes.is_some() => "POST",
            None => "GET",
        }
    }

    /// The headers, with the secrets' values in them.
    pub fn headers(&self, secrets: &BTreeMap<String, String>) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        if let Some(key) = &self.key {
            let value = secrets
                .get(key)
                .unwrap_or_else(|| panic!("there is no secret `{key}`"));
            headers.push(("authorization".into(), format!("Bearer {value}")));
        }
        for (name, values) in &self.headers {
            for value in values.all() {
                let value = secrets.iter().fold(value.clone(), |text, (name, value)| {
                    text.replace(&format!("${name}"), value)
                });
                headers.push((name.clone(), value));
            }
        }
        if let Some(fill) = &self.many_headers {
            headers.extend(
                (0..fill.times).map(|number| (format!("x-many-{number}"), fill.text.clone())),
            );
        }
        if self.body.is_some()
            && !headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        {
            headers.push(("content-type".into(), "application/json".into()));
        }
        headers
    }
}

/// What an upstream answers to one request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// The status; 200 if none is given.
    pub status: Option<u16>,
    /// Its headers besides `content-type` and the framing.
    pub headers: BTreeMap<String, OneOrMany<String>>,
    /// The body; JSON, unless `headers` say otherwise.
    pub body: Option<String>,
    /// The body, one byte a character.
    pub bytes: Option<String>,
    /// The body as a stream of events: `x` becomes `data: x`; what begins with a field's name or a colon stays as it is.
    pub sse: Option<Vec<String>>,
    /// The body, piece by piece as they are sent.
    pub chunks: Option<Vec<String>>,
    /// The whole answer as it goes over the wire, one byte a character; then the connection is closed.
    pub raw: Option<String>,
    /// Stands where `{fill}` stands.
    pub fill: Option<Fill>,
    /// How the end of the body is told.
    pub framing: Option<Framing>,
    /// Time until the first byte.
    pub delay_ms: u64,
    /// Time between pieces.
    pub pause_ms: u64,
    /// The connection is reset after what is given.
    pub cut: bool,
    /// Nothing more comes after what is given, and the connection stays.
    pub stall: bool,
    /// How many requests are answered so.
    pub times: Option<usize>,
    /// It does not matter whether this is asked for.
    pub spare: bool,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// By `content-length`.
    Length,
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Answer {
    /// The pieces of the body, or of the whole raw answer.
    pub fn payload(&self) -> Result<Vec<Vec<u8>>, String> {
        let written = [
            self.body.is_some(),
            self.bytes.is_some(),
            self.sse.is_some(),
            self.chunks.is_some(),
            self.raw.is_some(),
        ];
        if written.iter().filter(|is| **is).count() > 1 {
            return Err("an answer has one of `body`, `bytes`, `sse`, `chunks` and `raw`".into());
        }
        let fill = self.fill.as_ref();
        if let Some(text) = &self.body {
            return Ok(vec![encode(text, fill, true)?]);
        }
        if let Some(text) = self.bytes.as_ref().or(self.raw.as_ref()) {
            return Ok(vec![encode(text, fill, false)?]);
        }
        let pieces = match (&self.sse, &self.chunks) {
            (Some(events), _) => events
                .iter()
                .map(|event| format!("{}\n\n", block(event)))
                .collect(),
            (_, Some(chunks)) => chunks.clone(),
            _ => Vec::new(),
        };
        pieces
            .iter()
            .map(|piece| encode(piece, fill, true))
            .collect()
    }

    /// How its end is told.
    pub fn framing(&self) -> Framing {
        match self.framing {
            Some(framing) => framing,
            None if self.sse.is_some() || self.chunks.is_some() => Framing::Chunked,
            None => Framing::Length,
        }
    }

    /// Its headers, without the framing.
    pub fn headers(&self) -> Vec<(String, String)> {
        let mut headers: Vec<_> = self
            .headers
            .iter()
            .flat_map(|(name, values)| {
                values
                    .all()
                    .iter()
                    .map(|value| (name.clone(), value.clone()))
            })
            .collect();
        if !self
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("content-type"))
        {
            if self.sse.is_some() {
                headers.push((
                    "content-type".into(),
                    "text/event-stream; charset=utf-8".into(),
                ));
            } else if self.body.is_some() {
                headers.push(("content-type".into(), "application/json".into()));
            }
        }
        headers
    }
}

/// One value, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Several.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// All of them.
    pub fn all(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// An event as a scenario writes it, as its block of lines.
pub fn block(event: &str) -> String {
    if ["data:", "event:", "id:", "retry:", ":"]
        .iter()
        .any(|field| event.starts_with(field))
    {
        event.into()
    } else {
        format!("data: {event}")
    }
}

fn encode(text: &str, fill: Option<&Fill>, utf8: bool) -> Result<Vec<u8>, String> {
    let text = match fill {
        Some(fill) => text.replace("{fill}", &fill.text.repeat(fill.times)),
        None => text.into(),
    };
    if utf8 {
        return Ok(text.into_bytes());
    }
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).map_err(|_| format!("`{c}` is no byte")))
        .collect()
}
