//! `tidegate serve`.

use std::{
    env,
    io::{self, IsTerminal},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use tidegate_core::{config::Store, health, overload};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    arguments,
    control::{Control, Signals},
    failed::Failed,
    journal::{Format, Writer},
    ledger::Place,
    listen,
    say::say,
    server::{self, Shared},
    source::Source,
};

/// Where to listen if nobody says so.
pub(crate) const LISTEN: &str = "127.0.0.1:8080";

/// How long a reader of standard output that does not read is waited for at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Serves what a file says until the process is told to stop.
pub(crate) fn serve(arguments: &arguments::Serve) -> Result<(), Failed> {
    let terminal = if io::stdout().is_terminal() {
        Format::Text
    } else {
        Format::Json
    };
    let format = format(terminal)?;
    let file = &arguments.config;
    let source = Source::read(file)?;
    let config = source
        .config()
        .map_err(|problems| Failed::configuration(file, &problems))?;
    let directory = file
        .parent()
        .unwrap_or_else(|| Path::new(""))
        .join(&config.data_dir);
    let address = arguments
        .listen
        .as_deref()
        .or(config.listen.as_deref())
        .unwrap_or(LISTEN);
    let scheme = if source.tls.is_some() {
        "https"
    } else {
        "http"
    };
    // The ledger first: who cannot have it must not take callers from the one who has.
    let serving = Serving::prepare(source, &config.store, &directory, format)?;
    let (address, listeners) = listen(address)?;
    serving.run(
        listeners,
        Some(file.clone()),
        arguments.until_stdin_closes,
        || say(format_args!("listening on {scheme}://{address}")),
    )
}

/// One listening socket for each processor core, on `address`.
pub(crate) fn listen(address: &str) -> Result<(SocketAddr, Vec<TcpListener>), Failed> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    listen::listen(address, threads)
        .map_err(|error| Failed::Machine(format!("cannot listen on {address}: {error}")))
}

/// What `TIDEGATE_LOG` says, or `otherwise`.
pub(crate) fn format(otherwise: Format) -> Result<Format, Failed> {
    match env::var("TIDEGATE_LOG").as_deref() {
        Ok("json") => Ok(Format::Json),
        Ok("text") => Ok(Format::Text),
        Ok("") | Err(env::VarError::NotPresent) => Ok(otherwise),
        _ => Err(Failed::Usage(
            "TIDEGATE_LOG is neither `json` nor `text`".into(),
        )),
    }
}

/// A gateway that has everything but callers.
pub(crate) struct Serving {
    source: Source,
    place: Place,
    format: Format,
}

impl Serving {
    /// Opens what has to be open, with the accounts in `store`; those that are embedded lie in `directory`.
    pub(crate) fn prepare(
        source: Source,
        store: &Store,
        directory: &Path,
        format: Format,
    ) -> Result<Self, Failed> {
        let place = Place::open(store, directory).map_err(Failed::Machine)?;
        raise_file_limit();
        Ok(Self {
            source,
            place,
            format,
        })
    }

    /// Serves until the process is told to stop, and finishes what runs; `ready` is called when all threads listen.
    pub(crate) fn run(
        self,
        listeners: Vec<TcpListener>,
        file: Option<PathBuf>,
        until_stdin_closes: bool,
        ready: impl FnOnce(),
    ) -> Result<(), Failed> {
        let machine = |error: io::Error| Failed::Machine(error.to_string());
        let keeper = self.place.keeper().map_err(Failed::Machine)?;
        let writer = Writer::start(io::stdout()).map_err(machine)?;
        let (sender, source) = watch::channel(Arc::new(self.source));
        let stop = CancellationToken::new();
        let shared = Shared {
            place: self.place,
            lines: writer.lines(self.format),
            source,
            stop: stop.clone(),
            health: health::Shared::default(),
            gates: overload::Shared::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(machine)?;
        let entered = runtime.enter();
        let control = Control {
            signals: Signals::listen().map_err(machine)?,
            file,
            until_stdin_closes,
            source: sender,
        };
        drop(entered);
        let threads = server::start(listeners, &shared).map_err(Failed::Machine)?;
        ready();

        runtime.spawn(shared.place.look());
        runtime.block_on(control.heed());
        stop.cancel();
        for thread in threads {
            if thread.join().is_err() {
                say("tidegate: a thread had ended by a panic");
            }
        }
        if let Some(keeper) = keeper {
            keeper.finish();
        }
        writer.finish(LAST_LINES);
        Ok(())
    }
}

/// Every caller takes a file descriptor, and every upstream: as many as the machine allows.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, what there is has to do.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}
