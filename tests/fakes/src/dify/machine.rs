//! A machine with a few cores that are shared by all who have something to compute: the console as well as the apps.
//!
//! Nothing is computed. It is only as late as a machine would be that had to, so that one process can stand for several
//! overloaded ones.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::play::Stop;

/// With so many runs in progress it does half of what it does without.
const CROWDED: f64 = 150.0;

/// What a run takes of a core, in seconds: until its first event, before its model, and after it.
const OPENING: f64 = 0.05;
const BEFORE: f64 = 0.10;
const AFTER: f64 = 0.25;

/// What any other call takes.
const ASIDE: f64 = 0.02;

/// How often it is looked at who is done.
const TICK: Duration = Duration::from_millis(2);

/// The machine of one installation. Everybody who computes gets the same part of it.
#[derive(Default)]
pub(super) struct Machine(Mutex<State>);

struct State {
    cores: f64,
    at: Instant,
    /// How much each has got, in seconds of a core, who has computed from the beginning.
    done: f64,
    computing: BinaryHeap<Reverse<Work>>,
    /// How many runs are in progress, whether they compute or wait for their models.
    crowd: u32,
    calls: u32,
    ticks: bool,
}

struct Work {
    until: f64,
    done: oneshot::Sender<()>,
}

/// What is to be heard of a run: its first event, and its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) opened: Arc<Stop>,
    pub(super) ended: Arc<Stop>,
}

impl Machine {
    /// A run begins whose model takes about as long as `model`. It goes on to its end, whether anybody hears it or not,
    /// unless `stop` is pressed.
    pub(super) fn run(self: &Arc<Self>, cores: u32, model: Duration, stop: Arc<Stop>) -> Progress {
        let progress = Progress::default();
        let (machine, told) = (Arc::clone(self), progress.clone());
        let part = self.enter(cores);
        tokio::spawn(async move {
            machine.compute(OPENING * part).await;
            told.opened.press();
            let rest = async {
                machine.compute(BEFORE * part).await;
                sleep(model.mul_f64(part)).await;
                machine.compute(AFTER * part).await;
            };
            tokio::select! {
                () = rest => {}
                () = stop.wait() => {}
            }
            told.ended.press();
            machine.state().crowd -= 1;
        });
        progress
    }

    /// Somebody asks for something else than a run.
    pub(super) fn aside(self: &Arc<Self>, cores: u32) -> Arc<Stop> {
        let opened = Arc::<Stop>::default();
        let (machine, told) = (Arc::clone(self), Arc::clone(&opened));
        self.state().cores = f64::from(cores);
        tokio::spawn(async move {
            machine.compute(ASIDE).await;
            told.press();
        });
        opened
    }

    /// One run more is in progress. It takes this part of what is usual: no two are the same.
    fn enter(&self, cores: u32) -> f64 {
        let mut state = self.state();
        state.cores = f64::from(cores);
        state.crowd += 1;
        state.calls = state.calls.wrapping_add(1);
        0.5 + f64::from(state.calls.wrapping_mul(37) % 101) / 100.0
    }

    async fn compute(self: &Arc<Self>, seconds: f64) {
        let (sender, done) = oneshot::channel();
        let begins = {
            let mut state = self.state();
            state.pass(Instant::now());
            let until = state.done + seconds;
            state.computing.push(Reverse(Work {
                until,
                done: sender,
            }));
            !std::mem::replace(&mut state.ticks, true)
        };
        if begins {
            tokio::spawn(tick(Arc::clone(self)));
        }
        let _ = done.await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn tick(machine: Arc<Machine>) {
    loop {
        sleep(TICK).await;
        let mut state = machine.state();
        state.pass(Instant::now());
        if state.computing.is_empty() {
            state.ticks = false;
            return;
        }
    }
}

impl State {
    /// Time passes until `now`; whoever is done by then is told.
    fn pass(&mut self, now: Instant) {
        let mut left = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        while let Some(Reverse(first)) = self.computing.peek() {
            let speed = self.speed();
            let takes = (first.until - self.done) / speed;
            if takes > left {
                self.done += left * speed;
                return;
            }
            left -= takes.max(0.0);
            self.done = self.done.max(first.until);
            if let Some(Reverse(work)) = self.computing.pop() {
                // Who was stopped does not wait for it.
                let _ = work.done.send(());
            }
        }
    }

    /// How much of a core each gets who computes.
    fn speed(&self) -> f64 {
        let computing = u32::try_from(self.computing.len()).unwrap_or(u32::MAX);
        let each = (self.cores / f64::from(computing.max(1))).min(1.0);
        each / (1.0 + (f64::from(self.crowd) / CROWDED).powi(2))
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            cores: 1.0,
            at: Instant::now(),
            done: 0.0,
            computing: BinaryHeap::new(),
            crowd: 0,
            calls: 0,
            ticks: false,
        }
    }
}

impl PartialEq for Work {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Work {}

impl PartialOrd for Work {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Work {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until.total_cmp(&other.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long the last of `count` runs took until its first event, and how long all took, in milliseconds. One core does 20 a
    /// second as far as their first event.
    async fn flood(count: u32) -> (u128, u128) {
        let machine = Arc::<Machine>::default();
        let start = Instant::now();
        let runs: Vec<_> = (0..count)
            .map(|_| machine.run(1, Duration::from_secs(1), Arc::default()))
            .collect();
        let aside = machine.aside(1);
        for run in &runs {
            run.opened.wait().await;
        }
        let opened = start.elapsed().as_millis();
        aside.wait().await;
        for run in &runs {
            run.ended.wait().await;
        }
        (opened, start.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn who_computes_shares_the_cores() {
        let (opened, all) = flood(1).await;
        assert!((25..=80).contains(&opened), "{opened} ms");
        assert!((700..=2_200).contains(&all), "{all} ms");
        let (opened, all) = flood(50).await;
        // 0.05 s of a core each, and what those compute meanwhile who have begun.
        assert!((2_500..=9_000).contains(&opened), "{opened} ms");
        assert!((20_000..=26_000).contains(&all), "0.4 s each: {all} ms");
        let (_, crowded) = flood(150).await;
        assert!(crowded > 70_000, "a crowd does less: {crowded} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_goes_on_alone_and_ends_where_it_is_stopped() {
        let machine = Arc::<Machine>::default();
        let stop = Arc::<Stop>::default();
        let run = machine.run(1, Duration::from_secs(100), Arc::clone(&stop));
        let other = machine.run(1, Duration::from_secs(100), Arc::default());
        drop(other);
        run.opened.wait().await;
        assert_eq!(machine.state().crowd, 2);
        stop.press();
        run.ended.wait().await;
        sleep(Duration::from_millis(10)).await;
        assert_eq!(machine.state().crowd, 1);
        sleep(Duration::from_secs(160)).await;
        assert_eq!(machine.state().crowd, 0);
    }
}
