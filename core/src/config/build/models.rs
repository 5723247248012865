//! The models that callers can name.

use std::num::NonZeroU32;

use super::origins::Origins;
use crate::{
    config::{
        Kind,
        read::{Field, nearest, unavailable},
    },
    dispatch::{Model, Retry, Target},
};

const MOST_ATTEMPTS: u32 = 10;

/// Reads a model, whose targets are models of `providers`.
pub(super) fn model(name: &str, field: &Field<'_>, providers: &Origins) -> Option<Model> {
    let mut section = field.section()?;
    let listed = section.required("targets");
    let targets: Vec<_> = listed
        .iter()
        .flat_map(Field::list)
        .filter_map(|field| target(&field, providers))
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
    section.unavailable("timeouts");
    if let Some(rescue) = section.field("rescue")
        && rescue.choice(&["auto", "off"]) == Some("auto")
    {
        rescue.complain(unavailable("rescue", rescue.value));
    }
    let all = NonZeroU32::new(u32::try_from(targets.len()).unwrap_or(u32::MAX))
        .unwrap_or(NonZeroU32::MIN);
    let mut retry = Retry {
        attempts: all.min(NonZeroU32::new(MOST_ATTEMPTS).unwrap_or(all)),
        connect: true,
        limited: true,
        failing: true,
    };
    if let Some(mut section) = section.field("retry").and_then(|field| field.section()) {
        if let Some(attempts) = section
            .field("attempts")
            .and_then(|field| field.small_count(MOST_ATTEMPTS))
        {
            retry.attempts = attempts;
        }
        if let Some(on) = section.field("on") {
            let words: Vec<_> = on
                .list()
                .iter()
                .filter_map(|field| field.choice(&["connect", "429", "5xx"]))
                .collect();
            let has = |word| words.contains(&word);
            retry = Retry {
                connect: has("connect"),
                limited: has("429"),
                failing: has("5xx"),
                ..retry
            };
        }
        section.finish();
    }
    section.finish();
    Some(Model {
        name: name.into(),
        targets,
        retry,
    })
}

fn target(field: &Field<'_>, providers: &Origins) -> Option<Target> {
    if let Kind::Table(_) = field.value.kind {
        let mut section = field.section()?;
        section.unavailable("weight");
        let target = section
            .required("target")
            .and_then(|field| target(&field, providers));
        section.finish();
        return target;
    }
    let name = field.text()?;
    let Some((provider, model)) = name.split_once('/').filter(|(_, model)| !model.is_empty())
    else {
        field.complain(format!(
            "expected a provider and its model such as `openai/gpt-4.1`, found `{name}`"
        ));
        return None;
    };
    let Some(origin) = providers.get(provider) else {
        let hint = nearest(provider, providers.keys().map(String::as_str));
        field.complain(format!("no provider is named `{provider}`{hint}"));
        return None;
    };
    Some(Target {
        name: name.into(),
        origin: origin.clone(),
        model: model.into(),
    })
}
