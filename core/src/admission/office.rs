//! What an operator asks of accounts.

use std::rc::Rc;

use super::Desk;
use crate::{
    limit::{Adjustment, Balance, Entry, Limit, Posting},
    platform::Fault,
};

impl Desk {
    /// Where an account stands.
    pub(crate) async fn look(&self, limit: &Limit, account: &Rc<str>) -> Result<Balance, Fault> {
        self.say(limit, account, None).await
    }

    /// Does to an account what an operator wants.
    pub(crate) async fn adjust(
        &self,
        limit: &Limit,
        account: &Rc<str>,
        adjustment: Adjustment,
    ) -> Result<Balance, Fault> {
        self.say(limit, account, Some(adjustment)).await
    }

    async fn say(
        &self,
        limit: &Limit,
        account: &Rc<str>,
        adjust: Option<Adjustment>,
    ) -> Result<Balance, Fault> {
        let now = self.now();
        let holdings = &self.0.holdings;
        let entry = holdings.with(limit, account, now, |purse| {
            purse.forgive();
            Entry {
                adjust,
                ..purse.settle(holdings.me(), now)
            }
        });
        let posting = Posting {
            account: account.clone(),
            entry,
        };
        let silent = || Err(Fault("no answer".into()));
        self.post(&[posting]).await.pop().unwrap_or_else(silent)
    }
}
