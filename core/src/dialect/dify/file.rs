//! Files that come with a question in OpenAI's words. An app takes them by their addresses, or once they were uploaded to it.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::dialect::json;

/// A file.
#[derive(Clone, Debug)]
pub(super) enum File {
    /// It is where this address says.
    Remote(String),
    /// It came with the question.
    Inline(Inline),
}

/// A file that came with the question.
#[derive(Clone, Debug)]
pub(super) struct Inline {
    name: String,
    /// Its type, as MIME has it.
    mime: String,
    content: Bytes,
}

impl File {
    /// The file that a part of a message is; nothing, if it is none that can be brought to an app.
    pub(super) fn read(part: &Value) -> Option<Self> {
        let text = |path| json::at(part, path).and_then(Value::as_str);
        let inline = match text("/type")? {
            "image_url" => {
                let url = text("/image_url/url")?;
                if url.starts_with("http://") || url.starts_with("https://") {
                    return Some(Self::Remote(url.into()));
                }
                Inline::of_url(url, None)?
            }
            "file" => Inline::of_url(text("/file/file_data")?, text("/file/filename"))?,
            "input_audio" => {
                let format = text("/input_audio/format")?;
                let mime = ["audio/", format].concat();
                Inline::of_text(text("/input_audio/data")?, &mime, None)?
            }
            _ => return None,
        };
        Some(Self::Inline(inline))
    }

    /// Whether it came with the question.
    pub(super) fn is_inline(&self) -> bool {
        matches!(self, Self::Inline(_))
    }

    /// As an app is told of it; the number of an upload is still to come.
    pub(super) fn told(&self) -> Value {
        let (kind, method, url) = match self {
            Self::Remote(url) => ("image", "remote_url", Some(url)),
            Self::Inline(file) => (file.kind(), "local_file", None),
        };
        let mut told = Map::new();
        let mut say = |name: &str, text: &str| told.insert(name.into(), text.into());
        say("type", kind);
        say("transfer_method", method);
        url.map(|url| say("url", url));
        told.into()
    }
}

impl Inline {
    /// Reads `data:image/png;base64,…`.
    fn of_url(url: &str, name: Option<&str>) -> Option<Self> {
        let (mime, content) = url.strip_prefix("data:")?.split_once(";base64,")?;
        Self::of_text(content, mime, name)
    }

    fn of_text(content: &str, mime: &str, name: Option<&str>) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/+.-".contains(&byte);
        let mime = mime.split(';').next()?;
        let (_, format) = mime.split_once('/')?;
        if !mime.bytes().all(plain) {
            return None;
        }
        // By which it is known again what it is.
        let extension = match mime {
            "audio/mpeg" => "mp3",
            "text/plain" => "txt",
            _ => format.split('+').next()?,
        };
        let can_be_written = |name: &&str| name.bytes().all(|byte| byte >= b' ' && byte != b'"');
        let name = name.filter(can_be_written).map(Into::into);
        Some(Self {
            name: name.unwrap_or_else(|| ["file.", extension].concat()),
            mime: mime.into(),
            content: decoded(content)?.into(),
        })
    }

    /// Which kind of file it is to an app.
    fn kind(&self) -> &str {
        match self.mime.split('/').next() {
            Some(kind @ ("image" | "audio" | "video")) => kind,
            _ => "document",
        }
    }

    /// It as the form by which `user` uploads it, whose parts are held apart by `boundary`.
    ///
    /// Who it is comes first, and the first of several holds: a file that has the boundary in it can say nothing else of that.
    pub(super) fn form(&self, boundary: &str, user: &str) -> Bytes {
        let part = [
            "--",
            boundary,
            "\r\nContent-Disposition: form-data; name=\"",
        ]
        .concat();
        let head = [
            &part,
            "user\"\r\n\r\n",
            user,
            "\r\n",
            &part,
            "file\"; filename=\"",
            &self.name,
            "\"\r\nContent-Type: ",
            &self.mime,
            "\r\n\r\n",
        ];
        let mut form = head.concat().into_bytes();
        form.extend_from_slice(&self.content);
        form.extend_from_slice(["\r\n--", boundary, "--\r\n"].concat().as_bytes());
        form.into()
    }
}

