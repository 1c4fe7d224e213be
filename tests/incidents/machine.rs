//! The machine that the incidents run on: how fast it is, and what programs it has.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

/// How many times as long as a machine of two real cores an emulated one may take: `FILLTOP_SLOWNESS`.
pub fn slowness() -> f64 {
    let given = env::var("FILLTOP_SLOWNESS").ok();
    given.and_then(|text| text.parse().ok()).map_or(1.0, |times: f64| times.max(1.0))
}

/// Bytes, or bytes a second, of which a slow machine does less: as many times as its volumes are smaller.
pub fn fewer(bytes: u64) -> u64 {
    (bytes as f64 / slowness()) as u64
}

/// A time that is long enough for a machine of two real cores, made long enough for this one.
pub fn patience(seconds: u64) -> Duration {
    Duration::from_secs(seconds).mul_f64(slowness())
}

/// A program of a Debian package: where xtask unpacked it, else as installed.
pub fn tool(name: &str) -> Option<PathBuf> {
    let unpacked = env::var_os("FILLTOP_INCIDENT_TOOLS").map(PathBuf::from);
    let folders = unpacked.iter().flat_map(|root| [root.join("usr/bin"), root.join("usr/sbin")]);
    let path = env::var_os("PATH").unwrap_or_default();
    folders
        .chain(["/usr/bin".into(), "/usr/sbin".into(), "/sbin".into()])
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Ends the test as skipped where a program is not to be had.
#[macro_export]
macro_rules! need_program {
    ($name:expr) => {
        match $crate::machine::tool($name) {
            Some(path) => path,
            None => {
                let test = std::thread::current().name().unwrap_or("?").to_owned();
                println!("SKIP {test}: no {} here", $name);
                return Ok(());
            }
        }
    };
}

/// Ends the test as skipped on a machine that is said to be slow.
#[macro_export]
macro_rules! need_speed {
    ($why:expr) => {
        if $crate::machine::slowness() > 1.0 {
            let test = std::thread::current().name().unwrap_or("?").to_owned();
            println!("SKIP {test}: not for slow machines (FILLTOP_SLOWNESS): {}", $why);
            return Ok(());
        }
    };
}
