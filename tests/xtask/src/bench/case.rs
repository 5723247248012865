//! What is asked of every contestant.

/// Who answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Upstream {
    /// It is asked little, and answers in about 1 KB.
    Quick,
    /// It reads what it is asked to the end, and answers in about 1 KB.
    Reader,
    /// It answers with a stream.
    Streamer,
}

/// A kind of load.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) struct Case {
    /// Its headline.
    pub(super) name: &'static str,
    /// How many connections ask at once.
    pub(super) connections: usize,
    /// Who answers; the model that is asked for has its name.
    pub(super) upstream: Upstream,
    /// How long the prompt is, in bytes.
    pub(super) prompt: usize,
}

/// Small questions.
pub(super) const SMALL: Case = Case {
    name: "1 KB answers, 32 connections",
    connections: 32,
    upstream: Upstream::Quick,
    prompt: 400,
};

/// The same, one after the other: what a gateway adds to each.
pub(super) const ALONE: Case = Case {
    name: "1 KB answers, 1 connection",
    connections: 1,
    ..SMALL
};

/// Long prompts.
pub(super) const LARGE: Case = Case {
    name: "300 KB requests, 32 connections",
    upstream: Upstream::Reader,
    prompt: 300_000,
    ..SMALL
};

/// Streams.
pub(super) const STREAM: Case = Case {
    name: "streams of 200 chunks, 32 connections",
    upstream: Upstream::Streamer,
    ..SMALL
};

/// All of them.
pub(super) const CASES: [Case; 4] = [SMALL, ALONE, LARGE, STREAM];

impl Case {
    /// Whether a stream is asked for.
    pub(super) fn stream(&self) -> bool {
        self.upstream == Upstream::Streamer
    }

    /// The body of the request.
    pub(super) fn body(&self) -> String {
        let mut prompt = "The tide \\u2014 \\\"in\\\" and out.\\n".repeat(self.prompt / 32 + 1);
        // Never inside an escape: these are ASCII letters.
        prompt.push_str("What holds it back?");
        let stream = if self.stream() {
            ",\"stream\":true,\"stream_options\":{\"include_usage\":true}"
        } else {
            ""
        };
        format!(
            "{{\"model\":\"{:?}\",\"messages\":[{{\"role\":\"user\",\"content\":\"{prompt}\"}}],\"temperature\":0.2{stream}}}",
            self.upstream
        )
    }
}

/// What the fast upstream answers.
pub(super) fn answer() -> String {
    let content = "A gate that opens with the ebb and is shut by the flood. ".repeat(11);
    format!(
        "{{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1790000000,\"model\":\"Quick\",\"choices\":\
         [{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{content}\",\"refusal\":null}},\"logprobs\":null,\
         \"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":100,\"completion_tokens\":150,\"total_tokens\":250}}}}"
    )
}
