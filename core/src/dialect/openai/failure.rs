//! An error in the middle of a stream, as readers of streams know it.

use std::borrow::Cow;

use bytes::Bytes;

use super::event::{Event, is_nothing};
use crate::{
    dialect::{fields::Fields, json},
    sse,
};

/// The error that `event` is, where its reader looks for one: `{"error": …}`, or an event of the Responses API. Clients take whatever
/// else providers say for a piece of an answer, and its end for the answer's; of a stream of choices, some of them an error too that
/// has choices beside it. Nothing, if it says no more than that it has failed.
pub(super) fn failure(event: &Bytes, in_choices: bool) -> Option<Bytes> {
    let data = sse::data(event)?;
    let says = |error: &&str| !is_nothing(error);
    let fields = Fields::read(&data).unwrap_or_default();
    let mut error = fields.get("error").filter(says);
    // What makes no sense is not known by more than that.
    let read: Option<Event<'_>> = json::read(&data).ok();
    let stands = match &read {
        _ if in_choices => error.is_some() && fields.get("choices").is_none(),
        Some(read) => error.is_some() || read.name().is_some(),
        None => true,
    };
    if stands {
        return Some(event.clone());
    }
    let choices = read.and_then(|read| read.choices).unwrap_or_default();
    let mut errors = choices.iter().filter_map(|choice| choice.error);
    error = error.or_else(|| errors.find_map(|error| Some(error.get()).filter(says)));
    let error = match error {
        Some(error) => Cow::Borrowed(error.as_bytes()),
        None if !choices.is_empty() => return None,
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
                "data: {\"choices\":[{\"error\":null},{\"error\":\"boom\"}]}\n\n",
                Some("data: {\"error\":\"boom\"}\n\n"),
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
        // Of choices, readers look for no error beside them, and know no other names.
        let boom = "data: {\"error\":{\"message\":\"boom\"}}\n\n";
        for event in [
            boom,
            r#"data: {"id":"c","choices":[{"delta":{},"finish_reason":"error"}],"error":{"message":"boom"}}"#,
            r#"data: {"choices":"none","error":{"message":"boom"}}"#,
            r#"data: {"choices":[],"error":{"message":"boom"}}"#,
            r#"data: {"message":"boom"}"#,
        ] {
            let told = failure(&event.into(), true);
            assert_eq!(told, Some(boom.into()), "{event}");
        }
        let named = "data: {\"type\":\"error\",\"message\":\"boom\"}\n\n";
        let told = "data: {\"error\":{\"type\":\"error\",\"message\":\"boom\"}}\n\n";
        assert_eq!(failure(&named.into(), true), Some(told.into()));
    }
}
