//! What comes out of a Dify that is asked for more than it can do, behind nginx and behind Tidegate, in real time.
//!
//! Every one of them has a Dify of its own, a fake that is as late as a machine of four cores would be; all are flooded side by side,
//! by the same callers, who do not wait for each other and leave when they have waited for ten seconds.

use std::{net::SocketAddr, thread};

use super::{
    Plan, Scratch, nginx,
    process::{Server, free_address},
};
use crate::command::{cargo, run, target};

/// How many come in a second.
const RATES: [u32; 4] = [6, 9, 20, 40];

/// What the machine does in a second: four cores, and 0.4 s of one for each run.
const CAPACITY: f64 = 10.0;

/// The least part of that which has to be of use where twice as many come.
const BASELINE: f64 = 0.8;

/// How much of what nginx lets through has to come through where there is room for all.
const ROOM: f64 = 0.97;

/// Within how many milliseconds 99 of 100 answers of the console have to be there.
const CONSOLE: f64 = 1000.0;

/// Four cores, and a model of five seconds.
const MACHINE: &str = "/dify/cores-4-5s";

const KEY: &str = "app-chat-bench";

/// What came of one flood.
struct Row {
    name: String,
    /// As `tests/examples/flood.rs` has the columns.
    values: Vec<f64>,
}

/// Two who are flooded, and those they stand before; all end with this value.
struct Stage {
    nginx: Server,
    gateway: Server,
    _behind: [Server; 2],
}

/// Measures, prints, and names what is below the baseline.
pub(super) fn play(plan: Plan) -> Result<Vec<String>, String> {
    cargo("build --locked --profile native -p tidegate").go()?;
    cargo("build --locked -p tidegate-fakes").go()?;
    cargo("build --locked -p tidegate-tests --example flood").go()?;
    let scratch = Scratch::new("overload")?;
    let (warm, counted) = if plan.quick { (30, 15) } else { (60, 30) };
    println!(
        "overload: a Dify that can do {CAPACITY:.0} runs a second, and a console beside them; {counted} s, after {warm} s in which it is \
         learnt. An answer is of use that begins within 2 s and ends within 30 s.\n"
    );
    println!(
        "  {:>4} {:<10} {:>8} {:>6} {:>6} {:>11} {:>11} {:>13} {:>13}",
        "", "", "useful/s", "shed", "left", "first p50", "first p99", "console p50", "console p99"
    );
    let stages: Result<Vec<_>, String> = RATES
        .into_iter()
        .map(|rate| Ok((rate, Stage::start(&scratch, rate)?)))
        .collect();
    let stages = stages?;
    let floods = thread::scope(|scope| {
        let flooding: Vec<_> = stages
            .iter()
            .map(|(rate, stage)| scope.spawn(move || (*rate, stage.flood(*rate, warm, counted))))
            .collect();
        let ended = flooding.into_iter().map(|one| one.join());
        ended.collect::<Result<Vec<_>, _>>()
    });
    let mut failures = Vec::new();
    for (rate, rows) in floods.map_err(|_| "a flood panicked")? {
        let rows = rows?;
        rows.iter().for_each(|row| row.print(rate));
        failures.extend(judge(rate, &rows));
    }
    Ok(failures)
}

impl Stage {
    fn start(scratch: &Scratch, rate: u32) -> Result<Self, String> {
        let behind = [dify()?, dify()?];
        let [before_nginx, before_gateway] = [&behind[0], &behind[1]].map(|dify| dify.address);
        Ok(Self {
            nginx: proxy(scratch, rate, before_nginx)?,
            gateway: gateway(scratch, rate, before_gateway)?,
            _behind: behind,
        })
    }

