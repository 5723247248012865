//! What the process is told while it serves: to stop, or to read its configuration again.

use std::{
    io::Read,
    mem,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    time::{MissedTickBehavior, interval},
};

use crate::{failed::Failed, say::say, source::Source};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the process is told by signals.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From here on they are heard: until then each of them ends the process. Needs a runtime.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// What to heed.
pub(crate) struct Control {
    pub(crate) signals: Signals,
    /// The configuration's file, if there is one to read again.
    pub(crate) file: Option<PathBuf>,
    /// Whether the end of standard input is the end.
    pub(crate) until_stdin_closes: bool,
    /// Where a new configuration goes.
    pub(crate) source: watch::Sender<Arc<Source>>,
}

impl Control {
    /// Returns once the process is to stop.
    pub(crate) async fn heed(mut self) {
        let mut closed = pin!(stdin_closed(self.until_stdin_closes));
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut refused) = (None, None);
        loop {
            let asked = tokio::select! {
                _ = self.signals.terminate.recv() => return,
                _ = self.signals.interrupt.recv() => return,
                () = &mut closed => return,
                _ = self.signals.hangup.recv() => true,
                _ = look.tick() => false,
            };
            let Some(file) = &self.file else {
                continue;
            };
            let (now, read) = {
                let source = self.source.borrow();
                (source.look(), source.appearance.clone())
            };
            // A file that is not there is being replaced, and one that changes between two looks is being written.
            let settled = now.is_some() && now == mem::replace(&mut seen, now.clone());
            if asked || settled && now != read && now != refused {
                match self.reload(file) {
                    Ok(()) => {
                        refused = None;
                        say(format_args!("tidegate: {} was read again", file.display()));
                    }
                    Err(failed) => {
                        refused = now;
                        say(format_args!(
                            "{failed}\ntidegate: what was read before stays"
                        ));
                    }
                }
            }
        }
    }

    fn reload(&self, file: &Path) -> Result<(), Failed> {
        let source = Source::read(file)?;
        let wrong = |problems: Vec<_>| Failed::configuration(file, &problems);
        let config = source.config().map_err(wrong)?;
        let before = Arc::clone(&self.source.borrow()).config().map_err(wrong)?;
        if (&config.listen, &config.store, &config.data_dir)
            != (&before.listen, &before.store, &before.data_dir)
        {
            say("tidegate: another `listen`, `store` or `data_dir` holds from the next start on");
        }
        self.source.send_replace(Arc::new(source));
        Ok(())
    }
}

/// Resolves when standard input ends; never, if that is not asked for.
async fn stdin_closed(asked: bool) {
    let (sender, receiver) = oneshot::channel::<()>();
    // Reading standard input blocks and cannot be called off: a thread of its own does it, and ends with the process.
    let reading = || {
        let mut buffer = [0; 64];
        while std::io::stdin()
            .lock()
            .read(&mut buffer)
            .is_ok_and(|read| read > 0)
        {}
        drop(sender);
    };
    if !asked
        || thread::Builder::new()
            .name("stdin".into())
            .stack_size(64 << 10)
            .spawn(reading)
            .is_err()
    {
        return std::future::pending().await;
    }
    // The sender is dropped, never used.
    let _ = receiver.await;
}
