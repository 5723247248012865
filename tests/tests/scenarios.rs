//! Every scenario on every runtime: `runtime::file::scenario`.
//!
//! `TIDEGATE_RUNTIMES=memory,native` chooses runtimes, `TIDEGATE_JOBS` how many gateways stand at once, and the usual
//! arguments of a test binary choose scenarios.

// A test tells what went wrong by failing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tidegate_tests::{
    play::{play, start},
    process::workspace,
    scenario::{Book, Runtime, Scenario},
    stage::Stage,
};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let (books, runtimes) = match (
        Book::read_all(&workspace().join("tests/scenarios")),
        Runtime::asked_for(),
    ) {
        (Ok(books), Ok(runtimes)) => (books, runtimes),
        (Err(problem), _) | (_, Err(problem)) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    let mut groups = VecDeque::new();
    let mut trials = Vec::new();
    let mut skipped = Vec::new();
    for book in books {
        let book = Arc::new(book);
        for runtime in &runtimes {
            for config in book.config.keys() {
                let mut group = Group {
                    runtime: *runtime,
                    book: Arc::clone(&book),
                    config: config.clone(),
                    parts: Vec::new(),
                };
                for (number, scenario) in book
                    .scenarios
                    .iter()
                    .enumerate()
                    .filter(|(_, scenario)| scenario.config == *config)
                {
                    let name = format!(
                        "{runtime}::{}::{}",
                        book.name,
                        scenario.name.replace(' ', "_")
                    );
                    if let Some(reason) = scenario.skip.get(runtime) {
                        skipped.push(format!("{name}: {reason}"));
                        continue;
                    }
                    let (said, heard) = channel();
                    if chosen(&arguments, &name) {
                        group.parts.push((number, said));
                    }
                    trials.push(trial(name, heard));
                }
                groups.push_back(group);
            }
        }
    }
    if !arguments.list {
        play_all(groups);
    }
    // The work is done by the threads above; the trials only wait, one after another.
    arguments.test_threads = Some(1);
    let conclusion = libtest_mimic::run(&arguments, trials);
    println!("skipped with a reason: {}", skipped.len());
    for skip in &skipped {
        println!("    {skip}");
    }
    conclusion.exit_code()
}

/// The scenarios of one configuration on one runtime.
struct Group {
    runtime: Runtime,
    book: Arc<Book>,
    config: String,
    parts: Vec<(usize, Sender<Result<(), String>>)>,
}

fn play_all(groups: VecDeque<Group>) {
    let groups = Arc::new(Mutex::new(groups));
    let jobs = std::env::var("TIDEGATE_JOBS")
        .ok()
        .and_then(|jobs| jobs.parse().ok())
        .unwrap_or(4);
    for _ in 0..jobs {
        let groups = Arc::clone(&groups);
        thread::spawn(move || {
            loop {
                let Some(group) = groups.lock().unwrap().pop_front() else {
                    return;
                };
                group.play();
            }
        });
    }
}

impl Group {
    fn play(&self) {
        let mut shared: Option<Box<dyn Stage>> = None;
        for (number, said) in &self.parts {
            let scenario = &self.book.scenarios[*number];
            let result = catch_unwind(AssertUnwindSafe(|| self.play_one(scenario, &mut shared)))
                .unwrap_or_else(|_| Err("the harness panicked: see above".into()));
            if result.is_err() {
                // Whatever went wrong shall not meet the next one.
                shared = None;
            }
            let _ = said.send(result);
        }
    }

    fn play_one(
        &self,
        scenario: &Scenario,
        shared: &mut Option<Box<dyn Stage>>,
    ) -> Result<(), String> {
        let start = || start(self.runtime, &self.book, &self.config);
        // In memory a gateway costs nothing.
        if scenario.fresh || self.runtime == Runtime::Memory {
            return play(scenario, &*start()?);
        }
        if shared.is_none() {
            *shared = Some(start()?);
        }
        play(scenario, shared.as_deref().unwrap())
    }
}

fn trial(name: String, heard: Receiver<Result<(), String>>) -> Trial {
    Trial::test(name, move || match heard.recv() {
        Ok(result) => result.map_err(Failed::from),
        Err(_) => Err("it was never played".into()),
    })
}

/// As the test runner chooses.
fn chosen(arguments: &Arguments, name: &str) -> bool {
    let fits = |pattern: &String| {
        if arguments.exact {
            name == pattern
        } else {
            name.contains(pattern.as_str())
        }
    };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits)
}
