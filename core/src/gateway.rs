//! The life of a request, from top to bottom:
//! find the route, authenticate, read what is asked, admit, dispatch with fallback, relay, settle, record.

use std::{mem, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    admin,
    admission::{Denial, Desk},
    answer::{Content, Reply, owe_wait},
    assembly::{self, Waiting},
    auth::{self, Caller, Consumer},
    body::Body,
    call::{Call, below},
    claim::Claim,
    config::{Config, OnLedgerFailure},
    dialect::{Dialect, dify::Installation},
    entrance::Entrant,
    exchange::Exchange,
    holdings::Holdings,
    intake::{self, Errand},
    limit::{Asker, By, Limit},
    patience::within,
    places,
    platform::{Platform, Task},
    pursuit::{Loss, Pursuit},
    receipt::Receipt,
    record::{Counted, Ending},
    refusal::Refusal,
    relay::{self, Reins, Start, Stream},
    route::{Access, Route, Service},
    search::{Search, search},
    tenure::Keeper,
    tunnel::{self, Tunnel},
    usage::Usage,
    vigil::{PING, Vigil},
    visit::{ATTEMPTS, Visit},
    watch::watch,
};

/// The gateway: a configuration, and a platform to play it on. Cheap to make and to clone.
#[derive(Clone)]
pub struct Gateway {
    config: Rc<Config>,
    platform: Platform,
    holdings: Holdings,
    keeper: Keeper,
}

/// Something for the caller.
enum Found {
    /// An answer, from whoever could be asked if it breaks off.
    Reply(Reply, Option<Box<Pursuit>>),
    /// Nothing yet: it will be a stream, and its caller has waited long enough to be told that it goes on.
    Awaited(Search),
    /// A connection that has become a WebSocket.
    Switched(Reply, Tunnel),
}

/// How long after its time a stream is left that its caller does not read.
const UNREAD: Duration = Duration::from_secs(5);

/// Where the gateway's own paths begin.
const OWN: &str = "/_tidegate";

const HEALTH: &str = "/_tidegate/health";

const LIMITS: &str = "/_tidegate/limits";

const JSON: HeaderValue = HeaderValue::from_static("application/json");

const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

impl Gateway {
    /// A gateway of `config` on `platform`.
    pub fn new(config: Rc<Config>, platform: Platform) -> Self {
        let holdings = Holdings::new(&mut platform.dice.borrow_mut());
        Self::with(config, platform, holdings)
    }

    /// A gateway of `config` on `platform`, in an isolate that has `holdings` already.
    pub fn with(config: Rc<Config>, platform: Platform, holdings: Holdings) -> Self {
        if holdings.keep_to(&config, || config.every_limit()) {
            let (targets, origins) = config.all_targets();
            holdings.health().keep_only(&targets, &origins);
            holdings.gates().forget_idle();
        }
        if platform.ledger.is_shared() {
            holdings.gates().share_as(holdings.me());
        }
        let keeper = Keeper::new(Desk::new(platform.clone(), holdings.clone()));
        Self {
            config,
            platform,
            holdings,
            keeper,
        }
    }

    /// Work without an end, to be done once beside all gateways of this configuration that know the same: it asks those how they do who
    /// are to be asked.
    pub fn watches(&self) -> Vec<Task> {
        let mut watched: Vec<Rc<Installation>> = Vec::new();
        for installation in self.config.installations() {
            let is_same = |other: &Rc<Installation>| Rc::ptr_eq(other, installation);
            if installation.checks.is_some() && !watched.iter().any(is_same) {
                watched.push(installation.clone());
            }
        }
        let watch = |installation| -> Task {
            let (platform, holdings) = (self.platform.clone(), self.holdings.clone());
            Box::pin(watch(platform, holdings, installation))
        };
        watched.into_iter().map(watch).collect()
    }

