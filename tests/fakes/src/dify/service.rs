//! The Service API: `/v1/…`.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::{
    CREATED, Conversation, Installation, Kind, Task, Turn, Upload,
    errors::{self, by_code, say},
    events::{Run, WORKFLOW},
    machine::Progress,
};
use crate::{
    counts::Visit,
    mode::{Mode, Text},
    play::{Reply, Step, Stop},
    server::Asked,
    wire,
};

/// One call of an app.
struct Call<'a> {
    asked: &'a Asked,
    mode: &'a Mode,
    visit: &'a Visit,
    dify: &'a Installation,
    kind: Kind,
}

/// Answers `asked`.
pub(super) fn answer(asked: &Asked, mode: &Mode, visit: &Visit, dify: &Installation) -> Reply {
    serve(asked, mode, visit, dify).unwrap_or_else(|refusal| *refusal)
}

type Answer = Result<Reply, Box<Reply>>;

fn serve(asked: &Asked, mode: &Mode, visit: &Visit, dify: &Installation) -> Answer {
    let segments: Vec<&str> = asked
        .path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .skip(1)
        .collect();
    let Some(key) = asked.bearer() else {
        return refuse(
            401,
            "unauthorized",
            "Authorization header must be provided and start with 'Bearer'",
        );
    };
    if key.starts_with("dataset-") {
        return knowledge(asked, &segments);
    }
    let Some(kind) = Kind::of_key(key) else {
        return known("unauthorized");
    };
    let call = Call {
        asked,
        mode,
        visit,
        dify,
        kind,
    };
    match (&asked.method, segments.as_slice()) {
        (&Method::POST, ["chat-messages"]) => call.chat(),
        (&Method::POST, ["completion-messages"]) => call.completion(),
        (&Method::POST, ["workflows", "run"] | ["workflows", _, "run"]) => call.workflow(),
        (
            &Method::POST,
            ["chat-messages" | "completion-messages", task, "stop"]
            | ["workflows", "tasks", task, "stop"],
        ) => call.stop(task),
        (&Method::GET, ["workflows", "run", run]) => dify.memory().runs.get(*run).map_or_else(
            || refuse(404, "not_found", "Workflow run not found"),
            |run| Ok(Reply::json(200, run)),
        ),
        (&Method::GET, ["workflow", run, "events"]) => call.resume(run),
        (&Method::POST, ["form", "human_input", _]) => Ok(Reply::json(200, &json!({}))),
        (&Method::POST, ["files", "upload"]) => call.upload(),
        (&Method::GET, ["files", id, "preview"]) => call.preview(id),
        (&Method::POST, ["audio-to-text"]) => {
            call.user()?;
            Ok(Reply::json(200, &json!({"text": "The tide is in."})))
        }
        (&Method::POST, ["text-to-audio"]) => {
            call.user()?;
            Ok(Reply::whole(
                200,
                "audio/mpeg",
                (0..=255).collect::<Vec<u8>>(),
            ))
        }
        (&Method::GET, ["messages"]) => call.messages(),
        (&Method::GET, ["messages", _, "suggested"]) => {
            call.user()?;
            Ok(Reply::json(
                200,
                &json!({"result": "success", "data": ["And the ebb?"]}),
            ))
        }
        (&Method::POST, ["messages", _, "feedbacks"]) => {
            call.user()?;
            success()
        }
        (&Method::GET, ["conversations"]) => call.conversations(),
        (&Method::DELETE, ["conversations", id]) => call.forget(id),
        (&Method::POST, ["conversations", id, "name"]) => {
            call.user()?;
            Ok(Reply::json(
                200,
                &json!({"id": id, "name": "The tide", "inputs": {}, "status": "normal", "introduction": ""}),
            ))
        }
        (&Method::GET, ["conversations", _, "variables"]) => Ok(Reply::json(200, &list(&[]))),
        (&Method::GET, ["info"]) => Ok(Reply::json(
            200,
            &json!({"name": "Tide", "description": "", "tags": [], "mode": kind.name(), "author_name": "fakes"}),
        )),
        (&Method::GET, ["parameters"]) => Ok(Reply::json(200, &parameters())),
        (&Method::GET, ["meta"]) => Ok(Reply::json(200, &json!({"tool_icons": {}}))),
        (&Method::GET, ["site"]) => Ok(Reply::json(
            200,
            &json!({"title": "Tide", "icon_type": "emoji", "default_language": "en-US"}),
        )),
        _ => refuse(
            404,
            "not_found",
            "The requested URL was not found on the server.",
        ),
    }
}

