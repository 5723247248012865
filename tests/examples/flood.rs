//! Several who answer are flooded side by side, each with the same callers; what came of it is a line each, parted by tabs.
//!
//! `flood RATE WARM COUNTED [NAME ADDRESS RUNS CONSOLE KEY]…`: calls a second, and seconds before it is counted and while it is.
//! The order of the columns: name, calls, useful answers a second, shed, left, odd, the median and the 99th percentile of the
//! first event and of the console in milliseconds, and how often the console failed.

use std::{process::ExitCode, thread, time::Duration};

use tidegate_tests::flood::{Delays, Flood, play};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((load, targets)) = arguments.split_at_checked(3) else {
        eprintln!("usage: flood RATE WARM COUNTED [NAME ADDRESS RUNS CONSOLE KEY]…");
        return ExitCode::from(2);
    };
    let floods: Option<Vec<(String, Flood)>> =
        targets.chunks(5).map(|target| read(load, target)).collect();
    let Some(floods) = floods else {
        eprintln!("flood: not a load, or not who answers: {arguments:?}");
        return ExitCode::from(2);
    };
    let playing: Vec<_> = floods
        .into_iter()
        .map(|(name, flood)| thread::spawn(move || line(&name, &flood)))
        .collect();
    for one in playing {
        match one.join() {
            Ok(line) => println!("{line}"),
            Err(_) => return ExitCode::FAILURE,
        }
    }
    ExitCode::SUCCESS
}

fn read(load: &[String], target: &[String]) -> Option<(String, Flood)> {
    let [rate, warm, counted] = load else {
        return None;
    };
    let [name, address, runs, console, key] = target else {
        return None;
    };
    let seconds = |text: &str| text.parse().ok().map(Duration::from_secs);
    let flood = Flood {
        address: address.parse().ok()?,
        runs: runs.clone(),
        console: console.clone(),
        key: key.clone(),
        rate: rate.parse().ok().filter(|rate| *rate > 0.0)?,
        warm: seconds(warm)?,
        counted: seconds(counted)?,
    };
    Some((name.clone(), flood))
}

fn line(name: &str, flood: &Flood) -> String {
    let came = play(flood);
    if came.odd > 0 {
        eprintln!("{name}: {} odd answers, {:?} say", came.odd, came.oddity);
    }
    let ms = |delays: &Delays, percent| delays.percent(percent).as_millis();
    format!(
        "{name}\t{}\t{:.2}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
        came.asked,
        came.useful,
        came.shed,
        came.left,
        came.odd,
        ms(&came.first, 50),
        ms(&came.first, 99),
        ms(&came.console, 50),
        ms(&came.console, 99),
        came.console_failed
    )
}
