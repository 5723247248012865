//! Carries a stream to the caller event by event, and tells afterwards how it went.
//!
//! No event waits for another one; those that have arrived together go on together.
//!
//! One stream has two halves: the [`Body`] that the caller reads, and the [`Receipt`] that the record waits for.

mod attended;

use std::{
    cell::RefCell,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Body as _;

use attended::Attended;
pub(crate) use attended::Reins;

use crate::{
    admission::Denial,
    answer::Content,
    body::{Body, join},
    budget::Budget,
    dialect::{
        Dialect, Meter, Verdict,
        dify::Parting,
        openai::{self, Opening, Splice, Spliced, Transcript},
    },
    dispatch::is_for_caller,
    platform::Clock,
    pursuit::{Loss, Pursuit, Resumed},
    receipt::{Pen, Receipt, receipt},
    record::{Closing, Counted, Ending},
    refusal::Refusal,
    rescue::{Rescue, Rescued, rescue},
    search::{Search, Searched},
    sse::{self, Framer},
    time::Timestamp,
    trail::Trail,
    vigil::{Alarm, Vigil},
};

/// No more events are joined once so many bytes were taken, so that a fast upstream does not fill the memory of a slow caller; and
/// others get their turn before there are more.
const AT_ONCE: usize = 64 << 10;

/// A stream, and what is needed to carry it.
pub(crate) struct Stream {
    pub(crate) start: Start,
    pub(crate) dialect: Dialect,
    pub(crate) clock: Rc<dyn Clock>,
    pub(crate) vigil: Vigil,
    pub(crate) budget: Budget,
    /// Who was asked, whose the stream is last.
    pub(crate) trail: Trail,
}

/// What a stream starts with.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and is taken apart at once"
)]
pub(crate) enum Start {
    /// Somebody's answer, and who could go on with it.
    Answer(Body, Meter, Option<Box<Pursuit>>),
    /// Nothing: somebody who answers is still being looked for.
    Search(Search),
}

/// Splits a stream into what the caller reads and what is known of it when it is over.
pub(crate) fn watch(stream: Stream) -> (Body, Receipt, Reins) {
    let (pen, receipt) = receipt();
    let mut relay = Relay {
        source: Source::Over,
        framer: Framer::default(),
        meter: Meter::OpenAi(openai::Meter::default()),
        dialect: stream.dialect,
        clock: stream.clock,
        vigil: stream.vigil,
        budget: stream.budget,
        trail: stream.trail,
        pursuit: None,
        served_by: None,
        splice: None,
        note: None,
        counted: None,
        last_word: None,
        first_byte: None,
        pen,
        is_left: false,
        owes_turn: false,
    };
    match stream.start {
        Start::Answer(body, meter, pursuit) => relay.start(body, meter, pursuit),
        Start::Search(search) => relay.source = Source::Search(search),
    }
    let relay = Rc::new(RefCell::new(Some(relay)));
    let body = Body::arriving(Attended(relay.clone()));
    (body, receipt, Reins(relay))
}

struct Relay {
    source: Source,
    framer: Framer,
    meter: Meter,
    dialect: Dialect,
    clock: Rc<dyn Clock>,
    vigil: Vigil,
    budget: Budget,
    trail: Trail,
    pursuit: Option<Box<Pursuit>>,
    /// Who has the last word, where that was not known when the stream began.
    served_by: Option<String>,
    /// What makes one stream of two, once another upstream goes on with it.
    splice: Option<Splice>,
    /// What the caller is told of that, at the end.
    note: Option<Bytes>,
    /// How far what it has cost can be relied on, while the budget is with a rescue.
    counted: Option<Counted>,
    /// What the upstream said when it failed; the caller's, if nobody goes on.
    last_word: Option<Bytes>,
    first_byte: Option<Timestamp>,
    pen: Pen,
    /// The caller has left, and the rest goes to nobody.
    is_left: bool,
    /// It has done much, and others of its thread wait.
    owes_turn: bool,
}

