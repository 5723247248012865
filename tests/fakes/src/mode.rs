//! The words of a mode: `flaky-2of3+429`.

use std::time::Duration;

use crate::dify::errors::{self, Failure};

/// How a fake behaves. Its words are explained in [`crate::routes`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mode {
    pub(crate) fault: Option<Fault>,
    pub(crate) flaky: Option<(u64, u64)>,
    pub(crate) late: Duration,
    pub(crate) slow: Duration,
    pub(crate) cut: Option<Cut>,
    pub(crate) stall: Option<Stall>,
    pub(crate) fail_midway: bool,
    pub(crate) framing: Framing,
    pub(crate) text: Text,
    pub(crate) cap: Option<usize>,
    pub(crate) load: Option<(Duration, Duration)>,
    pub(crate) cores: Option<(u32, Duration)>,
    pub(crate) no_usage: bool,
    pub(crate) no_done: bool,
    pub(crate) tools: bool,
    pub(crate) raw: Option<usize>,
    pub(crate) pings: Option<Duration>,
    pub(crate) finished_first: bool,
    pub(crate) rich: bool,
    pub(crate) tts: bool,
    pub(crate) moderated: bool,
}

/// What comes instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// A refusal in the fake's own shape.
    Status(u16),
    /// One of Dify's refusals.
    Dify(&'static Failure),
    /// A page of the proxy before it.
    Html(u16),
    /// 200 and not one byte.
    Empty,
    /// 200, said to be JSON, and is not.
    Garbage,
    /// These bytes on the bare connection, which is then closed.
    Raw(&'static str),
    /// Nothing, ever.
    Hang,
}

/// Where the connection breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cut {
    pub(crate) after: usize,
    pub(crate) mid_event: bool,
}

/// Where a stream falls silent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stall {
    pub(crate) after: usize,
    pub(crate) time: Duration,
}

/// How events become bytes, and bytes writes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Framing {
    pub(crate) crlf: bool,
    pub(crate) no_space: bool,
    pub(crate) unit: Unit,
}

/// What goes out in one write.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Unit {
    #[default]
    Event,
    Pair,
    Bytes(usize),
    /// Ends inside every character that is not ASCII.
    BrokenChars,
}

/// What the answer is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Text {
    /// Of what was asked.
    #[default]
    Echo,
    Unicode,
    /// A piece of this many letters.
    Letters(usize),
    /// This many pieces.
    Pieces(usize),
}

impl Mode {
    /// Reads the words of a path's segment; the word that is none if there is one.
    pub(crate) fn parse(segment: &str) -> Result<Self, &str> {
        let words = segment.split_once('@').map_or(segment, |(words, _)| words);
        let mut mode = Self::default();
        for word in words.split('+') {
            mode.take(word).ok_or(word)?;
        }
        if mode.flaky.is_some()
            && mode
                == (Self {
                    flaky: mode.flaky,
                    ..Self::default()
                })
        {
            mode.fault = Some(Fault::Status(503));
        }
        Ok(mode)
    }

    /// The mode of call number `call`, counted from one.
    pub(crate) fn at(&self, call: u64) -> Self {
        match self.flaky {
            Some((bad, of)) if (call - 1) % of >= bad => Self::default(),
            _ => self.clone(),
        }
    }

    fn take(&mut self, word: &str) -> Option<()> {
        match word {
            "ok" => {}
            "html" => self.fault = Some(Fault::Html(502)),
            "empty" => self.fault = Some(Fault::Empty),
            "garbage" => self.fault = Some(Fault::Garbage),
            "closed" => self.fault = Some(Fault::Raw("")),
            "half-header" => self.fault = Some(Fault::Raw("HTTP/1.1 200 OK\r\nContent-Ty")),
            "two-lengths" => {
                self.fault = Some(Fault::Raw(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\n{}{}",
                ));
            }
            "hang" => self.fault = Some(Fault::Hang),
            "stall" => {
                self.stall = Some(Stall {
                    after: 1,
                    time: HOUR,
                })
            }
            "error-chunk" | "fail-midway" => self.fail_midway = true,
            "split" => self.framing.unit = Unit::Bytes(1),
            "split-chars" => self.framing.unit = Unit::BrokenChars,
            "pairs" => self.framing.unit = Unit::Pair,
            "crlf" => self.framing.crlf = true,
            "no-space" => self.framing.no_space = true,
            "big" => self.text = Text::Letters(100_000),
            "unicode" => self.text = Text::Unicode,
            "no-usage" => self.no_usage = true,
            "no-done" => self.no_done = true,
            "tools" => self.tools = true,
            "raw" => self.raw = Some(0),
            "pings" => self.pings = Some(Duration::from_secs(10)),
            "finished-first" => self.finished_first = true,
            "rich" => self.rich = true,
            "tts" => self.tts = true,
            "moderated" => self.moderated = true,
            _ => return self.take_with_value(word),
        }
        Some(())
    }

