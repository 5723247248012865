//! What is where on the port of the fakes.
//!
//! | path | what |
//! |---|---|
//! | `/openai/<mode>/v1/…` | a provider: `chat/completions`, `completions`, `responses`, `embeddings`, `models`, `rerank`, `audio/speech`, `audio/transcriptions` |
//! | `/openai/<mode>/metrics` | the load of that provider, as vLLM tells it |
//! | `/dify/<mode>/v1/…` | Dify's Service API |
//! | `/dify/<mode>/e/…` | Dify's plugin daemon: tells what it was asked, `Dify-Hook-Url` included |
//! | `/dify/<mode>/console/api/…`, `/api/…`, `/files/…`, `/mcp/…`, `/triggers/…`, `/health` | the rest of Dify's api: the same |
//! | `/dify/<mode>/…` | Dify's web: a page |
//! | `/_counts` | what every fake has seen, by `openai/<mode>` and `dify/<mode>` (see below) |
//! | `/_counts/openai/<mode>` | the same of one |
//! | `/_reset` | forgets everything: counts, conversations, ids |
//!
//! # Keys
//!
//! OpenAI: `Authorization: Bearer sk-fake-…` with anything after it; `sk-fake-quota…` has run out of quota (429
//! `insufficient_quota`). Anything else is 401.
//!
//! Dify: `Authorization: Bearer app-<kind>` or `app-<kind>-…` with anything after it, where the kind is `chat`, `agent`,
//! `new-agent`, `completion`, `chatflow`, `workflow` or `pause` (a workflow that waits for a person). All keys of a kind are
//! keys of one app. `dataset-…` opens the knowledge paths.
//!
//! # Modes
//!
//! A mode is one or more words with `+` between them: `ok`, `429`, `flaky-2of3`, `no-usage+no-done`, `cut-after-2+split`.
//! `@name` at the end tells two otherwise equal fakes apart: `ok@a`, `ok@b`. Each mode is an installation of its own, with its
//! own counts, ids and conversations. A time is `20ms`, `2s`, or a bare number of milliseconds.
//!
//! | word | both sides |
//! |---|---|
//! | `ok` | nothing special |
//! | `400` … `599` | refuses with this status, in its own shape; 429 and 503 with `Retry-After: 7` |
//! | `flaky-NofM` | the first N of every M calls behave as the other words say (503 if none does), the others are ok |
//! | `html`, `html-S` | a page of nginx, with status 502 or S |
//! | `empty` | 200 and not one byte |
//! | `garbage` | 200, `application/json`, and a body that is none |
//! | `closed` | closes the connection without an answer |
//! | `half-header` | closes the connection in the middle of the headers |
//! | `two-lengths` | two Content-Length headers that disagree |
//! | `hang` | never answers |
//! | `late-T` | answers after T |
//! | `slow-T` | waits T before every event |
//! | `cut-after-N` | breaks the connection after N events; in the middle of a body that is no stream |
//! | `cut-mid-N` | the same in the middle of the event after N |
//! | `stall`, `stall-T`, `stall-after-N`, `stall-after-N-T` | falls silent after N events (1) for T (an hour), then goes on |
//! | `error-chunk`, `fail-midway` | an error inside the stream after two events; before the start if it is no stream |
//! | `split`, `split-N` | writes one byte, or N bytes, at a time |
//! | `split-chars` | writes end in the middle of every character that is not ASCII |
//! | `pairs` | two events a write |
//! | `crlf` | lines end in CRLF |
//! | `no-space` | `data:` without the space |
//! | `big` | a piece of 100,000 letters |
//! | `line-N` | a piece of N letters |
//! | `unicode` | an answer of characters of one to four bytes |
//! | `chunks-N` | an answer of N pieces |
//! | `cap-N` | more than N at once are refused with 429 |
//! | `load-B-P` | the first byte comes after B, and P more for each other that is being answered |
//!
//! | word | OpenAI |
//! |---|---|
//! | `no-usage` | never says usage |
//! | `no-done` | ends a stream without `[DONE]` |
//! | `tools` | answers with two calls of tools, asked for or not |
//! | `raw` | reads no body, says `ok` in a fixed answer: for measuring |
//! | `raw-N` | the same as a stream of N pieces |
//!
//! | word | Dify |
//! |---|---|
//! | `fail-<code>` | refuses with this code of Dify's: `fail-too_many_requests`, `fail-provider_quota_exceeded`, … |
//! | `pings`, `pings-T` | `event: ping` first and after every second event; every T (10 s) in a stall |
//! | `finished-first` | a chatflow says `workflow_finished` before `message_end` |
//! | `rich` | a workflow or chatflow with every kind of event there is |
//! | `tts` | a chat with its voice after it |
//! | `moderated` | an answer that is replaced |
//! | `cores-N-T` | N cores for the API server, shared by all that it is asked: 0.05 s of one until the first event of a run, 0.35 s more until its last one, a model of T between; 0.02 s for any other call. It does half as much with 150 runs in progress; a run goes on without its caller |
//!
//! # Answers
//!
//! A model answers `The tide is in. You said: <last user text>`, one word a piece; a Dify app
//! `You said: <query>`, and in a later turn `You said: <query> (turn 2, after: <query before>)`; a Dify workflow puts
//! `You said: <the first text of the inputs>` into `outputs.result`. A model whose name starts with `no-` does not exist. Tools are
//! called when some are given, unless `tool_choice` is `none` or the last message is a tool's result.
//!
//! # Counts
//!
//! `{"calls", "active", "peak", "aborted", "paths": {"POST /v1/…": n}, "keys": {"<key>": n}, "last": {"method", "path", "query",
//! "headers": {…}, "body", "body_bytes"}}`. `aborted` counts answers that the caller did not wait for; `body` is text, absent if it was
//! not UTF-8; a header that came twice is joined with `, `.
