//! What a call has to do with what was begun before it, and where that may be.
//!
//! Conversations, messages, tasks, runs and files belong to a user of one app of one installation. Whoever names one of them has
//! to be answered there; whoever names none can be answered anywhere.

use std::cell::RefCell;

use http::Method;
use memchr::memchr;

use crate::auth::Digest;

/// The longest name of something that is taken for one.
const LONGEST_NAME: usize = 64;

/// So much of a user's name tells him from others.
const LONGEST_USER: usize = 256;

/// So many things are known of one call, and of its answer, at most.
const MOST: usize = 8;

/// What a call can name in its body or its query.
const NAMED: [&[u8]; 5] = [
    b"conversation_id",
    b"message_id",
    b"upload_file_id",
    b"workflow_id",
    b"task_id",
];

/// What an answer brings into being.
const MADE: [&[u8]; 5] = [
    b"conversation_id",
    b"message_id",
    b"task_id",
    b"workflow_run_id",
    b"id",
];

/// A call that several can answer, or one who has several keys.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) deed: Deed,
    /// The things that it names, each by a number that is its own.
    pub(crate) names: Vec<u64>,
    /// On whose behalf it is made.
    pub(crate) user: Option<u64>,
    /// What its answer has brought into being.
    pub(crate) made: RefCell<Vec<u64>>,
}

/// What a call is for, as far as it matters to whether somebody else may be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Deed {
    /// It runs an app: never twice.
    Run {
        /// Until the first event of its answer nothing has been done that somebody would miss.
        streamed: bool,
    },
    /// It ends a run. Dify says that it has, whether or not it knows of one.
    Stop,
    /// It brings a file.
    Upload,
    /// However often it is done, nothing comes of it but what comes of it once.
    Repeatable,
    /// Anything else.
    Other,
}

impl Deed {
    /// What a call to `path` is for.
    pub(crate) fn of(method: &Method, path: &str, streamed: bool) -> Self {
        match *method {
            Method::POST if super::is_run(path) => Self::Run { streamed },
            Method::POST if path.ends_with("/stop") => Self::Stop,
            Method::POST if path == "/v1/files/upload" => Self::Upload,
            Method::GET | Method::HEAD | Method::PUT | Method::DELETE => Self::Repeatable,
            _ => Self::Other,
        }
    }
}

impl Open {
    /// Whether nothing comes of it if it is done twice.
    pub(crate) fn is_repeatable(&self) -> bool {
        matches!(self.deed, Deed::Repeatable | Deed::Stop)
    }

    /// Whether it can be answered by anybody.
    pub(crate) fn is_free(&self) -> bool {
        self.names.is_empty() && matches!(self.deed, Deed::Run { .. } | Deed::Upload)
    }
}

/// What a call names in its path, its query and its body.
pub(crate) fn named(path: &str, query: Option<&str>, body: &[u8]) -> Vec<u64> {
    let mut names = Vec::new();
    names.extend(of_path(path).map(|name| number(name.as_bytes())));
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    for (name, value) in pairs {
        if NAMED.contains(&name.as_bytes()) && is_name(value.as_bytes()) {
            names.push(number(value.as_bytes()));
        }
    }
    names.extend(of_json(body, &NAMED));
    names.truncate(MOST);
    names
}

/// What has come into being with an answer, or with the event that it begins with.
pub(crate) fn made(json: &[u8]) -> Vec<u64> {
    of_json(json, &MADE)
}

/// A user of the app whose name is `scope`.
pub(crate) fn user(scope: &str, name: &str) -> u64 {
    let name = name.as_bytes();
    let name = name.get(..LONGEST_USER).unwrap_or(name);
    number(&[scope.as_bytes(), b"\n", name].concat())
}

/// How well `place` suits `user`: each user has an order of his own, the same wherever it is asked for, and if a place comes or goes
/// nobody else moves (Thaler, Ravishankar 1998, "Using Name-Based Mappings to Increase Hit Rates").
pub(crate) fn affinity(user: u64, place: &str) -> u64 {
    number(&[&user.to_le_bytes()[..], place.as_bytes()].concat())
}

fn number(name: &[u8]) -> u64 {
    Digest::of(name).number()
}

/// The thing that a path is about.
fn of_path(path: &str) -> Option<&str> {
    let mut segments = path.strip_prefix("/v1/")?.split('/');
    let first = segments.next()?;
    let second = segments.next()?;
    let third = segments.next();
    let name = match (first, second, third) {
        ("workflows", "tasks" | "run", name) | ("form", "human_input", name) => name?,
        ("workflows", name, Some("run")) => name,
        (
            "chat-messages"
            | "completion-messages"
            | "messages"
            | "conversations"
            | "files"
            | "end-users"
            | "workflow",
            name,
            _,
        ) if (first, name) != ("files", "upload") => name,
        _ => return None,
    };
    is_name(name.as_bytes()).then_some(name)
}

/// The first text that a field with this `name` has, as it is written, up to its first quote.
pub(super) fn text<'j>(json: &'j [u8], name: &[u8]) -> Option<&'j [u8]> {
    let mut texts = Texts(json);
    texts.find_map(|(other, text)| (other == name).then_some(text))
}

/// The values of the fields with these `names`, however deep they are.
fn of_json(json: &[u8], names: &[&[u8]]) -> Vec<u64> {
    let mut found = Vec::new();
    for (name, value) in Texts(json) {
        if found.len() < MOST && names.contains(&name) && is_name(value) {
            found.push(number(value));
        }
    }
    found
}