    fn take_with_value(&mut self, word: &str) -> Option<()> {
        if let Ok(status @ 400..=599) = word.parse() {
            self.fault = Some(Fault::Status(status));
            return Some(());
        }
        let after = |prefix: &str| word.strip_prefix(prefix);
        if let Some(share) = after("flaky-") {
            let (bad, of) = share.split_once("of")?;
            self.flaky = Some((bad.parse().ok()?, of.parse().ok().filter(|of| *of > 0)?));
        } else if let Some(status) = after("html-") {
            self.fault = Some(Fault::Html(status.parse().ok()?));
        } else if let Some(code) = after("fail-") {
            self.fault = Some(Fault::Dify(errors::by_code(code)?));
        } else if let Some(time) = after("late-") {
            self.late = duration(time)?;
        } else if let Some(time) = after("slow-") {
            self.slow = duration(time)?;
        } else if let Some(count) = after("cut-after-") {
            self.cut = Some(Cut {
                after: count.parse().ok()?,
                mid_event: false,
            });
        } else if let Some(count) = after("cut-mid-") {
            self.cut = Some(Cut {
                after: count.parse().ok()?,
                mid_event: true,
            });
        } else if let Some(rest) = after("stall-after-") {
            let (count, time) = rest
                .split_once('-')
                .map_or((rest, None), |(count, time)| (count, Some(time)));
            let time = time.map_or(Some(HOUR), duration)?;
            self.stall = Some(Stall {
                after: count.parse().ok()?,
                time,
            });
        } else if let Some(time) = after("stall-") {
            self.stall = Some(Stall {
                after: 1,
                time: duration(time)?,
            });
        } else if let Some(count) = after("split-") {
            self.framing.unit = Unit::Bytes(count.parse().ok().filter(|count| *count > 0)?);
        } else if let Some(count) = after("line-") {
            self.text = Text::Letters(count.parse().ok()?);
        } else if let Some(count) = after("chunks-") {
            self.text = Text::Pieces(count.parse().ok()?);
        } else if let Some(count) = after("cap-") {
            self.cap = Some(count.parse().ok()?);
        } else if let Some(times) = after("load-") {
            let (base, penalty) = times.split_once('-')?;
            self.load = Some((duration(base)?, duration(penalty)?));
        } else if let Some(machine) = after("cores-") {
            let (cores, model) = machine.split_once('-')?;
            let cores = cores.parse().ok().filter(|cores| *cores > 0)?;
            self.cores = Some((cores, duration(model)?));
        } else if let Some(count) = after("raw-") {
            self.raw = Some(count.parse().ok()?);
        } else {
            self.pings = Some(duration(after("pings-")?)?);
        }
        Some(())
    }
}

fn duration(text: &str) -> Option<Duration> {
    if let Some(number) = text.strip_suffix("ms") {
        return Some(Duration::from_millis(number.parse().ok()?));
    }
    if let Some(number) = text.strip_suffix('s') {
        return Some(Duration::from_secs(number.parse().ok()?));
    }
    Some(Duration::from_millis(text.parse().ok()?))
}

