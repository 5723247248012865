//! Debian's nginx, as the upstream that is never the bottleneck, and as the proxy that Tidegate is held against.

use std::net::SocketAddr;

use super::{
    Scratch,
    case::answer,
    process::{Server, free_address},
};
use crate::command::run;

/// Starts an upstream that answers every request with the same small completion.
pub(super) fn upstream(scratch: &Scratch) -> Result<Server, String> {
    let address = free_address()?;
    let servers = format!(
        "server {{
            listen {address};
            location / {{ default_type application/json; return 200 '{}'; }}
        }}",
        answer()
    );
    start(scratch, "upstream", 1, &servers, address)
}

/// Starts a proxy with two workers: the first address leads to `small`, the second to `stream`.
pub(super) fn proxy(
    scratch: &Scratch,
    small: SocketAddr,
    stream: SocketAddr,
) -> Result<(Server, SocketAddr), String> {
    let (to_small, to_stream) = (free_address()?, free_address()?);
    let servers = format!(
        "upstream small {{ server {small}; keepalive 64; keepalive_requests 100000000; }}
        upstream stream {{ server {stream}; keepalive 64; keepalive_requests 100000000; }}
        proxy_http_version 1.1;
        proxy_set_header Connection '';
        server {{ listen {to_small}; location / {{ proxy_pass http://small; }} }}
        server {{ listen {to_stream}; location / {{ proxy_pass http://stream; proxy_buffering off; }} }}"
    );
    Ok((start(scratch, "proxy", 2, &servers, to_small)?, to_stream))
}

fn start(
    scratch: &Scratch,
    name: &str,
    workers: usize,
    servers: &str,
    address: SocketAddr,
) -> Result<Server, String> {
    let directory = scratch.0.join(name);
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let home = directory.display();
    // Bodies stay in memory, and nothing is logged: nginx at its best.
    let config = scratch.write(
        &format!("{name}.conf"),
        &format!(
            "daemon off;
    worker_processes {workers};
    pid {home}/pid;
    error_log stderr error;
    events {{ worker_connections 1024; }}
    http {{
        access_log off;
        client_max_body_size 100m;
        client_body_buffer_size 1m;
        keepalive_requests 100000000;
        client_body_temp_path {home}/body;
        proxy_temp_path {home}/proxy;
        fastcgi_temp_path {home}/fastcgi;
        uwsgi_temp_path {home}/uwsgi;
        scgi_temp_path {home}/scgi;
        {servers}
    }}
    "
        ),
    )?;
    // Only by the path of the system administrator on some systems.
    let command = run("sh")
        .arg("-c")
        .arg("PATH=$PATH:/usr/sbin exec nginx -p \"$0\" -e stderr -c \"$1\"");
    Server::at(address, command.arg(&directory).arg(config).into_command())
}