/// Where events come from.
enum Source {
    /// Somebody who answers is being looked for.
    Search(Search),
    Upstream(Body),
    /// The upstream has come to an end, be it that of its answer or not.
    Ended,
    /// Somebody who goes on is being asked.
    Rescue(Rescue),
    /// Nowhere: the stream is over, and the upstream with it.
    Over,
}

/// How an upstream has left a stream without its end.
enum Break {
    /// It says nothing that makes sense, nothing at all, or nothing more.
    Lost(String),
    /// It has said so itself.
    Failed(Bytes),
    /// It has said so itself, and it is the caller's own fault, which nobody else could mend.
    Refused(Bytes),
    /// It goes on with another answer than the caller has heard the beginning of.
    Differs,
}

impl Relay {
    /// Goes on with an answer that somebody has begun.
    fn start(&mut self, body: Body, meter: Meter, pursuit: Option<Box<Pursuit>>) {
        self.source = Source::Upstream(body);
        self.meter = meter;
        self.pursuit = pursuit;
        if self.meter.told().is_none()
            && let Some(pursuit) = &mut self.pursuit
        {
            pursuit.let_go();
        }
    }

    /// Goes on with whoever was found, or tells the caller why nobody was.
    fn found(&mut self, searched: Searched, out: &mut Vec<Bytes>) {
        self.budget = searched.budget;
        self.vigil.heard();
        match searched.found {
            Ok((reply, target)) => {
                self.served_by = Some(target.name.to_string());
                match reply.content {
                    Content::Stream(body, meter) => {
                        self.start(body, meter, Some(searched.pursuit));
                    }
                    Content::Untouched(_) if reply.status.is_server_error() => {
                        let refusal = Refusal::Upstream {
                            last: reply.outcome(),
                            retry_after: None,
                            said: None,
                        };
                        self.close(Ending::Refused, None, Some(refusal.code()));
                        out.push(refusal.event(self.dialect));
                    }
                    Content::Untouched(body) => self.source = Source::Upstream(body),
                    Content::Whole(bytes, usage) => {
                        // It is no stream, but a word on why there is none.
                        let is_failure = !reply.status.is_success();
                        let mut budget = mem::take(&mut self.budget);
                        self.counted = Some(budget.answered(usage, bytes.len() as u64, is_failure));
                        self.budget.spent = budget.spent.with(usage);
                        self.close(Ending::Refused, None, None);
                        out.push(if is_failure {
                            self.dialect.event(&bytes)
                        } else {
                            sse::event(&bytes)
                        });
                    }
                }
            }
            Err(loss) => {
                let fault = match &loss {
                    Loss::Denied(Denial::Unknown(fault)) => Some(format!("ledger: {fault}")),
                    _ => None,
                };
                // What has failed is charged for as it is.
                self.budget.spent = mem::take(&mut self.budget).spent;
                self.counted = self.budget.spent.total().map(|_| Counted::Measured);
                let refusal = Refusal::from(loss);
                self.close(Ending::Refused, fault, Some(refusal.code()));
                out.push(refusal.event(self.dialect));
            }
        }
    }

