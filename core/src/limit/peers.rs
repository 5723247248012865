//! Who speaks to an account: what each has said already, how much is asked of it, and whether it may give something back.

use postcard::fixint;
use serde::{Deserialize, Serialize};

use super::stored::length;
use crate::time::Timestamp;

/// After how many seconds of silence nothing is asked of a speaker any more.
const SILENCE: u8 = 30;

/// After how many seconds of silence what a speaker held has ended, and was charged.
const ENDED: u8 = 75;

/// For so many speakers there is room in any account; and so many are remembered whether they may give something back or not.
const FEW: usize = 32;
const MANY: usize = 64;

/// How many messages of a speaker are told apart, up to the last one.
const WINDOW: u32 = u32::BITS;

/// The speakers, the one that was silent longest in front. So many are remembered as there is room for in the account: about 250.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Peers(Vec<Peer>);

/// One of them. Which of its messages were heard is kept as IPsec keeps it against replay: the highest number, and one bit
/// for each of those up to it (RFC 4303, section 3.4.3). So messages may overtake each other, and none counts twice.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Peer {
    #[serde(with = "fixint::le")]
    id: u32,
    highest: u32,
    /// One bit for each message that was not heard though it is known, or was though it is not: a small number, if any.
    unusual: u32,
    /// How many of the messages up to the highest have come since this speaker is remembered, or would be known to.
    known: u8,
    /// Thousandths of a unit a second that are asked of it.
    rate: u32,
    /// How many seconds ago it has spoken, or more.
    silent: u8,
    /// Units that it has taken and not settled: there may be less to come back.
    out: u32,
}

/// What an account knows of a message when it hears it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hearing {
    /// It may have been heard before: the speaker was forgotten since, or has said much since. So what it gives back is not
    /// believed; what it takes is charged.
    Unknown,
    /// Not heard before.
    New,
    /// Heard before.
    Repeated,
}

impl Peers {
    /// Time has passed.
    pub(super) fn roll(&mut self, before: Timestamp, now: Timestamp) {
        let passed = (now.0 / 1_000).saturating_sub(before.0 / 1_000);
        let passed = u8::try_from(passed).unwrap_or(u8::MAX);
        if passed > 0 {
            for peer in &mut self.0 {
                peer.silent = peer.silent.saturating_add(passed);
            }
        }
    }

    /// Remembers that the speaker `id` has said its message `number`.
    pub(super) fn hear(&mut self, id: u32, number: u32) -> Hearing {
        let Some(place) = self.0.iter().position(|peer| peer.id == id) else {
            self.0.push(Peer {
                id,
                highest: number,
                unusual: 0,
                known: 1,
                rate: 0,
                silent: 0,
                out: 0,
            });
            return Hearing::Unknown;
        };
        let mut peer = self.0.remove(place);
        peer.silent = 0;
        let hearing = peer.hear(number);
        self.0.push(peer);
        hearing
    }

    /// Whoever spoke last has taken and settled so many units.
    pub(super) fn note(&mut self, taken: u64, settled: u64) {
        if let Some(peer) = self.0.last_mut() {
            let out = u64::from(peer.out).saturating_add(taken);
            peer.out = u32::try_from(out.saturating_sub(settled)).unwrap_or(u32::MAX);
        }
    }

    /// Whether there may be more of them than there is room for.
    pub(super) fn are_many(&self) -> bool {
        self.0.len() > FEW
    }

    /// Forgets speakers until the rest takes no more than `room` bytes: first those that have nothing to give back, and of them the
    /// one that was silent longest. Of those, only some are remembered though there is room.
    pub(super) fn fit(&mut self, room: usize) {
        let mut size: usize = self.0.iter().map(Peer::size).sum();
        loop {
            let others = self.0.len().saturating_sub(1);
            let idle = self.0.iter().take(others).position(Peer::is_idle);
            if size <= room && (others < MANY || idle.is_none()) {
                return;
            }
            size -= self.0.remove(idle.unwrap_or(0)).size();
        }
    }

    /// Notes what is asked of the speaker `id`; gives its share of what is asked of all, and how many they are.
    pub(super) fn share(&mut self, id: u32, rate: u64) -> (f64, usize) {
        let rate = u32::try_from(rate).unwrap_or(u32::MAX);
        let mut all = 0_u64;
        let mut active = 0;
        for peer in &mut self.0 {
            if peer.id == id {
                peer.rate = rate;
            } else if peer.silent > SILENCE {
                continue;
            }
            active += 1;
            all += u64::from(peer.rate);
        }
        (f64::from(rate) / all.max(1) as f64, active)
    }
}

impl Peer {
    fn hear(&mut self, number: u32) -> Hearing {
        let mut heard = self.unusual ^ mask(self.known);
        let hearing;
        // Numbers begin again after the last one (RFC 1982).
        let ahead = number.wrapping_sub(self.highest);
        if ahead > 0 && ahead <= u32::MAX / 2 {
            heard = heard.checked_shl(ahead).unwrap_or(0) | 1;
            self.known = u32::from(self.known).saturating_add(ahead).min(WINDOW) as u8;
            self.highest = number;
            hearing = Hearing::New;
        } else {
            let behind = self.highest.wrapping_sub(number);
            let Some(bit) = 1_u32.checked_shl(behind) else {
                return Hearing::Unknown;
            };
            if heard & bit != 0 {
                return Hearing::Repeated;
            }
            heard |= bit;
            hearing = if behind < u32::from(self.known) {
                Hearing::New
            } else {
                Hearing::Unknown
            };
        }
        self.unusual = heard ^ mask(self.known);
        hearing
    }

