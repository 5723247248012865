//! Listening sockets: one a thread on the same port, so that the kernel spreads connections and no thread waits for another.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
};

use socket2::{Domain, Protocol, Socket, Type};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens on `address` with `count` sockets; gives the address that it became.
pub(crate) fn listen(address: &str, count: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let mut problem = io::Error::new(io::ErrorKind::InvalidInput, "this is no address");
    for address in address.to_socket_addrs()? {
        match listen_at(address, count) {
            Ok(listening) => return Ok(listening),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

fn listen_at(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // Sockets of one user may share a port, those of another gateway too. One that does not share finds that out.
    let first = bind(address, false)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    drop(first);
    let listeners = (0..count)
        .map(|_| {
            let socket = bind(address, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect::<io::Result<_>>()?;
    Ok((address, listeners))
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_listens_on_the_port_that_the_first_got() {
        let (address, listeners) = listen("127.0.0.1:0", 3).unwrap();
        assert_ne!(address.port(), 0);
        assert!(
            listeners
                .iter()
                .all(|listener| listener.local_addr().unwrap() == address)
        );
    }

    #[test]
    fn a_port_that_is_taken_is_not_shared() {
        let (address, _listeners) = listen("127.0.0.1:0", 2).unwrap();
        let error = listen(&address.to_string(), 2).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
