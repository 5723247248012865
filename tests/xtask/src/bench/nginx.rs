//! Debian's nginx, as the upstream that is never the bottleneck, and as the proxy that Tidegate is held against.

use std::net::SocketAddr;

use super::{
    Scratch,
    case::{Upstream, answer},
    process::{Server, free_address},
    upstream::Upstreams,
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

/// A proxy with two workers, which listens at an address for each upstream.
pub(super) struct Proxy {
    /// Its processes.
    pub(super) server: Server,
    addresses: [SocketAddr; 3],
}

impl Proxy {
    /// Starts it before `upstreams`.
    pub(super) fn start(scratch: &Scratch, upstreams: &Upstreams) -> Result<Self, String> {
        let addresses = [free_address()?, free_address()?, free_address()?];
        let mut servers = "proxy_http_version 1.1; proxy_set_header Connection '';".to_owned();
        for (upstream, address) in KINDS.into_iter().zip(addresses) {
            let buffering = if upstream == Upstream::Streamer {
                "off"
            } else {
                "on"
            };
            servers += &format!(
                "upstream {upstream:?} {{ server {}; keepalive 64; keepalive_requests 100000000; }}
                server {{
                    listen {address};
                    location / {{ proxy_pass http://{upstream:?}; proxy_buffering {buffering}; }}
                }}",
                upstreams.address(upstream)
            );
        }
        let server = start(scratch, "proxy", 2, &servers, addresses[0])?;
        Ok(Self { server, addresses })
    }

    /// Where it leads to `upstream`.
    pub(super) const fn address(&self, upstream: Upstream) -> SocketAddr {
        let [quick, reader, streamer] = self.addresses;
        match upstream {
            Upstream::Quick => quick,
            Upstream::Reader => reader,
            Upstream::Streamer => streamer,
        }
    }
}

const KINDS: [Upstream; 3] = [Upstream::Quick, Upstream::Reader, Upstream::Streamer];

/// Starts one that has these `servers`, of which one listens at `address`.
pub(super) fn start(
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
