//! Makes of a call what is asked of an upstream.

use std::{num::NonZeroU32, rc::Rc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Value, json};

use crate::{
    body::{Body, BodyError, Watch, is_late},
    call::Call,
    claim::{Answer, Cost},
    config::Config,
    dialect::{
        dify::{self, Installation, Places, Query, Run, Told, Wish},
        openai::{self, Asked, Estimate, Malformed},
    },
    dispatch::{Retry, Target},
    exchange::{Exchange, Payload, Reading, Terms},
    headers::{CONVERSATION, ask_to_switch, is_json, is_type, strip_keys, to_dify, to_provider},
    overload::Way,
    places,
    refusal::Refusal,
    timeouts::Timeouts,
    upstream::{Form, Origin},
};

/// What a body of unknown size is taken for, in bytes, until what it cost is known.
const UNKNOWN_SIZE: u64 = 4_096;

/// What a call comes to.
pub(crate) enum Errand {
    /// Somebody must be asked.
    Ask(Box<Exchange>),
    /// The gateway knows the answer.
    Known(Value),
}

/// A call to the API over the models; `path` is what the route leaves of it.
pub(crate) async fn models(
    config: &Config,
    call: &Call,
    path: &str,
    body: Body,
) -> Result<Errand, Refusal> {
    let endpoint = openai::endpoint(path);
    if let Some(known) = catalogue(config, &call.method, endpoint) {
        return known.map(Errand::Known);
    }
    let needs_model = call.method == Method::POST && openai::needs_model(endpoint);
    if openai::is_disguised(endpoint) {
        return Err(Refusal::UnsafePath(
            "the path is another way to write one that is counted",
        ));
    }
    let mut exchange = Exchange {
        method: call.method.clone(),
        path: with_query(endpoint, call),
        headers: to_provider(&call.headers),
        payload: Payload::Once(Body::empty()),
        targets: Vec::new(),
        retry: Retry::never(),
        rescue: false,
        hedge: None,
        limits: Vec::new(),
        timeouts: Timeouts::MODEL,
        reading: if needs_model {
            Reading::Model(Terms::default())
        } else {
            Reading::Provider
        },
        user: None,
        query: None,
        cost: None,
        run: None,
        switches: false,
        open: None,
        lead: None,
        is_soon: false,
        watch: Watch::default(),
    };
    let is_json = call.method == Method::POST && is_type(&call.headers, "application/json");
    if needs_model || is_json {
        let body = read(body, config.max_body.get()).await?;
        if body.is_empty() && !needs_model {
            // What is done to a thing by its name alone, such as cancelling it, is sent so.
            exchange.payload = Payload::Once(Body::empty());
        } else {
            let conversation = call.headers.get(CONVERSATION);
            let conversation = conversation.and_then(|id| id.to_str().ok());
            ask(config, endpoint, body, conversation, &mut exchange)?;
        }
    } else {
        let body = bounded(body, &call.headers, config.max_body.get(), &exchange.watch)?;
        exchange.payload = Payload::Once(body);
    }
    if exchange.targets.is_empty() {
        // Files, batches and the like belong to one provider, and nothing in the call says to which.
        let provider = config.default_provider.as_ref().ok_or(Refusal::NoRoute)?;
        exchange
            .targets
            .push(Target::alone(provider.name.clone(), provider.clone()));
    }
    Ok(Errand::Ask(Box::new(exchange)))
}