    /// Answers `request`, which came from `peer`: the address that the platform vouches for.
    pub async fn serve(&self, request: Request<Body>, peer: Option<IpAddr>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let mut call = Call::read(head, peer);
        self.config.proxies.look_behind(&mut call);
        if below(OWN, &call.path) {
            let body = call.content(body);
            return self.own(&call, body).await;
        }
        let mut visit = Visit::begin(self.platform.clone(), &call);
        match self.answer(&mut visit, &call, body).await {
            Ok(found) => self.deliver(visit, found).await,
            Err(refusal) => visit.refuse(&refusal),
        }
    }

    async fn answer(&self, visit: &mut Visit, call: &Call, body: Body) -> Result<Found, Refusal> {
        let caller = self.config.keyring.identify(&call.headers);
        visit.record.consumer = caller.name().map(str::to_owned);
        let route = Route::find(&self.config.routes, call, caller.name());
        visit.dialect = route.map_or(Dialect::OpenAi, |route| route.service.dialect());
        visit.record.route = route.map(|route| route.name.to_string());
        call.check().map_err(Refusal::UnsafePath)?;
        let route = route.ok_or(Refusal::NoRoute)?;
        let consumer = authenticate(route, &caller)?;
        let mut limits = self.limits(route, consumer);
        let mut asker = Asker {
            consumer: consumer.map(|consumer| &*consumer.name),
            address: call.peer,
            headers: &call.headers,
            user: None,
        };
        let told_apart = |limit: &&&Rc<Limit>| limit.by != By::User;
        let known = Claim::all(limits.iter().filter(told_apart).copied(), asker, None);
        if let Some(standing) = self.keeper.desk().denied(&known) {
            return Err(visit.limited(Denial::Limited(standing)));
        }
        let wants_user = limits.iter().any(|limit| limit.by == By::User);
        match self.read(route, call, body, wants_user).await? {
            Errand::Known(answer) => {
                self.admit(visit, &Claim::all(limits, asker, None)).await?;
                Ok(Found::Reply(own(&answer), None))
            }
            Errand::Ask(mut exchange) => {
                (visit.record.model, visit.record.stream) = exchange.asked();
                visit.timeouts = exchange.timeouts;
                route.forget_choice(&mut exchange.headers);
                let of_model = exchange.limits.clone();
                limits.extend(&of_model);
                if limits.iter().any(|limit| limit.counts_tokens()) {
                    let strict = limits.iter().filter(|limit| limit.is_strict());
                    let least = strict.map(|limit| limit.quota.limit.get()).min();
                    exchange.estimate(least.unwrap_or(u64::MAX));
                }
                let user = exchange.user.clone();
                asker.user = user.as_deref();
                if let Some(query) = &mut exchange.query {
                    query.by(visit.record.consumer.as_deref());
                }
                let claims = Claim::all(limits, asker, exchange.cost);
                self.admit(visit, &claims).await?;
                let priority = consumer.and_then(|consumer| consumer.priority);
                let entrant = Entrant {
                    platform: self.platform.clone(),
                    holdings: self.holdings.clone(),
                    who: match exchange.has_gates() {
                        true => asker.whom().into(),
                        false => Arc::default(),
                    },
                    priority: priority.or(route.priority).unwrap_or_default(),
                    trail: visit.trail.clone(),
                };
                self.dispatch(visit, claims, entrant, *exchange).await
            }
        }
    }

    /// What the call asks for, in the terms of whoever can answer it.
    async fn read(
        &self,
        route: &Route,
        call: &Call,
        body: Body,
        wants_user: bool,
    ) -> Result<Errand, Refusal> {
        let path = route.rest(&call.path);
        if matches!(call.method, Method::CONNECT | Method::TRACE) {
            return Err(Refusal::Method(
                "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            ));
        }
        match &route.service {
            Service::Models => intake::models(&self.config, call, path, call.content(body)).await,
            Service::App(places) => {
                let body = call.content(body);
                intake::app(&self.config, places, call, path, body, wants_user).await
            }
            Service::Dify(dify) => {
                intake::installation(&self.config, dify, call, path, body, wants_user).await
            }
        }
    }

    /// Every limit that a call falls under whatever it asks for, the narrowest first.
    fn limits<'a>(
        &'a self,
        route: &'a Route,
        consumer: Option<&'a Consumer>,
    ) -> Vec<&'a Rc<Limit>> {
        let of_consumer = consumer.map_or(&[][..], |consumer| &consumer.limits);
        let limits = of_consumer.iter().chain(route.all_limits());
        limits.chain(&self.config.limits).collect()
    }

