//! What an instance of the component sees of the host.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use wasmtime::component::{HasData, ResourceTable};
use wasmtime_wasi::{DirPerms, FilePerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    WasiHttpCtx,
    p3::{WasiHttpCtxView, WasiHttpView},
};

use crate::{outbound::Outbound, output::Lines};

/// What all instances share.
pub(crate) struct Services {
    /// The folder that instances see as `/`.
    mount: PathBuf,
    /// The default SQLite database.
    pub(crate) database: PathBuf,
    outbound: Outbound,
}

impl Services {
    /// Lays out `state`, with `config` to be mounted.
    pub(crate) fn new(state: &Path, config: &Path) -> anyhow::Result<Self> {
        // One a process: several hosts may share a database.
        let mount = state.join(format!("files-{}", std::process::id()));
        std::fs::create_dir_all(&mount)
            .with_context(|| format!("cannot make {}", mount.display()))?;
        std::fs::copy(config, mount.join("tidegate.json"))
            .with_context(|| format!("cannot read {}", config.display()))?;
        Ok(Self {
            mount,
            database: state.join("sqlite_db.db"),
            outbound: Outbound::new(),
        })
    }
}

/// The data of one instance.
pub(crate) struct Data {
    pub(crate) services: Arc<Services>,
    pub(crate) table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
}

impl Data {
    pub(crate) fn new(services: Arc<Services>) -> wasmtime::Result<Self> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(Lines::to_stdout()).stderr(Lines::to_stderr());
        wasi.preopened_dir(&services.mount, "/", DirPerms::READ, FilePerms::READ)?;
        Ok(Self {
            table: ResourceTable::new(),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outbound: services.outbound.clone(),
            services,
        })
    }
}

impl WasiView for Data {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Data {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.outbound,
        }
    }
}

/// How Spin's own interfaces see the data.
pub(crate) struct Spin;

impl HasData for Spin {
    type Data<'a> = &'a mut Data;
}
