//! Upstreams that answer what a script says, and remember what they were asked.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    scenario::{Answer, Framing},
    wire::{self, Head},
};

/// How the bytes of a body are parted on their way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// As the scenario says.
    AsWritten,
    /// In two, here.
    At(usize),
    /// One byte at a time.
    Bytes,
}

/// One request, as an upstream saw it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The target, after the upstream's own address.
    pub path: String,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What all upstreams of one gateway answer.
#[derive(Default)]
pub struct Script(Mutex<Scene>);

#[derive(Default)]
struct Scene {
    answers: BTreeMap<String, VecDeque<Answer>>,
    cut: Option<Cut>,
    seen: BTreeMap<String, Vec<Request>>,
    problems: Vec<String>,
}

impl Script {
    /// Sets what is answered from here on, and forgets what was seen.
    pub fn load(&self, upstreams: &BTreeMap<String, Vec<Answer>>, cut: Cut) {
        let answers = upstreams.iter().map(|(name, answers)| {
            let all = answers
                .iter()
                .flat_map(|answer| std::iter::repeat_n(answer.clone(), answer.times.unwrap_or(1)));
            (name.clone(), all.collect())
        });
        *self.scene() = Scene {
            answers: answers.collect(),
            cut: Some(cut),
            ..Scene::default()
        };
    }

    /// Takes down a request for `target`, which begins with the upstream's name, and gives what is answered.
    pub fn take(&self, target: &str, mut request: Request) -> Option<Answer> {
        let mut scene = self.scene();
        let rest = target.trim_start_matches('/');
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let name = rest[..end].to_owned();
        request.path = rest[end..].to_owned();
        let answer = scene.answers.get_mut(&name).and_then(VecDeque::pop_front);
        if answer.is_none() {
            let Request {
                method, path, body, ..
            } = &request;
            let problem = format!(
                "upstream {name} was asked once too often: {method} {path} with {} bytes",
                body.len()
            );
            scene.problems.push(problem);
        }
        scene.seen.entry(name).or_default().push(request);
        answer
    }

    /// Whether all has been asked that has to be.
    pub fn is_over(&self) -> bool {
        let scene = self.scene();
        let mut left = scene.answers.values().flatten();
        left.all(|answer| answer.spare)
    }

    /// What was seen, and what is wrong with it: too many requests, or too few.
    pub fn outcome(&self) -> (BTreeMap<String, Vec<Request>>, Vec<String>) {
        let scene = self.scene();
        let mut problems = scene.problems.clone();
        for (name, answers) in &scene.answers {
            let left = answers.iter().filter(|answer| !answer.spare).count();
            if left > 0 {
                problems.push(format!("upstream {name} was asked {left} times too few"));
            }
        }
        (scene.seen.clone(), problems)
    }

    /// The pieces that the body of `answer` is sent in.
    pub fn pieces(&self, answer: &Answer) -> Vec<Vec<u8>> {
        let pieces = answer
            .payload()
            .expect("payloads were read with the scenario");
        if answer.raw.is_some() {
            return pieces;
        }
        match self.scene().cut.unwrap_or(Cut::AsWritten) {
            Cut::AsWritten => pieces,
            Cut::At(position) => {
                let whole = pieces.concat();
                let (head, tail) = whole.split_at(position.min(whole.len()));
                [head, tail]
                    .into_iter()
                    .filter(|piece| !piece.is_empty())
                    .map(<[u8]>::to_vec)
                    .collect()
            }
            Cut::Bytes => pieces.concat().into_iter().map(|byte| vec![byte]).collect(),
        }
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A TCP server that plays a script, an address that refuses every connection, and one that answers none.
pub struct Upstreams {
    /// What is played.
    pub script: Arc<Script>,
    port: u16,
    refused: Socket,
    silent: Silent,
    over: Arc<AtomicBool>,
}

impl Upstreams {
    /// Listens.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        // Bound and not listening: the port belongs to nobody else, and connections to it are refused.
        let refused = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        refused.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())?;
        let script = Arc::new(Script::default());
        let over = Arc::new(AtomicBool::new(false));
        let (played, end) = (Arc::clone(&script), Arc::clone(&over));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let script = Arc::clone(&played);
                thread::spawn(move || {
                    let _ = serve(&script, &stream);
                });
            }
        });
        Ok(Self {
            script,
            port,
            refused,
            silent: Silent::start()?,
            over,
        })
    }

    /// A configuration with the upstreams' addresses in it.
    pub fn address(&self, config: &str) -> String {
        let refused = self.refused.local_addr().unwrap().as_socket().unwrap();
        address(
            config,
            &format!("http://127.0.0.1:{}", self.port),
            &format!("http://{refused}"),
            &format!("http://{}", self.silent.address),
        )
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// An address where nobody answers who wants to connect: as many wait there already as can wait.
struct Silent {
    address: SocketAddr,
    _listening: Socket,
    _waiting: TcpStream,
}

impl Silent {
    fn start() -> io::Result<Self> {
        let listening = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listening.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        // One may wait though none may.
        listening.listen(0)?;
        let address = listening.local_addr()?.as_socket();
        let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self {
            address,
            _waiting: TcpStream::connect(address)?,
            _listening: listening,
        })
    }
}

