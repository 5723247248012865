//! Accounts while postings are applied to them: in memory, before anything is kept.

use std::rc::Rc;

use super::{Change, Found, Kept};
use crate::{
    limit::{Account, Balance, Posting},
    platform::Fault,
    time::Timestamp,
};

/// The accounts of some posts, as they were found and as they become; in the order of their names.
pub(super) struct Sheet(Vec<(Rc<str>, Result<Line, Fault>)>);

struct Line {
    /// Nothing, if nothing was kept.
    version: Option<i64>,
    /// Nothing while it is being changed.
    account: Option<Account>,
    /// When nothing counts in it; nothing, if it is to stay as it was found.
    expires: Option<Timestamp>,
}

impl Sheet {
    /// What was found of accounts, in the order of their names.
    pub(super) fn new(found: impl Iterator<Item = (Rc<str>, Found)>) -> Self {
        let line = |found: Found| {
            found.map(|kept| match kept {
                Some(kept) => Line::new(Some(kept.version), kept.account),
                None => Line::new(None, Account::default()),
            })
        };
        Self(found.map(|(id, found)| (id, line(found))).collect())
    }

    /// Changes the accounts of `postings`, all or none.
    pub(super) fn post(
        &mut self,
        postings: &[Posting],
        now: Timestamp,
    ) -> Vec<Result<Balance, Fault>> {
        let found = postings.iter();
        let found = found.map(|posting| self.take_out(&posting.account));
        let changed = Account::apply_all(found, postings, now);
        let changed = changed.into_iter().zip(postings);
        changed
            .map(|(changed, posting)| {
                let (account, balance) = changed?;
                self.put_in(posting, account, &balance);
                Ok(balance)
            })
            .collect()
    }

    /// What is to be kept.
    pub(super) fn changes(&self) -> Vec<Change<'_>> {
        let lines = self.0.iter();
        lines
            .filter_map(|(id, line)| {
                let line = line.as_ref().ok()?;
                Some(Change {
                    id,
                    expected: line.version,
                    account: line.account.as_ref()?,
                    expires: line.expires?,
                })
            })
            .collect()
    }

    /// What is kept once [`Self::changes`] are, at `version`.
    pub(super) fn into_kept(self, version: i64) -> impl Iterator<Item = (Rc<str>, Kept)> {
        self.0.into_iter().filter_map(move |(id, line)| {
            let line = line.ok()?;
            let version = line.expires.map_or(line.version, |_| Some(version))?;
            let account = line.account?;
            Some((id, Kept { version, account }))
        })
    }

    /// The account named `id`, to be changed and put in again.
    fn take_out(&mut self, id: &str) -> Result<Account, Fault> {
        match self.line(id) {
            // The core names an account once in a post.
            Some(Ok(line)) => line.account.take().ok_or_else(|| unknown(id)),
            Some(Err(fault)) => Err(fault.clone()),
            None => Err(unknown(id)),
        }
    }

    fn put_in(&mut self, posting: &Posting, account: Account, balance: &Balance) {
        if let Some(Ok(line)) = self.line(&posting.account) {
            if posting.entry.is_kept(balance) {
                let empty = account.empty_at(&posting.entry.quota, balance.at);
                line.expires = line.expires.max(Some(empty));
            }
            line.account = Some(account);
        }
    }

    fn line(&mut self, id: &str) -> Option<&mut Result<Line, Fault>> {
        let place = self.0.binary_search_by(|(other, _)| (**other).cmp(id));
        self.0.get_mut(place.ok()?).map(|(_, line)| line)
    }
}

impl Line {
    fn new(version: Option<i64>, account: Account) -> Self {
        Self {
            version,
            account: Some(account),
            expires: None,
        }
    }
}

fn unknown(id: &str) -> Fault {
    Fault(format!("what the account `{id}` holds is not known"))
}