/// Makes the request in `body` what is asked, of the targets of the model that it names.
fn ask(
    config: &Config,
    endpoint: &str,
    body: Bytes,
    conversation: Option<&str>,
    exchange: &mut Exchange,
) -> Result<(), Refusal> {
    let needs_model = exchange.reading != Reading::Provider;
    let mut asked = Asked::read(body, endpoint)?;
    match &asked.model {
        Some(name) => {
            let model = config
                .models
                .get(name)
                .ok_or_else(|| Refusal::no_model(name))?;
            exchange.targets.clone_from(&model.targets);
            exchange.retry = model.retry.clone();
            exchange.timeouts = model.timeouts;
            exchange.rescue = model.rescue;
            exchange.hedge = model.hedge;
            exchange.limits.clone_from(&model.limits);
            if model.stream_upstream {
                asked.stream_upstream();
            }
            if exchange.targets.iter().any(|one| one.origin.app.is_some()) {
                ask_apps(asked.body(), endpoint, conversation, exchange)?;
            }
        }
        None if needs_model => {
            return Err(Malformed {
                message: "`model` is missing".into(),
                param: Some("model"),
            }
            .into());
        }
        None => {}
    }
    if needs_model {
        let is_told = asked.choices > 0 && !asked.hide_usage;
        // Of an answer at once nearly everybody says what it has cost: that is not worth looking at the whole prompt.
        let prompt = || match asked.stream {
            true => asked.estimate(),
            false => Estimate::of_bytes(asked.body().len() as u64),
        };
        exchange.reading = Reading::Model(Terms {
            prompt: is_told.then(|| prompt().likely),
            stream: asked.stream,
            choices: asked.choices,
            hide_usage: asked.hide_usage,
            ..Terms::default()
        });
    }
    exchange.user.clone_from(&asked.user);
    exchange.payload = Payload::Asked(Box::new(asked));
    Ok(())
}

/// Puts it to those apps of Dify's among its targets that can take it, and to the others.
fn ask_apps(
    body: &[u8],
    endpoint: &str,
    conversation: Option<&str>,
    exchange: &mut Exchange,
) -> Result<(), Refusal> {
    let targets = &mut exchange.targets;
    let mut query = match Query::read(body, endpoint, conversation) {
        Ok(query) => query,
        Err(malformed) => {
            targets.retain(|target| target.origin.app.is_none());
            return if targets.is_empty() || conversation.is_some() {
                Err(malformed.into())
            } else {
                Ok(())
            };
        }
    };
    let mut forms = targets.iter().map(|target| target.origin.app.as_ref());
    if let Some(place) = forms.position(|form| form == Some(&Form::Chat)) {
        if query.conversation.is_some() {
            // Nobody else knows what was said in it, and nothing is said twice in it.
            targets.truncate(place + 1);
            targets.drain(..place);
            exchange.retry.attempts = NonZeroU32::MIN;
        }
        let keeper = targets.get(place).or_else(|| targets.first());
        query.keeper = keeper.map(|target| target.name.clone());
    }
    exchange.query = Some(Box::new(query));
    Ok(())
}

/// A call to the service API of an app of Dify's, or of several that do the same; `path` is what the route leaves of it.
pub(crate) async fn app(
    config: &Config,
    places: &Places,
    call: &Call,
    path: &str,
    body: Body,
    wants_user: bool,
) -> Result<Errand, Refusal> {
    let path = dify::service_path(path);
    let mut headers = to_dify(call);
    strip_keys(&mut headers);
    headers.remove(header::COOKIE);
    let (app, installation) = (&places.first.app, &places.first.installation);
    let is_run = dify::is_run(&path) && call.method == Method::POST;
    let reading = if is_run {
        // What is compressed cannot be counted.
        headers.remove(header::ACCEPT_ENCODING);
        Reading::Run(Wish::Any)
    } else {
        Reading::Service
    };
    let on_abort = app.origin.on_abort.filter(|_| is_run);
    let runs = app.runs.as_ref().filter(|_| is_run);
    // Whoever stops a run must name the user who began it.
    let is_several = places.are_several();
    // What is asked of it as of a model may be asked in the gateway's own name.
    let is_model = places.all().any(|place| place.app.as_model.is_some());
    let wants_user = wants_user || is_several || is_model;
    let (mut told, body) = told(config, call, body, wants_user, is_run).await?;
    let user = told.user.take();
    if is_model {
        // Python reads more than is read here.
        if is_json(&call.headers) && !told.is_read && body.size() != Some(0) {
            return Err(Malformed {
                message: "the body is no object of JSON".into(),
                param: None,
            }
            .into());
        }
        let of_query = call.query.as_deref().and_then(dify::user_of_query);
        for user in [&user, &of_query].into_iter().flatten() {
            dify::check_user(user)?;
        }
    }
    let mut exchange = to_installation(
        config,
        call,
        &path,
        headers,
        reading,
        (&app.name, &app.origin),
        (user, body),
    )?;
    if is_run {
        wish(told, app.stream_upstream, &mut exchange);
    }
    pass(runs.or_else(|| installation.part(&path)), &mut exchange);
    let is_streamed = exchange.is_soon;
    exchange.is_soon &= runs.is_some();
    exchange.run = on_abort.map(|on_abort| Run {
        path,
        user: exchange.user.clone(),
        on_abort,
    });
    if is_several {
        places::widen(places, call, is_streamed, &mut exchange);
    }
    Ok(Errand::Ask(Box::new(exchange)))
}