    /// Holds the call on every limit that it falls under: all of them, or none.
    async fn admit(&self, visit: &mut Visit, claims: &[Claim]) -> Result<(), Refusal> {
        if let Some(claim) = claims.iter().find(|claim| claim.is_hopeless()) {
            return Err(Refusal::TooCostly {
                scope: claim.limit.scope.to_string(),
                limit: claim.limit.quota.limit.get(),
                tokens: claim.units,
            });
        }
        let admitted = self.keeper.desk().admit(claims, self.is_forgiving()).await;
        let admission = admitted.map_err(|denial| visit.limited(denial))?;
        visit.standing = admission.standing;
        visit.degraded = admission.fault.is_some();
        visit.record.fault = admission.fault.map(|fault| format!("ledger: {fault}"));
        visit.budget.forgiving = self.is_forgiving();
        visit.budget.tenure = self.keeper.keep(admission.held);
        Ok(())
    }

    fn is_forgiving(&self) -> bool {
        self.config.on_ledger_failure == OnLedgerFailure::Allow
    }

    /// Answers what is the gateway's own. Whoever asks for the limits is an operator, or would like to be: that is recorded.
    async fn own(&self, call: &Call, body: Body) -> Response<Body> {
        match (call.path.as_str(), &self.config.admin_key) {
            (HEALTH, _) => {
                let mut response = Response::new(Body::from(json!({ "status": "ok" }).to_string()));
                response.headers_mut().insert(header::CONTENT_TYPE, JSON);
                response
            }
            (LIMITS, Some(key)) => {
                let mut visit = Visit::begin(self.platform.clone(), call);
                match self.operate(&mut visit, key, call, body).await {
                    Ok(answer) => self.relay(visit, own(&answer), None),
                    Err(refusal) => visit.refuse(&refusal),
                }
            }
            _ => Refusal::NoRoute.answer(Dialect::OpenAi),
        }
    }

    async fn operate(
        &self,
        visit: &mut Visit,
        key: &auth::Digest,
        call: &Call,
        body: Body,
    ) -> Result<Value, Refusal> {
        match auth::opens(key, &call.headers) {
            Some(true) => {
                admin::limits(
                    &self.config,
                    self.keeper.desk(),
                    call,
                    body,
                    &mut visit.record,
                )
                .await
            }
            Some(false) => Err(Refusal::InvalidKey),
            None => Err(Refusal::MissingKey),
        }
    }

    /// Asks one target after another until one has something for the caller.
    async fn dispatch(
        &self,
        visit: &mut Visit,
        claims: Vec<Claim>,
        entrant: Entrant,
        mut exchange: Exchange,
    ) -> Result<Found, Refusal> {
        if exchange.switches {
            let (reply, tunnel) = tunnel::open(&entrant, visit, exchange).await?;
            return Ok(match tunnel {
                Some(tunnel) => Found::Switched(reply, tunnel),
                None => Found::Reply(reply, None),
            });
        }
        let deadline = visit.record.time.after(exchange.timeouts.total);
        places::choose(&self.holdings, &mut exchange, self.platform.clock.now());
        let can_wait = exchange.can_be_awaited();
        let pursuit = Pursuit::new(&self.keeper, entrant, exchange, claims, deadline);
        let mut pursuit = Box::new(pursuit);
        pursuit.forgiving = self.is_forgiving();
        pursuit.bound(0, &mut visit.budget);
        let search = search(pursuit, mem::take(&mut visit.budget));
        let mut awaited = Awaited {
            gateway: self,
            visit,
            search,
        };
        let searched = if can_wait {
            let clock = &*self.platform.clock;
            let waited = clock.now().since(awaited.visit.record.time);
            within(clock, PING.saturating_sub(waited), &mut awaited.search).await
        } else {
            Some((&mut awaited.search).await)
        };
        let search = mem::take(&mut awaited.search);
        drop(awaited);
        let Some(searched) = searched else {
            return Ok(Found::Awaited(search));
        };
        visit.budget = searched.budget;
        visit.record.usage = visit.budget.spent;
        visit.record.counted = visit.budget.spent.total().map(|_| Counted::Measured);
        match searched.found {
            Ok((reply, target)) => {
                visit.record.served_by = Some(target.name.to_string());
                Ok(Found::Reply(reply, Some(searched.pursuit)))
            }
            Err(Loss::Denied(denial)) => Err(visit.limited(denial)),
            Err(loss) => Err(loss.into()),
        }
    }

