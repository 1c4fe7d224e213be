//! Keeps a supervisor and its watchdog running when memory is short, and raises the number of
//! processes that they can hold open.

use std::ffi::CStr;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Names the process, locks its memory, exempts it from the OOM killer, and raises the limit of file
/// descriptors for one per process of the target. Best effort: failures are ignored.
pub(super) fn harden_process(name: &CStr) {
    let _ = rustix::thread::set_name(name);
    let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let most = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
}
