//! Who speaks to an account: what each has said already, and how much is asked of it.

use postcard::fixint;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How many speakers are remembered; the one that was silent longest is forgotten for another.
const PEERS: usize = 64;

/// After how many seconds of silence nothing is asked of a speaker any more.
const SILENCE: u32 = 30;

/// How many messages of a speaker are told apart, up to the last one.
const WINDOW: u32 = u32::BITS;

/// The speakers, the one that was silent longest in front.
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
    #[serde(with = "fixint::le")]
    heard: u32,
    /// How many of the messages up to the highest have come since this speaker is remembered, or would be known to.
    known: u8,
    /// Thousandths of a unit a second that are asked of it.
    rate: u32,
    /// The second in which it spoke last.
    #[serde(with = "fixint::le")]
    at: u32,
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
    /// Remembers that the speaker `id` has said its message `number`.
    pub(super) fn hear(&mut self, id: u32, number: u32, now: Timestamp) -> Hearing {
        let at = second(now);
        let Some(place) = self.0.iter().position(|peer| peer.id == id) else {
            if self.0.len() >= PEERS {
                self.0.remove(0);
            }
            self.0.push(Peer {
                id,
                highest: number,
                heard: 1,
                known: 1,
                rate: 0,
                at,
            });
            return Hearing::Unknown;
        };
        let mut peer = self.0.remove(place);
        peer.at = at;
        let hearing = peer.hear(number);
        self.0.push(peer);
        hearing
    }

    /// Notes what is asked of the speaker `id`; gives its share of what is asked of all, and how many they are.
    pub(super) fn share(&mut self, id: u32, rate: u64, now: Timestamp) -> (f64, usize) {
        let rate = u32::try_from(rate).unwrap_or(u32::MAX);
        let now = second(now);
        let mut all = 0_u64;
        let mut active = 0;
        for peer in &mut self.0 {
            if peer.id == id {
                peer.rate = rate;
            } else if now.saturating_sub(peer.at) > SILENCE {
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
        // Numbers begin again after the last one (RFC 1982).
        let ahead = number.wrapping_sub(self.highest);
        if ahead > 0 && ahead <= u32::MAX / 2 {
            self.heard = self.heard.checked_shl(ahead).unwrap_or(0) | 1;
            self.known = u32::from(self.known).saturating_add(ahead).min(WINDOW) as u8;
            self.highest = number;
            return Hearing::New;
        }
        let behind = self.highest.wrapping_sub(number);
        let Some(bit) = 1_u32.checked_shl(behind) else {
            return Hearing::Unknown;
        };
        if self.heard & bit != 0 {
            return Hearing::Repeated;
        }
        self.heard |= bit;
        if behind < u32::from(self.known) {
            Hearing::New
        } else {
            Hearing::Unknown
        }
    }
}

fn second(now: Timestamp) -> u32 {
    u32::try_from(now.0 / 1_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_once_in_whatever_order_it_comes() {
        let mut peers = Peers::default();
        let mut hear = |number| peers.hear(7, number, Timestamp(0));
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
        let mut hear = |number| peers.hear(7, number, Timestamp(0));
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
        let mut hear = |number| peers.hear(7, number, Timestamp(0));
        assert_eq!(hear(u32::MAX - 1), Hearing::Unknown);
        assert_eq!(hear(1), Hearing::New);
        assert_eq!(hear(u32::MAX), Hearing::New);
        assert_eq!(hear(0), Hearing::New);
        assert_eq!(hear(0), Hearing::Repeated);
    }

    #[test]
    fn who_was_silent_longest_is_forgotten() {
        let mut peers = Peers::default();
        for id in 0..PEERS as u32 {
            peers.hear(id, 1, Timestamp(u64::from(id) + 1));
        }
        peers.hear(0, 2, Timestamp(100));
        peers.hear(999, 1, Timestamp(101));
        assert_eq!(peers.hear(0, 2, Timestamp(102)), Hearing::Repeated);
        assert_eq!(peers.hear(1, 1, Timestamp(103)), Hearing::Unknown);
    }

    #[test]
    fn a_share_is_of_what_is_asked_of_those_who_speak() {
        let mut peers = Peers::default();
        for (id, at, rate, share) in [
            (1, 0, 1_000, (1.0, 1)),
            (2, 10_000, 3_000, (0.75, 2)),
            (1, 40_000, 3_000, (0.5, 2)),
            (1, 41_000, 0, (0.0, 1)),
            (3, 41_000, u64::MAX, (1.0, 2)),
        ] {
            peers.hear(id, at as u32, Timestamp(at));
            assert_eq!(peers.share(id, rate, Timestamp(at)), share, "{id} at {at}");
        }
    }
}
