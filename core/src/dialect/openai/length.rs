//! How long an answer may be: what the caller has said of that, and where.

use std::ops::Range;

use serde_json::value::RawValue;

/// How long the answer to a request may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Most {
    /// Tokens of each choice, if the caller has said how many.
    pub tokens: Option<u64>,
    /// How many choices there are, to all prompts together.
    pub choices: u64,
    /// It may cost more than it shows: thoughts, or choices that were not the best.
    pub hides: bool,
}

impl Most {
    /// Tokens of all choices together, if each has at most `tokens`.
    pub fn in_all(self, tokens: Option<u64>) -> Option<u64> {
        Some(tokens?.saturating_mul(self.choices))
    }
}

/// The fields of one endpoint that say how long an answer may be, and what they say.
#[derive(Clone, Debug)]
pub(super) struct Length {
    endpoint: Endpoint,
    said: Vec<Said>,
}

/// An endpoint that is answered with tokens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Endpoint {
    Chat,
    Completions,
    Responses,
}

/// What a field says.
#[derive(Clone, Debug)]
struct Said {
    name: &'static str,
    at: Range<usize>,
    /// Nothing, if it is null.
    tokens: Option<u64>,
}

impl Length {
    /// What the request says to `endpoint`, of the fields that it knows; nothing, if it does not answer with tokens.
    pub(super) fn read<'a>(
        endpoint: &str,
        fields: impl IntoIterator<Item = (&'static str, Option<&'a RawValue>)>,
        place: impl Fn(&RawValue) -> Range<usize>,
    ) -> Option<Self> {
        let endpoint = match endpoint {
            "/chat/completions" => Endpoint::Chat,
            "/completions" => Endpoint::Completions,
            "/responses" => Endpoint::Responses,
            _ => return None,
        };
        let fields = fields.into_iter();
        // A field that an endpoint does not know limits nothing there.
        let known = fields.filter(|(name, _)| endpoint.names().contains(name));
        let said = known.filter_map(|(name, raw)| {
            raw.map(|raw| Said {
                name,
                at: place(raw),
                tokens: number(raw),
            })
        });
        Some(Self {
            endpoint,
            said: said.collect(),
        })
    }

    /// Tokens of each choice at most. Of two fields nobody knows which one counts.
    pub(super) fn tokens(&self) -> Option<u64> {
        let most = self.said.iter().filter_map(|said| said.tokens).max();
        most.filter(|tokens| *tokens < u64::MAX)
    }

    /// What to write where, so that each choice is at most `cap` tokens long; `behind` a field that is there in any case.
    /// `is_openai`: it is for OpenAI itself.
    pub(super) fn edits(
        &self,
        cap: u64,
        is_openai: bool,
        behind: usize,
    ) -> Vec<(Range<usize>, String)> {
        if self.said.iter().any(|said| said.tokens.is_some()) {
            let longer = self.said.iter().filter(|said| said.tokens > Some(cap));
            return longer
                .map(|said| (said.at.clone(), cap.to_string()))
                .collect();
        }
        let name = self.endpoint.name(is_openai);
        // Nothing but nulls: the right one is filled in, and the others say what they said.
        vec![match self.said.iter().find(|said| said.name == name) {
            Some(said) => (said.at.clone(), cap.to_string()),
            None => (behind..behind, format!(r#","{name}":{cap}"#)),
        }]
    }
}

impl Endpoint {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Chat => &["max_tokens", "max_completion_tokens"],
            Self::Completions => &["max_tokens"],
            Self::Responses => &["max_output_tokens"],
        }
    }

    /// The name that everybody knows; OpenAI itself wants another one for chats.
    fn name(self, is_openai: bool) -> &'static str {
        match self {
            Self::Chat if is_openai => "max_completion_tokens",
            Self::Chat | Self::Completions => "max_tokens",
            Self::Responses => "max_output_tokens",
        }
    }
}

/// How many choices there are: `n` or `best_of` of each of the prompts.
pub(super) fn choices(
    n: Option<&RawValue>,
    best_of: Option<&RawValue>,
    prompt: Option<&RawValue>,
) -> u64 {
    let each = n.and_then(number).max(best_of.and_then(number));
    each.unwrap_or(1).max(1).saturating_mul(prompts(prompt))
}

/// How many prompts these are: one text, one list of tokens, or a list of either.
fn prompts(prompt: Option<&RawValue>) -> u64 {
    let list = prompt.and_then(|raw| serde_json::from_str::<Vec<&RawValue>>(raw.get()).ok());
    let list = list.unwrap_or_default();
    let many = list.iter().filter(|raw| raw.get().starts_with(['"', '[']));
    (many.count() as u64).max(1)
}

/// The number that some provider may read here, rounded up: `5.0` and `"5"` are five to many. What is none, or none
/// of JSON's, may be taken for no limit; null is nothing.
fn number(raw: &RawValue) -> Option<u64> {
    let text = raw.get().trim_matches('"');
    if text == "null" {
        return None;
    }
    let whole = text.parse::<u64>().ok();
    let number = whole.or_else(|| {
        let number = serde_json::from_str::<f64>(text).ok()?;
        (number >= 0.0).then_some(number.ceil() as u64)
    });
    Some(number.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_number_is_what_some_provider_may_take_it_for() {
        for (text, expected) in [
            ("5", Some(5)),
            ("5.0", Some(5)),
            ("1e3", Some(1_000)),
            ("\"5\"", Some(5)),
            ("0", Some(0)),
            ("null", None),
            ("-1", Some(u64::MAX)),
            ("\"5.5\"", Some(6)),
            ("\"1e3\"", Some(1_000)),
            ("\"+5\"", Some(5)),
            ("\"+5.0\"", Some(u64::MAX)),
            ("\".5\"", Some(u64::MAX)),
            ("\"inf\"", Some(u64::MAX)),
            ("\"nan\"", Some(u64::MAX)),
            ("\"x\"", Some(u64::MAX)),
            ("true", Some(u64::MAX)),
            ("[]", Some(u64::MAX)),
            ("1e400", Some(u64::MAX)),
        ] {
            assert_eq!(number(raw(text)), expected, "{text}");
        }
    }

    #[test]
    fn every_prompt_has_its_own_choices() {
        for (n, best_of, prompt, expected) in [
            (None, None, None, 1),
            (Some("3"), None, None, 3),
            (Some("0"), Some("null"), None, 1),
            (Some("2"), Some("5"), None, 5),
            (None, None, Some(r#""one""#), 1),
            (None, None, Some("[1,2,3]"), 1),
            (Some("2"), None, Some(r#"["one","two"]"#), 4),
            (None, None, Some("[[1],[2],[3]]"), 3),
            (Some("2"), None, Some("[]"), 2),
        ] {
            let choices = choices(n.map(raw), best_of.map(raw), prompt.map(raw));
            assert_eq!(choices, expected, "{n:?} {best_of:?} {prompt:?}");
        }
    }
}
