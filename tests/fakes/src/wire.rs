//! Events to bytes, bytes to writes, and what the mode does to both.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::{
    mode::{Framing, Mode, Unit},
    play::{Reply, Step},
};

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// `data: …`
    Data(String),
    /// `event: …` and `data: …`
    Named(String, String),
    /// `event: …` and no data, as Dify pings.
    Bare(&'static str),
}

/// The steps of a stream of `events`.
pub(crate) fn stream(events: Vec<Event>, mode: &Mode) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut waiting = BytesMut::new();
    let silence = |after: usize| mode.stall.filter(|stall| stall.after == after);
    let events = with_pings(events, mode);
    for (index, event) in events.iter().enumerate() {
        if let Some(stall) = silence(index) {
            write(&mut waiting, mode.framing, &mut steps);
            be_silent(stall.time, mode, &mut steps);
        }
        if !mode.slow.is_zero() {
            steps.push(Step::Pause(mode.slow));
        }
        let bytes = render(event, mode.framing);
        if let Some(cut) = mode.cut.filter(|cut| cut.after == index) {
            if cut.mid_event {
                waiting.extend_from_slice(bytes.get(..bytes.len() / 2).unwrap_or_default());
            }
            write(&mut waiting, mode.framing, &mut steps);
            steps.push(Step::Break);
            return steps;
        }
        waiting.extend_from_slice(&bytes);
        if mode.framing.unit != Unit::Pair || index % 2 == 1 {
            write(&mut waiting, mode.framing, &mut steps);
        }
    }
    write(&mut waiting, mode.framing, &mut steps);
    steps
}

/// What the mode does to a body that is no stream, made of `events` steps.
pub(crate) fn hurt(reply: &mut Reply, events: usize, mode: &Mode) {
    reply.before += mode.slow * u32::try_from(events).unwrap_or(u32::MAX);
    let Some(Step::Write(body)) = reply.steps.first().cloned() else {
        return;
    };
    let (start, rest) = (body.slice(..body.len() / 2), body.slice(body.len() / 2..));
    if mode.cut.is_some() {
        reply.steps = vec![Step::Write(start), Step::Break];
    } else if let Some(stall) = mode.stall {
        reply.steps = vec![
            Step::Write(start),
            Step::Pause(stall.time),
            Step::Write(rest),
        ];
    } else if mode.framing.unit != Unit::Event {
        reply.steps = cut(&body, mode.framing.unit)
            .into_iter()
            .map(Step::Write)
            .collect();
    }
}

fn with_pings(events: Vec<Event>, mode: &Mode) -> Vec<Event> {
    if mode.pings.is_none() {
        return events;
    }
    let mut all = vec![PING];
    for (index, event) in events.into_iter().enumerate() {
        all.push(event);
        if index % 2 == 1 {
            all.push(PING);
        }
    }
    all
}

fn be_silent(time: Duration, mode: &Mode, steps: &mut Vec<Step>) {
    let mut left = time;
    while let Some(every) = mode.pings.filter(|every| !every.is_zero() && *every < left) {
        steps.push(Step::Pause(every));
        steps.push(Step::Write(render(&PING, mode.framing)));
        left -= every;
    }
    steps.push(Step::Pause(left));
}

fn write(waiting: &mut BytesMut, framing: Framing, steps: &mut Vec<Step>) {
    let bytes = waiting.split().freeze();
    steps.extend(cut(&bytes, framing.unit).into_iter().map(Step::Write));
}

fn cut(bytes: &Bytes, unit: Unit) -> Vec<Bytes> {
    let ends: Vec<usize> = match unit {
        Unit::Event | Unit::Pair => Vec::new(),
        Unit::Bytes(count) => (count..bytes.len()).step_by(count).collect(),
        // After the first byte of a character: the next one goes on with it.
        Unit::BrokenChars => (1..bytes.len())
            .filter(|end| bytes.get(end - 1).is_some_and(|byte| *byte >= 0xC0))
            .collect(),
    };
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let ends = ends.iter().copied().chain(std::iter::once(bytes.len()));
    starts
        .zip(ends)
        .filter(|(start, end)| start < end)
        .map(|(start, end)| bytes.slice(start..end))
        .collect()
}

