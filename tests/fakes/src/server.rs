//! The port: reads a request, finds its fake, plays the answer.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::{
    counts::Counts,
    dify,
    mode::{Fault, Mode},
    openai,
    play::{Play, Reply},
};

/// A request, read to its end.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// What follows the mode.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Everything that outlives a request.
#[derive(Clone, Default)]
pub(crate) struct World {
    counts: Counts,
    installations: Arc<Mutex<BTreeMap<String, Arc<dify::Installation>>>>,
}

/// Answers on `listener`.
pub(crate) async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let world = World::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let world = world.clone();
        tokio::spawn(async move { connection(stream, world).await });
    }
}

async fn connection(stream: TcpStream, world: World) {
    // What to write on the bare connection once the server has let go of it.
    let last_words = Arc::new(Mutex::new(None));
    let service = service_fn(|request| answer(request, world.clone(), Arc::clone(&last_words)));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_headers(256)
        .serve_connection(TokioIo::new(stream), service);
    // An error is a caller who left, or a step that broke the connection.
    let _ = Pin::new(&mut connection).await;
    let words: Option<&'static str> = last_words
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(words) = words {
        let mut stream = connection.into_parts().io.into_inner();
        let _ = stream.write_all(words.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

/// The server lets go of the connection.
#[derive(Debug)]
struct Gone;

async fn answer(
    request: Request<Incoming>,
    world: World,
    last_words: Arc<Mutex<Option<&'static str>>>,
) -> Result<Response<Play>, Gone> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Gone)?.to_bytes();
    let (side, mode_name, path) = segments(head.uri.path());
    let asked = Asked {
        method: head.method,
        path: path.to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
    };
    let name = format!("{side}/{mode_name}");
    let mode = match (side, Mode::parse(mode_name)) {
        ("_counts", _) => return Ok(world.about(head.uri.path())),
        ("_reset", _) => return Ok(world.reset()),
        ("openai" | "dify", Ok(mode)) => mode,
        ("openai" | "dify", Err(word)) => {
            return Ok(world.lost(&format!("no mode has the word `{word}`")));
        }
        _ => return Ok(world.lost("paths begin with /openai/, /dify/, /_counts or /_reset")),
    };
    let visit = world.counts.begin(&name, &asked);
    let mode = mode.at(visit.call);
    if let Some(Fault::Raw(words)) = mode.fault {
        *last_words.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
        return Err(Gone);
    }
    if mode.fault == Some(Fault::Hang) {
        std::future::pending::<Infallible>().await;
    }
    let mut reply = match side {
        "openai" => openai::answer(&asked, &mode, &visit),
        _ => dify::answer(&asked, &mode, &visit, &world.installation(&name)),
    };
    reply.before += mode.late;
    if let Some((base, penalty)) = mode.load {
        reply.before += base + penalty * u32::try_from(visit.active - 1).unwrap_or(u32::MAX);
    }
    if !reply.before.is_zero() {
        tokio::time::sleep(reply.before).await;
    }
    if let Some(opens) = reply.opens.take() {
        opens.wait().await;
    }
    Ok(reply.play(visit))
}

/// `/openai/ok/v1/models` to `openai`, `ok` and `/v1/models`.
fn segments(path: &str) -> (&str, &str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    let (side, rest) = path.split_once('/').unwrap_or((path, ""));
    let cut = rest.find('/').unwrap_or(rest.len());
    let (mode, rest) = rest.split_at(cut);
    (side, mode, if rest.is_empty() { "/" } else { rest })
}

impl World {
    fn installation(&self, name: &str) -> Arc<dify::Installation> {
        let mut all = self
            .installations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    fn about(&self, path: &str) -> Response<Play> {
        let name = path
            .strip_prefix("/_counts/")
            .filter(|name| !name.is_empty());
        self.aside(Reply::json(200, &self.counts.tell(name)))
    }

    fn reset(&self) -> Response<Play> {
        self.counts.reset();
        self.installations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.aside(Reply::json(200, &json!({"result": "success"})))
    }

    fn lost(&self, why: &str) -> Response<Play> {
        self.aside(Reply::json(501, &json!({"fakes": why})))
    }

    /// Plays `reply` without anybody counting it.
    fn aside(&self, reply: Reply) -> Response<Play> {
        let nobody = Asked {
            method: Method::GET,
            path: String::new(),
            query: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        reply.play(Counts::default().begin("", &nobody))
    }
}

impl Asked {
    /// The token of `Authorization: Bearer …`.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let value = self
            .headers
            .get(http::header::AUTHORIZATION)?
            .to_str()
            .ok()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }

    /// The body as JSON, if it is an object.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body)
            .ok()
            .filter(Value::is_object)
    }

    /// The value of `name` in the query, as it stands there.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| {
            pair.split_once('=')
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value)
        })
    }
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is given up")
    }
}

impl std::error::Error for Gone {}

/// What is not an answer, whichever side it is asked of.
pub(crate) fn page(fault: Fault) -> Option<Reply> {
    match fault {
        Fault::Html(status) => {
            let reason = http::StatusCode::from_u16(status)
                .ok()
                .and_then(|status| status.canonical_reason())
                .unwrap_or("");
            let page = format!(
                "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n<center><h1>{status} {reason}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
            );
            Some(Reply::whole(status, "text/html", page).with("server", "nginx"))
        }
        Fault::Empty => Some(Reply::whole(200, "application/json", "")),
        Fault::Garbage => Some(Reply::whole(
            200,
            "application/json",
            "{\"id\": \"half an ans",
        )),
        Fault::Status(_) | Fault::Dify(_) | Fault::Raw(_) | Fault::Hang => None,
    }
}
