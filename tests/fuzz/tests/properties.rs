//! The same properties on random bytes that look like what they should be, on every toolchain.

use proptest::{collection::vec, prelude::*, sample::select};

/// Pieces of what a stream is made of, and what it should never be.
const STREAM: &[&str] = &[
    "data: ",
    "data:",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    ": comment\n",
    "event: ping\n\n",
    "id: 1\n",
    "retry: 5\n",
    "\u{feff}",
    "\0",
    "data: [DONE]\n\n",
    "{\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hé\"}}]}",
    "{\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}",
    "{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}",
    "{\"error\":{\"message\":\"x\"}}",
    "{",
    "\"usage\":null",
    "é",
    "x",
];

/// Pieces of what a request is made of.
const REQUEST: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\"model\"",
    "\"mod\\u0065l\"",
    "\"smart\"",
    "\"nobody\"",
    "\"stream\"",
    "true",
    "null",
    "1e999",
    "\"stream_options\"",
    "{\"include_usage\":true}",
    "\"messages\":[]",
    " ",
    "\n",
    "\u{feff}",
    "\"user\":\"\\ud800\"",
    "-0",
];

/// A request as it should be, in front of what follows.
const MODEL: &str = "{\"model\":\"smart\"";

/// Pieces of what a configuration is made of.
const CONFIG: &[&str] = &[
    "[gateway]\n",
    "[[consumers]]\n",
    "[providers.a]\n",
    "[models.m]\n",
    "[[routes]]\n",
    "[dify.d]\n",
    "[dify.d.apps.x]\n",
    "[telemetry]\n",
    "name = \"a\"\n",
    "keys = [\"$KEY\"]\n",
    "dialect = \"openai\"\n",
    "base_url = \"http://a.test/v1\"\n",
    "targets = [\"a/m\"]\n",
    "limits = [{ requests = 1, per = \"1m\" }]\n",
    "limits = [{ requests = 0 }]\n",
    "path = \"/v1\"\n",
    "serve = \"models\"\n",
    "serve = \"dify.d/x\"\n",
    "api = \"http://d.test\"\n",
    "key = \"$APP\"\n",
    "max_body = \"1MB\"\n",
    "retry = { attempts = 2, on = [\"5xx\"] }\n",
    "nmae = 1\n",
    "timeouts = { connect = \"5s\", total = \"99999999999999h\" }\n",
    "weight = nan\n",
    "key = \"\"\n",
    "host = \"*.\"\n",
    "path = \"//%2f\"\n",
];

fn pieces(of: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(select(of), 0..most).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_stream_means_the_same_however_it_is_cut(cut in 1u8.., stream in pieces(STREAM, 30)) {
        tidegate_fuzz::sse(&[&[cut], stream.as_slice()].concat());
    }

    #[test]
    fn a_stream_may_be_anything(stream in vec(any::<u8>(), 0..200)) {
        tidegate_fuzz::sse(&stream);
    }

    #[test]
    fn a_request_may_be_nearly_right(rest in pieces(REQUEST, 12)) {
        tidegate_fuzz::request(&[MODEL.as_bytes(), rest.as_slice()].concat());
        tidegate_fuzz::request(&[MODEL.as_bytes(), b",", rest.as_slice(), b"}"].concat());
    }

    #[test]
    fn a_request_may_be_anything(body in vec(any::<u8>(), 0..200), pieces in pieces(REQUEST, 20)) {
        tidegate_fuzz::request(&body);
        tidegate_fuzz::request(&pieces);
    }

    #[test]
    fn a_configuration_may_be_anything(text in any::<String>(), pieces in pieces(CONFIG, 25)) {
        tidegate_fuzz::config(text.as_bytes());
        tidegate_fuzz::config(&pieces);
    }
}

#[test]
fn a_good_request_goes_on() {
    // Otherwise the properties above would hold because nothing ever gets through.
    assert!(tidegate_fuzz::request(
        br#"{"model":"smart","messages":[],"stream":false,"user":"x"}"#
    ));
}