/// What a text in base64 says (RFC 4648, 4), with its padding or without; nothing, if it is none.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            content.push((bits >> count) as u8);
        }
    }
    (count < 6).then_some(content)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn each_file_is_told_by_its_kind() {
        let url = |url: &str| json!({ "type": "image_url", "image_url": { "url": url } });
        let file = |name: Value, data: &str| json!({ "type": "file", "file": { "filename": name, "file_data": data } });
        let sound = |format: &str| json!({ "type": "input_audio", "input_audio": { "data": "AAAA", "format": format } });
        for (part, name, told) in [
            (
                url("https://h/a.png"),
                None,
                json!({ "type": "image", "transfer_method": "remote_url", "url": "https://h/a.png" }),
            ),
            (
                url("data:image/jpeg;base64,/9j/"),
                Some("file.jpeg image/jpeg"),
                json!("image"),
            ),
            (
                url("data:image/svg+xml;base64,AA=="),
                Some("file.svg image/svg+xml"),
                json!("image"),
            ),
            (
                url("data:image/png;x=y;base64,AAA="),
                Some("file.png image/png"),
                json!("image"),
            ),
            (
                file(json!("tide.pdf"), "data:application/pdf;base64,AAAA"),
                Some("tide.pdf application/pdf"),
                json!("document"),
            ),
            (
                file(json!("été.mp4"), "data:video/mp4;base64,"),
                Some("été.mp4 video/mp4"),
                json!("video"),
            ),
            (
                file(Value::Null, "data:text/csv;base64,AA"),
                Some("file.csv text/csv"),
                json!("document"),
            ),
            (
                file(Value::Null, "data:text/plain;base64,AA"),
                Some("file.txt text/plain"),
                json!("document"),
            ),
            (
                file(json!("a\"\r\nx: y"), "data:text/csv;base64,AA"),
                Some("file.csv text/csv"),
                json!("document"),
            ),
            (sound("wav"), Some("file.wav audio/wav"), json!("audio")),
        ] {
            let read = File::read(&part).unwrap();
            let (is_inline, shown) = match &read {
                File::Inline(file) => (true, Some([&*file.name, &*file.mime].join(" "))),
                File::Remote(_) => (false, None),
            };
            assert_eq!(shown.as_deref(), name, "{part}");
            let expected = match is_inline {
                true => json!({ "type": told, "transfer_method": "local_file" }),
                false => told,
            };
            assert_eq!(read.told(), expected, "{part}");
        }
        for part in [
            url("ftp://h/a.png"),
            url("data:image/png,AAAA"),
            url("data:;base64,AAAA"),
            url("data:image;base64,AAAA"),
            url("data:image/p\r\nx: y;base64,AAAA"),
            url("data:image/png;base64,A"),
            url("data:image/png;base64,AA-A"),
            file(json!("x"), "AAAA"),
            json!({ "type": "file", "file": { "file_id": "file-1" } }),
            sound("mp3\"\r\n"),
            json!({ "type": "input_audio" }),
            json!({ "image_url": { "url": "https://h/a.png" } }),
            json!("x"),
        ] {
            assert!(File::read(&part).is_none(), "{part}");
        }
    }

    #[test]
    fn it_is_uploaded_as_a_form_is() {
        let part = json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,iVBORwD/" } });
        let Some(File::Inline(file)) = File::read(&part) else {
            panic!("no file");
        };
        let form = b"--x\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nann\r\n\
            --x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"file.png\"\r\nContent-Type: image/png\r\n\r\n\
            \x89PNG\x00\xff\r\n--x--\r\n";
        assert_eq!(file.form("x", "ann"), form[..]);
    }

    proptest! {
        #[test]
        fn base64_is_read_as_anybody_reads_it(content: Vec<u8>, other in "[A-Za-z0-9+/]{0,9}={0,2}.?") {
            let written = STANDARD.encode(&content);
            prop_assert_eq!(decoded(&written), Some(content.clone()));
            prop_assert_eq!(decoded(written.trim_end_matches('=')), Some(content));
            if let Ok(read) = STANDARD.decode(&other) {
                prop_assert_eq!(decoded(&other), Some(read));
            }
        }
    }
}