    /// Hands the answer on; of a stream whose caller wants it at once, all of it together.
    async fn deliver(&self, mut visit: Visit, found: Found) -> Response<Body> {
        let (reply, pursuit) = match found {
            Found::Reply(reply, pursuit) => (reply, pursuit),
            Found::Awaited(search) => return self.begin(visit, search),
            Found::Switched(reply, tunnel) => return switch(visit, reply, tunnel),
        };
        let is_assembled = pursuit.as_deref().is_some_and(Pursuit::is_assembled);
        let prompt = pursuit.as_deref().and_then(Pursuit::prompt);
        let (start, mut headers) = match reply {
            Reply {
                content: Content::Stream(body, meter),
                headers,
                ..
            } if is_assembled && !meter.is_unasked() => {
                (Start::Answer(body, meter, pursuit), headers)
            }
            reply => return self.relay(visit, reply, pursuit),
        };
        let dialect = visit.dialect;
        let (mut body, receipt, reins) = self.watch(&mut visit, start);
        let waiting = Waiting::new(visit, receipt, self.platform.tasks.clone());
        let assembled = assembly::assemble(&mut body, dialect).await;
        match &assembled {
            Some(_) => reins.pull(Ending::Whole, None),
            None => reins.pull(Ending::Truncated, Some("no answer could be put together")),
        }
        let Some((mut visit, closing)) = waiting.over().await else {
            return Refusal::Truncated.answer(dialect);
        };
        let is_broken = closing.ended == Ending::Truncated;
        let Some(assembled) = assembled.filter(|whole| whole.is_certain || !is_broken) else {
            return visit.end(&Refusal::Truncated, Ending::Truncated);
        };
        headers.insert(header::CONTENT_TYPE, JSON);
        owe_wait(assembled.status, &mut headers);
        // Dify may go on for a while behind its answer, and fail at that.
        let is_whole = is_broken && assembled.status.is_success();
        let ended = if is_whole {
            Ending::Whole
        } else {
            closing.ended
        };
        visit.record.status = assembled.status.as_u16();
        visit.stamp(&mut headers);
        visit.close(ended, None);
        let answer = assembled.answer;
        let completed = prompt.and_then(|prompt| dialect.completed(&answer, prompt));
        let mut response = Response::new(completed.unwrap_or(answer).into());
        *response.status_mut() = assembled.status;
        *response.headers_mut() = headers;
        response
    }

