//! A scenario, taken through a stage.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    check,
    expect::Expect,
    memory::Memory,
    process::Process,
    scenario::{Book, Call, Runtime, Scenario, Step},
    stage::{Reply, Stage},
    upstream::Cut,
};

/// What a gateway may hold at any time, in megabytes.
const MOST_MEMORY: u64 = 256;

/// How often it is looked whether all has been asked that was expected.
const MOMENT: Duration = Duration::from_millis(50);

/// After how long a gateway has forgotten what it has learnt of its upstreams, in simulated time.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// A gateway of the configuration `config` of `book`.
pub fn start(runtime: Runtime, book: &Book, config: &str) -> Result<Box<dyn Stage>, String> {
    let text = &book.config[config];
    Ok(match runtime {
        Runtime::Memory => Box::new(Memory::start(text, &book.secrets)?),
        _ => Box::new(Process::start(runtime, text, &book.secrets)?),
    })
}

/// Plays `scenario`; says what is wrong.
pub fn play(scenario: &Scenario, stage: &dyn Stage) -> Result<(), String> {
    for (number, step) in scenario.step.iter().enumerate() {
        let expect = step.expect(stage.runtime())?;
        stage.wait(Duration::from_millis(step.wait_ms));
        let at = |wrong: &[String]| format!("step {}:\n  {}", number + 1, wrong.join("\n  "));
        let reply = perform(step, &expect, stage, Cut::AsWritten).map_err(|wrong| at(&wrong))?;
        if scenario.stream {
            let cuts = cuts(stage.runtime(), step);
            // A gateway that nobody has called before learns from each play: few of them do not change whom it asks.
            let few = scenario.fresh && stage.runtime() != Runtime::Memory;
            for cut in cuts.into_iter().take(if few { 3 } else { usize::MAX }) {
                if scenario.fresh && !few {
                    stage.wait(FORGOTTEN);
                }
                let again = perform(step, &expect, stage, cut)
                    .map_err(|wrong| at(&[format!("cut {cut:?}"), wrong.join("\n  ")]))?;
                if again.content.bytes != reply.content.bytes {
                    let text =
                        |reply: &Reply| String::from_utf8_lossy(&reply.content.bytes).into_owned();
                    return Err(format!(
                        "cut {cut:?}, the caller got\n{}\n  instead of\n{}",
                        text(&again),
                        text(&reply)
                    ));
                }
            }
        }
    }
    if let Some(peak) = stage.peak().filter(|peak| *peak > MOST_MEMORY) {
        return Err(format!("it has held {peak} MB"));
    }
    alive(stage)
}

/// The gateway answers, whatever it has been through.
fn alive(stage: &dyn Stage) -> Result<(), String> {
    let health = Call {
        path: "/_tidegate/health".into(),
        ..Call::default()
    };
    match stage.calls(&health, 1).pop() {
        Some(reply)
            if reply.status() == 200 && reply.content.bytes.starts_with(b"{\"status\":\"ok\"") =>
        {
            Ok(())
        }
        reply => Err(format!(
            "after it, /_tidegate/health says {reply:?}\n{}",
            stage.overheard()
        )),
    }
}

fn perform(
    step: &Step,
    expect: &Expect,
    stage: &dyn Stage,
    cut: Cut,
) -> Result<Reply, Vec<String>> {
    stage.script().load(&step.upstream, cut);
    let count = step
        .concurrent
        .as_ref()
        .map_or(1, |concurrent| concurrent.calls);
    let replies = stage.calls(&step.call, count);
    let mut wrong = Vec::new();
    if let Some(concurrent) = &step.concurrent {
        let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
        for reply in &replies {
            *statuses.entry(reply.status().to_string()).or_default() += 1;
        }
        if statuses != concurrent.expect {
            let trouble = replies
                .iter()
                .find(|reply| reply.head.is_none())
                .map(|reply| &reply.trouble);
            wrong.push(format!(
                "{statuses:?} instead of {:?} {trouble:?}",
                concurrent.expect
            ));
        }
    }
    for reply in &replies {
        wrong.extend(check::answer(expect, &step.call, reply));
        wrong.extend(check::record(expect, reply, stage));
    }
    let reply = replies.into_iter().next().unwrap_or_default();
    if cut == Cut::AsWritten && step.concurrent.is_none() {
        wrong.extend(check::pace(expect, &reply));
    }
    // What is done behind an answer comes a moment after it.
    for _ in 0..20 {
        if stage.script().is_over() {
            break;
        }
        stage.wait(MOMENT);
    }
    wrong.extend(check::upstreams(expect, &step.call, stage));
    wrong.extend(check::leaks(&reply, stage));
    wrong.sort();
    wrong.dedup();
    if wrong.is_empty() {
        Ok(reply)
    } else {
        Err(wrong)
    }
}

/// Every position in memory; one byte a write and some positions where each costs real time.
fn cuts(runtime: Runtime, step: &Step) -> Vec<Cut> {
    let size = |answer: &crate::scenario::Answer| {
        answer.payload().map_or(0, |pieces| pieces.concat().len())
    };
    let longest = step
        .upstream
        .values()
        .flatten()
        .map(size)
        .max()
        .unwrap_or(0);
    let positions: Vec<_> = if runtime == Runtime::Memory {
        (1..longest).collect()
    } else {
        (1..6)
            .map(|part| longest * part / 6)
            .filter(|position| (1..longest).contains(position))
            .collect()
    };
    positions
        .into_iter()
        .map(Cut::At)
        .chain([Cut::Bytes])
        .collect()
}
