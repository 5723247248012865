//! For how long somebody wants to be left alone (`Retry-After`).

use std::time::Duration;

use http::HeaderMap;

use crate::time::Timestamp;

/// The longest wait that an upstream can ask for.
const LONGEST: Duration = Duration::from_secs(600);

/// Days from 1 March of the year 0 to 1 January 1970.
const EPOCH: u64 = 719_468;

/// How long an upstream wants to be left alone: in OpenAI's own words, which are exact, or in HTTP's, as seconds or as a date.
pub(crate) fn said(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let said = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let exact = said("retry-after-ms").map(|text| text.split('.').next().unwrap_or_default());
    let exact = exact.and_then(|text| text.parse().ok());
    let wait = match exact {
        Some(exact) => Duration::from_millis(exact),
        None => {
            let text = said("retry-after")?;
            seconds(text).or_else(|| Some(date(text)?.since(now)))?
        }
    };
    Some(wait.min(LONGEST))
}

/// Whole seconds, or a part of one more.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) {
        return None;
    }
    let more = u64::from(!part.is_empty());
    let seconds = whole.parse().unwrap_or(u64::MAX).saturating_add(more);
    Some(Duration::from_secs(seconds))
}

/// An instant in the format that every sender has to use (RFC 9110, 5.6.7), whatever day of the week it says. A library that
/// reads the two obsolete ones, too, takes 4 KiB of an edge binary.
fn date(text: &str) -> Option<Timestamp> {
    let (_, text) = text.split_once(", ")?;
    let mut parts = text.strip_suffix(" GMT")?.split([' ', ':']);
    let day = number(parts.next(), 1, 31)?;
    let month = parts.next()?;
    // A year that begins in March ends with the day that not every year has.
    let months = "MarAprMayJunJulAugSepOctNovDecJanFeb";
    let month = months
        .as_bytes()
        .chunks(3)
        .position(|name| name == month.as_bytes())? as u64;
    let year = number(parts.next(), 1970, 9999)?.saturating_sub(u64::from(month > 9));
    let hour = number(parts.next(), 0, 23)?;
    let minute = number(parts.next(), 0, 59)?;
    let second = number(parts.next(), 0, 60)?;
    if parts.next().is_some() {
        return None;
    }
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(EPOCH)?;
    Some(Timestamp(
        (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000,
    ))
}

fn number(text: Option<&str>, least: u64, most: u64) -> Option<u64> {
    let number = text?.parse().ok()?;
    (least..=most).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::time::millis;

    #[test]
    fn a_wait_is_said_in_seconds_or_as_a_date_or_exactly() {
        // Sun, 06 Nov 1994 08:49:37 GMT.
        let now = Timestamp(784_111_777_000);
        let table = [
            ("7", None, Some(7_000)),
            (" 0 ", None, Some(0)),
            ("86400", None, Some(600_000)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", None, Some(30_000)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", None, Some(0)),
            ("Sun, 06 Nov 2094 08:49:07 GMT", None, Some(600_000)),
            ("Sun, 06 Nov 1994 24:00:00 GMT", None, None),
            ("Sun, 06 Nov 1994 08:50:07:00 GMT", None, None),
            ("Sun, 06 Nov 1994 08:50 GMT", None, None),
            ("Sun, 06 Now 1994 08:50:07 GMT", None, None),
            ("Sun, 06 Nov 1994 08:50:07 CET", None, None),
            ("7", Some("250"), Some(250)),
            ("7", Some("250.7"), Some(250)),
            ("1.5", None, Some(2_000)),
            ("7", Some("x"), Some(7_000)),
            ("soon", None, None),
            ("", None, None),
        ];
        for (text, exactly, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_static(text));
            if let Some(exactly) = exactly {
                headers.insert("retry-after-ms", HeaderValue::from_static(exactly));
            }
            let heard = said(&headers, now).map(millis);
            assert_eq!(heard, expected, "{text} {exactly:?}");
        }
        assert_eq!(said(&HeaderMap::new(), now), None);
    }

    proptest! {
        /// The crate that others read dates with reads the same of them.
        #[test]
        fn a_date_is_what_it_is_to_others(seconds in 0..253_402_300_800_u64, place in 5..26_usize, byte in 0x20..0x7f_u8) {
            let mut text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            prop_assert_eq!(date(&text), Some(Timestamp(seconds * 1000)));
            text.replace_range(place..=place, &char::from(byte).to_string());
            if let Ok(theirs) = httpdate::parse_http_date(&text) {
                let theirs = theirs.duration_since(UNIX_EPOCH).map(millis);
                prop_assert_eq!(date(&text).map(|date| date.0), theirs.ok());
            }
        }

        #[test]
        fn no_text_is_too_odd(text in ".{0,40}|[A-Z][a-z]{2}, [0-9+ :-]{1,4} (Feb|Jan) [0-9]{1,30} [0-9:]{1,20} GMT") {
            date(&text);
        }
    }
}
