//! HTTP/1.1 as bytes, forgiving nothing and hiding nothing.

use std::{
    io::{self, BufRead, Read},
    time::{Duration, Instant},
};

/// The head of a message.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The method and target of a request; nothing and nothing for an answer.
    pub method: String,
    /// The target of a request.
    pub target: String,
    /// The status of an answer.
    pub status: u16,
    /// The headers, as they came.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header, if it is there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// The first value of the header `name`.
pub fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers
        .iter()
        .find(|(is, _)| is.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// A body as it came.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The lines that came behind its last chunk.
    pub trailers: Vec<String>,
    /// When the first of them was there.
    pub first: Option<Duration>,
    /// When the end was there.
    pub end: Duration,
    /// Whether it broke off.
    pub broken: bool,
}

/// Reads the head of a request; nothing if the peer has left.
pub fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let Some(bytes) = read_head(reader)? else {
        return Ok(None);
    };
    let mut space = vec![httparse::EMPTY_HEADER; 2000];
    let mut request = httparse::Request::new(&mut space);
    request.parse(&bytes).map_err(io::Error::other)?;
    Ok(Some(Head {
        method: request.method.unwrap_or_default().into(),
        target: request.path.unwrap_or_default().into(),
        status: 0,
        headers: owned(request.headers),
    }))
}

/// Reads the head of an answer; nothing if the peer has left.
pub fn read_answer(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    loop {
        let Some(bytes) = read_head(reader)? else {
            return Ok(None);
        };
        let mut space = vec![httparse::EMPTY_HEADER; 2000];
        let mut answer = httparse::Response::new(&mut space);
        answer.parse(&bytes).map_err(io::Error::other)?;
        let status = answer.code.unwrap_or_default();
        if status != 100 {
            return Ok(Some(Head {
                status,
                headers: owned(answer.headers),
                ..Head::default()
            }));
        }
    }
}

/// Reads the body that follows `head`. `asked_with` is the method of the request that an answer is for.
pub fn read_body(
    reader: &mut impl BufRead,
    head: &Head,
    asked_with: Option<&str>,
    start: Instant,
    mut on_piece: impl FnMut() -> bool,
) -> Content {
    let mut content = Content::default();
    let bodiless =
        asked_with.is_some_and(|method| method == "HEAD" || matches!(head.status, 204 | 304));
    let chunked = head
        .header("transfer-encoding")
        .is_some_and(|coding| coding.to_ascii_lowercase().contains("chunked"));
    let length = head
        .header("content-length")
        .map(|length| length.parse::<u64>());
    let result = if bodiless {
        Ok(())
    } else if chunked {
        read_chunks(reader, &mut content, start, &mut on_piece)
    } else if let Some(length) = length {
        match length {
            Ok(length) => read_exactly(reader, length, &mut content, start, &mut on_piece),
            Err(_) => Err(io::Error::other("a content-length that is no number")),
        }
    } else if asked_with.is_some() {
        read_to_end(reader, &mut content, start, &mut on_piece)
    } else {
        Ok(())
    };
    content.broken = result.is_err();
    content.end = start.elapsed();
    content
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        reader
            .by_ref()
            .take(4_000_000)
            .read_until(b'\n', &mut bytes)?;
        match &bytes[before..] {
            [] if bytes.is_empty() => return Ok(None),
            [] => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "half a head")),
            b"\r\n" | b"\n" => return Ok(Some(bytes)),
            _ => {}
        }
    }
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|header| {
            (
                header.name.to_ascii_lowercase(),
                String::from_utf8_lossy(header.value).into_owned(),
            )
        })
        .collect()
}

fn read_chunks(
    reader: &mut impl BufRead,
    content: &mut Content,
    start: Instant,
    on_piece: &mut impl FnMut() -> bool,
) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.by_ref().take(1000).read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
        if size == 0 {
            return read_trailers(reader, content);
        }
        read_exactly(reader, size, content, start, on_piece)?;
        let mut end = String::new();
        reader.by_ref().take(1000).read_line(&mut end)?;
        if end != "\r\n" {
            return Err(io::Error::other("a chunk without its end"));
        }
    }
}

fn read_trailers(reader: &mut impl BufRead, content: &mut Content) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.by_ref().take(1000).read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some("") => return Ok(()),
            Some(trailer) if trailer.contains(':') => content.trailers.push(trailer.into()),
            _ => return Err(io::Error::other("a last chunk without its end")),
        }
    }
}

fn read_exactly(
    reader: &mut impl BufRead,
    mut left: u64,
    content: &mut Content,
    start: Instant,
    on_piece: &mut impl FnMut() -> bool,
) -> io::Result<()> {
    while left > 0 {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        content.bytes.extend_from_slice(&piece[..size]);
        reader.consume(size);
        left -= size as u64;
        take_piece(content, start, on_piece)?;
    }
    Ok(())
}

fn read_to_end(
    reader: &mut impl BufRead,
    content: &mut Content,
    start: Instant,
    on_piece: &mut impl FnMut() -> bool,
) -> io::Result<()> {
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            return Ok(());
        }
        let size = piece.len();
        content.bytes.extend_from_slice(piece);
        reader.consume(size);
        take_piece(content, start, on_piece)?;
    }
}

fn take_piece(
    content: &mut Content,
    start: Instant,
    on_piece: &mut impl FnMut() -> bool,
) -> io::Result<()> {
    content.first.get_or_insert_with(|| start.elapsed());
    if on_piece() {
        Ok(())
    } else {
        Err(io::Error::other("the caller leaves"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &str) -> (u16, Vec<u8>, bool) {
        let mut reader = bytes.as_bytes();
        let head = read_answer(&mut reader).unwrap().unwrap();
        let content = read_body(&mut reader, &head, Some("GET"), Instant::now(), || true);
        (head.status, content.bytes, content.broken)
    }

    #[test]
    fn a_body_that_is_cut_is_known_from_a_whole_one() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        assert_eq!(
            read(&format!("{chunked}0\r\n\r\n")),
            (200, b"abc".to_vec(), false)
        );
        assert_eq!(read(chunked), (200, b"abc".to_vec(), true));
        for (end, broken) in [
            ("0\r\na: b\r\n\r\n", false),
            ("0\r\na: b\r\n", true),
            ("0\r\nab\r\n\r\n", true),
            ("0\r\n", true),
        ] {
            let (.., is_broken) = read(&format!("{chunked}{end}"));
            assert_eq!(is_broken, broken, "{end:?}");
        }
        let length = "HTTP/1.1 404 x\r\nContent-Length: 4\r\n\r\nabc";
        assert_eq!(read(&format!("{length}d")), (404, b"abcd".to_vec(), false));
        assert_eq!(read(length), (404, b"abc".to_vec(), true));
        assert_eq!(
            read("HTTP/1.1 200 x\r\n\r\nabc"),
            (200, b"abc".to_vec(), false)
        );
    }

    #[test]
    fn half_a_head_is_no_answer() {
        assert!(read_answer(&mut "HTTP/1.1 200 OK\r\nConte".as_bytes()).is_err());
        assert!(read_answer(&mut "".as_bytes()).unwrap().is_none());
    }
}