    /// What goes to the caller next.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if mem::take(&mut self.owes_turn) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut out = Vec::new();
        let mut taken = 0;
        // What has arrived goes on together: to write each event by itself costs more than all that is done to it here.
        while taken < AT_ONCE && !matches!(self.source, Source::Over) {
            if self.step(cx, &mut taken, &mut out).is_ready() {
                if self.first_byte.is_none() && !out.is_empty() {
                    self.first_byte = Some(self.clock.now());
                }
                continue;
            }
            if !out.is_empty() {
                break;
            }
            ready!(self.wait(cx, &mut out));
        }
        if out.is_empty() {
            return if let Source::Over = self.source {
                Poll::Ready(None)
            } else {
                cx.waker().wake_by_ref();
                Poll::Pending
            };
        }
        self.owes_turn = taken >= AT_ONCE;
        self.vigil.said();
        Poll::Ready(Some(join(out)))
    }

    /// Takes what comes next, if it may come and is there.
    fn step(&mut self, cx: &mut Context<'_>, taken: &mut usize, out: &mut Vec<Bytes>) -> Poll<()> {
        if let Source::Search(search) = &mut self.source {
            let searched = ready!(Pin::new(search).poll(cx));
            self.found(searched, out);
            return Poll::Ready(());
        }
        if let Source::Rescue(rescue) = &mut self.source {
            let rescued = ready!(rescue.as_mut().poll(cx));
            self.resume(rescued, out);
            return Poll::Ready(());
        }
        match self.budget.poll(&self.meter, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(denial)) => {
                out.push(self.limited(denial));
                return Poll::Ready(());
            }
            Poll::Pending => return Poll::Pending,
        }
        let Source::Upstream(body) = &mut self.source else {
            return Poll::Ready(());
        };
        match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Ok(chunk) = frame.into_data() {
                    *taken += chunk.len();
                    self.vigil.heard();
                    // Where something always comes, nobody waits for an alarm.
                    if self.vigil.is_over() {
                        self.run_out(out);
                    } else {
                        self.chunk(chunk, out);
                    }
                }
            }
            Some(Err(error)) => self.broken(Break::Lost(error.to_string()), out),
            None => {
                self.source = Source::Ended;
                // The blank line behind the last event is sometimes forgotten.
                let rest = self.framer.finish();
                let passed = if rest.is_empty() || self.meter.is_half(&rest) {
                    Ok(())
                } else {
                    self.event(rest, out)
                };
                match passed {
                    Ok(()) => {
                        if let Some(last) = out.last() {
                            // Else no reader takes it for an event, nor for the end of one.
                            out.push(sse::missing_end(last));
                        }
                        let detail = "the stream ended before it was whole";
                        self.broken(Break::Lost(detail.into()), out);
                    }
                    Err(broken) => self.broken(broken, out),
                }
            }
        }
        Poll::Ready(())
    }

    /// What a chunk of the upstream's is to the caller: the events that it completed.
    fn chunk(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) {
        if self.budget.has_lapsed(self.clock.now()) {
            self.give_up("its place within a limit could not be kept".into(), out);
            return;
        }
        let mut framer = mem::take(&mut self.framer);
        let mut broken = None;
        let pushed = framer.push(chunk, |event| {
            if broken.is_none() {
                broken = self.event(event, out).err();
            }
        });
        self.framer = framer;
        let oversized = pushed.map_err(|oversized| Break::Lost(oversized.to_string()));
        if let Some(broken) = broken.or_else(|| oversized.err()) {
            self.broken(broken, out);
        }
    }

    /// What an event of the upstream's is to the caller.
    fn event(&mut self, event: Bytes, out: &mut Vec<Bytes>) -> Result<(), Break> {
        let event = match self.meter.read(&event) {
            Verdict::Pass => event,
            Verdict::Anew(event) => event,
            Verdict::Keep => return Ok(()),
            Verdict::Garbled => return Err(Break::Lost("an event is not JSON".into())),
            Verdict::Unfinished => {
                let detail = "it ended without a `finish_reason`";
                return Err(Break::Lost(detail.into()));
            }
        };
        if self.meter.has_failed() {
            return Err(match openai::opening(&event) {
                Opening::Error(status) if is_for_caller(status) => Break::Refused(event),
                _ => Break::Failed(event),
            });
        }
        let event = match &mut self.splice {
            None => event,
            Some(splice) => match splice.read(&event, self.meter.told()) {
                Spliced::Event(event) => event,
                Spliced::Nothing => return Ok(()),
                Spliced::Differs => return Err(Break::Differs),
            },
        };
        let data = sse::data(&event);
        if data.as_deref().is_some_and(openai::is_done) {
            self.tell_rest(out);
            self.vigil.linger();
        } else if self.meter.is_over() {
            self.vigil.wind_up();
        }
        // A comment between two events says nothing of the stream.
        if let Some(last) = self.budget.last.as_mut().filter(|_| data.is_some()) {
            *last = event.clone();
        }
        out.push(event);
        Ok(())
    }

    /// What the caller is told before the last word.
    fn tell_rest(&mut self, out: &mut Vec<Bytes>) {
        let owed = self.meter.owed(self.splice.as_ref());
        out.extend(owed.map(Bytes::from));
        out.extend(self.note.take());
    }

    /// The stream is over.
    fn end(&mut self, out: &mut Vec<Bytes>) {
        self.tell_rest(out);
        let ended = if self.splice.is_some() {
            self.served_by = Some(self.trail.last());
            Ending::Rescued
        } else {
            Ending::Whole
        };
        self.close(ended, None, None);
    }

    /// The upstream has left the stream. If it has not said everything, somebody else goes on, or the caller is told.
    fn broken(&mut self, broken: Break, out: &mut Vec<Bytes>) {
        let (detail, is_its_own) = match broken {
            Break::Lost(_) if self.meter.is_over() => {
                self.end(out);
                return;
            }
            Break::Lost(detail) => (detail, true),
            Break::Failed(event) => {
                self.last_word = Some(event);
                ("it has failed in the middle".into(), true)
            }
            Break::Refused(event) => {
                self.last_word = Some(event);
                ("it has refused in the middle".into(), false)
            }
            Break::Differs => ("its answer is another one".into(), false),
        };
        self.trail.explain(detail.clone());
        if !is_its_own {
            self.give_up(detail, out);
            return;
        }
        if let Some(pursuit) = &mut self.pursuit {
            pursuit.ended(false);
        }
        match self.rescue() {
            Some(rescue) => {
                self.framer = Framer::default();
                self.vigil.heard();
                self.source = Source::Rescue(rescue);
            }
            None => self.give_up(detail, out),
        }
    }

    /// Somebody who goes on; nobody, if there is nobody else, or nothing that could be gone on with.
    fn rescue(&mut self) -> Option<Rescue> {
        if self.is_left || self.meter.has_finished() {
            return None;
        }
        let told = self.meter.told();
        let heard = self.splice.as_ref().map(Splice::heard).or(told)?.clone();
        let mut pursuit = self.pursuit.take_if(|pursuit| pursuit.has_more())?;
        pursuit.give_up();
        let usage = self.meter.usage();
        let spent = if usage.total().is_some() {
            usage
        } else {
            pursuit.guess(told.map_or(0, Transcript::length))
        };
        let lost = match &self.splice {
            Some(splice) => splice.lost().and(spent),
            None => spent,
        };
        self.counted = Some(self.budget.broke_off(&self.meter));
        let (budget, broke_off) = (mem::take(&mut self.budget), self.trail.last());
        Some(rescue(pursuit, budget, broke_off, heard, lost))
    }

    /// Goes on with whoever was found, or tells the caller that nobody was.
    fn resume(&mut self, rescued: Rescued, out: &mut Vec<Bytes>) {
        self.pursuit = Some(rescued.pursuit);
        self.budget = rescued.budget;
        self.counted = None;
        self.vigil.heard();
        let Some((
            Resumed {
                body,
                meter,
                target,
            },
            splice,
        )) = rescued.resumed
        else {
            self.give_up("nobody could go on with it".into(), out);
            return;
        };
        let names = format!("{} after {}", target.name, rescued.broke_off);
        let names: String = names.chars().filter(|one| !one.is_control()).collect();
        self.note = Some(format!(": tidegate rescued by {names}\n\n").into());
        self.last_word = None;
        self.meter = meter;
        self.splice = Some(splice);
        self.source = Source::Upstream(body);
    }

    /// Does what is to be done where nothing comes; nothing yet, perhaps.
    fn wait(&mut self, cx: &mut Context<'_>, out: &mut Vec<Bytes>) -> Poll<()> {
        match ready!(self.vigil.poll(cx)) {
            Alarm::Ping => out.push(self.dialect.ping()),
            // How long it may take whoever is asked is bounded elsewhere.
            Alarm::Idle if matches!(self.source, Source::Search(_) | Source::Rescue(_)) => {
                self.vigil.heard()
            }
            Alarm::Idle => self.broken(Break::Lost("nothing came for too long".into()), out),
            Alarm::Over => self.run_out(out),
        }
        Poll::Ready(())
    }

    /// There is no more time. Whoever has said everything has only not closed.
    fn run_out(&mut self, out: &mut Vec<Bytes>) {
        if self.meter.is_over() {
            self.end(out);
        } else {
            self.give_up("it took too long in all".into(), out);
        }
    }

    /// The caller is told that this is not the end: in the words of the upstream, if it has said so.
    fn give_up(&mut self, detail: String, out: &mut Vec<Bytes>) {
        self.close(Ending::Truncated, Some(detail), None);
        let said = self.last_word.take();
        let said = said.and_then(|said| self.meter.failure(said));
        out.push(said.unwrap_or_else(|| Refusal::Truncated.event(self.dialect)));
    }

    /// The end of a stream for which no more tokens can be had.
    fn limited(&mut self, denial: Denial) -> Bytes {
        let last = self.budget.last.take().unwrap_or_default();
        self.close(Ending::Limited, Some(denial.to_string()), None);
        let why = denial.to_string();
        let owed = self.meter.owed(self.splice.as_ref()).unwrap_or_default();
        self.meter
            .cut(&last, &why, &owed)
            .unwrap_or_else(|| Refusal::from(denial).event(self.dialect))
    }

    /// Writes the receipt, if it is not written yet.
    fn close(&mut self, ended: Ending, detail: Option<String>, refusal: Option<&'static str>) {
        if let Source::Over = self.source {
            return;
        }
        // Whoever reads it has not left, but hears no more of it.
        let is_cut = matches!(ended, Ending::Truncated | Ending::Limited) && !self.is_left;
        let parting = self.parting().filter(|_| is_cut);
        self.source = Source::Over;
        if let (Some(pursuit), Ending::Whole | Ending::Rescued | Ending::Limited) =
            (&mut self.pursuit, ended)
        {
            pursuit.ended(true);
        }
        let pursuit = self.pursuit.take();
        let passage = self.budget.passage.take();
        let ended = if self.is_left {
            Ending::Abandoned
        } else {
            ended
        };
        let mut counted = self.budget.close(ended, &self.meter);
        let mut usage = self.meter.usage();
        if let Some(splice) = &self.splice {
            usage = splice.lost().and(usage);
            counted = counted.max(Counted::Estimated);
        }
        usage = self.budget.spent.with(usage);
        let mut closing = Closing {
            ended,
            usage,
            counted: self.counted.take().unwrap_or(counted),
            first_byte: self.first_byte,
            served_by: self.served_by.take(),
            refusal: refusal.filter(|_| !self.is_left),
            detail: self.meter.fault().or(detail),
        };
        if let (Some((Parting::Stop { path, body }, tasks)), Some(mut pursuit)) = (parting, pursuit)
        {
            let pen = self.pen.clone();
            tasks.spawn(Box::pin(async move {
                let fault = pursuit.stop(&path, body).await;
                closing.detail = closing.detail.or(fault);
                pen.write(closing);
                // Until now it was in progress.
                drop(passage);
            }));
        } else {
            self.pen.write(closing);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close(Ending::Abandoned, None, None);
    }
}
