//! The gateway of this instance: made by its first request, kept for those that follow.

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
};

use http::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use spin_sdk::variables;
use tidegate_core::{
    Body, Config, Gateway, Platform,
    config::{Runtime, Store, Value},
    ledger::Accounts,
    platform::Ledger,
};
use tidegate_redis::Redis;

use crate::{
    ambient,
    ledger::{Connected, LONGEST_LEASE, Sqlite},
    tasks::Tasks,
    upstream::Upstream,
};

/// Where the manifest mounts the compiled configuration.
const PATH: &str = "/tidegate.json";

thread_local! {
    static GATEWAY: OnceCell<Gateway> = const { OnceCell::new() };
}

/// The gateway, or why there is none. What failed is tried again by the next request.
pub(crate) async fn gateway() -> Result<Gateway, Trouble> {
    if let Some(gateway) = GATEWAY.with(|made| made.get().cloned()) {
        return Ok(gateway);
    }
    let gateway = assemble(config().await?);
    // Another request may have come first while this one waited for the secrets; all must share one.
    Ok(GATEWAY.with(|made| made.get_or_init(|| gateway).clone()))
}

/// Why there is no gateway: what the operator has to put right.
pub(crate) struct Trouble(Vec<String>);

impl Trouble {
    fn new(problems: impl IntoIterator<Item = String>) -> Self {
        let problems: Vec<_> = problems.into_iter().collect();
        for problem in &problems {
            eprintln!("tidegate: {problem}");
        }
        Self(problems)
    }

    /// What a caller hears.
    pub(crate) fn answer(&self) -> Response<Body> {
        let text = serde_json::json!({
            "error": {
                "message": "the gateway's configuration is wrong",
                "type": "configuration_error",
                "code": "configuration_error",
                "problems": self.0,
            }
        });
        let mut response = Response::new(Body::from(text.to_string()));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

async fn config() -> Result<Config, Trouble> {
    let text = std::fs::read_to_string(PATH)
        .map_err(|error| Trouble::new([format!("cannot read {PATH}: {error}")]))?;
    let document: Value = serde_json::from_str(&text)
        .map_err(|error| Trouble::new([format!("{PATH} is not JSON: {error}")]))?;
    let mut secrets = Vec::new();
    for name in Config::secrets(&document) {
        match variables::get(name.to_ascii_lowercase()).await {
            Ok(value) => {
                secrets.push((name, value));
            }
            // Left out: the configuration says which value it stands in.
            Err(variables::Error::Undefined(_) | variables::Error::InvalidName(_)) => {}
            Err(error) => {
                return Err(Trouble::new([format!(
                    "cannot read the variable for ${name}: {error}"
                )]));
            }
        }
    }
    Config::build(&document, Some(&secrets), Runtime::Spin)
        .map_err(|problems| Trouble::new(problems.iter().map(ToString::to_string)))
}

fn assemble(config: Config) -> Gateway {
    let clock = Rc::new(ambient::Clock);
    let tasks = Rc::new(Tasks);
    let dice = Rc::new(RefCell::new(ambient::dice()));
    let ledger: Rc<dyn Ledger> = match &config.store {
        Store::Embedded => Rc::new(Accounts::new(
            Sqlite::default(),
            LONGEST_LEASE,
            clock.clone(),
            tasks.clone(),
            dice.clone(),
        )),
        Store::Redis(url) => Rc::new(Accounts::new(
            Redis::new(Connected::to(url), clock.clone()),
            LONGEST_LEASE,
            clock.clone(),
            tasks.clone(),
            dice.clone(),
        )),
    };
    let platform = Platform {
        upstream: Rc::new(Upstream),
        ledger,
        clock,
        tasks,
        journal: Rc::new(ambient::Journal),
        dice,
    };
    Gateway::new(Rc::new(config), platform)
}