fn render(event: &Event, framing: Framing) -> Bytes {
    let end = if framing.crlf { "\r\n" } else { "\n" };
    let colon = if framing.no_space { ":" } else { ": " };
    let text = match event {
        Event::Data(data) => format!("data{colon}{data}{end}{end}"),
        Event::Named(name, data) => format!("event{colon}{name}{end}data{colon}{data}{end}{end}"),
        Event::Bare(name) => format!("event{colon}{name}{end}{end}"),
    };
    text.into()
}

const PING: Event = Event::Bare("ping");

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<Event> {
        vec![
            Event::Data("{\"a\":\"🌊\"}".into()),
            Event::Bare("ping"),
            Event::Named("b".into(), "2".into()),
        ]
    }

    fn writes(steps: &[Step]) -> Vec<String> {
        let text = |step: &Step| match step {
            Step::Write(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => format!("{other:?}"),
        };
        steps.iter().map(text).collect()
    }

    #[test]
    fn the_mode_shapes_the_writes() {
        let table: [(&str, &[&str]); 8] = [
            (
                "ok",
                &[
                    "data: {\"a\":\"🌊\"}\n\n",
                    "event: ping\n\n",
                    "event: b\ndata: 2\n\n",
                ],
            ),
            (
                "pairs",
                &[
                    "data: {\"a\":\"🌊\"}\n\nevent: ping\n\n",
                    "event: b\ndata: 2\n\n",
                ],
            ),
            (
                "crlf+no-space",
                &[
                    "data:{\"a\":\"🌊\"}\r\n\r\n",
                    "event:ping\r\n\r\n",
                    "event:b\r\ndata:2\r\n\r\n",
                ],
            ),
            ("cut-after-1", &["data: {\"a\":\"🌊\"}\n\n", "Break"]),
            (
                "cut-mid-1",
                &["data: {\"a\":\"🌊\"}\n\n", "event:", "Break"],
            ),
            ("cut-after-0", &["Break"]),
            (
                "stall-after-1-5s",
                &[
                    "data: {\"a\":\"🌊\"}\n\n",
                    "Pause(5s)",
                    "event: ping\n\n",
                    "event: b\ndata: 2\n\n",
                ],
            ),
            (
                "slow-1s+cut-after-1",
                &[
                    "Pause(1s)",
                    "data: {\"a\":\"🌊\"}\n\n",
                    "Pause(1s)",
                    "Break",
                ],
            ),
        ];
        for (words, expected) in table {
            assert_eq!(
                writes(&stream(events(), &Mode::parse(words).unwrap())),
                expected,
                "{words}"
            );
        }
    }

    #[test]
    fn however_it_is_cut_the_bytes_are_the_same() {
        let whole = writes(&stream(events(), &Mode::default())).concat();
        for words in ["split", "split-3", "split-chars", "pairs"] {
            let steps = stream(events(), &Mode::parse(words).unwrap());
            let bytes: Vec<u8> = steps
                .iter()
                .flat_map(|step| {
                    if let Step::Write(bytes) = step {
                        bytes.to_vec()
                    } else {
                        Vec::new()
                    }
                })
                .collect();
            assert_eq!(String::from_utf8(bytes).unwrap(), whole, "{words}");
        }
        let broken = stream(events(), &Mode::parse("split-chars").unwrap());
        let Some(Step::Write(first)) = broken.first() else {
            panic!("no write")
        };
        assert_eq!(
            first.last(),
            Some(&0xF0),
            "the first write ends inside the character"
        );
        assert_eq!(
            stream(events(), &Mode::parse("split").unwrap()).len(),
            whole.len()
        );
    }

    #[test]
    fn a_stall_goes_on_pinging() {
        let steps = stream(
            vec![Event::Data("1".into())],
            &Mode::parse("stall-after-2-25ms+pings-10ms").unwrap(),
        );
        assert_eq!(
            writes(&steps),
            ["event: ping\n\n", "data: 1\n\n"],
            "the stall is after the end"
        );
        let steps = stream(
            vec![Event::Data("1".into())],
            &Mode::parse("stall-after-1-25ms+pings-10ms").unwrap(),
        );
        let expected = [
            "event: ping\n\n",
            "Pause(10ms)",
            "event: ping\n\n",
            "Pause(10ms)",
            "event: ping\n\n",
            "Pause(5ms)",
            "data: 1\n\n",
        ];
        assert_eq!(writes(&steps), expected);
    }
}