/// The fields of a JSON text that are texts themselves, with their names: between quotes stands either a text or what is around it.
struct Texts<'j>(&'j [u8]);

impl<'j> Iterator for Texts<'j> {
    type Item = (&'j [u8], &'j [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut cut = || {
            let (part, rest) = self.0.split_at_checked(memchr(b'"', self.0)?)?;
            self.0 = rest.get(1..)?;
            Some(part)
        };
        let mut name = cut()?;
        loop {
            let between = cut()?;
            if between.trim_ascii() == b":" {
                return Some((name, cut()?));
            }
            name = between;
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=LONGEST_NAME).contains(&name.len()) && name.iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(names: &[&str]) -> Vec<u64> {
        names.iter().map(|name| number(name.as_bytes())).collect()
    }

    #[test]
    fn a_call_names_what_it_belongs_to() {
        let table: [(&str, &str, &str, &[&str]); 21] = [
            ("/v1/chat-messages", "", r#"{"query":"x","user":"u"}"#, &[]),
            ("/v1/chat-messages", "", r#"{"conversation_id":""}"#, &[]),
            (
                "/v1/chat-messages",
                "",
                r#"{"conversation_id":null,"user":"u"}"#,
                &[],
            ),
            (
                "/v1/chat-messages",
                "",
                r#"{"conversation_id" : "c-1"}"#,
                &["c-1"],
            ),
            // What a caller only talks about is nothing that it names.
            (
                "/v1/chat-messages",
                "",
                r#"{"query":"\"conversation_id\":\"c-1\""}"#,
                &[],
            ),
            (
                "/v1/chat-messages",
                "",
                r#"{"conversation_id":"../x"}"#,
                &[],
            ),
            (
                "/v1/workflows/run",
                "",
                r#"{"inputs":{"pic":{"type":"image","upload_file_id":"f-1"}},"files":[{"upload_file_id":"f-2"}]}"#,
                &["f-1", "f-2"],
            ),
            (
                "/v1/chat-messages/t-1/stop",
                "",
                r#"{"user":"u"}"#,
                &["t-1"],
            ),
            ("/v1/workflows/tasks/t-1/stop", "", "", &["t-1"]),
            ("/v1/workflows/run/r-1", "", "", &["r-1"]),
            ("/v1/workflows/w-1/run", "", "{}", &["w-1"]),
            ("/v1/workflow/r-1/events", "user=u", "", &["r-1"]),
            ("/v1/messages", "conversation_id=c-1&user=u", "", &["c-1"]),
            ("/v1/messages/m-1/suggested", "user=u", "", &["m-1"]),
            ("/v1/conversations", "user=u", "", &[]),
            ("/v1/conversations/c-1/variables/v", "user=u", "", &["c-1"]),
            ("/v1/files/upload", "", "", &[]),
            ("/v1/files/f-1/preview", "", "", &["f-1"]),
            ("/v1/form/human_input/tok", "", "", &["tok"]),
            ("/v1/parameters", "user=u", "", &[]),
            ("/other", "conversation_id=", "", &[]),
        ];
        for (path, query, body, expected) in table {
            let found = named(path, Some(query), body.as_bytes());
            assert_eq!(found, numbers(expected), "{path} {query} {body}");
        }
        let many = r#""task_id":"a","#.repeat(100);
        assert_eq!(named("/v1/x", None, many.as_bytes()).len(), MOST);
    }

    #[test]
    fn an_answer_tells_what_has_come_into_being() {
        let event = r#"{"event": "message", "conversation_id": "c", "message_id": "m", "task_id": "t", "answer": "\"task_id\": \"x\""}"#;
        assert_eq!(made(event.as_bytes()), numbers(&["c", "m", "t"]));
        let upload = r#"{"id":"f","name":"a.png"}"#;
        assert_eq!(made(upload.as_bytes()), numbers(&["f"]));
        assert!(made(b"\"id").is_empty());
        assert!(made(b"\"id\":").is_empty());
    }

    #[test]
    fn each_user_has_an_order_of_his_own() {
        let places = ["a", "b", "c"];
        let mut firsts = [0; 3];
        for number in 0..300 {
            let user = user("app", &format!("u-{number}"));
            let best = (0..3).max_by_key(|place| affinity(user, places[*place]));
            firsts[best.unwrap()] += 1;
            // Whoever was not at the place that goes stays where he is.
            let left = (0..2).max_by_key(|place| affinity(user, places[*place]));
            assert!(best == Some(2) || best == left);
        }
        assert!(
            firsts.iter().all(|count| (60..140).contains(count)),
            "{firsts:?}"
        );
        assert_ne!(user("app", "u"), user("other", "u"));
        let long = "u".repeat(1 << 20);
        assert_eq!(user("app", &long), user("app", &long));
    }

    #[test]
    fn what_a_call_is_for_says_whether_it_can_be_made_again() {
        let streamed = true;
        for (method, path, expected) in [
            (Method::POST, "/v1/chat-messages", Deed::Run { streamed }),
            (Method::POST, "/v1/workflows/w/run", Deed::Run { streamed }),
            (Method::POST, "/v1/chat-messages/t/stop", Deed::Stop),
            (Method::POST, "/v1/files/upload", Deed::Upload),
            (Method::POST, "/v1/messages/m/feedbacks", Deed::Other),
            (Method::PATCH, "/v1/x", Deed::Other),
            (Method::GET, "/v1/chat-messages", Deed::Repeatable),
            (Method::DELETE, "/v1/conversations/c", Deed::Repeatable),
        ] {
            assert_eq!(Deed::of(&method, path, true), expected, "{method} {path}");
        }
    }
}
