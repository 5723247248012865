//! A gateway to play on.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::{
    scenario::{Call, Runtime},
    upstream::Script,
    wire::{Content, Head},
};

/// A gateway with one configuration, and everything around it.
pub trait Stage {
    /// What it runs on.
    fn runtime(&self) -> Runtime;

    /// What the upstreams answer.
    fn script(&self) -> &Script;

    /// Makes `count` calls at once.
    fn calls(&self, call: &Call, count: usize) -> Vec<Reply>;

    /// Lets time pass.
    fn wait(&self, duration: Duration);

    /// The record of the request named `id`, once it is there.
    fn record(&self, id: &str) -> Option<Value>;

    /// All that it has said to anybody but the caller.
    fn overheard(&self) -> String;

    /// The most memory that it has ever held, in megabytes, where that says something.
    fn peak(&self) -> Option<u64> {
        None
    }

    /// What its secrets are.
    fn secrets(&self) -> &BTreeMap<String, String>;
}

/// What a caller got.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The head of the answer, if one came.
    pub head: Option<Head>,
    /// Its body.
    pub content: Content,
    /// Why there is none.
    pub trouble: String,
}

impl Reply {
    /// The status, or nothing if nobody answered.
    pub fn status(&self) -> u16 {
        self.head.as_ref().map_or(0, |head| head.status)
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.as_ref()?.header(name)
    }
}
