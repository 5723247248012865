//! What becomes of a run whose caller has left. Dify does not notice that, and goes on with it.

use serde_json::json;

use super::Trace;
use crate::{dialect::Meter, upstream::OnAbort};

/// The longest name of a task that is taken for one.
const LONGEST_TASK: usize = 64;

/// A run, as far as it has to be known to whoever ends it.
#[derive(Clone, Debug)]
pub struct Run {
    /// The path that began it.
    pub path: String,
    /// On whose behalf.
    pub user: Option<String>,
    /// What becomes of it without its caller.
    pub on_abort: OnAbort,
}

/// What is to be done about a run without a caller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Parting {
    /// The rest is read until it is known by what name it could be stopped.
    Listen,
    /// The rest is read, and goes to nobody.
    Drain,
    /// This is posted, and ends it.
    Stop {
        /// Where to.
        path: String,
        /// A body of JSON.
        body: String,
    },
}

impl Run {
    /// Whether anything is to be done about it without its caller, of which nothing has been seen yet.
    pub fn is_heard_on(&self) -> bool {
        self.on_abort == OnAbort::Drain || self.user.is_some()
    }

    /// What is to be done now that the caller has left, of whose stream so much has been `seen`, be it told in other words, of which this
    /// is the `trace`; nothing if the run is over, or is not known by the names that Dify asks for.
    pub fn parting(&self, seen: &Meter, trace: Option<&Trace>) -> Option<Parting> {
        let of_trace = trace.map(|trace| (trace.has_begun.get(), trace.task.clone().into_inner()));
        let (begun, task) = match (of_trace, seen) {
            (_, seen) if seen.is_over() => return None,
            _ if trace.is_some_and(|trace| trace.is_over.get()) => return None,
            (Some(seen), _) => seen,
            (None, Meter::Dify(seen)) => (seen.begun, seen.task.clone()),
            (None, Meter::OpenAi(_)) => return None,
        };
        Some(match self.on_abort {
            OnAbort::Drain => Parting::Drain,
            OnAbort::Stop if !begun && self.is_heard_on() => Parting::Listen,
            OnAbort::Stop => self.stop(task.as_deref()?)?,
        })
    }

    /// What ends it now that nobody wants to hear more of it, of which this is the `trace`; nothing if it has not begun, is over, is not
    /// known by name, or may go on.
    pub fn given_up(&self, trace: &Trace) -> Option<Parting> {
        let goes_on = trace.has_begun.get() && !trace.is_over.get();
        if !goes_on || self.on_abort != OnAbort::Stop {
            return None;
        }
        self.stop(trace.task.borrow().as_deref()?)
    }

    fn stop(&self, task: &str) -> Option<Parting> {
        Some(Parting::Stop {
            path: stop_path(&self.path, task)?,
            body: json!({ "user": self.user.as_ref()? }).to_string(),
        })
    }
}

/// Where a run is stopped that was begun at `run`.
fn stop_path(run: &str, task: &str) -> Option<String> {
    // An app that stands for a model has its version in its address.
    let (version, below) = run.split_at(if run.starts_with("/v1/") { 3 } else { 0 });
    let tasks = match below {
        "/chat-messages" | "/completion-messages" => below,
        "/workflows/run" => "/workflows/tasks",
        _ if super::is_run(run) => "/workflows/tasks",
        _ => return None,
    };
    Some([version, tasks, "/", task, "/stop"].concat())
}

