//! `tidegate-fakes` within a test.

use std::{
    net::{SocketAddr, TcpListener},
    thread,
};

/// Starts one on a thread of its own, until the process ends.
pub(crate) fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            tidegate_fakes::serve(listener).await.unwrap();
        });
    });
    address
}
