//! How long a caller waits for the first content of a stream: of the upstream itself, and through the gateway.
//!
//! wrk knows when an answer has ended and not when it began to say something. So a caller of our own asks both in turns, over one
//! connection to each: whatever else the machine does meanwhile, it does to both.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::{
    Plan,
    case::STREAM,
    contest::KEY,
    load,
    table::{median, time},
};

/// How many ask at once; the first of them is judged.
const CALLERS: [usize; 2] = [1, 8];

/// How much the gateway may add in the median, in microseconds.
const MOST: f64 = 1000.0;

/// What stands before the first word.
const CONTENT: &[u8] = b"\"content\":\"";

/// How a stream ends that is sent in chunks.
const END: &[u8] = b"\r\n0\r\n\r\n";

/// How long each of them made one caller wait, in microseconds.
#[derive(Default)]
struct Waits {
    direct: Vec<f64>,
    gateway: Vec<f64>,
}

/// Measures, prints, and says what takes too long.
pub(super) fn run(
    plan: Plan,
    direct: SocketAddr,
    gateway: SocketAddr,
) -> Result<Option<String>, String> {
    load::try_once(gateway, &STREAM, KEY)?;
    println!("\nfirst content of a stream, the upstream and tidegate asked in turns");
    println!(
        "  {:<14} {:>10} {:>12} {:>12} {:>12}",
        "", "streams", "direct p50", "through p50", "added p50"
    );
    let mut failure = None;
    for callers in CALLERS {
        let waits = measure(plan, callers, direct, gateway)?;
        let streams = waits.gateway.len();
        let (direct, through) = (
            median(waits.direct.into_iter()),
            median(waits.gateway.into_iter()),
        );
        let added = through - direct;
        println!(
            "  {:<14} {streams:>10} {:>12} {:>12} {:>12}",
            format!("{callers} at once"),
            time(direct),
            time(through),
            time(added)
        );
        if callers == 1 && added > MOST {
            failure = Some(format!(
                "{} added to the first content, not {}",
                time(added),
                time(MOST)
            ));
        }
    }
    Ok(failure)
}

fn measure(
    plan: Plan,
    callers: usize,
    direct: SocketAddr,
    gateway: SocketAddr,
) -> Result<Waits, String> {
    let rounds = u32::try_from(plan.rounds).unwrap_or(1);
    let until = Instant::now() + Duration::from_secs(plan.seconds) * rounds;
    let all: Vec<io::Result<Waits>> = thread::scope(|scope| {
        let asking: Vec<_> = (0..callers)
            .map(|_| scope.spawn(|| ask(direct, gateway, until)))
            .collect();
        asking
            .into_iter()
            .map(|one| {
                one.join()
                    .unwrap_or_else(|_| Err(io::Error::other("it panicked")))
            })
            .collect()
    });
    let mut sum = Waits::default();
    for waits in all {
        let waits = waits.map_err(|error| format!("the first content: {error}"))?;
        sum.direct.extend(waits.direct);
        sum.gateway.extend(waits.gateway);
    }
    Ok(sum)
}

/// One caller, who asks the one and the other until it is time to stop.
fn ask(direct: SocketAddr, gateway: SocketAddr, until: Instant) -> io::Result<Waits> {
    let mut waits = Waits::default();
    let (mut direct, mut gateway) = (Line::to(direct)?, Line::to(gateway)?);
    // The first stream of a connection has to make it.
    direct.wait()?;
    gateway.wait()?;
    while Instant::now() < until {
        waits.direct.push(direct.wait()?);
        waits.gateway.push(gateway.wait()?);
        // Nobody always comes after the same neighbour.
        waits.gateway.push(gateway.wait()?);
        waits.direct.push(direct.wait()?);
    }
    Ok(waits)
}

/// A connection that is asked for one stream after the other.
struct Line {
    stream: TcpStream,
    request: String,
    heard: Vec<u8>,
}

impl Line {
    fn to(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self {
            stream,
            request: load::request(address, &STREAM, KEY, "keep-alive"),
            heard: Vec::with_capacity(64 << 10),
        })
    }

    /// Asks for a stream, reads it to its end, and says after how many microseconds its first content was there.
    fn wait(&mut self) -> io::Result<f64> {
        self.heard.clear();
        let asked = Instant::now();
        self.stream.write_all(self.request.as_bytes())?;
        self.read_until(|heard| position(heard, CONTENT).is_some())?;
        let waited = asked.elapsed();
        self.read_until(|heard| heard.ends_with(END))?;
        Ok(waited.as_secs_f64() * 1e6)
    }

    fn read_until(&mut self, done: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        let mut piece = [0; 16 << 10];
        while !done(&self.heard) {
            let read = self.stream.read(&mut piece)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.heard
                .extend_from_slice(piece.get(..read).unwrap_or_default());
        }
        Ok(())
    }
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