/// The name of a task, of which an event says so much in JSON. It becomes a part of a path, so that nothing else will do.
pub(super) fn task(json: &str) -> Option<&str> {
    let name = json.strip_prefix('"')?.strip_suffix('"')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    ((1..=LONGEST_TASK).contains(&name.len()) && name.bytes().all(is_plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parting(
        on_abort: OnAbort,
        path: &str,
        user: Option<&str>,
        events: &[&str],
    ) -> Option<Parting> {
        let mut seen = Meter::Dify(crate::dialect::dify::Meter::default());
        for event in events {
            seen.read(format!("data: {event}\n\n").as_bytes());
        }
        let run = Run {
            path: path.into(),
            user: user.map(Into::into),
            on_abort,
        };
        run.parting(&seen, None)
    }

    const BEGUN: &str = r#"{"event":"message","task_id":"c380-a_7","answer":"one"}"#;

    #[test]
    fn each_kind_of_run_is_stopped_where_dify_stops_it() {
        for (run, expected) in [
            ("/v1/chat-messages", Some("/v1/chat-messages/c380-a_7/stop")),
            (
                "/v1/completion-messages",
                Some("/v1/completion-messages/c380-a_7/stop"),
            ),
            (
                "/v1/workflows/run",
                Some("/v1/workflows/tasks/c380-a_7/stop"),
            ),
            (
                "/v1/workflows/4a1f/run",
                Some("/v1/workflows/tasks/c380-a_7/stop"),
            ),
            ("/v1/parameters", None),
        ] {
            let expected = expected.map(|path| Parting::Stop {
                path: path.into(),
                body: r#"{"user":"u \"1\""}"#.into(),
            });
            let is = parting(OnAbort::Stop, run, Some("u \"1\""), &[BEGUN]);
            assert_eq!(is, expected, "{run}");
        }
    }

    #[test]
    fn a_run_that_is_over_is_left_alone() {
        for last in [
            r#"{"event":"message_end","task_id":"t"}"#,
            r#"{"event":"workflow_finished","task_id":"t","data":{}}"#,
            r#"{"event":"workflow_paused","task_id":"t","data":{}}"#,
            r#"{"event":"error","task_id":"t","status":400}"#,
        ] {
            for on_abort in [OnAbort::Stop, OnAbort::Drain] {
                let events = [BEGUN, last];
                assert_eq!(
                    parting(on_abort, "/v1/chat-messages", Some("u"), &events),
                    None
                );
            }
        }
    }

    #[test]
    fn what_has_no_name_cannot_be_stopped_but_can_be_heard() {
        let long = format!(r#"{{"event":"message","task_id":"{}"}}"#, "t".repeat(65));
        for event in [
            r#"{"event":"message"}"#,
            r#"{"event":"message","task_id":null}"#,
            r#"{"event":"message","task_id":7}"#,
            r#"{"event":"message","task_id":""}"#,
            r#"{"event":"message","task_id":"../../datasets"}"#,
            r#"{"event":"message","task_id":"a?b"}"#,
            r#"{"event":"message","task_id":"\u002e."}"#,
            long.as_str(),
        ] {
            let path = "/v1/chat-messages";
            assert_eq!(
                parting(OnAbort::Stop, path, Some("u"), &[event]),
                None,
                "{event}"
            );
            let drain = parting(OnAbort::Drain, path, None, &[event]);
            assert_eq!(drain, Some(Parting::Drain));
        }
        assert_eq!(
            parting(OnAbort::Stop, "/v1/chat-messages", None, &[BEGUN]),
            None
        );
    }

    #[test]
    fn what_has_said_nothing_yet_is_listened_to_until_it_has() {
        let path = "/v1/chat-messages";
        let listen = parting(OnAbort::Stop, path, Some("u"), &[]);
        assert_eq!(listen, Some(Parting::Listen));
        assert_eq!(parting(OnAbort::Stop, path, None, &[]), None);
        let drain = parting(OnAbort::Drain, path, None, &[]);
        assert_eq!(drain, Some(Parting::Drain));
    }

    #[test]
    fn the_first_name_is_the_runs() {
        let events = [
            r#"{"event":"workflow_started","data":{"task_id":"inner"}}"#,
            r#"{"event":"node_started","task_id":"first"}"#,
            r#"{"event":"message","task_id":"second"}"#,
        ];
        let stop = parting(OnAbort::Stop, "/v1/chat-messages", Some("u"), &events);
        assert!(
            matches!(stop, Some(Parting::Stop { path, .. }) if path == "/v1/chat-messages/first/stop")
        );
    }
}
