//! An account as it lies in a store: the same bytes on every platform.

use crc::{CRC_32_ISO_HDLC, Crc, Table};

use super::Account;

/// The layout of the bytes, which come first. Another number is another layout.
const LAYOUT: u8 = 5;

/// How many bytes an account takes at most.
pub(super) const LARGEST: usize = 4_096;

/// How many of them are layout, sum, the lengths of lists, a raise and the time.
pub(super) const FRAME: usize = 64;

/// Why bytes are no account.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unreadable {
    /// They are laid out in another way: by another version of this program.
    Layout(Option<u8>),
    /// They are not what was stored.
    Corrupt,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Layout(Some(layout)) => write!(f, "its layout is {layout}, and not {LAYOUT}"),
            Self::Layout(None) => f.write_str("it is empty"),
            Self::Corrupt => f.write_str("it is not what was stored"),
        }
    }
}

impl std::error::Error for Unreadable {}

/// Of zip and of Ethernet. Whoever has sixteen tables is faster; an account has 4 KB, and the edge has little room.
static CHECKSUM: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

impl Account {
    /// The account as bytes: at most 4 KB, whoever uses it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![LAYOUT];
        // An account is numbers in lists, which always have a place.
        if let Ok(body) = postcard::to_allocvec(self) {
            bytes.extend(CHECKSUM.checksum(&body).to_le_bytes());
            bytes.extend(body);
        }
        bytes
    }

    /// The account that `bytes` are. Nothing is guessed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (layout, rest) = bytes.split_first().ok_or(Unreadable::Layout(None))?;
        if *layout != LAYOUT {
            return Err(Unreadable::Layout(Some(*layout)));
        }
        let (sum, body) = rest.split_first_chunk().ok_or(Unreadable::Corrupt)?;
        if CHECKSUM.checksum(body) != u32::from_le_bytes(*sum) {
            return Err(Unreadable::Corrupt);
        }
        postcard::from_bytes(body).map_err(|_| Unreadable::Corrupt)
    }
}

/// How many bytes a number takes.
pub(super) fn length(number: u64) -> usize {
    (70 - (number | 1).leading_zeros()) as usize / 7
}

/// Buckets by how far each lies after the one before.
pub(super) mod steps {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::SerializeSeq as _};

    use crate::limit::ring::Bucket;

    pub(in crate::limit) fn serialize<S: Serializer>(
        buckets: &[Bucket],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(buckets.len()))?;
        let mut before = 0;
        for bucket in buckets {
            list.serialize_element(&Bucket {
                number: bucket.number - before,
                ..*bucket
            })?;
            before = bucket.number;
        }
        list.end()
    }

    pub(in crate::limit) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Bucket>, D::Error> {
        let mut buckets = Vec::<Bucket>::deserialize(deserializer)?;
        let mut before: Option<u64> = None;
        for bucket in &mut buckets {
            let number = before.unwrap_or(0).checked_add(bucket.number);
            let (units, part) = (bucket.units, bucket.promised.max(bucket.lent));
            let follows = number > before && part <= units;
            match number.filter(|_| follows) {
                Some(number) => bucket.number = number,
                None => return Err(D::Error::custom("its buckets are not in order")),
            }
            before = Some(bucket.number);
        }
        Ok(buckets)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::{
        limit::{Entry, Quota},
        overload::{Bounds, Report},
        time::Timestamp,
    };

    #[test]
    fn who_shares_an_upstream_takes_no_more_room_than_an_account_has() {
        let limit = NonZeroU64::MIN;
        let mut account = Account::default();
        for from in 0..1_000 {
            let report = Report {
                bounds: Bounds::fixed(10_000),
                in_progress: 9_000,
                peak: 10_000,
                waiting: 1_000,
                room: 1_000,
                delays: vec![600_000; 64],
            };
            let entry = Entry {
                quota: Quota { limit, per: 0 },
                from: u32::MAX - from,
                number: 0,
                settled: Vec::new(),
                owed: 0,
                adjust: None,
                left: None,
                take: None,
                report: Some(report),
            };
            account.apply(&entry, Timestamp(1_800_000_000_000));
        }
        let bytes = account.to_bytes();
        assert!(bytes.len() <= LARGEST, "{}", bytes.len());
        assert_eq!(Account::from_bytes(&bytes), Ok(account));
    }
}
