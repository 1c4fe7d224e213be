//! The machine that runs the incidents: how fast it is, and which programs it has.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

/// How many times longer than on a machine with two real cores things may take here:
/// `FILLTOP_SLOWNESS`.
pub fn slowness() -> f64 {
    let given = env::var("FILLTOP_SLOWNESS").ok();
    given.and_then(|text| text.parse().ok()).map_or(1.0, |times: f64| times.max(1.0))
}

/// Bytes, or bytes per second, reduced on a slow machine by the same factor as its volumes.
pub fn fewer(bytes: u64) -> u64 {
    (bytes as f64 / slowness()) as u64
}

/// A time that is long enough on a machine with two real cores, extended for this one.
pub fn patience(seconds: u64) -> Duration {
    Duration::from_secs(seconds).mul_f64(slowness())
}

/// A program of a Debian package: unpacked by xtask, or installed.
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

/// Skips the test if a program is not available.
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

/// Skips the test on a machine that is declared slow.
#[macro_export]
macro_rules! need_speed {
    ($why:expr) => {
        if $crate::machine::slowness() > 1.0 {
            let test = std::thread::current().name().unwrap_or("?").to_owned();
            println!("SKIP {test}: too slow a machine (FILLTOP_SLOWNESS): {}", $why);
            return Ok(());
        }
    };
}
