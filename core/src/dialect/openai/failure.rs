//! An error in the middle of a stream, as readers of streams know it.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::event::{Event, is_nothing};
use crate::{dialect::json, sse};

/// The error that `event` is, where its reader looks for one: `{"error": …}`, or an event of the Responses API. Clients take whatever
/// else providers say for a piece of an answer, and its end for the answer's. Nothing, if it says no more than that it has failed.
pub(crate) fn failure(event: &Bytes) -> Option<Bytes> {
    let data = sse::data(event)?;
    let Ok(read) = json::read::<Event<'_>>(&data) else {
        // It makes no sense, but an error was found in it.
        return Some(event.clone());
    };
    let says = |error: &Option<&RawValue>| error.is_some_and(|error| !is_nothing(error));
    if read.name().is_some() || says(&read.error) {
        return Some(event.clone());
    }
    let of_choice = read
        .choices
        .iter()
        .flatten()
        .find_map(|choice| choice.error);
    let error = match of_choice.filter(|error| !is_nothing(error)) {
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
            assert_eq!(failure(&event), Some(event));
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
            assert_eq!(failure(&event.into()), expected.map(Bytes::from), "{event}");
        }
    }
}
