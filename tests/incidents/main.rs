//! Five incidents, re-enacted with real software: filltop has to name culprit, place and time
//! before the disk is full, name the victims, and stop the culprit. One scenario file each
//! (`NAME.toml`).

mod afterwards;
mod cache;
mod engine;
mod jail;
mod machine;
mod measure;
mod peers;
mod record;
mod scenario;
mod spool;
mod stage;
mod staging;

type Result = anyhow::Result<()>;