impl Call<'_> {
    fn chat(&self) -> Answer {
        if !matches!(
            self.kind,
            Kind::Chat | Kind::Agent | Kind::NewAgent | Kind::Chatflow | Kind::ChatPause
        ) {
            return known("not_chat_app");
        }
        let body = self.body()?;
        let user = self.user()?;
        let Some(query) = body["query"].as_str() else {
            return refuse(400, "invalid_param", "query is required in input payload");
        };
        if !body["inputs"].is_object() {
            return refuse(400, "invalid_param", "inputs is required in input payload");
        }
        let says_nothing = body["response_mode"].is_null();
        let streams =
            body["response_mode"] == "streaming" || says_nothing && self.kind == Kind::NewAgent;
        match self.kind {
            Kind::Agent if !streams => return Err(Box::new(errors::NO_BLOCKING.reply())),
            Kind::NewAgent if !streams => return known("bad_request"),
            _ => {}
        }
        self.admit()?;
        let mut memory = self.dify.memory();
        let (id, turns) = match body["conversation_id"].as_str().unwrap_or_default() {
            "" => (memory.id(0xC0), Vec::new()),
            id => match memory.conversations.get(id) {
                Some(talk) if talk.kind == self.kind && talk.user == user => {
                    (id.to_owned(), talk.turns.clone())
                }
                _ => return known("not_found"),
            },
        };
        let text = match turns.last() {
            None => format!("You said: {query}"),
            Some(last) => format!(
                "You said: {query} (turn {}, after: {})",
                turns.len() + 1,
                last.query
            ),
        };
        drop(memory);
        let text = self.with_files(&body, &user, text)?;
        let mut memory = self.dify.memory();
        let run = Run {
            kind: self.kind,
            task: memory.id(0x7A),
            message: memory.id(0x3E),
            conversation: id.clone(),
            run: memory.id(0x40),
            user: user.clone(),
            inputs: json!({"sys.query": query}),
            pieces: self.pieces(&text),
            prompt_tokens: query.split_whitespace().count() + turns.len(),
        };
        let turn = Turn {
            message: run.message.clone(),
            query: query.to_owned(),
            answer: run.text(),
        };
        let talk = memory
            .conversations
            .entry(id)
            .or_insert_with(|| Conversation {
                kind: self.kind,
                user,
                turns: Vec::new(),
            });
        talk.turns.push(turn);
        drop(memory);
        if streams {
            Ok(self.stream(&run))
        } else {
            self.whole(&run)
        }
    }

    fn completion(&self) -> Answer {
        if self.kind != Kind::Completion {
            return known("not_completion_app");
        }
        let body = self.body()?;
        let text = first_text(&body["inputs"]);
        let run = self.run(&body, self.user()?, &text)?;
        if body["response_mode"] == "streaming" {
            Ok(self.stream(&run))
        } else {
            self.whole(&run)
        }
    }

    fn workflow(&self) -> Answer {
        if !matches!(self.kind, Kind::Workflow | Kind::Pause) {
            return known("not_workflow_app");
        }
        let body = self.body()?;
        if !body["inputs"].is_object() {
            return refuse(400, "invalid_param", "inputs is required in input payload");
        }
        let run = self.run(&body, self.user()?, &first_text(&body["inputs"]))?;
        let error = self.mode.fail_midway.then_some(errors::MIDWAY.message);
        let data = match (self.kind, error) {
            (Kind::Pause, None) => run.paused_at_once(),
            (_, Some(error)) => run.outcome("failed", Some(error)),
            _ => run.outcome("succeeded", None),
        };
        self.dify
            .memory()
            .runs
            .insert(run.run.clone(), data.clone());
        if body["response_mode"] == "streaming" {
            return Ok(self.stream(&run));
        }
        let mut reply = Reply::json(
            200,
            &json!({"task_id": run.task, "workflow_run_id": run.run, "data": data}),
        );
        wire::hurt(&mut reply, run.events(self.mode).len(), self.mode);
        self.end(&mut reply);
        Ok(reply)
    }

    /// A run that has no conversation.
    fn run(&self, body: &Value, user: String, text: &str) -> Result<Run, Box<Reply>> {
        self.admit()?;
        let text = self.with_files(body, &user, format!("You said: {text}"))?;
        let mut memory = self.dify.memory();
        Ok(Run {
            kind: self.kind,
            task: memory.id(0x7A),
            message: memory.id(0x3E),
            conversation: String::new(),
            run: memory.id(0x40),
            user,
            inputs: body["inputs"].clone(),
            pieces: self.pieces(&text),
            prompt_tokens: text.split_whitespace().count(),
        })
    }

    fn stream(&self, run: &Run) -> Reply {
        let stop = Arc::new(Stop::default());
        let task = Task {
            user: run.user.clone(),
            stop: Arc::clone(&stop),
        };
        self.dify.memory().tasks.insert(run.task.clone(), task);
        let mut reply = event_stream(wire::stream(run.events(self.mode), self.mode));
        let plain = Mode {
            framing: self.mode.framing,
            ..Mode::default()
        };
        if let Some(progress) = self.compute(&stop) {
            // The first event when there is something to say, and the last one when it is over.
            let last = |step: &Step| matches!(step, Step::Write(_));
            let last = reply.steps.iter().rposition(last).unwrap_or_default();
            reply.steps.insert(last, Step::Await(progress.ended));
            reply.opens = Some(progress.opened);
        }
        reply.stop = Some((stop, wire::stream(run.stopped(), &plain)));
        reply
    }

    /// Where there is a machine, a run of it.
    fn compute(&self, stop: &Arc<Stop>) -> Option<Progress> {
        let (cores, model) = self.mode.cores?;
        Some(self.dify.machine.run(cores, model, Arc::clone(stop)))
    }

    /// An answer that is no stream comes when the run is over.
    fn end(&self, reply: &mut Reply) {
        reply.opens = self.compute(&Arc::default()).map(|run| run.ended);
    }

    /// The answer of a chat or a completion that is no stream.
    fn whole(&self, run: &Run) -> Answer {
        if self.mode.fail_midway {
            return Err(Box::new(run.failure().reply()));
        }
        let mut body = json!({
            "event": "message", "task_id": run.task, "id": run.message, "message_id": run.message, "mode": self.kind.name(),
            "answer": if self.mode.moderated && self.kind != Kind::ChatPause { "preset reply".to_owned() } else { run.text() },
            "metadata": run.metadata(), "created_at": CREATED,
        });
        if self.kind != Kind::Completion {
            body["conversation_id"] = json!(run.conversation);
        }
        if self.kind == Kind::ChatPause {
            body["event"] = json!("workflow_paused");
            body["workflow_run_id"] = json!(run.run);
            let mut data = run.paused();
            for field in [
                "id",
                "message_id",
                "conversation_id",
                "mode",
                "answer",
                "metadata",
                "created_at",
            ] {
                data[field] = body[field].clone();
            }
            if let Some(data) = data.as_object_mut() {
                data.remove("outputs");
            }
            body["data"] = data;
        }
        let mut reply = Reply::json(200, &body);
        wire::hurt(&mut reply, run.pieces.len(), self.mode);
        self.end(&mut reply);
        Ok(reply)
    }

    fn stop(&self, task: &str) -> Answer {
        let user = self.user()?;
        // Somebody else's task is not stopped, and nobody is told.
        if let Some(task) = self
            .dify
            .memory()
            .tasks
            .get(task)
            .filter(|task| task.user == user)
        {
            task.stop.press();
        }
        success()
    }

    fn resume(&self, id: &str) -> Answer {
        let user = self.user()?;
        let mut memory = self.dify.memory();
        if !memory.runs.contains_key(id) {
            return refuse(404, "not_found", "Workflow run not found");
        }
        let run = Run {
            kind: self.kind,
            task: memory.id(0x7A),
            message: String::new(),
            conversation: String::new(),
            run: id.to_owned(),
            user,
            inputs: json!({}),
            pieces: self.pieces("Approved"),
            prompt_tokens: 0,
        };
        Ok(event_stream(wire::stream(run.resumed(), self.mode)))
    }

    fn upload(&self) -> Answer {
        let user = self.user()?;
        let body = String::from_utf8_lossy(&self.asked.body);
        let Some(name) = between(&body, "filename=\"", "\"") else {
            return known("no_file_uploaded");
        };
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let part = body.split_once("filename=\"").map_or("", |(_, rest)| rest);
        let kind = between(part, "Content-Type: ", "\r\n").unwrap_or("application/octet-stream");
        let size = self.uploaded();
        let mut memory = self.dify.memory();
        let id = memory.id(0xF1);
        let upload = Upload {
            user: user.clone(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            size,
        };
        memory.files.insert(id.clone(), upload);
        Ok(Reply::json(
            201,
            &json!({
                "id": id, "name": name, "size": size, "extension": extension, "mime_type": kind, "created_by": user,
                "created_at": CREATED, "preview_url": null, "source_url": "",
            }),
        ))
    }

    /// How long the uploaded file is, whatever its bytes are.
    fn uploaded(&self) -> usize {
        let find = |text: &[u8], from: usize| {
            let rest = self.asked.body.get(from..)?;
            rest.windows(text.len())
                .position(|window| window == text)
                .map(|at| from + at)
        };
        let start = find(b"filename=\"", 0)
            .and_then(|name| find(b"\r\n\r\n", name))
            .map(|blank| blank + 4);
        start
            .and_then(|start| find(b"\r\n--", start).map(|end| end - start))
            .unwrap_or(0)
    }

    /// `text`, and behind it each file that comes with it, which its user must have uploaded.
    fn with_files(&self, body: &Value, user: &str, text: String) -> Result<String, Box<Reply>> {
        let files = body["files"].as_array().into_iter().flatten();
        let local = files.filter(|file| file["transfer_method"] == "local_file");
        local.into_iter().try_fold(text, |text, file| {
            let memory = self.dify.memory();
            let id = file["upload_file_id"].as_str().unwrap_or_default();
            let known = memory.files.get(id).filter(|known| known.user == user);
            let known = known.ok_or_else(|| say(400, "invalid_param", "Invalid upload file"))?;
            let Upload {
                name, kind, size, ..
            } = known;
            let what = file["type"].as_str().unwrap_or_default();
            Ok(format!("{text} [{what} {name}: {kind}, {size} bytes]"))
        })
    }

    fn preview(&self, id: &str) -> Answer {
        match self.dify.memory().files.get(id) {
            Some(file) => Ok(Reply::whole(
                200,
                "application/octet-stream",
                file.name.clone(),
            )),
            None => known("file_not_found"),
        }
    }

    fn messages(&self) -> Answer {
        let user = self.user()?;
        let id = self.asked.query("conversation_id").unwrap_or_default();
        let memory = self.dify.memory();
        let Some(talk) = memory
            .conversations
            .get(id)
            .filter(|talk| talk.kind == self.kind && talk.user == user)
        else {
            return known("not_found");
        };
        let item = |turn: &Turn| {
            json!({
                "id": turn.message, "conversation_id": id, "inputs": {}, "query": turn.query, "answer": turn.answer,
                "message_files": [], "feedback": null, "retriever_resources": [], "agent_thoughts": [],
                "created_at": CREATED, "status": "normal", "error": null,
            })
        };
        let items: Vec<Value> = talk.turns.iter().map(item).collect();
        Ok(Reply::json(200, &list(&items)))
    }

    fn conversations(&self) -> Answer {
        let user = self.user()?;
        let memory = self.dify.memory();
        let mine = memory
            .conversations
            .iter()
            .filter(|(_, talk)| talk.kind == self.kind && talk.user == user);
        let item = |id: &str| {
            json!({
                "id": id, "name": "New conversation", "inputs": {}, "status": "normal", "introduction": "",
                "created_at": CREATED, "updated_at": CREATED,
            })
        };
        let items: Vec<Value> = mine.map(|(id, _)| item(id)).collect();
        Ok(Reply::json(200, &list(&items)))
    }

    fn forget(&self, id: &str) -> Answer {
        let user = self.user()?;
        let mut memory = self.dify.memory();
        if memory
            .conversations
            .get(id)
            .is_none_or(|talk| talk.kind != self.kind || talk.user != user)
        {
            return known("not_found");
        }
        memory.conversations.remove(id);
        Ok(Reply {
            length: Some(0),
            ..Reply::new(204, "application/json", Vec::new())
        })
    }

    /// The concurrency that Dify allows the app.
    fn admit(&self) -> Result<(), Box<Reply>> {
        match self.mode.cap {
            Some(cap) if self.visit.active > cap as u64 => {
                let message = format!(
                    "Too many requests. Please try again later. The current maximum concurrent requests allowed for {} is {cap}.",
                    self.kind.app()
                );
                Err(Box::new(say(429, "too_many_requests", &message)))
            }
            _ => Ok(()),
        }
    }

    fn body(&self) -> Result<Value, Box<Reply>> {
        let message =
            "The browser (or proxy) sent a request that this server could not understand.";
        self.asked
            .json()
            .ok_or_else(|| Box::new(say(400, "bad_request", message)))
    }

    /// The end user: in the query of a GET, else in the JSON or the form.
    fn user(&self) -> Result<String, Box<Reply>> {
        let form = || {
            let body = String::from_utf8_lossy(&self.asked.body);
            between(&body, "name=\"user\"\r\n\r\n", "\r\n").map(str::to_owned)
        };
        let user = if self.asked.method == Method::GET {
            self.asked.query("user").map(str::to_owned)
        } else {
            self.asked
                .json()
                .map_or_else(form, |body| body["user"].as_str().map(str::to_owned))
        };
        user.filter(|user| !user.is_empty())
            .ok_or_else(|| Box::new(say(400, "invalid_param", "Arg user must be provided.")))
    }

    fn pieces(&self, text: &str) -> Vec<String> {
        match self.mode.text {
            Text::Echo => text.split_inclusive(' ').map(str::to_owned).collect(),
            Text::Unicode => "die Flut: été, 潮が満ちる, море, 🌊🌙 и всё"
                .split_inclusive(' ')
                .map(str::to_owned)
                .collect(),
            Text::Letters(count) => vec!["The ".into(), "x".repeat(count), " end".into()],
            Text::Pieces(count) => (0..count).map(|index| format!("w{index} ")).collect(),
        }
    }
}

