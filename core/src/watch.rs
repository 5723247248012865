//! Asks an installation of Dify's how it does, whether or not somebody has something to ask of it.

use std::{rc::Rc, time::Duration};

use http::{Request, StatusCode, header};

use crate::{
    body::Body,
    dialect::dify::{Checks, Installation},
    exchange::join,
    holdings::Holdings,
    patience::within,
    platform::Platform,
};

/// How long it may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer that is read, so that its connection can be used again.
const LONGEST: u64 = 64 << 10;

/// Asks as often as its `checks` say, for ever.
pub(crate) async fn watch(platform: Platform, holdings: Holdings, installation: Rc<Installation>) {
    let Some(checks) = &installation.checks else {
        return;
    };
    loop {
        let began = platform.clock.now();
        let patience = checks.every.min(PATIENCE);
        let asked = within(
            &*platform.clock,
            patience,
            ask(&platform, &installation, checks),
        );
        if let Some(well) = asked.await.unwrap_or(Some(false)) {
            let times = (began, platform.clock.now());
            let mut health = holdings.health();
            let dice = &mut platform.dice.borrow_mut();
            health.checked(&installation.api.name, well, checks.every, times, dice);
        }
        let took = platform.clock.now().since(began);
        platform
            .clock
            .sleep(checks.every.saturating_sub(took))
            .await;
    }
}

/// Whether it says that it is well; nothing, if it does not say anything of that.
async fn ask(platform: &Platform, installation: &Installation, checks: &Checks) -> Option<bool> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = join(&installation.api.base, &checks.path)?;
    let key = checks.app.as_ref().and_then(|app| app.origin.keys.first());
    if let Some(key) = key {
        let authorization = key.authorization.clone();
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, authorization);
    }
    let Ok(response) = platform.upstream.send(request, PATIENCE).await else {
        return Some(false);
    };
    let (head, body) = response.into_parts();
    let is_whole = body.read(LONGEST).await.is_ok();
    match head.status {
        // The key is withdrawn, or the app is closed: that is not how the installation does.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if key.is_some() => None,
        status => Some(status.is_success() && is_whole),
    }
}
