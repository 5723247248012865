//! The interfaces that Spin adds to WASI, generated from `wit/`.
#![allow(missing_docs, unreachable_pub, reason = "generated")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "tidegate:spin-host/host",
    with: {
        "spin:sqlite/sqlite.connection": crate::sqlite::Connection,
        "spin:redis/redis.connection": crate::redis::Connection,
    },
});
