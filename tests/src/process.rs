//! A real runtime: started as its users start it, called over TCP, read from its standard output.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client,
    scenario::{Call, Runtime},
    stage::{Reply, Stage},
    upstream::{Script, Upstreams},
};

/// How long a runtime may take to start.
const START: Duration = Duration::from_secs(120);
/// How long a record may follow its answer.
const RECORD: Duration = Duration::from_secs(5);

/// A gateway with its own upstreams, in a folder of its own.
pub struct Process {
    runtime: Runtime,
    running: Running,
    upstreams: Upstreams,
    folder: TempDir,
    secrets: BTreeMap<String, String>,
}

impl Process {
    /// Starts `config` on `runtime`.
    pub fn start(
        runtime: Runtime,
        config: &str,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let upstreams = Upstreams::start().map_err(|error| error.to_string())?;
        let folder = tempfile::Builder::new()
            .prefix("tidegate-")
            .tempdir()
            .map_err(|error| error.to_string())?;
        let text = upstreams.address(config);
        fs::write(folder.path().join("tidegate.toml"), text).map_err(|error| error.to_string())?;
        let running = Running::start(runtime, folder.path(), secrets)?;
        Ok(Self {
            runtime,
            running,
            upstreams,
            folder,
            secrets: secrets.clone(),
        })
    }

    /// What the machine calls it.
    pub fn id(&self) -> u32 {
        self.running.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.running.port))
    }

    /// Kills it as a power cut would, and starts it again on what it has left behind.
    pub fn kill_and_restart(&mut self) -> Result<(), String> {
        self.running.kill();
        self.running = Running::start(self.runtime, self.folder.path(), &self.secrets)?;
        Ok(())
    }
}

impl Stage for Process {
    fn runtime(&self) -> Runtime {
        self.runtime
    }

    fn script(&self) -> &Script {
        &self.upstreams.script
    }

    fn calls(&self, call: &Call, count: usize) -> Vec<Reply> {
        let port = self.running.port;
        if count == 1 {
            return vec![client::call(port, call, &self.secrets)];
        }
        thread::scope(|scope| {
            let calls: Vec<_> = (0..count)
                .map(|_| scope.spawn(|| client::call(port, call, &self.secrets)))
                .collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        })
    }

    fn wait(&self, duration: Duration) {
        thread::sleep(duration);
    }

    fn record(&self, id: &str) -> Option<Value> {
        let said = self
            .running
            .said
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let find = |said: &Said| said.records.get(id).cloned();
        let (said, _) = self
            .running
            .said
            .more
            .wait_timeout_while(said, RECORD, |said| find(said).is_none())
            .unwrap_or_else(PoisonError::into_inner);
        find(&said)
    }

    fn overheard(&self) -> String {
        self.running
            .said
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .text
            .clone()
    }

    fn peak(&self) -> Option<u64> {
        // The others hold an engine as well.
        (self.runtime == Runtime::Native).then_some(())?;
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.running.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
    }

    fn secrets(&self) -> &BTreeMap<String, String> {
        &self.secrets
    }
}

/// Writes the JSON that `runtime`, as the command line names it, loads beside the `tidegate.toml` in `folder`.
pub fn compile(folder: &Path, runtime: &str) -> Result<PathBuf, String> {
    let compiled = folder.join("tidegate.json");
    let run = Command::new(binary()?)
        .arg("compile")
        .arg(folder.join("tidegate.toml"))
        .arg("--out")
        .arg(&compiled)
        .args(["--runtime", runtime])
        .output()
        .map_err(|error| format!("tidegate compile: {error}"))?;
    if run.status.success() {
        Ok(compiled)
    } else {
        Err(format!(
            "tidegate compile: {}",
            String::from_utf8_lossy(&run.stderr)
        ))
    }
}

