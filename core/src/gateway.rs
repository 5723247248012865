//! The life of a request, from top to bottom:
//! find the route, authenticate, read what is asked, admit, dispatch with fallback, relay, settle, record.

use std::{mem, net::IpAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    admin,
    admission::{Denial, Desk},
    answer::{self, Content, Miss, Reply},
    auth::{self, Caller, Consumer},
    body::Body,
    call::{Call, below},
    claim::Claim,
    config::{Config, OnLedgerFailure},
    dialect::Dialect,
    dispatch::Target,
    exchange::{Exchange, Reading},
    holdings::Holdings,
    intake::{self, Errand},
    limit::{Asker, By, Limit},
    patience::within,
    platform::Platform,
    record::{Attempt, Ending},
    refusal::Refusal,
    relay,
    round::{Question, Round},
    route::{Access, Route, Service},
    tenure::Tenure,
    time::millis,
    upstream::{Failure, FailureReason},
    usage::Usage,
    vigil::Vigil,
    visit::Visit,
};

/// The gateway: a configuration, and a platform to play it on. Cheap to make and to clone.
#[derive(Clone)]
pub struct Gateway {
    config: Rc<Config>,
    platform: Platform,
    holdings: Holdings,
    desk: Desk,
}

/// Where the gateway's own paths begin.
const OWN: &str = "/_tidegate";

const HEALTH: &str = "/_tidegate/health";

const LIMITS: &str = "/_tidegate/limits";