    /// Begins a stream of which nothing is there yet, so that nobody between takes its caller's connection for dead.
    fn begin(&self, mut visit: Visit, search: Search) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, EVENTS);
        visit.stamp(headers);
        // It is not known yet.
        headers.remove(ATTEMPTS);
        visit.record.status = StatusCode::OK.as_u16();
        *response.body_mut() = self.stream(visit, Start::Search(search));
        response
    }

    /// The body of a stream, whose end is recorded.
    fn stream(&self, mut visit: Visit, start: Start) -> Body {
        let (body, receipt, reins) = self.watch(&mut visit, start);
        visit.record.stream = true;
        let clock = self.platform.clock.clone();
        let left = visit
            .record
            .time
            .after(visit.timeouts.total + UNREAD)
            .since(clock.now());
        self.platform.tasks.spawn(Box::pin(async move {
            let mut receipt = receipt;
            let closing = match within(&*clock, left, &mut receipt).await {
                Some(closing) => closing,
                None => {
                    let detail = "its caller has not read it in time";
                    reins.pull(Ending::Truncated, Some(detail));
                    receipt.await
                }
            };
            visit.settle(&closing);
            visit.close(closing.ended, closing.first_byte);
        }));
        body
    }

    /// Sees to a stream, and to whoever goes on with it.
    fn watch(&self, visit: &mut Visit, start: Start) -> (Body, Receipt, Reins) {
        let clock = self.platform.clock.clone();
        let until = visit.record.time.after(visit.timeouts.total);
        let mut vigil = Vigil::new(clock.clone(), visit.timeouts.idle, until);
        if let Start::Search(_) = start {
            vigil.silent_since(visit.record.time);
        }
        relay::watch(Stream {
            start,
            dialect: visit.dialect,
            vigil,
            clock,
            budget: mem::take(&mut visit.budget),
            trail: visit.trail.clone(),
        })
    }

    /// Hands the answer on, and sees to it that its end is recorded.
    fn relay(
        &self,
        mut visit: Visit,
        reply: Reply,
        pursuit: Option<Box<Pursuit>>,
    ) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        visit.record.status = reply.status.as_u16();
        visit.stamp(response.headers_mut());
        *response.body_mut() = match reply.content {
            Content::Whole(bytes, usage) => {
                visit.record.usage = visit.record.usage.with(usage);
                let is_failure = !reply.status.is_success();
                let counted = visit.budget.answered(usage, bytes.len() as u64, is_failure);
                visit.record.counted = Some(counted);
                if !is_failure {
                    let fault = visit.dialect.fault(&bytes).map(Into::into);
                    visit.record.fault = visit.record.fault.take().or(fault);
                }
                visit.close(Ending::Whole, None);
                bytes.into()
            }
            Content::Untouched(body) => {
                visit.close(Ending::PassedOn, None);
                if reply.status.is_client_error() {
                    // Nobody has begun to work.
                    visit.budget.failed(false, Usage::default());
                }
                let budget = mem::take(&mut visit.budget);
                if budget.is_none() {
                    body
                } else {
                    body.with(budget)
                }
            }
            Content::Stream(body, meter) => self.stream(visit, Start::Answer(body, meter, pursuit)),
        };
        response
    }
}

/// A search whose caller waits for it. If he leaves, and it goes on, all that is held for it is kept, and its record waits.
struct Awaited<'a> {
    gateway: &'a Gateway,
    visit: &'a mut Visit,
    search: Search,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let search = mem::take(&mut self.search);
        if let Some(tasks) = search.leave() {
            let mut visit = self.visit.take();
            let (body, receipt, _) = self.gateway.watch(&mut visit, Start::Search(search));
            drop(Waiting::new(visit, receipt, tasks));
            // It goes on like a stream that nobody reads.
            drop(body);
        }
    }
}

/// Hands on that the connection has become a WebSocket, and what passes then.
fn switch(mut visit: Visit, reply: Reply, tunnel: Tunnel) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    visit.record.status = reply.status.as_u16();
    visit.stamp(response.headers_mut());
    if let Content::Untouched(body) = reply.content {
        *response.body_mut() = tunnel.carry(visit, body);
    }
    response
}

/// Who is calling, if the route lets them in.
fn authenticate<'a>(route: &Route, caller: &'a Caller) -> Result<Option<&'a Consumer>, Refusal> {
    match (caller, route.access) {
        (Caller::Known(consumer), _) if route.is_for(Some(&consumer.name)) => Ok(Some(consumer)),
        (Caller::Known(_), _) => Err(Refusal::Forbidden),
        (_, Access::Public) => Ok(None),
        (Caller::Unknown, Access::Consumers) => Err(Refusal::InvalidKey),
        (Caller::Anonymous, Access::Consumers) => Err(Refusal::MissingKey),
    }
}

/// An answer of the gateway's own.
fn own(answer: &Value) -> Reply {
    Reply {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, JSON)]),
        content: Content::Whole(answer.to_string().into(), Usage::default()),
        complaint: None,
    }
}