/// The `tidegate` binary: `TIDEGATE_BIN`, or where `cargo build` puts it.
pub fn binary() -> Result<PathBuf, String> {
    artefact("TIDEGATE_BIN", &target().join("native/tidegate"))
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The root of the repository.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// What the variable `name` says, or `default`; it must be there.
fn artefact(name: &str, default: &Path) -> Result<PathBuf, String> {
    let path = std::env::var_os(name).map_or_else(|| default.to_path_buf(), PathBuf::from);
    let path = if path.is_relative() && path.components().count() > 1 {
        workspace().join(path)
    } else {
        path
    };
    if path.exists() {
        Ok(path)
    } else {
        Err(format!(
            "{} is not there: build it, or say with {name} where it is",
            path.display()
        ))
    }
}

struct Running {
    child: Child,
    port: u16,
    said: Arc<Ear>,
}

#[derive(Default)]
struct Ear {
    lines: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    text: String,
    port: Option<u16>,
    over: bool,
    records: BTreeMap<String, Value>,
}

impl Running {
    fn start(
        runtime: Runtime,
        folder: &Path,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let mut command = command(runtime, folder, secrets)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group, so that all of it ends together.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let said = Arc::new(Ear::default());
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        for (stream, last) in [
            (Box::new(out) as Box<dyn std::io::Read + Send>, false),
            (Box::new(err), true),
        ] {
            let said = Arc::clone(&said);
            thread::spawn(move || hear(stream, last, &said));
        }
        let mut running = Self {
            child,
            port: 0,
            said,
        };
        running.port = running.wait_for_port()?;
        Ok(running)
    }

    fn wait_for_port(&self) -> Result<u16, String> {
        let deadline = Instant::now() + START;
        let mut said = self
            .said
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(port) = said.port {
                return Ok(port);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.over || left.is_zero() {
                return Err(format!("it does not start:\n{}", said.text));
            }
            said = self
                .said
                .more
                .wait_timeout(said, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn kill(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }
}

fn hear(stream: impl std::io::Read, last: bool, said: &Ear) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut lines = said.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = line.strip_prefix("listening on http://") {
            lines.port = address
                .rsplit(':')
                .next()
                .and_then(|port| port.trim().parse().ok());
        }
        if let Ok(record) = serde_json::from_str::<Value>(&line)
            && let Some(id) = record["id"].as_str()
            && let Some(twice) = lines.records.insert(id.into(), record.clone())
        {
            // Nothing that is expected of a record is found in this.
            lines.records.insert(
                id.into(),
                serde_json::json!({ "written twice": [twice, record] }),
            );
        }
        lines.text += &line;
        lines.text.push('\n');
        said.more.notify_all();
    }
    if last {
        said.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .over = true;
        said.more.notify_all();
    }
}

fn command(
    runtime: Runtime,
    folder: &Path,
    secrets: &BTreeMap<String, String>,
) -> Result<Command, String> {
    match runtime {
        Runtime::Memory => Err("memory is no process".into()),
        Runtime::Native => {
            let mut command = Command::new(binary()?);
            command
                .arg("serve")
                .arg("--config")
                .arg(folder.join("tidegate.toml"));
            command.args(["--listen", "127.0.0.1:0", "--until-stdin-closes"]);
            command.envs(secrets).env("TIDEGATE_LOG", "json");
            Ok(command)
        }
        Runtime::Spin => {
            let host = artefact(
                "TIDEGATE_SPIN_HOST",
                &target().join("release/tidegate-spin-host"),
            )?;
            let wasm = artefact(
                "TIDEGATE_SPIN_WASM",
                &target().join("wasm32-wasip2/release/tidegate.wasm"),
            )?;
            let mut command = Command::new(host);
            command
                .arg("--component")
                .arg(wasm)
                .arg("--config")
                .arg(compile(folder, "spin")?);
            command.arg("--state").arg(state(folder)?);
            command.args(["--listen", "127.0.0.1:0", "--until-stdin-closes"]);
            command.envs(
                secrets
                    .iter()
                    .map(|(name, value)| (format!("SPIN_VARIABLE_{name}"), value)),
            );
            Ok(command)
        }
        Runtime::Workerd => {
            let harness = artefact("TIDEGATE_WORKERD_DIR", &workspace().join("tests/workerd"))?;
            let node = std::env::var_os("TIDEGATE_NODE").unwrap_or_else(|| "node".into());
            let mut command = Command::new(node);
            command
                .arg(harness.join("serve.mjs"))
                .arg("--config")
                .arg(compile(folder, "cloudflare")?);
            command.arg("--persist").arg(state(folder)?).args([
                "--port",
                "0",
                "--until-stdin-closes",
            ]);
            for name in secrets.keys() {
                command.args(["--secret", name]);
            }
            command.envs(secrets);
            Ok(command)
        }
    }
}

fn state(folder: &Path) -> Result<PathBuf, String> {
    let state = folder.join("state");
    fs::create_dir_all(&state).map_err(|error| error.to_string())?;
    Ok(state)
}
