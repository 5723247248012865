use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::{LocalSet, spawn_local},
    time::{Instant, sleep, timeout},
};

use super::*;

/// How long a connection may take that comes about at once.
const SOON: Duration = Duration::from_secs(5);

const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test(flavor = "current_thread")]
async fn a_connection_is_used_again_once_its_answer_was_read() {
    LocalSet::new()
        .run_until(async {
            let upstream = Scripted::start(vec![vec![
                FINE,
                "HTTP/1.1 204 No Content\r\n\r\n",
                CHUNKED,
                FINE,
                HOLD,
            ]])
            .await;
            let ours = ours();
            for expected in ["ok", "", "hello", "ok"] {
                assert_eq!(ours.text(&upstream).await, expected);
                assert_eq!(ours.pool.idle(), 1, "after {expected:?}");
            }
            assert_eq!(upstream.connections.get(), 1);
        })
        .await;
}

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";

#[tokio::test(flavor = "current_thread")]
async fn a_pooled_connection_that_was_closed_is_replaced_unnoticed() {
    LocalSet::new()
        .run_until(async {
            let upstream = Scripted::start(vec![vec![FINE], vec![FINE]]).await;
            let ours = ours();
            assert_eq!(ours.text(&upstream).await, "ok");
            // The upstream closes it now, and this thread has not looked at it yet when the next request comes.
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(ours.text(&upstream).await, "ok");
            assert_eq!(upstream.connections.get(), 2);
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_connection_lies_idle_for_less_than_its_upstream_keeps_it() {
    LocalSet::new()
        .run_until(async {
            for (said, idle) in [("timeout=1, max=9", 0), ("max=9, timeout=5", 1)] {
                let answer = format!("HTTP/1.1 204 No Content\r\nkeep-alive: {said}\r\n\r\n");
                let upstream = Scripted::start(vec![vec![&answer, HOLD]]).await;
                let ours = ours();
                ours.text(&upstream).await;
                assert_eq!(ours.pool.idle(), idle, "{said}");
            }
            let upstream = Scripted::start(vec![vec![FINE, HOLD], vec![FINE]]).await;
            let ours = ours();
            assert_eq!(ours.text(&upstream).await, "ok");
            tokio::time::pause();
            tokio::time::advance(Duration::from_millis(1600)).await;
            tokio::time::resume();
            // The first connection is still open, and says no more.
            assert_eq!(ours.text(&upstream).await, "ok");
            assert_eq!(upstream.connections.get(), 2);
        })
        .await;
}

#[test]
fn how_long_a_connection_may_lie_idle() {
    for (said, milliseconds) in [
        (None, 1500),
        (Some("timeout=5"), 4000),
        (Some("max=100, Timeout = 15"), 14_000),
        (Some("timeout=0"), 0),
        (Some("timeout=86400"), 60_000),
        (Some("timeout=soon"), 1500),
    ] {
        let mut headers = http::HeaderMap::new();
        headers.extend(said.map(|said| {
            (
                http::header::HeaderName::from_static("keep-alive"),
                HeaderValue::from_static(said),
            )
        }));
        assert_eq!(
            pool::idle_time(&headers),
            Duration::from_millis(milliseconds),
            "{said:?}"
        );
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_answer_that_is_not_read_closes_its_connection_at_once() {
    LocalSet::new()
        .run_until(async {
            let silent = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbeg";
            let upstream = Scripted::start(vec![vec![silent, HOLD], vec![FINE]]).await;
            let ours = ours();
            let mut response = ours.ask(&upstream).await.unwrap();
            assert_eq!(piece(response.body_mut()).await.unwrap(), "beg");
            drop(response);
            upstream.seen_closing().await;
            assert_eq!(ours.pool.idle(), 0);
            assert_eq!(ours.text(&upstream).await, "ok");
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_request_that_is_given_up_closes_its_connection_at_once() {
    LocalSet::new()
        .run_until(async {
            let upstream = Scripted::start(vec![vec![HOLD]]).await;
            let ours = ours();
            assert!(
                timeout(Duration::from_millis(50), ours.ask(&upstream))
                    .await
                    .is_err()
            );
            upstream.seen_closing().await;
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_comes_before_a_head_is_broken_or_no_connection() {
    LocalSet::new()
        .run_until(async {
            let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(500));
            let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(1 << 20));
            for head in [
                "",
                "HTTP/1.1 200 OK\r\nhalf",
                "<html>",
                TWO_LENGTHS,
                &many,
                &long,
                "HTTP/1.1 200 OK\r\na\0: b\r\n\r\n",
            ] {
                let upstream = Scripted::start(vec![vec![head]]).await;
                let failure = ours().ask(&upstream).await.err().unwrap();
                assert_eq!(failure.reason, FailureReason::Broken, "{failure:?}");
                assert!(
                    failure.detail.len() <= 200 && !failure.detail.is_empty(),
                    "{failure:?}"
                );
            }
            let closed = TcpListener::bind("127.0.0.1:0")
                .await
                .unwrap()
                .local_addr()
                .unwrap();
            for uri in [format!("http://{closed}/"), "/no/host".into()] {
                let failure = ours().upstream.send(get(&uri), SOON).await.err().unwrap();
                assert_eq!(failure.reason, FailureReason::Connect, "{failure:?}");
            }
            let upstream = Scripted::start(vec![vec!["this is not TLS\r\n\r\n", HOLD]]).await;
            let failure = ours()
                .upstream
                .send(get(&format!("https://{}/", upstream.address)), SOON)
                .await
                .err()
                .unwrap();
            assert_eq!(failure.reason, FailureReason::Connect, "{failure:?}");
            assert!(failure.detail.starts_with("tls: "), "{failure:?}");
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_connection_takes_no_longer_than_it_may() {
    LocalSet::new()
        .run_until(async {
            // As many wait to be let in as can wait: whoever comes after them is not answered.
            let full = TcpSocket::new_v4().unwrap();
            full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let full = full.listen(0).unwrap();
            let address = full.local_addr().unwrap();
            let _waiting = TcpStream::connect(address).await.unwrap();
            // This one takes the connection and never says a word of TLS.
            let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let uri = format!("https://{}/", mute.local_addr().unwrap());
            for uri in [format!("http://{address}/"), uri] {
                for may in [50, 300].map(Duration::from_millis) {
                    let began = Instant::now();
                    let failure = ours().upstream.send(get(&uri), may).await.err().unwrap();
                    let took = began.elapsed();
                    assert_eq!(failure.reason, FailureReason::Connect, "{failure:?}");
                    assert!((may..may + SOON).contains(&took), "{uri}: {took:?}");
                }
            }
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_connection_that_is_there_takes_no_time() {
    LocalSet::new()
        .run_until(async {
            let upstream = Scripted::start(vec![vec![FINE, FINE]]).await;
            let ours = ours();
            assert_eq!(ours.text(&upstream).await, "ok");
            let again = get(&format!("http://{}/", upstream.address));
            ours.upstream.send(again, Duration::ZERO).await.unwrap();
            assert_eq!(upstream.connections.get(), 1);
        })
        .await;
}

const TWO_LENGTHS: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nokk";

#[tokio::test(flavor = "current_thread")]
async fn a_body_that_breaks_off_is_an_error_and_never_an_end() {
    LocalSet::new()
        .run_until(async {
            for head in [
                "content-length: 9\r\n\r\nbeg",
                "transfer-encoding: chunked\r\n\r\n3\r\nbeg\r\n",
            ] {
                let upstream =
                    Scripted::start(vec![vec![&format!("HTTP/1.1 200 OK\r\n{head}")]]).await;
                let ours = ours();
                let mut response = ours.ask(&upstream).await.unwrap();
                assert_eq!(piece(response.body_mut()).await.unwrap(), "beg");
                assert!(piece(response.body_mut()).await.is_err());
                assert_eq!(ours.pool.idle(), 0);
            }
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_request_is_in_origin_form_with_a_host() {
    LocalSet::new()
        .run_until(async {
            for said in [None, Some("dify.example.com")] {
                let upstream = Scripted::start(vec![vec![FINE]]).await;
                let mut request = get(&format!("http://{}/a/b?c=d", upstream.address));
                *request.version_mut() = Version::HTTP_10;
                if let Some(said) = said {
                    let host = HeaderValue::from_static(said);
                    request.headers_mut().insert(HOST, host);
                }
                ours().upstream.send(request, SOON).await.unwrap();
                let asked = upstream.asked.borrow().clone();
                let address = upstream.address.to_string();
                let host = said.unwrap_or(&address);
                assert_eq!(
                    asked,
                    format!("GET /a/b?c=d HTTP/1.1\r\nhost: {host}\r\n\r\n")
                );
            }
        })
        .await;
}

/// In a script: nothing more is said, and the connection stays open.
const HOLD: &str = "HOLD";

/// An upstream that plays one script a connection, one line a request, and closes it after the last.
struct Scripted {
    address: SocketAddr,
    connections: Rc<Cell<usize>>,
    closing: Rc<Cell<bool>>,
    asked: Rc<RefCell<String>>,
}

impl Scripted {
    async fn start(scripts: Vec<Vec<&str>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            connections: Rc::default(),
            closing: Rc::default(),
            asked: Rc::default(),
        };
        let (connections, closing, asked) = (
            Rc::clone(&this.connections),
            Rc::clone(&this.closing),
            Rc::clone(&this.asked),
        );
        let scripts: Vec<Vec<String>> = scripts
            .into_iter()
            .map(|script| script.into_iter().map(str::to_owned).collect())
            .collect();
        spawn_local(async move {
            for script in scripts {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.set(connections.get() + 1);
                for line in script {
                    if line != HOLD {
                        let head = read_head(&mut stream).await;
                        *asked.borrow_mut() = head;
                        stream.write_all(line.as_bytes()).await.unwrap();
                        continue;
                    }
                    while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
                    closing.set(true);
                }
            }
        });
        this
    }

    async fn seen_closing(&self) {
        for _ in 0..100 {
            if self.closing.get() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("the connection is still open");
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    // 22 is how TLS begins, which never comes to an empty line.
    while !head.ends_with(b"\r\n\r\n") && head.first() != Some(&22) {
        let Ok(byte) = stream.read_u8().await else {
            break;
        };
        head.push(byte);
    }
    String::from_utf8_lossy(&head).into_owned()
}

struct Ours {
    pool: Rc<Pool>,
    upstream: HyperUpstream,
}

/// How many thousand hints: more than lie between two ends of a connection and are read in a moment, and not as many as are read
/// before a thread looks at its timers where nobody says when.
const HINTS: usize = 1200;

/// Others are timers too: nobody's time would ever be over.
#[tokio::test(flavor = "current_thread")]
async fn hints_without_end_take_no_turn_from_others() {
    // Of a process of its own as it were: what it does must take nothing from those who wait here.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let flood = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(1000);
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        (0..HINTS)
            .take_while(|_| stream.write_all(hints.as_bytes()).is_ok())
            .count()
    });
    LocalSet::new()
        .run_until(async {
            let ours = ours();
            let asked = ours.upstream.send(get(&format!("http://{address}/")), SOON);
            let answer = timeout(Duration::from_millis(300), asked).await;
            assert!(answer.is_err(), "its time was not over");
        })
        .await;
    let taken = flood.join().unwrap();
    assert!(taken < HINTS, "all {taken} were read before a timer was");
}

fn ours() -> Ours {
    let pool = Rc::new(Pool::default());
    Ours {
        upstream: HyperUpstream::new(Rc::clone(&pool)),
        pool,
    }
}

impl Ours {
    async fn ask(&self, upstream: &Scripted) -> Result<Response<Body>, Failure> {
        self.upstream
            .send(get(&format!("http://{}/", upstream.address)), SOON)
            .await
    }

    async fn text(&self, upstream: &Scripted) -> Bytes {
        self.ask(upstream)
            .await
            .unwrap()
            .into_body()
            .read(1 << 20)
            .await
            .unwrap()
    }
}

fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).unwrap()
}

async fn piece(body: &mut Body) -> Result<Bytes, tidegate_core::body::BoxError> {
    let frame =
        std::future::poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut *body), cx))
            .await;
    frame
        .expect("a piece")
        .map(|frame| frame.into_data().unwrap())
}