    fn flood(&self, rate: u32, warm: u32, counted: u32) -> Result<Vec<Row>, String> {
        let mut flood = run(target().join("debug/examples/flood"))
            .words(&format!("{rate} {warm} {counted} nginx"))
            .arg(self.nginx.address.to_string());
        for argument in ["", "", KEY, "tidegate"] {
            flood = flood.arg(argument);
        }
        flood = flood.arg(self.gateway.address.to_string());
        for argument in ["/agents", "", "none"] {
            flood = flood.arg(argument);
        }
        let printed = flood.output()?;
        let rows: Option<Vec<Row>> = printed.lines().map(Row::read).collect();
        rows.filter(|rows| rows.len() == 2)
            .ok_or_else(|| format!("the flood says {printed:?}"))
    }
}

/// A machine that is as late as Dify's.
fn dify() -> Result<Server, String> {
    let command = run(target().join("debug/tidegate-fakes")).words("--listen 127.0.0.1:0");
    Server::announced(command.into_command())
}

/// As Dify's own nginx passes on: at once, and for an hour.
fn proxy(scratch: &Scratch, rate: u32, dify: SocketAddr) -> Result<Server, String> {
    let address = free_address()?;
    let servers = format!(
        "server {{
            listen {address};
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_buffering off;
            proxy_read_timeout 3600s;
            location / {{ proxy_pass http://{dify}{MACHINE}/; }}
        }}"
    );
    nginx::start(scratch, &format!("overload-{rate}"), 2, &servers, address)
}

fn gateway(scratch: &Scratch, rate: u32, dify: SocketAddr) -> Result<Server, String> {
    let config = format!(
        r#"[gateway]
data_dir = "overload-{rate}"

[dify.main]
api = "http://{dify}{MACHINE}"
overload = "auto"

[dify.main.apps.support]
key = "$APP_KEY"

[[routes]]
name = "support"
path = "/agents"
serve = "dify.main/support"
access = "public"

[[routes]]
name = "dify"
path = "/"
serve = "dify.main"
access = "public"
"#
    );
    let config = scratch.write(&format!("overload-{rate}.toml"), &config)?;
    let command = run(target().join("native/tidegate"))
        .words("serve --listen 127.0.0.1:0 --config")
        .arg(config)
        .env("APP_KEY", KEY)
        .env("TIDEGATE_LOG", "json");
    Server::announced(command.into_command())
}

impl Row {
    fn read(line: &str) -> Option<Self> {
        let mut columns = line.split('\t');
        let name = columns.next()?.to_owned();
        let values: Result<Vec<f64>, _> = columns.map(str::parse).collect();
        let values = values.ok().filter(|values| values.len() == 10)?;
        Some(Self { name, values })
    }

    fn value(&self, column: usize) -> f64 {
        self.values.get(column).copied().unwrap_or_default()
    }

    fn useful(&self) -> f64 {
        self.value(1)
    }

    fn console(&self) -> f64 {
        self.value(8)
    }

    fn print(&self, rate: u32) {
        let column = |place| self.value(place);
        println!(
            "  {:>4} {:<10} {:>8.2} {:>6} {:>6} {:>8} ms {:>8} ms {:>10} ms {:>10} ms",
            format!("{rate}/s"),
            self.name,
            self.useful(),
            column(2),
            column(3),
            column(5),
            column(6),
            column(7),
            self.console(),
        );
    }
}

fn judge(rate: u32, rows: &[Row]) -> Vec<String> {
    let [nginx, tidegate] = rows else {
        return vec![format!("{rate}/s: two were to be flooded")];
    };
    let mut failures = Vec::new();
    let comes = f64::from(rate);
    let most = if comes >= 2.0 * CAPACITY {
        f64::INFINITY
    } else {
        ROOM * nginx.useful()
    };
    let least = most.min(BASELINE * CAPACITY);
    if tidegate.useful() < least {
        let useful = tidegate.useful();
        failures.push(format!(
            "{rate}/s: {useful:.2} answers of use a second, not {least:.2}"
        ));
    }
    if tidegate.console() >= CONSOLE {
        let console = tidegate.console();
        failures.push(format!("{rate}/s: {console:.0} ms for the console"));
    }
    failures
}
