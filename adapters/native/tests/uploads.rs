//! Uploads go through as they come: a large one takes no more memory than a small one.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on is over"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::tempdir;

/// The largest upload that is let in.
const LARGEST: usize = 100_000_000;

/// How much memory it may take, in kilobytes.
const MEMORY: u64 = 8 << 10;

const WAIT: Duration = Duration::from_secs(60);

#[test]
fn an_upload_of_any_size_is_not_kept() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), upstream());
    // The first ones make what stays, in each thread that may take them.
    for framing in [Framing::Length, Framing::Chunks].repeat(5) {
        assert_eq!(gateway.upload(1_000_000, framing), 1_000_000);
    }
    let before = gateway.memory("VmRSS:");
    for framing in [Framing::Length, Framing::Chunks] {
        assert_eq!(gateway.upload(LARGEST, framing), LARGEST);
        let most = gateway.memory("VmHWM:");
        assert!(most <= before + MEMORY, "{before} kB became {most} kB");
    }
    assert_eq!(gateway.upload(LARGEST + 1, Framing::Length), 413);
    assert_eq!(gateway.upload(LARGEST + 1, Framing::Chunks), 413);
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Framing {
    Length,
    Chunks,
}

/// An upstream that takes its time at first, as one does that writes to a disk, and says how long the body was.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the test.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || {
                let mut reader = BufReader::with_capacity(64 << 10, stream.try_clone().unwrap());
                let mut length = None;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if line == "\r\n" {
                        break;
                    }
                    let line = line.to_lowercase();
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = Some(value.trim().parse::<usize>().unwrap());
                    }
                }
                thread::sleep(Duration::from_millis(500));
                let taken = match length {
                    Some(length) => drain(&mut reader, length),
                    None => chunks(&mut reader),
                };
                // One that breaks off gets no answer.
                if let Some(taken) = taken {
                    answer(&stream, taken);
                }
            });
        }
    });
    address
}

fn answer(mut stream: &TcpStream, taken: usize) {
    let taken = taken.to_string();
    let head = "HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-type: application/json";
    let said = write!(
        stream,
        "{head}\r\ncontent-length: {}\r\n\r\n{taken}",
        taken.len()
    );
    said.unwrap();
}

fn chunks(reader: &mut impl BufRead) -> Option<usize> {
    let mut taken = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.trim(), 16).ok()?;
        taken += drain(reader, length)?;
        drain(reader, 2)?;
        if length == 0 {
            return Some(taken);
        }
    }
}

fn drain(reader: &mut impl Read, length: usize) -> Option<usize> {
    let mut left = length;
    let mut piece = vec![0; 64 << 10];
    while left > 0 {
        let most = left.min(piece.len());
        reader.read_exact(&mut piece[..most]).ok()?;
        left -= most;
    }
    Some(length)
}

struct Gateway {
    process: Child,
    address: SocketAddr,
}

impl Gateway {
    fn start(dir: &Path, upstream: SocketAddr) -> Self {
        let file = dir.join("tidegate.toml");
        let text = format!(
            "[gateway]\ndata_dir = \"data\"\n\n[dify.main]\napi = \"http://{upstream}\"\n\n[[routes]]\nname = \"dify\"\npath = \"/\"\n\
             serve = \"dify.main\"\naccess = \"public\"\nlimits = [{{ concurrent = 5 }}]\n"
        );
        fs::write(&file, text).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--listen", "127.0.0.1:0", "--until-stdin-closes"])
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        Self {
            address: address.expect(&line).parse().unwrap(),
            process,
        }
    }

    /// What is said to a file of `size` bytes: how many came, or the status if it is no success.
    fn upload(&self, size: usize, framing: Framing) -> usize {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let length = match framing {
            Framing::Length => format!("content-length: {size}"),
            Framing::Chunks => "transfer-encoding: chunked".into(),
        };
        // Beside the reading: whoever is refused hears it while still talking.
        let writing = thread::spawn(move || -> std::io::Result<()> {
            let content = "content-type: multipart/form-data; boundary=b";
            let path = "/console/api/files/upload";
            write!(
                writer,
                "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{content}\r\n{length}\r\n\r\n"
            )?;
            let piece = vec![7; 100_000];
            let mut left = size;
            while left > 0 {
                let piece = &piece[..left.min(piece.len())];
                left -= piece.len();
                if framing == Framing::Chunks {
                    write!(writer, "{:x}\r\n", piece.len())?;
                }
                writer.write_all(piece)?;
                if framing == Framing::Chunks {
                    writer.write_all(b"\r\n")?;
                }
            }
            if framing == Framing::Chunks {
                writer.write_all(b"0\r\n\r\n")?;
            }
            Ok(())
        });
        let mut answer = Vec::new();
        // Whoever is refused may be cut off behind the answer.
        let _ = (&stream).read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let _ = writing.join().unwrap();
        let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok());
        let body = answer.rsplit("\r\n\r\n").next().unwrap();
        match status {
            Some(201) => body.parse().expect(&answer),
            status => status.expect(&answer),
        }
    }

    /// What the kernel says of its memory, in kilobytes.
    fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
