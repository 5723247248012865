//! Servers that this run has started: held, measured, and ended.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// A server; it ends with this value.
pub(super) struct Server {
    child: Child,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

/// What a server has used so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Used {
    /// Processor time, in seconds.
    pub(super) cpu: f64,
    /// Resident memory, in MiB.
    pub(super) resident: f64,
    /// The most resident memory there ever was, in MiB.
    pub(super) peak: f64,
}

impl Server {
    /// Starts a server that says `listening on http://…` on standard error.
    pub(super) fn announced(mut command: Command) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let (sender, receiver) = mpsc::channel();
        if let Some(stderr) = child.stderr.take() {
            // Read to the end, or the server would block on a full pipe.
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    match line
                        .strip_prefix("listening on http://")
                        .and_then(|rest| rest.trim_end_matches('/').parse().ok())
                    {
                        Some(address) => drop(sender.send(address)),
                        None => eprintln!("{name}: {line}"),
                    }
                }
            });
        }
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        server.address = receiver
            .recv_timeout(Duration::from_secs(30))
            .map_err(|_| "a server did not start".to_owned())?;
        Ok(server)
    }

    /// Starts a server that is told to listen at `address`, and waits until it does.
    pub(super) fn at(address: SocketAddr, mut command: Command) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let mut server = Self { child, address };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = server.child.try_wait().ok().flatten();
            if ended.is_some() || start.elapsed() > Duration::from_secs(10) {
                return Err(format!("{name} does not listen at {address}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// What it and its children have used.
    pub(super) fn used(&self) -> Used {
        let mut sum = Used::default();
        for pid in family(self.child.id()) {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            sum.resident += kilobytes(&status, "VmRSS:") / 1024.0;
            sum.peak += kilobytes(&status, "VmHWM:") / 1024.0;
            sum.cpu += cpu(pid);
        }
        sum
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let family = family(self.child.id());
        signal("-TERM", &[self.child.id()]);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        signal("-KILL", &family);
        let _ = self.child.wait();
    }
}

/// An address that is free at the moment.
pub(super) fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| error.to_string())
}

fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let _ = Command::new("kill")
        .arg(name)
        .args(pids)
        .stderr(Stdio::null())
        .status();
}

fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
            .unwrap_or_default();
        family.extend(
            children
                .split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
        next += 1;
    }
    family
}

fn kilobytes(status: &str, name: &str) -> f64 {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces; after it, user and system time are the 12th and 13th field, in ticks of 1/100 s.
    let (_, fields) = stat.rsplit_once(") ").unwrap_or_default();
    fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}
