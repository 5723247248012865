//! Tidegate: an AI gateway that runs at the edge. This page is its architecture.
//!
//! # What it is
//!
//! A gateway stands before model providers and before [Dify](https://dify.ai): it knows its callers, finds where a
//! request belongs, keeps limits, asks one upstream after another until one answers, and keeps a record of
//! what happened. The same code runs on Cloudflare Workers, on Fermyon Spin and as one native binary:
//!
//! ```text
//!                    core (this crate)            every decision, and the one conversation
//!        ┌───────────────┼───────────────┐
//!   adapters/native  adapters/cloudflare  adapters/spin       ports, and nothing decided
//!        └───────── adapters/redis ──────────┘                a store that two of them reach, each in its own way
//! ```
//!
//! # Two promises
//!
//! > **One core, three runtimes, same answers.** The same script of requests and faults gives the same bytes, the same
//! > counts and the same records everywhere. A platform is a crate, never a `cfg` in here.
//!
//! > **Nothing is spent that was not held.** A request, its place among those in progress, and its tokens are held on every limit
//! > before anybody is asked. A limit is never exceeded by one unit, whatever is running where; a hold that nobody gives back
//! > counts as spent. [`limit`] says why that is so.
//!
//! # The life of a request
//!
//! [`gateway`] is to be read from top to bottom. Its stages, and where each is decided:
//!
//! | stage | what happens | decided in |
//! |---|---|---|
//! | find the route | the first that matches host, path, headers and method | [`route`], on a [`call`] as it was before [`proxies`] |
//! | authenticate | who is calling, by a key that is known only by its hash | [`auth`] |
//! | read | what is asked, in the terms of whoever can answer, and what it may cost: an `Exchange` | `intake`, [`dialect`] |
//! | admit | it is held on every limit that it falls under: all or none | `claim`, [`limit`]; played by `admission` |
//! | order, dispatch | targets in order, who is ill last, and the next one while nobody has answered; what was begun stays with whoever began it | [`dispatch`], [`health`], `places`; played by `round` and `pursuit`, by `search` while its caller waits; `watch` asks who is well |
//! | pass | where a Dify bears only so many, each attempt waits there for its turn, or the next target is asked | [`overload`]; played by `entrance` and `passage`; `sharing` tells others who ask the same one |
//! | take the answer | something for the caller, from its first content on, or a reason to ask somebody else | `answer`, `diagnosis`, [`upstream`], [`timeouts`] |
//! | relay | the answer goes on: whole, untouched, or event by event, and never silent for long; or put together for who wants it at once | `relay`, `vigil`, [`sse`], `assembly` |
//! | rescue | who goes on with a stream that breaks off, so that its caller takes both for one | `rescue`, `pursuit`, [`dialect::openai::Splice`] |
//! | switch | a connection that becomes a WebSocket, for those who work on the same thing in Dify | `tunnel` |
//! | part | what becomes of a run of Dify's that nobody wants any more: its caller has left, or somebody else answers | [`dialect::dify::Run`]; played by `cancel`, `relay` and `pursuit` |
//! | settle | what it has cost, and what is given back or owed | `budget`; kept up and settled by `tenure` |
//! | record | one line of JSON: never a key, never a prompt | [`record`], written once by `visit` |
//!
//! A refusal at any stage is a [`refusal::Refusal`]: it owns its status, its code and its shape in the dialect of the caller,
//! and it is recorded like an answer.
//!
//! # Plan and play
//!
//! Decisions are synchronous functions of plain data and `now`: [`limit::Account::apply`], [`dispatch::Attempts::next`],
//! [`route::Route::find`], [`sse::Framer::push`]. They never wait, never read a clock and draw no randomness but from a
//! [`dice::Dice`] handed in. One asynchronous method per stage in [`gateway`] asks the decision and plays it on the ports of a
//! [`platform::Platform`]. So every decision is tested with a table, and the conversation with a platform in memory.
//!
//! What crosses into storage is a command: a [`limit::Entry`] goes in and a [`limit::Balance`] comes out. The Durable Object,
//! the SQLite row, the Redis value and the native map load an account, apply the entry and save the account. There is one
//! limiter, here; there is no second one in SQL or Lua. Where an account is busy it lends, and an isolate spends out of its own
//! [`limit::Purse`] without asking anybody.
//!
//! # Bytes
//!
//! A [`Body`] stays what the platform made it until a stage has to see its bytes; where none has to, the platform's own
//! body goes through untouched. A model request is read once and never rebuilt: the fields that the gateway acts on are found
//! by their place, and only their bytes change ([`dialect::openai::Asked`]). An answer that is not a stream is
//! read whole before its head goes out, so that half an answer is an upstream's failure and never the caller's. A stream goes
//! on event by event, one that comes in choices as the plainest of its readers takes it; if it breaks, the caller is told inside it, and
//! it is never ended as if it were whole.
//!
//! # Configuration
//!
//! A document is read into a [`config::Value`] tree with positions, by the native adapter from TOML and on the edge from
//! JSON; [`Config::build`] makes of it values that can run, with every name resolved, or gives every problem at once. What
//! is part of the contract and not built yet is refused by name.
//!
//! # What is not here
//!
//! *Nothing here reads a clock, names a platform or touches the network.* *Nothing counts but [`limit`]*, and
//! [`overload`], which counts what is in progress before a Dify. *No stage is stubbed:
//! what has nothing to do yet (guards, cache, balancing) is absent.* *No module imports one from a higher
//! floor*, from the ground: `time` · `retry_after timeouts body dice usage sse flat_map` · `overload upstream call` · `limit` · `auth proxies record health` · `receipt trail` · `dialect` ·
//! `claim dispatch holdings platform route` · `exchange headers ledger patience vigil config` · `admission sharing` · `passage` · `refusal tenure` · `budget` ·
//! `places visit` · `admin answer assembly intake` · `entrance` · `cancel delivery diagnosis retold round` · `pursuit` · `rescue search` · `relay tunnel no_tunnel watch` · `gateway`. A test holds it.

mod admin;
mod admission;
mod answer;
mod assembly;
pub mod auth;
pub mod body;
mod budget;
pub mod call;
mod cancel;
mod claim;
pub mod config;
mod delivery;
mod diagnosis;
pub mod dialect;
pub mod dice;
pub mod dispatch;
mod entrance;
mod exchange;
pub mod flat_map;
pub mod gateway;
mod headers;
pub mod health;
mod holdings;
mod intake;
pub mod ledger;
pub mod limit;
pub mod overload;
mod passage;
mod patience;
mod places;
pub mod platform;
pub mod proxies;
mod pursuit;
mod receipt;
pub mod record;
pub mod refusal;
mod relay;
mod rescue;
mod retold;
mod retry_after;
mod round;
pub mod route;
mod search;
mod sharing;
pub mod sse;
mod tenure;
pub mod time;
pub mod timeouts;
mod trail;
#[cfg(feature = "websocket")]
mod tunnel;
#[cfg(not(feature = "websocket"))]
#[path = "no_tunnel.rs"]
mod tunnel;
pub mod upstream;
pub mod usage;
mod vigil;
mod visit;
mod watch;

pub use body::Body;
pub use config::Config;
pub use gateway::Gateway;
pub use holdings::Holdings;
pub use platform::Platform;
