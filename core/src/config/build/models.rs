//! The models that callers can name.

use std::{
    num::{NonZeroU32, NonZeroU64},
    rc::Rc,
    time::Duration,
};

use http::StatusCode;

use super::{
    limits::limits,
    origins::{Installations, Origins, find},
};
use crate::{
    config::{
        Kind, Runtime,
        read::{Field, nearest, unavailable},
    },
    dialect::dify::Place,
    dispatch::{Hedge, Model, Reason, Retry, Target},
    flat_map::FlatMap,
    limit::Limit,
    timeouts::Timeouts,
    upstream::Complaint,
};

const MOST_ATTEMPTS: u32 = 10;

/// Whoever hedges more than this, in percent, doubles what he asks for.
const MOST_HEDGED: u32 = 50;

const LONGEST: Duration = Duration::from_secs(86_400);

/// What `retry.on` can name besides a status.
const REASONS: [&str; 5] = [
    "connect",
    "timeout",
    "5xx",
    "context_length",
    "content_filter",
];

/// A model as it is written.
pub(super) struct Listed {
    targets: Vec<Step>,
    attempts: Option<NonZeroU32>,
    on: Rc<[Reason]>,
    timeouts: Timeouts,
    rescue: bool,
    stream_upstream: bool,
    hedge: Option<Hedge>,
    limits: Vec<Rc<Limit>>,
}

/// A target as it is written.
enum Step {
    /// A model of a provider.
    Target(Target),
    /// All targets of another model.
    Model(String),
}

/// What a target can be of.
pub(super) struct Known<'k> {
    pub(super) providers: &'k Origins,
    pub(super) installations: &'k Installations,
    /// The models of the same file.
    pub(super) models: &'k [&'k str],
}

/// Reads the model `name` for `runtime`, whose targets are of who is `known`.
pub(super) fn model(
    name: &str,
    field: &Field<'_>,
    runtime: Runtime,
    known: &Known<'_>,
) -> Option<Listed> {
    let mut section = field.section()?;
    let listed = section.required("targets");
    let targets: Vec<_> = listed
        .iter()
        .flat_map(Field::list)
        .filter_map(|field| step(&field, known))
        .collect();
    if let Some(listed) = listed.filter(Field::is_empty_list) {
        listed.complain("a model needs at least one target");
    }
    if let Some(strategy) = section.field("strategy")
        && strategy
            .choice(&["fallback", "weighted", "latency"])
            .is_some_and(|word| word != "fallback")
    {
        strategy.complain(unavailable("strategy", strategy.value));
    }
    let timeouts = section
        .field("timeouts")
        .and_then(|field| timeouts(&field, runtime));
    let rescue = section
        .field("rescue")
        .and_then(|field| field.choice(&["auto", "off"]));
    let stream_upstream = section
        .field("stream_upstream")
        .and_then(|field| field.boolean());
    let hedging = section.field("hedge").and_then(|field| hedge(&field));
    let retry = section.field("retry").and_then(|field| retry(&field));
    let limits = limits(&mut section, &format!("model {name}"));
    section.finish();
    Some(Listed {
        targets,
        attempts: retry.as_ref().and_then(|(attempts, _)| *attempts),
        on: retry.map_or_else(|| Reason::USUAL.into(), |(_, on)| on),
        timeouts: timeouts.unwrap_or(Timeouts::MODEL),
        rescue: rescue != Some("off"),
        stream_upstream: stream_upstream == Some(true),
        hedge: hedging,
        limits,
    })
}

fn timeouts(field: &Field<'_>, runtime: Runtime) -> Option<Timeouts> {
    let mut section = field.section()?;
    let mut timeouts = Timeouts::MODEL;
    for (name, time) in [
        ("connect", &mut timeouts.connect),
        ("first_token", &mut timeouts.first_token),
        ("idle", &mut timeouts.idle),
        ("total", &mut timeouts.total),
    ] {
        if let Some(field) = section.field(name)
            && let Some(millis) = field.duration()
        {
            *time = Duration::from_millis(millis.get());
            if *time > LONGEST {
                field.complain("a timeout is at most a day");
            }
        }
    }
    for (name, time) in [
        ("connect", timeouts.connect),
        ("first_token", timeouts.first_token),
    ] {
        if time > timeouts.total && section.has(name) {
            section.complain(format!("`{name}` is longer than `total`"));
        }
    }
    if let Some(connect) = section
        .field("connect")
        .filter(|_| runtime == Runtime::Cloudflare)
    {
        connect.complain(
            "`connect` is not available on Workers, which do not tell a connection from its answer: leave it to `first_token` and `total`",
        );
    }
    section.finish();
    Some(timeouts)
}

fn hedge(field: &Field<'_>) -> Option<Hedge> {
    let mut section = field.section()?;
    let percent = section
        .required("percent")
        .and_then(|field| field.small_count(MOST_HEDGED));
    let after = section.field("after").and_then(|field| field.duration());
    section.finish();
    Some(Hedge {
        share: f64::from(percent?.get()) / 100.0,
        after: after.map(|millis| Duration::from_millis(millis.get())),
    })
}

fn retry(field: &Field<'_>) -> Option<(Option<NonZeroU32>, Rc<[Reason]>)> {
    let mut section = field.section()?;
    let attempts = section
        .field("attempts")
        .and_then(|field| field.small_count(MOST_ATTEMPTS));
    let on = match section.field("on") {
        Some(on) => on.list().iter().filter_map(reason).collect(),
        None => Reason::USUAL.into(),
    };
    section.finish();
    Some((attempts, on))
}