/// A call to any service of a Dify installation. The gateway's own keys stay here.
pub(crate) async fn installation(
    config: &Config,
    installation: &Installation,
    call: &Call,
    path: &str,
    body: Body,
    wants_user: bool,
) -> Result<Errand, Refusal> {
    let origin = installation.serves(path).ok_or(Refusal::NoRoute)?;
    let mut headers = to_dify(call);
    config.keyring.strip(&mut headers);
    if origin.base.scheme_str() == Some("http")
        && !call.authority.is_empty()
        && let Ok(host) = HeaderValue::from_str(&call.authority)
    {
        // Dify gives the address that it was called by where it was told no other. Behind TLS a server answers to its own name alone.
        headers.insert(header::HOST, host);
    }
    if dify::is_plugin(path)
        && let Ok(url) = HeaderValue::from_str(&format!(
            "{}://{}{}",
            call.scheme,
            call.authority,
            with_query(&call.path, call)
        ))
    {
        headers.insert("dify-hook-url", url);
    }
    let is_run = dify::is_run(path) && call.method == Method::POST;
    let reading = if is_run {
        headers.remove(header::ACCEPT_ENCODING);
        Reading::Run(Wish::Any)
    } else if dify::is_service(path) {
        Reading::Service
    } else {
        Reading::Untouched { cookies: true }
    };
    let runs = installation.runs.as_ref();
    let runs = runs.filter(|_| is_run);
    let wants_user = wants_user && dify::is_service(path);
    let switches = call.switches && dify::is_socket(path);
    if switches && !installation.switches {
        return Err(Refusal::Upgrade);
    }
    let (content, afterwards) = if switches {
        ask_to_switch(&mut headers);
        (Body::empty(), body)
    } else {
        (call.content(body), Body::empty())
    };
    let (mut told, content) = told(config, call, content, wants_user, is_run).await?;
    let user = told.user.take();
    let mut exchange = to_installation(
        config,
        call,
        path,
        headers,
        reading,
        (&origin.name, origin),
        (user, content),
    )?;
    if switches {
        exchange.payload = Payload::Once(afterwards);
        exchange.timeouts = Timeouts::SOCKET;
        exchange.switches = true;
    }
    if is_run {
        wish(told, installation.stream_upstream, &mut exchange);
    }
    pass(runs.or_else(|| installation.part(path)), &mut exchange);
    exchange.is_soon &= runs.is_some();
    Ok(Errand::Ask(Box::new(exchange)))
}

/// Whoever can answer is asked behind what is on this `way`.
fn pass(way: Option<&Way>, exchange: &mut Exchange) {
    for target in &mut exchange.targets {
        target.way = way.cloned();
    }
}

/// Asks for what the caller of a run wants: for a stream, where Dify `streams` what is wanted at once.
fn wish(told: Told, streams: bool, exchange: &mut Exchange) {
    let wish = match told.streamed {
        Some(body) if streams => {
            exchange.headers.remove(header::CONTENT_LENGTH);
            exchange.payload = Payload::Once(body.into());
            told.wish
        }
        _ if told.wish == Wish::Stream => Wish::Stream,
        _ => Wish::Any,
    };
    // Only of a stream it is known how soon it begins.
    exchange.is_soon = wish != Wish::Any;
    exchange.reading = Reading::Run(wish);
}