/// A configuration with these addresses in it.
pub fn address(config: &str, base: &str, refused: &str, silent: &str) -> String {
    let config = config
        .replace("{refused}", refused)
        .replace("{silent}", silent);
    ('a'..='h').fold(config, |text, name| {
        text.replace(&format!("{{{name}}}"), &format!("{base}/{name}"))
    })
}

fn serve(script: &Script, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream);
    while let Some(head) = wire::read_request(&mut reader)? {
        let content = wire::read_body(&mut reader, &head, None, Instant::now(), || true);
        if content.broken {
            // Half a request was never asked.
            return Ok(());
        }
        let Head {
            method,
            target,
            headers,
            ..
        } = head;
        let request = Request {
            method: method.clone(),
            path: String::new(),
            headers,
            body: content.bytes,
        };
        let Some(answer) = script.take(&target, request) else {
            let body = "nobody told this upstream what to answer";
            write!(
                &*stream,
                "HTTP/1.1 599 Unscripted\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )?;
            continue;
        };
        if !deliver(script, &answer, &method, stream)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends `answer`; says whether the connection lives on.
fn deliver(
    script: &Script,
    answer: &Answer,
    method: &str,
    mut stream: &TcpStream,
) -> io::Result<bool> {
    let pieces = script.pieces(answer);
    let framing = answer.framing();
    thread::sleep(Duration::from_millis(answer.delay_ms));
    // Silence that begins before the first byte.
    let mute = answer.stall && answer.status.is_none() && pieces.is_empty();
    if answer.raw.is_none() && !mute {
        stream.write_all(&head(answer, framing, pieces.iter().map(Vec::len).sum()))?;
    }
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            thread::sleep(Duration::from_millis(answer.pause_ms));
        }
        if method == "HEAD" {
            break;
        } else if answer.raw.is_none() && framing == Framing::Chunked {
            stream.write_all(
                &[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(),
            )?;
        } else {
            stream.write_all(piece)?;
        }
        if pieces.len() == 2 && number == 0 {
            // So that the two do not arrive as one.
            thread::sleep(Duration::from_millis(5));
        }
    }
    if answer.stall {
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        let _ = stream.read(&mut [0]);
        return Ok(false);
    }
    if answer.cut {
        // What was sent shall arrive before the reset does, which throws away what lies unread.
        thread::sleep(Duration::from_millis(60));
        SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        return Ok(false);
    }
    if answer.raw.is_some() || framing == Framing::Close {
        stream.shutdown(Shutdown::Write)?;
        return Ok(false);
    }
    if framing == Framing::Chunked && method != "HEAD" {
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(true)
}

fn head(answer: &Answer, framing: Framing, length: usize) -> Vec<u8> {
    let status = answer.status.unwrap_or(200);
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for (name, value) in answer.headers() {
        head += &format!("{name}: {value}\r\n");
    }
    head += &match framing {
        Framing::Chunked => "transfer-encoding: chunked\r\n".into(),
        Framing::Close => "connection: close\r\n".into(),
        Framing::Length if matches!(status, 204 | 304) => String::new(),
        // More than comes, where the end does not come either.
        Framing::Length if answer.cut || answer.stall => {
            format!("content-length: {}\r\n", length + 100)
        }
        Framing::Length => format!("content-length: {length}\r\n"),
    };
    (head + "\r\n").into_bytes()
}
