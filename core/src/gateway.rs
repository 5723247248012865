//! The life of a request.

use std::{net::IpAddr, rc::Rc};

use crate::{body::Body, config::Config, platform::Platform};

/// The gateway: a configuration, and a platform to play it on. Cheap to make and to clone.
#[derive(Clone)]
pub struct Gateway {
    config: Rc<Config>,
    platform: Platform,
}

impl Gateway {
    /// A gateway of `config` on `platform`.
    pub fn new(config: Rc<Config>, platform: Platform) -> Self {
        Self { config, platform }
    }

    /// Answers `request`, which came from `peer`: the address that the platform vouches for.
    pub async fn serve(&self, request: http::Request<Body>, peer: Option<IpAddr>) -> http::Response<Body> {
        let _ = (&self.config, &self.platform, request, peer);
        http::Response::new(Body::empty())
    }
}