    /// Whether it has nothing to give back.
    fn is_idle(&self) -> bool {
        self.out == 0 || self.silent > ENDED
    }

    /// How many bytes it takes where it is stored.
    fn size(&self) -> usize {
        6 + length(u64::from(self.highest))
            + length(u64::from(self.unusual))
            + length(u64::from(self.rate))
            + length(u64::from(self.out))
    }
}

/// The last `known` messages.
fn mask(known: u8) -> u32 {
    u32::MAX
        .checked_shr(WINDOW.saturating_sub(known.into()))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_once_in_whatever_order_it_comes() {
        let mut peers = Peers::default();
        let mut hear = |number| peers.hear(7, number);
        assert_eq!(hear(5), Hearing::Unknown);
        assert_eq!(hear(5), Hearing::Repeated);
        assert_eq!(hear(7), Hearing::New);
        assert_eq!(hear(6), Hearing::New);
        assert_eq!(hear(6), Hearing::Repeated);
        assert_eq!(hear(37), Hearing::New);
        assert_eq!(hear(7), Hearing::Repeated);
        assert_eq!(hear(8), Hearing::New);
        assert_eq!(hear(5), Hearing::Unknown, "nobody knows any more");
        assert_eq!(hear(1_000), Hearing::New);
        assert_eq!(hear(968), Hearing::Unknown);
        assert_eq!(hear(969), Hearing::New);
        assert_eq!(hear(969), Hearing::Repeated);
    }

    #[test]
    fn what_was_said_before_a_speaker_was_remembered_may_have_been_heard() {
        let mut peers = Peers::default();
        let mut hear = |number| peers.hear(7, number);
        assert_eq!(hear(5), Hearing::Unknown);
        assert_eq!(hear(4), Hearing::Unknown);
        assert_eq!(hear(4), Hearing::Repeated);
        assert_eq!(hear(7), Hearing::New);
        assert_eq!(hear(3), Hearing::Unknown);
        assert_eq!(hear(6), Hearing::New);
    }

    #[test]
    fn numbers_begin_again_after_the_last() {
        let mut peers = Peers::default();
        let mut hear = |number| peers.hear(7, number);
        assert_eq!(hear(u32::MAX - 1), Hearing::Unknown);
        assert_eq!(hear(1), Hearing::New);
        assert_eq!(hear(u32::MAX), Hearing::New);
        assert_eq!(hear(0), Hearing::New);
        assert_eq!(hear(0), Hearing::Repeated);
    }

    /// As many speakers as there is room for, with the numbers from 1 on; each has taken so many units.
    fn crowd(many: u32, taken: u64) -> Peers {
        let mut peers = Peers::default();
        for id in 1..=many {
            peers.hear(id, 1);
            peers.note(taken, 0);
        }
        peers
    }

    #[test]
    fn who_was_silent_longest_is_forgotten() {
        let mut peers = crowd(64, 1);
        let room = peers.0.iter().map(Peer::size).sum();
        peers.hear(1, 2);
        peers.fit(room);
        assert_eq!(peers.0.len(), 64);
        peers.hear(999, 1);
        peers.fit(room);
        assert_eq!(peers.hear(1, 2), Hearing::Repeated);
        assert_eq!(peers.hear(3, 2), Hearing::New);
        assert_eq!(peers.hear(2, 2), Hearing::Unknown);
    }

    #[test]
    fn who_has_nothing_to_give_back_is_forgotten_before_others() {
        let mut peers = crowd(64, 3);
        let room = peers.0.iter().map(Peer::size).sum();
        peers.hear(9, 2);
        peers.note(0, 3);
        for id in 100..1_000 {
            peers.hear(id, 1);
            peers.note(1, 0);
            peers.fit(room);
            peers.hear(id, 2);
            peers.note(0, 1);
            peers.fit(room);
        }
        for id in (1..=64).filter(|id| *id != 9) {
            assert_eq!(peers.hear(id, 2), Hearing::New, "{id}");
        }
        // What nobody has heard of for so long has ended.
        let mut peers = crowd(64, 3);
        peers.roll(Timestamp(999), Timestamp(76_000));
        for id in 2..=64 {
            peers.hear(id, 2);
        }
        peers.hear(2, 3);
        peers.note(0, 3);
        peers.fit(room - 1);
        assert_eq!(peers.hear(1, 2), Hearing::Unknown);
        assert_eq!(peers.hear(2, 4), Hearing::New);
    }

    #[test]
    fn its_size_is_what_it_takes() {
        for (highest, unusual, rate, out) in
            [(0, 127, 128, u32::MAX), (16_383, 16_384, 1 << 21, 1 << 28)]
        {
            let peer = Peer {
                id: 1,
                highest,
                unusual,
                known: 32,
                rate,
                silent: 9,
                out,
            };
            let bytes = postcard::to_allocvec(&peer).unwrap();
            assert_eq!(bytes.len(), peer.size());
        }
    }

    #[test]
    fn a_share_is_of_what_is_asked_of_those_who_speak() {
        let mut peers = Peers::default();
        let mut before = Timestamp(0);
        for (id, at, rate, share) in [
            (1, 0, 1_000, (1.0, 1)),
            (2, 10_000, 3_000, (0.75, 2)),
            (1, 40_000, 3_000, (0.5, 2)),
            (1, 41_000, 0, (0.0, 1)),
            (3, 41_000, u64::MAX, (1.0, 2)),
        ] {
            peers.roll(before, Timestamp(at));
            before = Timestamp(at);
            peers.hear(id, at as u32);
            assert_eq!(peers.share(id, rate), share, "{id} at {at}");
        }
    }
}
