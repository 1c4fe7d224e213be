//! Descriptors of the BTF of filesystem modules; a program cannot be attached to their functions
//! without one.
//!
//! Getting a descriptor requires CAP_SYS_ADMIN, using it does not. Those of all modules loaded at
//! startup are kept; a [`Helper`] gets those of modules that are loaded later.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::helper::{Helper, NAME};
use crate::attach::error::NoModuleBtf;
use crate::capabilities::has_sys_admin;
use crate::hooks;
use crate::kernel_version::kernel_at_least;
use crate::sys::tracing;

/// The descriptors that filltop has. One per process, because the privilege is the one that the
/// process was started with.
pub(crate) struct ModuleBtf {
    /// Descriptors, by module name.
    kept: HashMap<String, Arc<OwnedFd>>,
    /// Whether CAP_SYS_ADMIN was effective at startup.
    had_admin: bool,
    /// Source of descriptors for modules that are loaded later.
    source: Source,
}

enum Source {
    /// filltop was started without CAP_SYS_ADMIN, or the kernel has no BTF of modules (before
    /// 5.11).
    Nowhere,
    Helper(Helper),
    /// Why the helper is not running.
    NoHelper(String),
}

impl ModuleBtf {
    /// Returns the descriptors of this process. The first call gets all that exist and starts the
    /// helper. It must come before the privilege is dropped, and should come while the process is
    /// small.
    pub(crate) fn shared() -> MutexGuard<'static, Self> {
        static OURS: OnceLock<Mutex<ModuleBtf>> = OnceLock::new();
        let ours = OURS.get_or_init(|| Mutex::new(Self::begin()));
        // A panic in another thread leaves the value consistent.
        ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin() -> Self {
        let had_admin = has_sys_admin();
        let mut types = Self { kept: HashMap::new(), had_admin, source: Source::Nowhere };
        if had_admin && kernel_at_least(5, 11) {
            types.source = match Helper::start(&modules()) {
                Ok(helper) => Source::Helper(helper),
                Err(error) => Source::NoHelper(error.to_string()),
            };
            // Also if the helper failed to start.
            let result = tracing::kernel_types(|name, descriptor| {
                if let Some(name) = name.to_str().ok().filter(|name| modules().contains(name)) {
                    let descriptor = descriptor.try_clone_to_owned()?;
                    types.kept.insert(name.to_owned(), Arc::new(descriptor));
                }
                Ok(())
            });
            if let Err(error) = result {
                ::tracing::debug!("BTF of modules: {error}");
            }
        }
        types
    }

    /// Whether CAP_SYS_ADMIN was effective at startup.
    pub(crate) const fn had_admin(&self) -> bool {
        self.had_admin
    }

    /// Gets the descriptors of modules that were loaded, or loaded again, since.
    pub(crate) fn refresh(&mut self) {
        let Source::Helper(helper) = &self.source else { return };
        match helper.list() {
            Ok(found) => {
                self.kept = found.into_iter().map(|(name, fd)| (name, Arc::new(fd))).collect();
            }
            Err(error) => self.helper_failed(&error),
        }
    }

    /// Returns the process that keeps CAP_SYS_ADMIN, if it runs.
    pub(crate) const fn helper(&self) -> Option<&Helper> {
        match &self.source {
            Source::Helper(helper) => Some(helper),
            Source::Nowhere | Source::NoHelper(_) => None,
        }
    }

    /// Notes that the helper does not answer any more.
    pub(crate) fn helper_failed(&mut self, error: &io::Error) {
        ::tracing::warn!("helper process {}: {error}", NAME.to_string_lossy());
        self.source = Source::NoHelper(error.to_string());
    }

    /// Returns the descriptor of a module's BTF.
    pub(crate) fn of(&self, module: &str) -> Result<Arc<OwnedFd>, NoModuleBtf> {
        self.kept.get(module).cloned().ok_or_else(|| match &self.source {
            Source::Nowhere => NoModuleBtf::NeverAllowed,
            Source::Helper(_) => NoModuleBtf::NotLoaded(module.to_owned()),
            Source::NoHelper(why) => NoModuleBtf::NoHelper(why.clone()),
        })
    }
}

/// Modules of the filesystems whose functions are hooked; they are named like the filesystems.
fn modules() -> Vec<&'static str> {
    hooks::WRITE_ITERS.iter().map(|fs| fs.fs_type).collect()
}
