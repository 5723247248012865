//! The fakes as a program of their own: `tidegate-fakes [--listen 127.0.0.1:0] [--until-stdin-closes]`.

use std::process::ExitCode;

use tokio::{io::AsyncReadExt, net::TcpListener};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut listen = "127.0.0.1:0".to_owned();
    let mut until_stdin_closes = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), argument.as_str() == "--listen") {
            (_, true) => listen = arguments.next().unwrap_or_default(),
            ("--until-stdin-closes", _) => until_stdin_closes = true,
            _ => {
                eprintln!("usage: tidegate-fakes [--listen ADDRESS:PORT] [--until-stdin-closes]");
                return ExitCode::from(2);
            }
        }
    }
    let address = TcpListener::bind(&listen)
        .await
        .and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = match address {
        Ok(bound) => bound,
        Err(problem) => {
            eprintln!("cannot listen on {listen}: {problem}");
            return ExitCode::from(3);
        }
    };
    eprintln!("listening on http://{address}");
    let served = tokio::select! {
        served = tidegate_fakes::serve(listener) => served,
        () = stdin_closes(), if until_stdin_closes => Ok(()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn stdin_closes() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}