const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Mode)) -> Mode {
        let mut mode = Mode::default();
        change(&mut mode);
        mode
    }

    #[test]
    fn every_word_means_something() {
        let table: Vec<(&str, Mode)> = vec![
            ("ok", Mode::default()),
            ("ok@b", Mode::default()),
            ("429", with(|m| m.fault = Some(Fault::Status(429)))),
            ("html", with(|m| m.fault = Some(Fault::Html(502)))),
            ("html-200", with(|m| m.fault = Some(Fault::Html(200)))),
            ("empty", with(|m| m.fault = Some(Fault::Empty))),
            ("garbage", with(|m| m.fault = Some(Fault::Garbage))),
            ("closed", with(|m| m.fault = Some(Fault::Raw("")))),
            ("hang", with(|m| m.fault = Some(Fault::Hang))),
            ("late-2s", with(|m| m.late = Duration::from_secs(2))),
            ("slow-20ms", with(|m| m.slow = Duration::from_millis(20))),
            ("slow-20", with(|m| m.slow = Duration::from_millis(20))),
            (
                "cut-after-3",
                with(|m| {
                    m.cut = Some(Cut {
                        after: 3,
                        mid_event: false,
                    })
                }),
            ),
            (
                "cut-mid-0",
                with(|m| {
                    m.cut = Some(Cut {
                        after: 0,
                        mid_event: true,
                    })
                }),
            ),
            (
                "stall",
                with(|m| {
                    m.stall = Some(Stall {
                        after: 1,
                        time: HOUR,
                    })
                }),
            ),
            (
                "stall-2s",
                with(|m| {
                    m.stall = Some(Stall {
                        after: 1,
                        time: Duration::from_secs(2),
                    })
                }),
            ),
            (
                "stall-after-4",
                with(|m| {
                    m.stall = Some(Stall {
                        after: 4,
                        time: HOUR,
                    })
                }),
            ),
            (
                "stall-after-4-5ms",
                with(|m| {
                    m.stall = Some(Stall {
                        after: 4,
                        time: Duration::from_millis(5),
                    })
                }),
            ),
            ("error-chunk", with(|m| m.fail_midway = true)),
            ("fail-midway", with(|m| m.fail_midway = true)),
            ("split", with(|m| m.framing.unit = Unit::Bytes(1))),
            ("split-7", with(|m| m.framing.unit = Unit::Bytes(7))),
            ("split-chars", with(|m| m.framing.unit = Unit::BrokenChars)),
            ("pairs", with(|m| m.framing.unit = Unit::Pair)),
            ("crlf", with(|m| m.framing.crlf = true)),
            ("no-space", with(|m| m.framing.no_space = true)),
            ("big", with(|m| m.text = Text::Letters(100_000))),
            ("line-9", with(|m| m.text = Text::Letters(9))),
            ("unicode", with(|m| m.text = Text::Unicode)),
            ("chunks-200", with(|m| m.text = Text::Pieces(200))),
            ("cap-2", with(|m| m.cap = Some(2))),
            (
                "load-50-100ms",
                with(|m| m.load = Some((Duration::from_millis(50), Duration::from_millis(100)))),
            ),
            (
                "cores-4-5s",
                with(|m| m.cores = Some((4, Duration::from_secs(5)))),
            ),
            ("no-usage", with(|m| m.no_usage = true)),
            ("no-done", with(|m| m.no_done = true)),
            ("tools", with(|m| m.tools = true)),
            ("raw", with(|m| m.raw = Some(0))),
            ("raw-200", with(|m| m.raw = Some(200))),
            ("pings", with(|m| m.pings = Some(Duration::from_secs(10)))),
            (
                "pings-10ms",
                with(|m| m.pings = Some(Duration::from_millis(10))),
            ),
            ("finished-first", with(|m| m.finished_first = true)),
            ("rich", with(|m| m.rich = true)),
            ("tts", with(|m| m.tts = true)),
            ("moderated", with(|m| m.moderated = true)),
        ];
        for (words, expected) in table {
            assert_eq!(Mode::parse(words), Ok(expected), "{words}");
        }
    }

    #[test]
    fn what_is_no_word_is_said() {
        for word in [
            "",
            "200",
            "600",
            "flaky-2",
            "flaky-1of0",
            "slow-",
            "split-0",
            "cores-4",
            "cores-0-5s",
            "fail-nothing_known",
            "okay",
        ] {
            assert_eq!(Mode::parse(word), Err(word));
        }
        assert_eq!(Mode::parse("ok+okay"), Err("okay"));
    }

    #[test]
    fn flaky_calls_misbehave_as_the_other_words_say() {
        let mode = Mode::parse("flaky-2of3").unwrap();
        let statuses: Vec<bool> = (1..=6)
            .map(|call| mode.at(call).fault == Some(Fault::Status(503)))
            .collect();
        assert_eq!(statuses, [true, true, false, true, true, false]);

        let mode = Mode::parse("flaky-1of2+429").unwrap();
        assert_eq!(mode.at(1).fault, Some(Fault::Status(429)));
        assert_eq!(mode.at(2), Mode::default());

        let mode = Mode::parse("flaky-1of2+cut-after-1").unwrap();
        assert_eq!((mode.at(1).fault, mode.at(1).cut.is_some()), (None, true));
    }
}
