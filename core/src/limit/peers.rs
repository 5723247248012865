//! Who speaks to an account: what each has said already, and how much is asked of it.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How many speakers are remembered; the one that was silent longest is forgotten for another.
const PEERS: usize = 64;

/// After how many milliseconds of silence nothing is asked of a speaker any more.
const SILENCE: u64 = 30_000;

/// The speakers.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Peers(Vec<Peer>);

/// One of them. Which of its messages were heard is kept as IPsec keeps it against replay: the highest number, and one bit
/// for each of the 64 up to it (RFC 4303, section 3.4.3). So messages may overtake each other, and none counts twice.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Peer {
    id: u32,
    highest: u32,
    heard: u64,
    rate: u64,
    at: Timestamp,
}

/// What an account knows of a message when it hears it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hearing {
    /// The first of its speaker, or the speaker was forgotten: it can have nothing to settle that is known of here.
    Unknown,
    /// Not heard before.
    New,
    /// Heard before, or so late that nobody knows.
    Repeated,
}

impl Peers {
    /// Remembers that the speaker `id` has said its message `number`.
    pub(super) fn hear(&mut self, id: u32, number: u32, now: Timestamp) -> Hearing {
        if let Some(peer) = self.0.iter_mut().find(|peer| peer.id == id) {
            peer.at = now;
            return peer.hear(number);
        }
        if self.0.len() >= PEERS {
            let silent = self.0.iter().enumerate().min_by_key(|(_, peer)| peer.at);
            if let Some((place, _)) = silent {
                self.0.swap_remove(place);
            }
        }
        self.0.push(Peer {
            id,
            highest: number,
            heard: 1,
            rate: 0,
            at: now,
        });
        Hearing::Unknown
    }

    /// Notes what is asked of the speaker `id`; gives its share of what is asked of all, and how many they are.
    pub(super) fn share(&mut self, id: u32, rate: u64, now: Timestamp) -> (f64, usize) {
        let mut all = 0_u64;
        let mut active = 0;
        for peer in &mut self.0 {
            if peer.id == id {
                peer.rate = rate;
            } else if now.0.saturating_sub(peer.at.0) > SILENCE {
                continue;
            }
            active += 1;
            all = all.saturating_add(peer.rate);
        }
        (rate as f64 / all.max(1) as f64, active)
    }
}

impl Peer {
    fn hear(&mut self, number: u32) -> Hearing {
        if number > self.highest {
            let ahead = number - self.highest;
            self.heard = self.heard.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = number;
            return Hearing::New;
        }
        let Some(bit) = 1_u64.checked_shl(self.highest - number) else {
            return Hearing::Repeated;
        };
        if self.heard & bit != 0 {
            return Hearing::Repeated;
        }
        self.heard |= bit;
        Hearing::New
    }
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
        assert_eq!(hear(69), Hearing::New);
        assert_eq!(hear(7), Hearing::Repeated);
        assert_eq!(hear(8), Hearing::New);
        assert_eq!(hear(5), Hearing::Repeated, "nobody knows any more");
        assert_eq!(hear(1_000), Hearing::New);
        assert_eq!(hear(936), Hearing::Repeated);
        assert_eq!(hear(937), Hearing::New);
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
}
