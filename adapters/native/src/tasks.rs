//! Work that may finish after the answer has left, on the thread that began it.

use tidegate_core::platform::{Task, Tasks};
use tokio_util::task::TaskTracker;

/// Spawns on the thread's own [`LocalSet`](tokio::task::LocalSet), and is waited for when the process ends.
pub(crate) struct LocalTasks(pub(crate) TaskTracker);

impl Tasks for LocalTasks {
    fn spawn(&self, task: Task) {
        // It reports nothing: what it has to say goes into the journal.
        drop(self.0.spawn_local(task));
    }
}
