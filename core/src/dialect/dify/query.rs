//! A request in OpenAI's words, put to an app of Dify's.
//!
//! An app has its own model and its own settings, so that what a caller says of those (`temperature`, `max_tokens`, `stop`, `seed`)
//! says nothing to it, and is left out. What would change the answer's form is refused.

use std::rc::Rc;

use serde_json::{Map, Value};

use super::{file::File, put::Put, trouble::is_suspect};
use crate::{
    dialect::openai::{Malformed, hides_usage, object},
    upstream::Form,
};

/// The longest name of a user that Dify keeps, in characters.
const LONGEST_USER: usize = 255;

/// Who asks where nobody has said so: Dify wants to know. A consumer's own name stands behind it, so that no caller can have the
/// conversations of another consumer's by calling himself so.
const SOMEBODY: &str = "tidegate";

/// What no app of Dify's can do.
const UNKNOWN: [&str; 9] = [
    "tools",
    "functions",
    "n",
    "best_of",
    "response_format",
    "logprobs",
    "audio",
    "echo",
    "suffix",
];

/// What is asked, as far as an app needs it.
#[derive(Debug)]
pub struct Query {
    /// It came as `completions` does, and is answered so.
    pub is_text: bool,
    /// The conversation that it goes on with.
    pub conversation: Option<String>,
    /// Who has that conversation, by the name of the target.
    pub keeper: Option<Rc<str>>,
    /// On whose behalf it is asked.
    pub user: Option<String>,
    /// Whether it has words in it by which a failure of Dify's own is known.
    pub is_suspect: bool,
    /// Whether files come with it.
    pub has_files: bool,
    said: Vec<Said>,
    inputs: Map<String, Value>,
}

/// A message.
#[derive(Debug, Default)]
struct Said {
    role: String,
    text: String,
    files: Vec<File>,
}

impl Query {
    /// Reads the body of a request to `endpoint`; `conversation` is what its headers say of that.
    pub fn read(
        body: &[u8],
        endpoint: &str,
        conversation: Option<&str>,
    ) -> Result<Self, Malformed> {
        if !hides_usage(endpoint) {
            return Err(Malformed {
                message: "an app of Dify answers `chat/completions` and `completions` alone".into(),
                param: None,
            });
        }
        let asked = object(body).unwrap_or_default();
        for name in UNKNOWN {
            if asked.get(name).is_some_and(|value| asks(name, value)) {
                return Err(refused(name, "an app of Dify has no such thing"));
            }
        }
        let is_text = endpoint == "/completions";
        let said = match (is_text, asked.get("prompt"), asked.get("messages")) {
            (true, Some(Value::String(prompt)), _) => vec![Said {
                role: "user".into(),
                text: prompt.clone(),
                files: Vec::new(),
            }],
            (true, ..) => return Err(refused("prompt", "an app of Dify wants one text")),
            (false, _, Some(Value::Array(messages))) => {
                messages.iter().map(Said::read).collect::<Result<_, _>>()?
            }
            (false, ..) => Vec::new(),
        };
        if said.last().is_none_or(|last| last.role != "user") {
            return Err(refused("messages", "the last message must be the user's"));
        }
        let field = |name: &str| asked.get(name).filter(|value| !value.is_null());
        for name in ["user", "safety_identifier"] {
            if field(name).is_some_and(|user| !user.is_string()) {
                return Err(refused(name, "it is a text"));
            }
        }
        if field("metadata").is_some_and(|inputs| !inputs.is_object()) {
            return Err(refused("metadata", "it is an object"));
        }
        let text = |name| field(name)?.as_str().filter(|text| !text.is_empty());
        let user = text("user").or_else(|| text("safety_identifier"));
        if user.is_some_and(|user| user.chars().nth(LONGEST_USER).is_some()) {
            return Err(refused("user", "it has more than 255 characters"));
        }
        if let Some(user) = user {
            check_user(user)?;
        }
        let named = match asked.get("conversation") {
            Some(Value::Object(named)) => named.get("id"),
            named => named.filter(|named| !named.is_null()),
        };
        if named.is_some_and(|id| !id.is_string()) {
            return Err(refused(
                "conversation",
                "it is a text, or an object with its `id`",
            ));
        }
        let named = named.and_then(Value::as_str).filter(|id| !id.is_empty());
        let named = named.or(conversation).filter(|id| !id.is_empty());
        let inputs = asked.get("metadata").and_then(Value::as_object);
        Ok(Self {
            is_text,
            conversation: named.map(Into::into),
            keeper: None,
            user: user.map(Into::into),
            is_suspect: is_suspect(body) || is_suspect(named.unwrap_or_default().as_bytes()),
            has_files: said
                .iter()
                .any(|said| said.files.iter().any(File::is_inline)),
            said,
            inputs: inputs.cloned().unwrap_or_default(),
        })
    }

