//! Callers who come whether those before them were answered or not, and lose patience; and somebody at the console meanwhile.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// An answer is of use that begins and ends within these.
const SOON: Duration = Duration::from_secs(2);
const WHOLE: Duration = Duration::from_secs(30);

/// How long a caller waits for an answer to begin before he leaves.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many times a second somebody looks at the console.
const CONSOLE: f64 = 5.0;

/// Where they come, and how many.
#[derive(Clone, Debug)]
pub struct Flood {
    /// Who answers.
    pub address: SocketAddr,
    /// Before `/v1/chat-messages`.
    pub runs: String,
    /// Before `/console/api/apps`.
    pub console: String,
    /// The key of whoever runs an app.
    pub key: String,
    /// How many a second.
    pub rate: f64,
    /// How long they come before anything is counted.
    pub warm: Duration,
    /// How long it is counted.
    pub counted: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many runs were asked for.
    pub asked: usize,
    /// Answers of use in a second.
    pub useful: f64,
    /// How many were told to come again later.
    pub shed: usize,
    /// How many left.
    pub left: usize,
    /// How many were answered in no way that is foreseen, and one of them.
    pub odd: usize,
    /// What was odd about one of them.
    pub oddity: String,
    /// How soon the first event came for those who were let in, whoever left included.
    pub first: Delays,
    /// How soon the console answered.
    pub console: Delays,
    /// How many times it did not.
    pub console_failed: usize,
    /// How much later than they meant to they came. Where that is much, this machine has too much to do to say anything of another.
    pub late: Delays,
}

/// How long something took, in order.
#[derive(Clone, Debug, Default)]
pub struct Delays(Vec<Duration>);

/// One call, as its caller saw it.
#[derive(Debug)]
enum Seen {
    /// The first event, and the last one if it came.
    Answered(Duration, Option<Duration>),
    Shed,
    Left,
    Odd(String),
}

/// What a call is for.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Errand {
    Run,
    Console,
}

/// Plays it in real time. It goes on coming until all who are counted were answered.
pub fn play(flood: &Flood) -> Outcome {
    let flood = Arc::new(flood.clone());
    let (tell, told) = mpsc::channel();
    let open = Arc::<AtomicUsize>::default();
    let start = Instant::now();
    let counted = flood.warm..flood.warm + flood.counted;
    let mut dice = Dice(0x1D1E_6A7E ^ flood.rate.to_bits());
    let mut next = [(Errand::Run, flood.rate), (Errand::Console, CONSOLE)]
        .map(|(errand, rate)| (dice.gap(rate), errand, rate));
    let mut outcome = Outcome::default();
    loop {
        let [run, console] = &mut next;
        let soonest = if run.0 <= console.0 { run } else { console };
        let (at, errand, rate) = *soonest;
        soonest.0 += dice.gap(rate);
        thread::sleep(at.saturating_sub(start.elapsed()));
        let late = start.elapsed().saturating_sub(at);
        if at >= counted.end && open.load(Ordering::SeqCst) == 0 {
            break;
        }
        let is_counted = counted.contains(&at);
        if is_counted {
            open.fetch_add(1, Ordering::SeqCst);
            outcome.asked += usize::from(errand == Errand::Run);
            outcome.late.0.push(late);
        }
        let (flood, tell, open) = (Arc::clone(&flood), tell.clone(), Arc::clone(&open));
        let caller = move || {
            let seen = call(&flood, errand).unwrap_or_else(|error| Seen::Odd(error.to_string()));
            if is_counted {
                // Told before it is said that nobody is left to be told of.
                let _ = tell.send((errand, seen));
                open.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let spawned = thread::Builder::new().stack_size(128 << 10).spawn(caller);
        drop(spawned.expect("a machine has room for a few thousand callers"));
    }
    for (errand, seen) in told.try_iter() {
        outcome.add(errand, seen);
    }
    outcome.useful /= flood.counted.as_secs_f64();
    outcome.first.0.sort();
    outcome.console.0.sort();
    outcome.late.0.sort();
    outcome
}

impl Outcome {
    fn add(&mut self, errand: Errand, seen: Seen) {
        match (errand, seen) {
            (Errand::Run, Seen::Answered(first, whole)) => {
                self.first.0.push(first);
                let is_useful = first < SOON && whole.is_some_and(|whole| whole < WHOLE);
                self.useful += f64::from(u8::from(is_useful));
            }
            (Errand::Run, Seen::Shed) => self.shed += 1,
            (Errand::Run, Seen::Left) => {
                self.first.0.push(PATIENCE);
                self.left += 1;
            }
            (Errand::Run, Seen::Odd(what)) => {
                self.odd += 1;
                self.oddity = what;
            }
            (Errand::Console, Seen::Answered(first, _)) => self.console.0.push(first),
            (Errand::Console, Seen::Left) => self.console.0.push(PATIENCE),
            (Errand::Console, Seen::Shed | Seen::Odd(_)) => self.console_failed += 1,
        }
    }
}

impl Delays {
    /// Within what so many of a hundred were there.
    pub fn percent(&self, percent: usize) -> Duration {
        let place = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(place).copied().unwrap_or_default()
    }
}

fn call(flood: &Flood, errand: Errand) -> io::Result<Seen> {
    let came = Instant::now();
    let mut stream = TcpStream::connect_timeout(&flood.address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.write_all(request(flood, errand).as_bytes())?;
    let mut heard = Vec::new();
    let mut first = None;
    let mut piece = [0; 8 << 10];
    loop {
        let until = if first.is_some() { WHOLE } else { PATIENCE };
        let left = until.saturating_sub(came.elapsed());
        if left.is_zero() {
            return Ok(first.map_or(Seen::Left, |first| Seen::Answered(first, None)));
        }
        stream.set_read_timeout(Some(left))?;
        let read = match stream.read(&mut piece) {
            Ok(read) => read,
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error),
        };
        heard.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&heard);
        let status = text.get(9..12).unwrap_or_default().to_owned();
        if ["429", "503"].contains(&&*status) {
            return Ok(Seen::Shed);
        }
        let begins = if errand == Errand::Run {
            "\ndata: {"
        } else {
            "\r\n\r\n"
        };
        if status == "200" && first.is_none() && text.contains(begins) {
            first = Some(came.elapsed());
        }
        if read == 0 {
            let is_whole = errand == Errand::Console || text.contains("\"message_end\"");
            return Ok(match first {
                Some(first) => Seen::Answered(first, is_whole.then(|| came.elapsed())),
                None => Seen::Odd(text.chars().take(200).collect()),
            });
        }
    }
}

fn request(flood: &Flood, errand: Errand) -> String {
    let host = flood.address;
    let Flood {
        runs, console, key, ..
    } = flood;
    if errand == Errand::Console {
        return format!(
            "GET {console}/console/api/apps HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        );
    }
    let body =
        r#"{"query":"Is the tide in?","inputs":{},"response_mode":"streaming","user":"u-1"}"#;
    format!(
        "POST {runs}/v1/chat-messages HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Always the same sequence (xorshift), so that all who are held against each other meet the same callers.
struct Dice(u64);

impl Dice {
    /// How long it is until the next one comes, of so many a second who know nothing of each other.
    fn gap(&mut self, rate: f64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let part = ((self.0 >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-part.ln() / rate)
    }
}