fn knowledge(asked: &Asked, segments: &[&str]) -> Answer {
    let dataset = "da7a0000-0000-4000-8000-000000000001";
    match (&asked.method, segments) {
        (&Method::GET, ["datasets"]) => {
            let item = json!({"id": dataset, "name": "tides", "description": "", "document_count": 1, "created_at": CREATED});
            Ok(Reply::json(200, &list(&[item])))
        }
        (&Method::POST, ["datasets", _, "retrieve"]) => {
            let query = asked
                .json()
                .map(|body| body["query"].clone())
                .unwrap_or_default();
            let document = json!({"id": dataset, "name": "tides.txt"});
            let segment =
                json!({"id": dataset, "content": "The tide is in.", "document": document});
            Ok(Reply::json(
                200,
                &json!({"query": {"content": query}, "records": [{"segment": segment, "score": 0.98}]}),
            ))
        }
        _ => refuse(
            404,
            "not_found",
            "The requested URL was not found on the server.",
        ),
    }
}

fn event_stream(steps: Vec<Step>) -> Reply {
    Reply::new(200, "text/event-stream; charset=utf-8", steps)
        .with("cache-control", "no-cache")
        .with("x-accel-buffering", "no")
}

fn refuse(status: u16, code: &str, message: &str) -> Answer {
    Err(Box::new(say(status, code, message)))
}