    /// It is asked by `consumer`, if no user is named.
    pub fn by(&mut self, consumer: Option<&str>) {
        let user = self.user.take();
        self.user = user.or_else(|| Some([SOMEBODY, ":", consumer?].concat()));
    }

    /// On whose behalf.
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or(SOMEBODY)
    }

    /// Where it is asked of an app of this `form`, and in which words.
    pub fn put(&self, form: &Form) -> Put {
        let mut inputs = self.inputs.clone();
        // Dify remembers the conversation, and must not be told of it twice.
        let conversation = self.conversation.as_ref().filter(|_| *form == Form::Chat);
        let said = match self.said.as_slice() {
            [.., last] if conversation.is_some() => std::slice::from_ref(last),
            said => said,
        };
        let mut body = Map::new();
        let mut say = |name: &str, value: Value| body.insert(name.into(), value);
        match form {
            Form::Chat => {
                say("query", together(said).into());
                // Nobody sees the name, and another model would be asked for it.
                say("auto_generate_name", false.into());
                if let Some(conversation) = conversation {
                    say("conversation_id", conversation.as_str().into());
                }
            }
            Form::Completion(input) => {
                inputs.insert((**input).into(), together(said).into());
            }
            Form::Workflow { input, .. } => {
                inputs.insert((**input).into(), together(said).into());
            }
        }
        let (mut told, mut uploads) = (Vec::new(), Vec::new());
        for file in said.iter().flat_map(|said| &said.files) {
            told.push(file.told());
            if let File::Inline(file) = file {
                uploads.push(file.clone());
            }
        }
        if !told.is_empty() {
            say("files", told.into());
        }
        say("inputs", inputs.into());
        say("response_mode", "streaming".into());
        say("user", self.user().into());
        Put {
            path: form.path(),
            body,
            user: self.user().into(),
            uploads: uploads.into_iter(),
        }
    }
}

impl Said {
    fn read(message: &Value) -> Result<Self, Malformed> {
        let role = message.get("role").and_then(Value::as_str);
        let role = role.unwrap_or_default();
        let is_known = matches!(role, "system" | "developer" | "user" | "assistant");
        if !is_known || message.get("tool_calls").is_some_and(says) {
            return Err(refused("messages", "an app of Dify knows nothing of tools"));
        }
        let mut said = Self {
            role: role.into(),
            ..Self::default()
        };
        match message.get("content") {
            Some(Value::String(text)) => said.text.clone_from(text),
            Some(Value::Array(parts)) => {
                for part in parts {
                    said.add(part)?;
                }
            }
            None | Some(Value::Null) => {}
            Some(_) => return Err(refused("messages", "`content` is a text, or parts")),
        }
        Ok(said)
    }

    /// Adds a part of what is said: a text, or a file.
    fn add(&mut self, part: &Value) -> Result<(), Malformed> {
        let text = |name| part.get(name).and_then(Value::as_str);
        if let (Some("text"), Some(text)) = (text("type"), text("text")) {
            if !self.text.is_empty() {
                self.text.push('\n');
            }
            self.text.push_str(text);
            return Ok(());
        }
        let file = File::read(part).ok_or_else(|| {
            let what = "an app of Dify takes texts, pictures by `http`, and files in base64";
            refused("messages", what)
        })?;
        self.files.push(file);
        Ok(())
    }
}

/// One text of all that was said: just that, if it is all the user's own; else each with who said it before it.
fn together(said: &[Said]) -> String {
    if let [only] = said {
        return only.text.clone();
    }
    let mut all = String::new();
    for Said { role, text, .. } in said {
        if !all.is_empty() {
            all.push_str("\n\n");
        }
        all.push_str(role);
        all.push_str(": ");
        all.push_str(text);
    }
    all
}

