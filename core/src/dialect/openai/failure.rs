//! An error in the middle of a stream, as readers of streams know it.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::event::{Event, is_nothing};
use crate::{dialect::json, sse};

/// The error that `event` is, where its reader looks for one: `{"error": …}`, or an event of the Responses API. Clients take whatever
/// else providers say for a piece of an answer, and its end for the answer's; of a stream of choices, some of them an error too that
/// has choices beside it. Nothing, if it says no more than that it has failed.
pub(super) fn failure(event: &Bytes, in_choices: bool) -> Option<Bytes> {
    let data = sse::data(event)?;
    let Ok(read) = json::read::<Event<'_>>(&data) else {
        // It makes no sense, but an error was found in it.
        return Some(event.clone());
    };
    let says = |error: &&RawValue| !is_nothing(error);
    let error = read.error.filter(says);
    let stands = match in_choices {
        true => error.is_some() && read.choices.is_none(),
        false => error.is_some() || read.name().is_some(),
    };
    if stands {
        return Some(event.clone());
    }
    let mut choices = read.choices.iter().flatten();
    let of_choice = choices.find_map(|choice| choice.error);
    let error = match error.or(of_choice.filter(says)) {
        Some(error) => Cow::Borrowed(error.get().as_bytes()),
        None if read.has_choices() => return None,
        None => data.clone(),
    };
    Some(sse::event(&[br#"{"error":"#, &*error, b"}"].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_stands_where_its_reader_looks_for_it() {
        let known = [
            "data: {\"error\":{\"message\":\"boom\"}}\n\n",
            "data: {\"error\":\"boom\"}\n\n",
            "data: {\"choices\":\"none\",\"error\":{\"message\":\"boom\"}}\n\n",
            "event: error\ndata: {\"type\":\"error\",\"message\":\"boom\"}\n\n",
            "data: {\"type\":\"response.failed\",\"response\":{}}\n\n",
        ];
        for event in known {
            let event = Bytes::from(event);
            assert_eq!(failure(&event, false), Some(event));
        }
        let table = [
            (
                "data: {\"object\":\"error\",\"message\":\"boom\",\"code\":500}\n\n",
                Some(
                    "data: {\"error\":{\"object\":\"error\",\"message\":\"boom\",\"code\":500}}\n\n",
                ),
            ),
            (
                "event: error\ndata: {\"message\":\"boom\"}\n\n",
                Some("data: {\"error\":{\"message\":\"boom\"}}\n\n"),
            ),
            (
                "data: {\"choices\":[{\"error\":{\"message\":\"boom\"},\"delta\":{}}]}\n\n",
                Some("data: {\"error\":{\"message\":\"boom\"}}\n\n"),
            ),
            (
                "data: {\"choices\":[{\"finish_reason\":\"error\"}]}\n\n",
                None,
            ),
        ];
        for (event, expected) in table {
            assert_eq!(
                failure(&event.into(), false),
                expected.map(Bytes::from),
                "{event}"
            );
        }
    }
}