/// A refusal of the table.
fn known(code: &str) -> Answer {
    by_code(code).map_or_else(
        || refuse(500, "internal_server_error", code),
        |failure| Err(Box::new(failure.reply())),
    )
}

fn success() -> Answer {
    Ok(Reply::json(200, &json!({"result": "success"})))
}

fn list(items: &[Value]) -> Value {
    json!({"limit": 20, "has_more": false, "data": items})
}

fn first_text(inputs: &Value) -> String {
    let texts = inputs
        .as_object()
        .into_iter()
        .flatten()
        .find_map(|(_, value)| value.as_str());
    texts.unwrap_or_default().to_owned()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(inside, _)| inside)
}

fn parameters() -> Value {
    json!({
        "opening_statement": "Hello!", "suggested_questions": [], "suggested_questions_after_answer": {"enabled": false},
        "speech_to_text": {"enabled": false}, "text_to_speech": {"enabled": false, "voice": "", "language": ""},
        "retriever_resource": {"enabled": true}, "annotation_reply": {"enabled": false}, "more_like_this": {"enabled": false},
        "sensitive_word_avoidance": {"enabled": false},
        "user_input_form": [{"text-input": {"label": "Text", "variable": "text", "required": true, "max_length": 48, "default": ""}}],
        "file_upload": {"image": {
            "enabled": false, "number_limits": 3, "detail": "high", "transfer_methods": ["remote_url", "local_file"],
        }},
        "system_parameters": {
            "file_size_limit": 15, "image_file_size_limit": 10, "audio_file_size_limit": 50, "video_file_size_limit": 100,
            "workflow_file_upload_limit": 10,
        },
        "workflow_id": WORKFLOW,
    })
}
