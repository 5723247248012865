//! What an operator asks of accounts.

use std::rc::Rc;

use super::Desk;
use crate::{
    limit::{Adjustment, Balance, Entry, Limit, Posting},
    platform::Fault,
};

impl Desk {
    /// Where `accounts` stand, in their order.
    pub(crate) async fn look(&self, accounts: &[(&Limit, Rc<str>)]) -> Vec<Result<Balance, Fault>> {
        let ask = |(limit, account): &(&Limit, Rc<str>)| self.order(limit, account, None);
        let postings: Vec<Posting> = accounts.iter().map(ask).collect();
        self.post(&postings).await
    }

    /// Does to an account what an operator wants.
    pub(crate) async fn adjust(
        &self,
        limit: &Limit,
        account: &Rc<str>,
        adjustment: Adjustment,
    ) -> Result<Balance, Fault> {
        let posting = self.order(limit, account, Some(adjustment));
        let silent = || Err(Fault("no answer".into()));
        self.post(&[posting]).await.pop().unwrap_or_else(silent)
    }

    fn order(&self, limit: &Limit, account: &Rc<str>, adjust: Option<Adjustment>) -> Posting {
        let now = self.now();
        let holdings = &self.0.holdings;
        let entry = holdings.with(limit, account, now, |purse| {
            purse.forgive();
            Entry {
                adjust,
                ..purse.settle(holdings.me(), now)
            }
        });
        Posting {
            account: account.clone(),
            entry,
        }
    }
}
