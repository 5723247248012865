//! Instances of the component, kept and reused as Spin keeps and reuses them.

use std::{
    fs::File,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;
use wasmtime::{
    Cache, CacheConfig, Config, Engine, Store, StoreContextMut,
    component::{Component, GuestTaskId, Linker},
};
use wasmtime_wasi_http::{
    handler::{
        HandlerState, Instance, Proxy, ProxyHandler, ShouldAccept, ViewFn, WorkerExpiration,
        WorkerState, WorkerStatus,
    },
    p3::{WasiHttpView, bindings::ServicePre},
};

use crate::{
    bindings::spin,
    store::{Data, Services, Spin},
};

/// The component, ready to answer.
pub(crate) type Handler = ProxyHandler<Instances>;

/// Makes instances.
pub(crate) struct Instances {
    component: ServicePre<Data>,
    services: Arc<Services>,
}

impl Instances {
    /// Loads the component at `path`, compiled once and then kept in `cache`.
    pub(crate) fn new(
        path: &Path,
        cache: &Path,
        services: Arc<Services>,
    ) -> wasmtime::Result<Handler> {
        let cache = std::path::absolute(cache)?;
        std::fs::create_dir_all(&cache)?;
        let mut cached = CacheConfig::new();
        cached.with_directory(&cache);
        let mut config = Config::new();
        config
            .wasm_component_model_async(true)
            .cache(Some(Cache::new(cached)?));
        let engine = Engine::new(&config)?;

        let mut linker = Linker::<Data>::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        spin::variables::variables::add_to_linker::<_, Spin>(&mut linker, |data| data)?;
        spin::sqlite::sqlite::add_to_linker::<_, Spin>(&mut linker, |data| data)?;
        spin::redis::redis::add_to_linker::<_, Spin>(&mut linker, |data| data)?;

        // One compiles; those that start meanwhile wait, and find it done.
        let lock = File::create(cache.join("lock"))?;
        lock.lock()?;
        let component = Component::from_file(&engine, path)?;
        drop(lock);
        let component = linker.instantiate_pre(&component)?;
        Ok(ProxyHandler::new(Self {
            component: ServicePre::new(component)?,
            services,
        }))
    }
}

impl HandlerState for Instances {
    type StoreData = Data;
    type WorkerExpiration = Idleness;
    type WorkerState = Reuse;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Data, Idleness, Reuse>> {
        let mut store = Store::new(self.component.engine(), Data::new(self.services.clone())?);
        let proxy = Proxy::P3(self.component.instantiate_async(&mut store).await?);
        let expiration = Idleness(Box::pin(tokio::time::sleep(IDLE)));
        Ok(Instance {
            store,
            proxy,
            view: ViewFn::P3(<Data as WasiHttpView>::http),
            expiration,
            state: Reuse,
        })
    }
}

/// Ends an instance that has had nothing to do for a while; never one that still works.
pub(crate) struct Idleness(Pin<Box<Sleep>>);

impl WorkerExpiration for Idleness {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        start: Instant,
    ) -> Poll<()> {
        if status != WorkerStatus::Idle {
            return Poll::Pending;
        }
        self.0.as_mut().reset((start + IDLE).into());
        self.0.as_mut().poll(cx)
    }
}

/// How much an instance takes on.
pub(crate) struct Reuse;

impl WorkerState for Reuse {
    type StoreData = Data;
    type RequestId = ();

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        if total >= REQUESTS {
            ShouldAccept::Never
        } else if concurrent >= AT_ONCE {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, Data>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        Box::pin(std::future::pending())
    }

    fn drop(&self, _: Store<Data>, result: Result<(), wasmtime::Error>) {
        if let Err(error) = result {
            eprintln!("an instance ended: {error:?}");
        }
    }
}

/// Spin's defaults for reuse.
const REQUESTS: usize = 128;
const AT_ONCE: usize = 16;
const IDLE: Duration = Duration::from_secs(1);
