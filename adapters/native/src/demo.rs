//! `tidegate demo`: the gateway before simulated models and a simulated Dify, so that it can be seen without any key.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    thread,
};

use tidegate_core::config::Store;
use tokio::runtime::Builder;

use crate::{
    arguments, document,
    failed::Failed,
    journal::Format,
    say::say,
    serve::{self, LISTEN, Serving},
    source::Source,
};

/// What the demonstration runs; it can be served as it stands, too.
const CONFIGURATION: &str = include_str!("../../../examples/demo.toml");

/// Where the configuration expects the simulated upstreams.
const SIMULATED: &str = "127.0.0.1:9901";

/// The values of the secrets that the configuration refers to; they open nothing but the simulation.
const SECRETS: [(&str, &str); 3] = [
    ("DEMO_KEY", "demo"),
    ("DEMO_MODEL_KEY", "sk-fake-demo"),
    ("DEMO_APP_KEY", "app-workflow-demo"),
];

/// Serves the demonstration until the process is told to stop.
pub(crate) fn demo(arguments: &arguments::Demo) -> Result<(), Failed> {
    let format = serve::format(Format::Text)?;
    let source = source(simulate()?)?;
    let (address, listeners) = listen(arguments.listen.as_deref())?;
    let directory = Directory::make()?;
    let serving = Serving::prepare(source, &Store::Embedded, &directory.0, format)?;
    serving.run(listeners, None, false, || say(invitation(address)))
}

/// Starts the simulated upstreams on a thread of their own.
fn simulate() -> Result<SocketAddr, Failed> {
    let machine =
        |error: std::io::Error| Failed::Machine(format!("the simulated upstreams: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").map_err(machine)?;
    let address = listener.local_addr().map_err(machine)?;
    listener.set_nonblocking(true).map_err(machine)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(machine)?;
    let run = move || {
        let served = runtime.block_on(async {
            tidegate_fakes::serve(tokio::net::TcpListener::from_std(listener)?).await
        });
        if let Err(error) = served {
            say(format_args!(
                "tidegate: the simulated upstreams have ended: {error}"
            ));
        }
    };
    thread::Builder::new()
        .name("simulated".into())
        .spawn(run)
        .map_err(machine)?;
    Ok(address)
}

fn source(simulated: SocketAddr) -> Result<Source, Failed> {
    let wrong =
        |problems: Vec<_>| Failed::configuration(Path::new("examples/demo.toml"), &problems);
    let document = document::parse(&CONFIGURATION.replace(SIMULATED, &simulated.to_string()));
    let secrets = SECRETS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let source = Source::new(document, secrets.into());
    source.config().map_err(wrong)?;
    Ok(source)
}

/// Listens where it is asked to, or where it can if nobody asks.
fn listen(asked: Option<&str>) -> Result<(SocketAddr, Vec<TcpListener>), Failed> {
    match asked {
        Some(address) => serve::listen(address),
        None => serve::listen(LISTEN).or_else(|failed| {
            say(format_args!("{failed}; a free port is used instead"));
            serve::listen("127.0.0.1:0")
        }),
    }
}

fn invitation(address: SocketAddr) -> String {
    format!(
        r#"listening on http://{address}

Try, in another terminal:

  # a chat; the first model often fails, and the gateway falls back to the second
  curl http://{address}/v1/chat/completions -H 'authorization: Bearer demo' -H 'content-type: application/json' -d '{{"model":"smart","messages":[{{"role":"user","content":"Hello"}}]}}'

  # the same as a stream
  curl -N http://{address}/v1/chat/completions -H 'authorization: Bearer demo' -H 'content-type: application/json' -d '{{"model":"smart","stream":true,"messages":[{{"role":"user","content":"Hello"}}]}}'

  # a Dify workflow, whose key only the gateway knows
  curl http://{address}/dify/v1/workflows/run -H 'authorization: Bearer demo' -H 'content-type: application/json' -d '{{"inputs":{{"text":"Hello"}},"response_mode":"blocking","user":"me"}}'

More than 5 requests in 10 seconds are refused. What happened:
"#
    )
}

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn make() -> Result<Self, Failed> {
        let mut name = [0; 8];
        let directory = getrandom::fill(&mut name)
            .map(|()| {
                std::env::temp_dir()
                    .join(format!("tidegate-demo-{:016x}", u64::from_le_bytes(name)))
            })
            .map_err(|error| Failed::Machine(error.to_string()))?;
        std::fs::create_dir(&directory)
            .map_err(|error| Failed::Machine(format!("{}: {error}", directory.display())))?;
        Ok(Self(directory))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // It lies where the machine tidies up itself.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_fine_and_leads_to_the_simulation_alone() {
        assert!(CONFIGURATION.matches(SIMULATED).count() >= 3);
        source(SocketAddr::from(([127, 0, 0, 1], 1))).unwrap();
    }

    #[test]
    fn the_directory_is_removed() {
        let directory = Directory::make().unwrap();
        let path = directory.0.clone();
        assert!(path.is_dir());
        drop(directory);
        assert!(!path.exists());
    }
}
