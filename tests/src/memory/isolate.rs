//! An isolate whose time stands still until all that goes on in it waits.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use tidegate_core::{
    Platform,
    dice::Dice,
    platform::{Journal, Task, Tasks, Upstream},
};

use super::{clock::StillClock, ledger::MapLedger};

/// What a gateway runs on, and what keeps it running. The same every time.
#[derive(Default)]
pub struct Isolate {
    pub(super) clock: StillClock,
    tasks: Rc<TaskList>,
}

impl Isolate {
    /// A platform of it, with a ledger in which nothing stands yet.
    pub fn platform(&self, upstream: Rc<dyn Upstream>, journal: Rc<dyn Journal>) -> Platform {
        Platform {
            upstream,
            ledger: Rc::new(MapLedger::new(self.clock.clone())),
            clock: Rc::new(self.clock.clone()),
            tasks: Rc::<TaskList>::clone(&self.tasks),
            journal,
            dice: Rc::new(RefCell::new(Dice::new([7; 16]))),
        }
    }

    /// Runs `futures` until all of them are over; says whether they are, or wait for what never comes.
    pub fn run(&self, futures: Vec<Task>) -> bool {
        self.run_until(futures, |_| true)
    }

    /// Runs `futures`, and all tasks, until all of them are over; says whether they are, or wait for what never comes.
    pub fn run_out(&self, futures: Vec<Task>) -> bool {
        self.run_until(futures, TaskList::is_over)
    }

    /// Time passes only when all wait for it.
    fn run_until(&self, mut futures: Vec<Task>, enough: impl Fn(&TaskList) -> bool) -> bool {
        let alarm = Arc::new(Alarm(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&alarm));
        let mut cx = Context::from_waker(&waker);
        loop {
            while alarm.0.swap(false, Ordering::Relaxed) || self.tasks.has_new() {
                futures.retain_mut(|future| future.as_mut().poll(&mut cx).is_pending());
                self.tasks.poll(&mut cx);
            }
            if futures.is_empty() && enough(&self.tasks) {
                return true;
            }
            if !self.clock.skip_ahead() {
                return false;
            }
        }
    }
}

struct Alarm(AtomicBool);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct TaskList {
    new: RefCell<Vec<Task>>,
    running: RefCell<Vec<Task>>,
}

impl TaskList {
    fn has_new(&self) -> bool {
        !self.new.borrow().is_empty()
    }

    fn is_over(&self) -> bool {
        !self.has_new() && self.running.borrow().is_empty()
    }

    fn poll(&self, cx: &mut Context<'_>) {
        let mut running = self.running.take();
        running.append(&mut self.new.borrow_mut());
        running.retain_mut(|task| task.as_mut().poll(cx).is_pending());
        self.running.replace(running);
    }
}

impl Tasks for TaskList {
    fn spawn(&self, task: Task) {
        self.new.borrow_mut().push(task);
    }
}
