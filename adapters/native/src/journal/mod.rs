//! Where records go: to standard output, by a thread of their own.
//!
//! A request never waits for whoever reads standard output. Lines gather in a buffer that the thread takes as a whole;
//! when the reader is so slow that the buffer is full, lines are dropped and counted, and the count is reported.

use std::{
    io::Write,
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tidegate_core::{platform::Journal, record::Record};

use crate::say::say;

mod text;

/// How much may wait for a slow reader, in bytes.
const CAPACITY: usize = 2 << 20;

/// How long the thread lets lines gather after it has written some.
const REST: Duration = Duration::from_millis(5);

/// How a record is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// One line of JSON.
    Json,
    /// One line for people.
    Text,
}

/// The writing end, one for every thread.
#[derive(Clone)]
pub(crate) struct Lines {
    format: Format,
    queue: Arc<Queue>,
}

impl Journal for Lines {
    fn write(&self, record: &Record) {
        let mut line = match self.format {
            // A record has nothing in it that JSON cannot say.
            Format::Json => serde_json::to_vec(record).unwrap_or_default(),
            Format::Text => text::line(record).into_bytes(),
        };
        line.push(b'\n');
        self.queue.push(&line);
    }
}

/// The thread that writes.
pub(crate) struct Writer {
    queue: Arc<Queue>,
    thread: thread::JoinHandle<()>,
}

impl Writer {
    /// Starts writing to `out`.
    pub(crate) fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let theirs = Arc::clone(&queue);
        let thread = thread::Builder::new()
            .name("journal".into())
            .stack_size(128 << 10)
            .spawn(move || theirs.drain(out))?;
        Ok(Self { queue, thread })
    }

    /// A writing end.
    pub(crate) fn lines(&self, format: Format) -> Lines {
        Lines {
            format,
            queue: Arc::clone(&self.queue),
        }
    }

    /// Writes what is left and ends, unless the reader keeps it waiting for longer than `patience`.
    pub(crate) fn finish(self, patience: Duration) {
        self.queue.state().closed = true;
        self.queue.filled.notify_all();
        let state = self.queue.state();
        let waited = self
            .queue
            .emptied
            .wait_timeout_while(state, patience, |state| !state.done);
        let done = waited.unwrap_or_else(PoisonError::into_inner).0.done;
        if done {
            // The thread has nothing to say but that it ended.
            let _ = self.thread.join();
        }
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    closed: bool,
    done: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.lines.len() + line.len() > CAPACITY {
            state.dropped += 1;
            return;
        }
        let first = state.lines.is_empty();
        state.lines.extend_from_slice(line);
        drop(state);
        if first {
            self.filled.notify_one();
        }
    }

    fn drain(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let waited = self.filled.wait_while(self.state(), |state| {
                state.lines.is_empty() && !state.closed
            });
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            mem::swap(&mut lines, &mut state.lines);
            let dropped = mem::take(&mut state.dropped);
            let closed = state.closed;
            drop(state);

            let written = out.write_all(&lines).and_then(|()| out.flush());
            if dropped > 0 {
                say(format_args!(
                    "tidegate: {dropped} records were lost, because standard output is read too slowly"
                ));
            }
            if let Err(error) = written {
                say(format_args!(
                    "tidegate: records were lost, because standard output cannot be written: {error}"
                ));
            }
            lines.clear();
            // A burst has made it large; it need not stay so.
            lines.shrink_to(64 << 10);
            let mut state = self.state();
            if closed && state.lines.is_empty() {
                state.done = true;
                self.emptied.notify_all();
                return;
            }
            drop(state);
            if !closed {
                thread::sleep(REST);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::mpsc};

    use super::*;

    #[test]
    fn everything_is_written_at_the_end() {
        let (sender, receiver) = mpsc::channel();
        let writer = Writer::start(Channel(sender)).unwrap();
        for number in 0..100 {
            writer.queue.push(format!("{number}\n").as_bytes());
        }
        writer.finish(Duration::from_secs(10));
        let written: Vec<u8> = receiver.iter().flatten().collect();
        assert_eq!(String::from_utf8(written).unwrap().lines().count(), 100);
    }

    #[test]
    fn a_slow_reader_blocks_nobody_and_costs_bounded_memory() {
        let (sender, receiver) = mpsc::sync_channel(0);
        let writer = Writer::start(Slow(sender)).unwrap();
        let line = [b'x'; 1024];
        writer.queue.push(&line);
        // From when the thread has taken this one on, it waits for the reader.
        while !writer.queue.state().lines.is_empty() {
            thread::sleep(REST);
        }
        for _ in 0..10_000 {
            writer.queue.push(&line);
        }
        let state = writer.queue.state();
        assert!(state.lines.len() <= CAPACITY);
        assert!(state.dropped > 0);
        drop(state);
        writer.finish(Duration::from_millis(10));
        drop(receiver);
    }

    struct Channel(mpsc::Sender<Vec<u8>>);

    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Slow(mpsc::SyncSender<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
