//! Randomness that is handed in.

/// A small generator: `SplitMix64` (Steele, Lea, Flood 2014), with the other half of the seed mixed in.
///
/// It names requests; nothing that must be secret is drawn from it.
#[derive(Clone, Debug)]
pub struct Dice {
    high: u64,
    low: u64,
}

impl Dice {
    /// Dice that roll as `seed` says; an adapter takes the seed from the platform's entropy.
    pub fn new(seed: [u8; 16]) -> Self {
        let seed = u128::from_le_bytes(seed);
        Self {
            high: (seed >> 64) as u64,
            low: seed as u64,
        }
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.low = self.low.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.low ^ self.high.rotate_left(32);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both among them; `low`, if they are the wrong way round.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let numbers = high.saturating_sub(low).saturating_add(1);
        low.saturating_add(self.roll() % numbers)
    }

    /// Something that happens with this probability: never at 0, always at 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        let part = (self.roll() >> 11) as f64 / (1_u64 << 53) as f64;
        part < probability
    }

    /// A name for a request: 32 hexadecimal digits.
    pub fn id(&mut self) -> String {
        format!("{:016x}{:016x}", self.roll() ^ self.high, self.roll())
    }
}