fn reason(field: &Field<'_>) -> Option<Reason> {
    let text = field.text()?;
    let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        let status = StatusCode::from_bytes(text.as_bytes()).ok();
        let failed = status.filter(|status| status.is_client_error() || status.is_server_error());
        if failed.is_none() {
            field.complain(format!("`{text}` is not the status of a failure"));
        }
        return failed.map(Reason::Status);
    }
    Some(match field.choice(&REASONS)? {
        "connect" => Reason::Connect,
        "timeout" => Reason::Timeout,
        "context_length" => Reason::Complaint(Complaint::ContextLength),
        "content_filter" => Reason::Complaint(Complaint::ContentFilter),
        _ => Reason::Failing,
    })
}

/// A model as it is written, with its name and where it stands.
pub(super) type Named<'f> = (&'f str, &'f Field<'f>, Listed);

/// The models of `listed`, where those that are another model's name stand for its targets.
///
/// The limits of an app that is among the targets hold for all of them: what will be asked of it alone is not known before.
pub(super) fn resolved(listed: &[Named<'_>], installations: &Installations) -> FlatMap<Rc<Model>> {
    let mut models = FlatMap::default();
    for (name, field, one) in listed {
        let mut targets = Vec::new();
        let mut way = vec![*name];
        if !expand(one, listed, &mut way, &mut Vec::new(), &mut targets) {
            let way = way.join(" -> ");
            field.complain(format!("its targets come back to themselves: {way}"));
        }
        let mut limits = one.limits.clone();
        for (_, Place { app, .. }) in installations.iter().flat_map(|(_, (_, apps))| apps) {
            if targets
                .iter()
                .any(|target: &Target| target.name == app.name)
            {
                limits.extend_from_slice(&app.limits);
            }
        }
        let all = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        let all = NonZeroU32::new(all.clamp(1, MOST_ATTEMPTS));
        let model = Model {
            name: (*name).into(),
            targets,
            retry: Retry {
                attempts: one.attempts.or(all).unwrap_or(NonZeroU32::MIN),
                on: one.on.clone(),
            },
            timeouts: one.timeouts,
            rescue: one.rescue,
            stream_upstream: one.stream_upstream,
            hedge: one.hedge,
            limits,
        };
        models.insert((*name).into(), Rc::new(model));
    }
    models
}

/// Adds the targets of `one` to `targets`; of those that come by way of other models each once. `way` is how it was come by, and
/// `done` are the models that need not be looked at again. Whether it does not go round in a circle.
fn expand<'l>(
    one: &'l Listed,
    listed: &'l [Named<'_>],
    way: &mut Vec<&'l str>,
    done: &mut Vec<&'l str>,
    targets: &mut Vec<Target>,
) -> bool {
    for step in &one.targets {
        match step {
            Step::Target(target) => {
                let is_known = targets.iter().any(|other| other.name == target.name);
                if way.len() == 1 || !is_known {
                    targets.push(target.clone());
                }
            }
            Step::Model(name) => {
                let is_circle = way.contains(&name.as_str());
                way.push(name);
                if is_circle {
                    return false;
                }
                let next = listed.iter().find(|(other, ..)| other == name);
                if let Some((.., next)) = next
                    && !done.contains(&name.as_str())
                {
                    done.push(name);
                    if !expand(next, listed, way, done, targets) {
                        return false;
                    }
                }
                way.pop();
            }
        }
    }
    true
}

fn step(field: &Field<'_>, known: &Known<'_>) -> Option<Step> {
    if let Kind::Table(_) = field.value.kind {
        let mut section = field.section()?;
        section.unavailable("weight");
        let mut target = section
            .required("target")
            .and_then(|field| step(&field, known));
        if let Some(context) = section.field("context") {
            match &mut target {
                Some(Step::Target(target)) => target.context = context.count().map(NonZeroU64::get),
                Some(Step::Model(_)) => context.complain(
                    "`context` is said of a provider's model: the targets of another model have their own",
                ),
                None => {}
            }
        }
        section.finish();
        return target;
    }
    let name = field.text()?;
    if known.models.contains(&name) {
        return Some(Step::Model(name.into()));
    }
    let Some((provider, model)) = name.split_once('/').filter(|(_, model)| !model.is_empty())
    else {
        let hint = nearest(name, known.models.iter().copied());
        field.complain(format!(
            "expected a provider and its model such as `openai/gpt-4.1`, or another model of this file, found `{name}`{hint}"
        ));
        return None;
    };
    let is_provider = known.providers.iter().any(|(other, _)| other == provider);
    if let Some(installation) = provider.strip_prefix("dify.").filter(|_| !is_provider) {
        let target = app(field, installation, model, known.installations);
        return target.map(Step::Target);
    }
    let origin = find(known.providers, provider)
        .map_err(|hint| field.complain(format!("no provider is named `{provider}`{hint}")))
        .ok()?;
    Some(Step::Target(Target {
        model: model.into(),
        ..Target::alone(name.into(), origin.clone())
    }))
}

/// The app `name` of an installation, as a target.
fn app(
    field: &Field<'_>,
    installation: &str,
    name: &str,
    installations: &Installations,
) -> Option<Target> {
    let (_, apps) = find(installations, installation)
        .map_err(|hint| field.complain(format!("no Dify is named `{installation}`{hint}")))
        .ok()?;
    let Place { app, installation } = find(apps, name)
        .map_err(|hint| field.complain(format!("no app is named `{name}`{hint}")))
        .ok()?;
    let Some(origin) = &app.as_model else {
        field.complain(format!(
            "`{}` can stand for a model once its `app` is said: \"chat\", \"agent\", \"completion\" or \"workflow\"",
            app.name
        ));
        return None;
    };
    Some(Target {
        way: app.runs.clone(),
        ground: Some(installation.clone()),
        ..Target::alone(app.name.clone(), origin.clone())
    })
}