/// What a call to Dify's service API says in its body, if that is JSON; its user may stand in its query as well. Nothing, unless
/// somebody `wants` to know.
///
/// What runs an app waits here until all of it has come, whatever it is: a caller who is slow with it, or breaks off, says nothing of how
/// Dify does.
async fn told(
    config: &Config,
    call: &Call,
    body: Body,
    wants: bool,
    is_run: bool,
) -> Result<(Told, Body), Refusal> {
    let mut told = Told::default();
    if !wants && !is_run {
        return Ok((told, body));
    }
    let mut body = body;
    let is_json = is_json(&call.headers);
    if is_json || is_run {
        let read = read(body, config.max_body.get()).await?;
        if is_json {
            told = Told::read(&read);
        }
        body = read.into();
    }
    let of_query = || call.query.as_deref().and_then(dify::user_of_query);
    told.user = told.user.or_else(of_query);
    Ok((told, body))
}

fn to_installation(
    config: &Config,
    call: &Call,
    path: &str,
    headers: HeaderMap,
    reading: Reading,
    (name, origin): (&Rc<str>, &Rc<Origin>),
    (user, body): (Option<String>, Body),
) -> Result<Exchange, Refusal> {
    let watch = Watch::default();
    let body = bounded(body, &call.headers, config.max_body.get(), &watch)?;
    let is_run = matches!(reading, Reading::Run(_));
    let cost = is_run.then(|| Cost {
        prompt: Estimate::of_bytes(body.size().unwrap_or(UNKNOWN_SIZE)),
        answer: Answer::Open,
    });
    Ok(Exchange {
        method: call.method.clone(),
        path: with_query(path, call),
        headers,
        payload: Payload::Once(body),
        targets: vec![Target::alone(name.clone(), origin.clone())],
        retry: Retry::never(),
        rescue: false,
        hedge: None,
        limits: Vec::new(),
        timeouts: Timeouts::DIFY,
        reading,
        user,
        query: None,
        cost,
        run: None,
        switches: false,
        open: None,
        lead: None,
        is_soon: false,
        watch,
    })
}

/// The models that callers can name, as OpenAI lists its own.
fn catalogue(config: &Config, method: &Method, endpoint: &str) -> Option<Result<Value, Refusal>> {
    let entry =
        |name: &str| json!({ "id": name, "object": "model", "created": 0, "owned_by": "tidegate" });
    let known = if endpoint == "/models" {
        Ok(
            json!({ "object": "list", "data": config.models.iter().map(|(name, _)| entry(name)).collect::<Vec<_>>() }),
        )
    } else {
        let name = endpoint.strip_prefix("/models/")?;
        config
            .models
            .get(name)
            .map(|model| entry(&model.name))
            .ok_or_else(|| Refusal::no_model(name))
    };
    Some(if method == Method::GET {
        known
    } else {
        Err(Refusal::Method("GET"))
    })
}

fn with_query(path: &str, call: &Call) -> String {
    match &call.query {
        Some(query) => format!("{path}?{query}"),
        None => path.into(),
    }
}

async fn read(body: Body, limit: u64) -> Result<Bytes, Refusal> {
    body.read(limit).await.map_err(|error| match error {
        BodyError::TooLarge => Refusal::TooLarge(limit),
        BodyError::NoRoom => Refusal::NoRoom,
        BodyError::Broken(error) if is_late(&error) => Refusal::LateBody,
        BodyError::Broken(_) => Refusal::BrokenBody,
    })
}

/// The body, handed through: at once refused if it is declared too long, else watched on its way.
fn bounded(body: Body, headers: &HeaderMap, limit: u64, watch: &Watch) -> Result<Body, Refusal> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if body.size().or(declared).is_some_and(|size| size > limit) {
        return Err(Refusal::TooLarge(limit));
    }
    Ok(match body.into_whole() {
        Ok(whole) => whole.into(),
        Err(body) => body.watched(limit, watch.clone()),
    })
}
