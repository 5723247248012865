//! What every fake has seen.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

use crate::server::Asked;

/// The counts of all fakes, by name.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<BTreeMap<String, Count>>>);

#[derive(Default)]
struct Count {
    calls: u64,
    active: u64,
    peak: u64,
    aborted: u64,
    paths: BTreeMap<String, u64>,
    keys: BTreeMap<String, u64>,
    last: Option<Asked>,
}

/// One request being answered: ends when the answer has gone.
pub(crate) struct Visit {
    counts: Counts,
    name: String,
    /// Which call of this fake it is, counted from one.
    pub(crate) call: u64,
    /// How many are being answered, this one included.
    pub(crate) active: u64,
    ended: bool,
}

impl Counts {
    /// `asked` has come in at the fake `name`.
    pub(crate) fn begin(&self, name: &str, asked: &Asked) -> Visit {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.to_owned()).or_default();
        count.calls += 1;
        count.active += 1;
        count.peak = count.peak.max(count.active);
        *count
            .paths
            .entry(format!("{} {}", asked.method, asked.path))
            .or_default() += 1;
        if let Some(key) = asked.bearer() {
            *count.keys.entry(key.to_owned()).or_default() += 1;
        }
        count.last = Some(asked.clone());
        Visit {
            counts: self.clone(),
            name: name.to_owned(),
            call: count.calls,
            active: count.active,
            ended: false,
        }
    }

    /// Everything, or what the fake `name` has seen.
    pub(crate) fn tell(&self, name: Option<&str>) -> Value {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match name {
            Some(name) => counts
                .get(name)
                .map_or_else(|| tell(&Count::default()), tell),
            None => counts
                .iter()
                .map(|(name, count)| (name.clone(), tell(count)))
                .collect(),
        }
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Visit {
    /// The answer has gone: all of it if `whole`.
    pub(crate) fn end(mut self, whole: bool) {
        self.close(whole);
    }

    fn close(&mut self, whole: bool) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Absent, or behind, if everything was forgotten meanwhile.
        if let Some(count) = counts.get_mut(&self.name) {
            count.active = count.active.saturating_sub(1);
            count.aborted += u64::from(!whole);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.close(false);
    }
}

fn tell(count: &Count) -> Value {
    let last = count.last.as_ref().map(|asked| {
        let mut headers = BTreeMap::<&str, String>::new();
        for (name, value) in &asked.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.as_str())
                .and_modify(|all| *all = format!("{all}, {value}"))
                .or_insert_with(|| value.into());
        }
        json!({
            "method": asked.method.as_str(),
            "path": asked.path,
            "query": asked.query,
            "headers": headers,
            "body": std::str::from_utf8(&asked.body).ok(),
            "body_bytes": asked.body.len(),
        })
    });
    json!({
        "calls": count.calls,
        "active": count.active,
        "peak": count.peak,
        "aborted": count.aborted,
        "paths": count.paths,
        "keys": count.keys,
        "last": last,
    })
}
