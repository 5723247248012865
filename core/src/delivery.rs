//! A question on its way to whoever is asked, and before it the files that it speaks of.

use std::{cell::Cell, time::Duration};

use http::Response;

use crate::{
    answer::{ABANDONED, Miss},
    body::Body,
    exchange::Delivery,
    platform::Platform,
};

/// The longest answer to an upload that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Sends all of `delivery`. Where a file is not taken, what is said of that is the answer.
pub(crate) async fn deliver(
    mut delivery: Delivery,
    platform: &Platform,
    connect: Duration,
    is_left: &Cell<bool>,
) -> Result<Response<Body>, Miss> {
    loop {
        let upload = delivery.upload(&platform.dice);
        let is_last = upload.is_none();
        let request = upload.unwrap_or_else(|| delivery.question());
        let response = platform.upstream.send(request, connect).await?;
        if is_last || !response.status().is_success() {
            return Ok(response);
        }
        let said = response.into_body().read(LONGEST).await;
        let taken = delivery.uploaded(&said.map_err(Miss::broken)?);
        taken.ok_or_else(|| Miss::garbled("no number of the file that was uploaded"))?;
        if is_left.get() {
            return Err(Miss::no_sign(ABANDONED));
        }
    }
}
