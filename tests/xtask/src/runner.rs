//! Plays the parts in order, and says at the end what became of each.

use std::time::{Duration, Instant};

use crate::{
    counts::Counts,
    parts::{PARTS, Part},
};

/// Runs the parts named `names`, or all of them, and prints the table and the counts.
///
/// A part that fails does not end the run; parts that need it are not run. The error is empty: all is said.
pub(crate) fn run(names: &[&str]) -> Result<(), String> {
    for name in names {
        if !PARTS.iter().any(|part| part.name == *name) {
            return Err(format!(
                "there is no part {name:?}; `cargo xtask parts` lists them"
            ));
        }
    }
    let chosen = PARTS
        .iter()
        .filter(|part| names.is_empty() || names.contains(&part.name));
    let mut played: Vec<Played> = Vec::new();
    for part in chosen {
        let broken = part.needs.iter().find(|need| {
            played
                .iter()
                .any(|other| other.part.name == **need && !other.fine())
        });
        let entry = match broken {
            Some(need) => Played::left_out(part, need),
            None => Played::play(part),
        };
        if !entry.fine() {
            println!("FAILED: {}", part.name);
        }
        played.push(entry);
    }
    report(&played)
}

/// Prints the parts and what each does.
pub(crate) fn list() {
    for part in PARTS {
        println!("{:<12} {}", part.name, part.about);
    }
}

struct Played {
    part: &'static Part,
    took: Duration,
    counts: Counts,
    problem: Option<String>,
}

impl Played {
    fn play(part: &'static Part) -> Self {
        println!("\n== {}: {}", part.name, part.about);
        let start = Instant::now();
        let mut counts = Counts::default();
        let mut problem = (part.play)(&mut counts).err();
        if problem.is_none() && counts.failed > 0 {
            problem = Some(format!("{} tests failed", counts.failed));
        }
        if problem.is_none() && part.tests && counts.passed == 0 {
            problem = Some("no test was found".to_owned());
        }
        // A part that broke before it could report a failed test is a failure all the same.
        if problem.is_some() && counts.failed == 0 {
            counts.failed = 1;
        }
        if let Some(problem) = &problem {
            println!("{problem}");
        }
        let took = start.elapsed();
        println!("-- {}: {:.1} s", part.name, took.as_secs_f64());
        Self {
            part,
            took,
            counts,
            problem,
        }
    }

    fn left_out(part: &'static Part, need: &str) -> Self {
        println!("\n== {}: {}", part.name, part.about);
        let problem = Some(format!("not run: it needs {need}"));
        Self {
            part,
            took: Duration::ZERO,
            counts: Counts {
                failed: 1,
                ..Counts::default()
            },
            problem,
        }
    }

    const fn fine(&self) -> bool {
        self.problem.is_none()
    }
}

fn report(played: &[Played]) -> Result<(), String> {
    println!(
        "\n{:<12} {:>8} {:>8} {:>8} {:>8}",
        "part", "seconds", "passed", "failed", "skipped"
    );
    let mut sum = Counts::default();
    let mut took = Duration::ZERO;
    for Played {
        part,
        took: seconds,
        counts,
        problem,
    } in played
    {
        print!("{:<12} {:>8.1} ", part.name, seconds.as_secs_f64());
        print!(
            "{:>8} {:>8} {:>8}",
            counts.passed, counts.failed, counts.skipped
        );
        println!(
            "{}",
            problem
                .as_ref()
                .map(|problem| format!("  {problem}"))
                .unwrap_or_default()
        );
        sum += *counts;
        took += *seconds;
    }
    println!("{:<12} {:>8.1}", "together", took.as_secs_f64());
    let broken: Vec<&str> = played
        .iter()
        .filter(|entry| !entry.fine())
        .map(|entry| entry.part.name)
        .collect();
    if !broken.is_empty() {
        println!("\nfailed: {}", broken.join(", "));
    }
    println!("{sum}");
    if broken.is_empty() {
        Ok(())
    } else {
        Err(String::new())
    }
}