/// Whether this value of a field asks for what no app can do.
fn asks(name: &str, value: &Value) -> bool {
    match (name, value) {
        ("n" | "best_of", value) => value.as_u64() > Some(1),
        ("response_format", value) => value.get("type").is_some_and(|kind| kind != "text"),
        (_, value) => says(value),
    }
}

/// Whether it is more than nothing.
fn says(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(values) => !values.is_empty(),
        Value::String(text) => !text.is_empty(),
        // Of `completions`: as many as this, of which it may be none.
        Value::Number(number) => number.as_u64() != Some(0),
        Value::Bool(true) | Value::Object(_) => true,
    }
}

/// Refuses a name under which the gateway itself asks.
pub(crate) fn check_user(user: &str) -> Result<(), Malformed> {
    if user.split(':').next() == Some(SOMEBODY) {
        return Err(refused("user", "names that begin so are the gateway's own"));
    }
    Ok(())
}

fn refused(param: &'static str, why: &str) -> Malformed {
    Malformed {
        message: ["`", param, "`: ", why].concat(),
        param: Some(param),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chat(fields: &str, conversation: Option<&str>) -> Result<Query, Malformed> {
        Query::read(fields.as_bytes(), "/chat/completions", conversation)
    }

    fn put(query: &Query, form: &Form) -> (String, Value) {
        let put = query.put(form);
        (put.path.into(), serde_json::from_str(&put.body()).unwrap())
    }

    const LONG: &str = r#"{"messages":[
        {"role":"system","content":"Be kind."},
        {"role":"user","content":[{"type":"text","text":"What is"},{"type":"text","text":"this?"},{"type":"image_url","image_url":{"url":"https://a.example/1.png"}}]},
        {"role":"assistant","content":"A cat."},
        {"role":"user","content":"And that?"}
    ],"user":"ann","temperature":1,"metadata":{"tone":"dry"}}"#;

    #[test]
    fn each_kind_of_app_is_asked_in_its_own_way() {
        let query = chat(LONG, None).unwrap();
        let all =
            "system: Be kind.\n\nuser: What is\nthis?\n\nassistant: A cat.\n\nuser: And that?";
        let file = json!({ "type": "image", "transfer_method": "remote_url", "url": "https://a.example/1.png" });
        assert_eq!(
            put(&query, &Form::Chat),
            (
                "/chat-messages".into(),
                json!({ "query": all, "inputs": { "tone": "dry" }, "files": [file], "user": "ann", "response_mode": "streaming", "auto_generate_name": false })
            )
        );
        assert_eq!(
            put(&query, &Form::Completion("query".into())),
            (
                "/completion-messages".into(),
                json!({ "inputs": { "tone": "dry", "query": all }, "files": [file], "user": "ann", "response_mode": "streaming" })
            )
        );
        let workflow = Form::Workflow {
            input: "text".into(),
            output: "result".into(),
        };
        assert_eq!(
            put(&query, &workflow),
            (
                "/workflows/run".into(),
                json!({ "inputs": { "tone": "dry", "text": all }, "files": [file], "user": "ann", "response_mode": "streaming" })
            )
        );
    }

    #[test]
    fn what_dify_remembers_is_not_said_again() {
        let named = LONG.replacen('{', r#"{"conversation":"c-1","#, 1);
        let object = LONG.replacen('{', r#"{"conversation":{"id":"c-1"},"#, 1);
        for (body, header) in [(LONG, Some("c-1")), (&named, Some("c-2")), (&object, None)] {
            let query = chat(body, header).unwrap();
            let (_, asked) = put(&query, &Form::Chat);
            assert_eq!(asked["conversation_id"], "c-1");
            assert_eq!(asked["query"], "And that?");
            assert_eq!(asked.get("files"), None);
            // Others remember nothing.
            let (_, asked) = put(&query, &Form::Completion("query".into()));
            assert_eq!(asked.get("conversation_id"), None);
            assert!(
                asked["inputs"]["query"]
                    .as_str()
                    .unwrap()
                    .starts_with("system: ")
            );
        }
        assert_eq!(chat(LONG, Some("")).unwrap().conversation, None);
    }

    #[test]
    fn somebody_always_asks() {
        let message = r#""messages":[{"role":"user","content":"x"}]"#;
        for (fields, expected) in [
            ("", "tidegate"),
            (r#""user":"","#, "tidegate"),
            (r#""user":null,"#, "tidegate"),
            (r#""safety_identifier":"sam","#, "sam"),
            (r#""user":"ann","safety_identifier":"sam","#, "ann"),
        ] {
            let query = chat(&format!("{{{fields}{message}}}"), None).unwrap();
            assert_eq!(put(&query, &Form::Chat).1["user"], expected, "{fields}");
        }
        for (length, fits) in [(255, true), (256, false)] {
            let user = "é".repeat(length);
            let read = chat(&format!(r#"{{"user":"{user}",{message}}}"#), None);
            assert_eq!(read.is_ok(), fits);
        }
    }

    #[test]
    fn nobody_calls_himself_as_another_consumer_is_called() {
        let message = r#""messages":[{"role":"user","content":"x"}]"#;
        for (user, refused) in [
            ("tidegate", true),
            ("tidegate:web", true),
            ("tidegate:", true),
            ("web", false),
            ("tidegates", false),
            ("a:tidegate", false),
        ] {
            let read = chat(&format!(r#"{{"user":"{user}",{message}}}"#), None);
            assert_eq!(read.is_err(), refused, "{user}");
        }
        for (fields, consumer, expected) in [
            ("", Some("web"), "tidegate:web"),
            ("", None, "tidegate"),
            (r#""user":"web","#, Some("web"), "web"),
        ] {
            let mut query = chat(&format!("{{{fields}{message}}}"), None).unwrap();
            query.by(consumer);
            assert_eq!(put(&query, &Form::Chat).1["user"], expected);
        }
    }

    #[test]
    fn a_conversation_is_named_by_a_text() {
        let message = r#""messages":[{"role":"user","content":"x"}]"#;
        for (named, expected) in [
            ("5", Err(())),
            ("true", Err(())),
            (r#"["c-1"]"#, Err(())),
            (r#"{"id":5}"#, Err(())),
            (r#"{"id":null}"#, Err(())),
            ("null", Ok(None)),
            ("{}", Ok(None)),
            (r#""""#, Ok(None)),
            (r#"{"id":""}"#, Ok(None)),
            (r#"{"id":"c-1"}"#, Ok(Some("c-1"))),
        ] {
            let read = chat(&format!(r#"{{"conversation":{named},{message}}}"#), None);
            let conversation = read.as_ref().map(|query| query.conversation.as_deref());
            assert_eq!(conversation.map_err(|_| ()), expected, "{named}");
            let param = read.err().and_then(|error| error.param);
            assert_eq!(param.is_some(), expected.is_err());
        }
    }

    #[test]
    fn what_is_something_else_than_it_should_be_is_refused() {
        for (fields, param) in [
            (r#""user":5"#, Some("user")),
            (r#""user":["a"],"safety_identifier":"b""#, Some("user")),
            (
                r#""user":null,"safety_identifier":{}"#,
                Some("safety_identifier"),
            ),
            (r#""user":null,"metadata":null"#, None),
            (r#""metadata":["a"]"#, Some("metadata")),
            (r#""metadata":{"a":1}"#, None),
        ] {
            let body = format!(r#"{{{fields},"messages":[{{"role":"user","content":"x"}}]}}"#);
            let read = chat(&body, None);
            assert_eq!(read.err().and_then(|error| error.param), param, "{fields}");
        }
        for content in ["5", "true", "{}"] {
            let body = format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
            assert_eq!(chat(&body, None).unwrap_err().param, Some("messages"));
        }
    }

    #[test]
    fn files_are_uploaded_before_they_are_spoken_of() {
        let asked = r#"{"user":"ann","messages":[
            {"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]},
            {"role":"user","content":[
                {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},
                {"type":"image_url","image_url":{"url":"https://a.example/1.png"}},
                {"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,AAAA"}}
            ]}
        ]}"#;
        let mut put = chat(asked, Some("c-1")).unwrap().put(&Form::Chat);
        for (name, said) in [
            ("file.png", r#"{"id":"f-1"}"#),
            ("a.pdf", r#"{"id":"f-2"}"#),
        ] {
            let form = put.upload("x").unwrap();
            assert!(String::from_utf8_lossy(&form).contains(name));
            for other in ["", "{}", r#"{"id":5}"#, r#"["id"]"#] {
                assert_eq!(put.uploaded(other.as_bytes()), None, "{other}");
            }
            put.uploaded(said.as_bytes()).unwrap();
        }
        assert!(put.upload("x").is_none());
        let body: Value = serde_json::from_str(&put.body()).unwrap();
        assert_eq!(
            body["files"],
            json!([
                { "type": "image", "transfer_method": "local_file", "upload_file_id": "f-1" },
                { "type": "image", "transfer_method": "remote_url", "url": "https://a.example/1.png" },
                { "type": "document", "transfer_method": "local_file", "upload_file_id": "f-2" },
            ])
        );
        // Whoever remembers nothing is given all of them again.
        let all = chat(asked, None)
            .unwrap()
            .put(&Form::Completion("q".into()));
        assert_eq!(all.uploads.len(), 3);
    }

    #[test]
    fn half_a_character_is_none() {
        let body = r#"{"user":"a\ud83d","messages":[{"role":"user","content":"x\ude00"}]}"#;
        let put = put(&chat(body, None).unwrap(), &Form::Chat).1;
        assert_eq!(put["query"], "x\u{fffd}");
        assert_eq!(put["user"], "a\u{fffd}");
    }

    #[test]
    fn what_no_app_can_do_is_refused_by_name() {
        for (fields, param) in [
            (r#""tools":[{"type":"function"}]"#, Some("tools")),
            (r#""tools":[],"functions":null"#, None),
            (r#""functions":[{}]"#, Some("functions")),
            (r#""n":2"#, Some("n")),
            (r#""n":1,"best_of":1"#, None),
            (
                r#""response_format":{"type":"json_schema"}"#,
                Some("response_format"),
            ),
            (r#""response_format":{"type":"text"}"#, None),
            (r#""response_format":null"#, None),
            (r#""logprobs":true"#, Some("logprobs")),
            (r#""logprobs":false,"top_logprobs":null"#, None),
            (r#""audio":{"voice":"x"}"#, Some("audio")),
            (
                r#""temperature":0,"max_tokens":5,"stop":["x"],"seed":1,"tool_choice":"auto""#,
                None,
            ),
        ] {
            let body = format!(r#"{{{fields},"messages":[{{"role":"user","content":"x"}}]}}"#);
            let read = chat(&body, None);
            assert_eq!(read.err().and_then(|error| error.param), param, "{fields}");
        }
        for messages in [
            "[]",
            "7",
            r#"[{"role":"assistant","content":"x"}]"#,
            r#"[{"role":"tool","content":"x"},{"role":"user","content":"x"}]"#,
            r#"[{"role":"assistant","content":null,"tool_calls":[{}]},{"role":"user","content":"x"}]"#,
            r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,A"}}]}]"#,
            r#"[{"role":"user","content":[{"type":"input_audio"}]}]"#,
            r#"["x"]"#,
        ] {
            let read = chat(&format!(r#"{{"messages":{messages}}}"#), None);
            assert_eq!(read.unwrap_err().param, Some("messages"), "{messages}");
        }
        let embeddings = Query::read(b"{}", "/embeddings", None).unwrap_err();
        assert_eq!(embeddings.param, None);
    }

    #[test]
    fn a_completion_is_asked_with_one_text() {
        let read = |body: &str| Query::read(body.as_bytes(), "/completions", None);
        let query = read(r#"{"prompt":"Once","logprobs":0,"echo":false}"#).unwrap();
        assert!(query.is_text);
        assert_eq!(put(&query, &Form::Chat).1["query"], "Once");
        for body in ["{}", r#"{"prompt":["a","b"]}"#, r#"{"prompt":[1,2]}"#] {
            assert_eq!(read(body).unwrap_err().param, Some("prompt"));
        }
        assert_eq!(
            read(r#"{"prompt":"x","echo":true}"#).unwrap_err().param,
            Some("echo")
        );
    }
}
