//! Limits that are never exceeded.
//!
//! # The promise, and why it holds
//!
//! An [`Account`] keeps units in buckets of time. A unit that is *held* lies in the bucket by whose end it is surely
//! spent, which may lie ahead; a unit that was *spent* lies in a bucket that does not end before it was spent. A bucket
//! counts until its last instant is a whole window old. All that counts is at most the limit, at every instant: units come in
//! only where there is room, move only to earlier buckets, and what is promised of a bucket moves on only when that
//! bucket leaves.
//!
//! So take any window, of the quota's length, that ends at some instant: whatever was spent within it counts at
//! that instant, once, and all that counts is at most the limit. Nobody needs to settle for that to hold, no message needs
//! to arrive, and no two clocks need to agree, but only to run alike to one part in 64: what gets lost is charged in full
//! when its holding ends. What is held for longer instead of something else frees that only where it is granted.
//!
//! # Who does what
//!
//! - [`Account`] is the one limiter. Every platform stores it, hands it an [`Entry`] and the time, and keeps what comes out.
//! - [`Purse`] is what an isolate holds of an account: where an account is busy, it lends for some seconds (a lease),
//!   and its isolates spend without asking. Where it is not, or the limit is small, every request asks.
//! - A limit on what goes on *at the same time* is an account whose window has no length: units count while they are held.
//! - What an isolate gives back is believed while it is remembered, so that nothing comes back twice. About 250 that hold
//!   something are (an account takes at most 4 KB); what more of them give back counts as if it were spent.
//!
//! The lease is an escrow (O'Neil 1986) with terms as in Google's Doorman; its slices of what leaves the window soon
//! are what keeps a limit that is used up from costing a call a request.

mod account;
mod entry;
mod lease;
mod lot;
mod meter;
mod peers;
mod purse;
mod purses;
mod queue;
mod quota;
mod ring;
mod rule;
mod stored;

pub use account::Account;
pub use entry::{
    Adjustment, Balance, Demand, Entry, Parcel, Place, Posting, Promise, Settled, Take,
};
pub use lot::Held;
pub use purse::{Draw, Purse, Want};
pub use purses::Purses;
pub use queue::LONGEST_QUEUE;
pub use quota::{LONGEST_HOLD, Quota};
pub use rule::{Asker, By, Limit, Overrun, Queueing, Standing, Unit};
pub use stored::Unreadable;
