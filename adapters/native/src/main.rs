//! The `tidegate` binary: the gateway on hyper and tokio, and what an operator does with a configuration.
//!
//! Every processor core has a thread with a runtime, a listening socket and connections of its own ([`server`]); the core's
//! [`Gateway`](tidegate_core::Gateway) runs on it as it does in an isolate at the edge. What threads share is the
//! [`ledger`], the [`journal`] and the configuration's text ([`source`]), and nothing else: what has been learnt of upstreams (who
//! fails, which key rests) is each thread's own.
//!
//! Callers are not waited for as long as they like: for the head of a request ([`server`]), its body ([`body`]), and until they take what
//! there is for them ([`patient`]). What they send that is read whole shares a [`room`].

#![cfg_attr(
    not(test),
    deny(
        clippy::print_stdout,
        clippy::print_stderr,
        reason = "they panic once nobody reads; `say` does not"
    )
)]

mod arguments;
mod body;
mod check;
mod clock;
mod control;
mod demo;
mod document;
mod failed;
mod journal;
mod ledger;
mod listen;
mod patient;
mod room;
mod say;
mod serve;
mod server;
mod source;
mod tasks;
mod tls;
mod tunnel;
mod upstream;

use std::process::ExitCode;

use arguments::Command;
use clap::Parser;

/// It keeps what the bodies of requests leave behind, where the machine's own gives it back to the system and asks anew: a
/// third of the time of a long prompt.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match arguments::Arguments::parse().command {
        Command::Serve(arguments) => serve::serve(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Compile(arguments) => check::compile(&arguments),
        Command::Demo(arguments) => demo::demo(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            say::say(&failed);
            failed.code()
        }
    }
}