const JSON: HeaderValue = HeaderValue::from_static("application/json");

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
            holdings.health().borrow_mut().keep_only(&targets, &origins);
        }
        let desk = Desk::new(platform.clone(), holdings.clone());
        Self {
            config,
            platform,
            holdings,
            desk,
        }
    }

    /// Answers `request`, which came from `peer`: the address that the platform vouches for.
    pub async fn serve(&self, request: Request<Body>, peer: Option<IpAddr>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let call = Call::read(head, peer);
        if below(OWN, &call.path) {
            return self.own(&call, body).await;
        }
        let mut visit = Visit::begin(self.platform.clone(), &call);
        match self.answer(&mut visit, &call, body).await {
            Ok(reply) => self.relay(visit, reply),
            Err(refusal) => visit.refuse(&refusal),
        }
    }

    async fn answer(&self, visit: &mut Visit, call: &Call, body: Body) -> Result<Reply, Refusal> {
        let route = Route::find(&self.config.routes, call);
        visit.dialect = route.map_or(Dialect::OpenAi, |route| route.service.dialect());
        visit.record.route = route.map(|route| route.name.to_string());
        call.check().map_err(Refusal::UnsafePath)?;
        let route = route.ok_or(Refusal::NoRoute)?;
        let caller = self.config.keyring.identify(&call.headers);
        let consumer = authenticate(route, &caller)?;
        visit.record.consumer = consumer.map(|consumer| consumer.name.to_string());
        let limits = self.limits(route, consumer);
        let mut asker = Asker {
            consumer: consumer.map(|consumer| &*consumer.name),
            address: call.peer,
            headers: &call.headers,
            user: None,
        };
        let told_apart = |limit: &&&Limit| limit.by != By::User;
        let known = Claim::all(limits.iter().filter(told_apart).copied(), asker, None);
        if let Some(standing) = self.desk.denied(&known) {
            return Err(visit.limited(Denial::Limited(standing)));
        }
        let wants_user = limits.iter().any(|limit| limit.by == By::User);
        match self.read(route, call, body, wants_user).await? {
            Errand::Known(answer) => {
                self.admit(visit, &Claim::all(limits, asker, None)).await?;
                Ok(known_answer(&answer))
            }
            Errand::Ask(mut exchange) => {
                (visit.record.model, visit.record.stream) = exchange.asked();
                visit.timeouts = exchange.timeouts;
                if limits.iter().any(|limit| limit.counts_tokens()) {
                    let strict = limits.iter().filter(|limit| limit.is_strict());
                    let least = strict.map(|limit| limit.quota.limit.get()).min();
                    exchange.estimate(least.unwrap_or(u64::MAX));
                }
                let user = exchange.user.clone();
                asker.user = user.as_deref();
                let claims = Claim::all(limits, asker, exchange.cost);
                self.admit(visit, &claims).await?;
                self.bound(visit, &claims, &mut exchange);
                self.dispatch(visit, &claims, *exchange).await
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
            Service::Models => intake::models(&self.config, call, path, body).await,
            Service::App(dify, app) => {
                intake::app(&self.config, dify, app, call, path, body, wants_user).await
            }
            Service::Dify(dify) => {
                intake::installation(&self.config, dify, call, path, body, wants_user).await
            }
        }
    }

    /// Every limit that a call falls under, the narrowest first.
    fn limits<'a>(&'a self, route: &'a Route, consumer: Option<&'a Consumer>) -> Vec<&'a Limit> {
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
        let admitted = self.desk.admit(claims, self.is_forgiving()).await;
        let admission = admitted.map_err(|denial| visit.limited(denial))?;
        visit.standing = admission.standing;
        visit.degraded = admission.fault.is_some();
        visit.record.fault = admission.fault.map(|fault| format!("ledger: {fault}"));
        visit.budget.forgiving = self.is_forgiving();
        visit.budget.tenure = Tenure::keep(self.desk.clone(), admission.held);
        Ok(())
    }

    /// Holds the tokens of the call once more: whoever was asked before may have spent all that was held.
    async fn admit_again(
        &self,
        visit: &mut Visit,
        claims: &[Claim],
        exchange: &mut Exchange,
    ) -> Result<(), Refusal> {
        let on_tokens = claims.iter().filter(|claim| claim.is_on_tokens());
        let claims: Vec<Claim> = on_tokens.cloned().collect();
        if claims.is_empty() {
            return Ok(());
        }
        let admitted = self.desk.admit(&claims, self.is_forgiving()).await;
        let admission = admitted.map_err(|denial| visit.limited(denial))?;
        let tenure = Tenure::keep(self.desk.clone(), admission.held);
        visit.budget.go_on_with(tenure);
        self.bound(visit, &claims, exchange);
        Ok(())
    }

    /// Sees to it that the answer cannot cost more than is held, or than can be.
    fn bound(&self, visit: &mut Visit, claims: &[Claim], exchange: &mut Exchange) {
        let is_counted = claims.iter().any(Claim::is_on_tokens);
        let (Some(cost), true) = (exchange.cost, is_counted) else {
            return;
        };
        visit.budget.prompt = cost.prompt;
        visit.budget.last = Some(Bytes::new());
        exchange.count();
        let held = visit.budget.tenure.tokens().unwrap_or(u64::MAX);
        let strict = claims.iter().filter(|claim| claim.is_strict());
        let cap = cost.cap(strict.map(|claim| (claim, held)));
        visit.budget.ceiling = cost.ceiling(cap);
        exchange.cap(cap);
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
                    Ok(answer) => self.relay(visit, known_answer(&answer)),
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
                admin::limits(&self.config, &self.desk, call, body, &mut visit.record).await
            }
            Some(false) => Err(Refusal::InvalidKey),
            None => Err(Refusal::MissingKey),
        }
    }

    /// Asks one target after another until one has something for the caller.
    async fn dispatch(
        &self,
        visit: &mut Visit,
        claims: &[Claim],
        mut exchange: Exchange,
    ) -> Result<Reply, Refusal> {
        let mut round = Round::new(self.platform.clone(), self.holdings.clone(), &exchange);
        let deadline = visit.record.time.after(exchange.timeouts.total);
        let mut last: Option<Miss> = None;
        let mut second_best: Option<(Reply, Target)> = None;
        while (last.is_none() || self.platform.clock.now() < deadline)
            && let Some(Question {
                target,
                authorization,
            }) = round.next(last.as_ref())
        {
            if visit.budget.needs_another() {
                self.admit_again(visit, claims, &mut exchange).await?;
            }
            let began = self.platform.clock.now();
            visit.budget.begin();
            let patience = exchange.patience(deadline.since(began), round.has_more());
            let request = exchange.request(&target, authorization);
            let taken = self
                .ask(&exchange.reading, &target, request, patience)
                .await;
            round.note(&taken);
            let outcome = match &taken {
                Ok(reply) => reply.outcome().to_string(),
                Err(miss) => miss.outcome.to_string(),
            };
            visit.record.attempts.push(Attempt {
                target: target.name.to_string(),
                outcome,
                ms: millis(self.platform.clock.now().since(began)),
                detail: taken.as_ref().err().and_then(|miss| miss.detail.clone()),
            });
            if exchange.exceeded.get() {
                visit.budget.failed(false);
                return Err(Refusal::TooLarge(self.config.max_body.get()));
            }
            match taken {
                Ok(reply) if round.goes_on(&reply) => {
                    visit.budget.failed(false);
                    last = Some(reply.outcome().into());
                    second_best = Some((reply, target));
                }
                Ok(reply) => {
                    visit.record.served_by = Some(target.name.to_string());
                    return Ok(reply);
                }
                Err(miss) => {
                    visit.budget.failed(miss.outcome.may_have_cost());
                    last = Some(miss);
                }
            }
        }
        // Nobody had something better.
        if let Some((reply, target)) = second_best {
            visit.record.served_by = Some(target.name.to_string());
            return Ok(reply);
        }
        Err(last.map_or(Refusal::NoRoute, |miss| Refusal::Upstream {
            last: miss.outcome,
            retry_after: miss.retry_after,
        }))
    }

    /// Puts the question to one target.
    async fn ask(
        &self,
        reading: &Reading,
        target: &Target,
        request: Option<Request<Body>>,
        patience: Duration,
    ) -> Result<Reply, Miss> {
        let refused = |detail: &str| Failure {
            reason: FailureReason::Connect,
            detail: detail.into(),
        };
        let request =
            request.ok_or_else(|| refused("the path does not fit the target's address"))?;
        let silent = || Failure {
            reason: FailureReason::Timeout,
            detail: "no answer in time".into(),
        };
        let sent = async {
            let response = self.platform.upstream.send(request).await?;
            answer::take(reading, &target.origin, response).await
        };
        within(&*self.platform.clock, patience, sent)
            .await
            .unwrap_or_else(|| Err(silent().into()))
    }

    /// Hands the answer on, and sees to it that its end is recorded.
    fn relay(&self, mut visit: Visit, reply: Reply) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = reply.status;
        *response.headers_mut() = reply.headers;
        visit.record.status = reply.status.as_u16();
        visit.stamp(response.headers_mut());
        *response.body_mut() = match reply.content {
            Content::Whole(bytes, usage) => {
                visit.record.usage = usage;
                let is_failure = !reply.status.is_success();
                let counted = visit.budget.answered(usage, bytes.len() as u64, is_failure);
                visit.record.counted = Some(counted);
                visit.close(Ending::Whole, None);
                bytes.into()
            }
            Content::Untouched(body) => {
                visit.close(Ending::PassedOn, None);
                if reply.status.is_client_error() {
                    // Nobody has begun to work.
                    visit.budget.failed(false);
                }
                let budget = mem::take(&mut visit.budget);
                if budget.tenure.is_none() {
                    body
                } else {
                    body.with(budget)
                }
            }
            Content::Stream(body, meter) => {
                let clock = self.platform.clock.clone();
                let budget = mem::take(&mut visit.budget);
                let until = visit.record.time.after(visit.timeouts.total);
                let vigil = Vigil::new(clock.clone(), visit.timeouts.idle, until);
                let (body, receipt) =
                    relay::watch(body, meter, visit.dialect, clock, vigil, budget);
                visit.record.stream = true;
                self.platform.tasks.spawn(Box::pin(async move {
                    let closing = receipt.await;
                    visit.record.usage = closing.usage;
                    visit.record.counted = Some(closing.counted);
                    visit.record.fault = visit.record.fault.take().or(closing.detail);
                    visit.close(closing.ended, closing.first_byte);
                }));
                body
            }
        };
        response
    }
}

/// Who is calling, if the route lets them in.
fn authenticate<'a>(route: &Route, caller: &'a Caller) -> Result<Option<&'a Consumer>, Refusal> {
    match (caller, route.access) {
        (Caller::Known(consumer), _) => Ok(Some(consumer)),
        (_, Access::Public) => Ok(None),
        (Caller::Unknown, Access::Consumers) => Err(Refusal::InvalidKey),
        (Caller::Anonymous, Access::Consumers) => Err(Refusal::MissingKey),
    }
}

/// An answer of the gateway's own.
fn known_answer(answer: &Value) -> Reply {
    Reply {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, JSON)]),
        content: Content::Whole(answer.to_string().into(), Usage::default()),
        complaint: None,
    }
}
