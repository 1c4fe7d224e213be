//! Descriptors of the types of filesystems' modules, without which no program is attached to their functions.
//!
//! To get one takes CAP_SYS_ADMIN, to use one does not: those of all modules that are loaded at the start are kept,
//! and a [`Helper`] gets those of modules that are loaded later.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::thread::{CapabilitySet, capabilities};

use super::helper::Helper;
use crate::attach::error::NoTypes;
use crate::hooks;
use crate::kernel_version::kernel_at_least;
use crate::sys::tracing;

/// See the module: of this process, as the right is that it was started with.
pub(crate) struct ModuleTypes {
    /// By the module's name.
    kept: HashMap<String, Arc<OwnedFd>>,
    /// Was CAP_SYS_ADMIN there at the start?
    had_admin: bool,
    /// Where others come from.
    source: Source,
}

enum Source {
    /// filltop was started without CAP_SYS_ADMIN, or the kernel keeps no types of modules (before 5.11).
    Nowhere,
    Helper(Helper),
    /// Why there is none.
    NoHelper(String),
}

impl ModuleTypes {
    /// Those of this process. The first call, which has to come before the right is given up and should come
    /// while the process is small, gets all that there are and starts the helper.
    pub(crate) fn of_process() -> MutexGuard<'static, Self> {
        static OURS: OnceLock<Mutex<ModuleTypes>> = OnceLock::new();
        let ours = OURS.get_or_init(|| Mutex::new(Self::begin()));
        // A panic elsewhere leaves it whole.
        ours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin() -> Self {
        let had_admin =
            capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
        let mut types = Self { kept: HashMap::new(), had_admin, source: Source::Nowhere };
        if had_admin && kernel_at_least(5, 11) {
            types.source = match Helper::start(&modules()) {
                Ok(helper) => Source::Helper(helper),
                Err(error) => Source::NoHelper(error.to_string()),
            };
            // Also where the helper failed.
            let result = tracing::kernel_types(|name, descriptor| {
                if let Some(name) = name.to_str().ok().filter(|name| modules().contains(name)) {
                    let descriptor = descriptor.try_clone_to_owned()?;
                    types.kept.insert(name.to_owned(), Arc::new(descriptor));
                }
                Ok(())
            });
            if let Err(error) = result {
                ::tracing::debug!("types of modules: {error}");
            }
        }
        types
    }

    /// Was CAP_SYS_ADMIN there at the start?
    pub(crate) const fn had_admin(&self) -> bool {
        self.had_admin
    }

    /// Gets those of modules that were loaded since, or loaded anew.
    pub(crate) fn look_again(&mut self) {
        let Source::Helper(helper) = &self.source else { return };
        match helper.look() {
            Ok(found) => {
                self.kept = found.into_iter().map(|(name, fd)| (name, Arc::new(fd))).collect();
            }
            Err(error) => {
                ::tracing::warn!("the process that gets types of modules: {error}");
                self.source = Source::NoHelper(error.to_string());
            }
        }
    }

    /// Those of a module.
    pub(crate) fn of(&self, module: &str) -> Result<Arc<OwnedFd>, NoTypes> {
        self.kept.get(module).cloned().ok_or_else(|| match &self.source {
            Source::Nowhere => NoTypes::NeverAllowed,
            Source::Helper(_) => NoTypes::NotLoaded(module.to_owned()),
            Source::NoHelper(why) => NoTypes::NoHelper(why.clone()),
        })
    }
}

/// Modules of filesystems whose functions are hooked, as they are named.
fn modules() -> Vec<&'static str> {
    hooks::WRITE_ITERS.iter().map(|fs| fs.fs_type).collect()
}
