//! The requested types of the running kernel and its modules, and a cache of them.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::{KernelBtf, VMLINUX_BTF, structs};
use crate::hooks::btf_functions;
use crate::sys;

/// The kernel's types, twice: for filltop's own lookups, and for aya's.
pub(crate) struct KernelTypes {
    /// For offsets and arguments.
    pub(crate) kernel: Arc<KernelBtf>,
    /// For programs that the kernel checks against a function's types.
    pub(crate) bpf: aya::Btf,
    /// Types of the modules requested so far; `None` for a module without any.
    modules: RefCell<HashMap<String, Option<Arc<KernelBtf>>>>,
}

impl KernelTypes {
    /// Reads the kernel's types.
    ///
    /// # Errors
    /// If the kernel has no BTF, or it is damaged.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let path = Path::new(VMLINUX_BTF);
        let kernel = KernelBtf::load(path, &btf_functions::all(), &structs::ALL)?;
        let bpf = aya::Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
        Ok(Self { kernel: Arc::new(kernel), bpf, modules: RefCell::default() })
    }

    /// Returns the types of a module; `None` if it is not loaded, or the kernel has no BTF of
    /// modules (5.10).
    pub(crate) fn module(&self, name: &str) -> Option<Arc<KernelBtf>> {
        let read = || {
            let btf =
                KernelBtf::load_module(&self.kernel, name, &btf_functions::all(), &structs::ALL);
            btf.inspect_err(|error| tracing::debug!("{name}: {error}")).ok().map(Arc::new)
        };
        self.modules.borrow_mut().entry(name.to_owned()).or_insert_with(read).clone()
    }

    /// Returns a function's BTF id and the module that contains it (`None` for the kernel itself).
    /// `module` may contain the function.
    pub(crate) fn find<'m>(
        &self,
        function: &str,
        module: Option<&'m str>,
    ) -> Option<(u32, Option<&'m str>)> {
        let built_in = self.kernel.function(function).map(|id| (id, None));
        built_in.or_else(|| {
            let module = module?;
            Some((self.module(module)?.function(function)?, Some(module)))
        })
    }
}

/// The kernel's types while hooks are being attached: 24 MB on a typical kernel.
pub(crate) struct BtfCache(OnceCell<KernelTypes>);

impl BtfCache {
    /// Starts with types that were read already.
    pub(crate) fn new(types: KernelTypes) -> Self {
        Self(OnceCell::from(types))
    }

    /// Returns the kernel's types, and reads them again if they were released.
    ///
    /// # Errors
    /// Same as [`KernelTypes::read`], as text.
    pub(crate) fn get(&self) -> Result<&KernelTypes, String> {
        if let Some(types) = self.0.get() {
            return Ok(types);
        }
        let types = KernelTypes::read().map_err(|error| format!("{error:#}"))?;
        Ok(self.0.get_or_init(|| types))
    }

    /// Whether the kernel's types were read, and fulfil a condition.
    pub(crate) fn has(&self, condition: impl FnOnce(&KernelTypes) -> bool) -> bool {
        self.get().is_ok_and(condition)
    }

    /// Frees the memory until the types are needed again.
    pub(crate) fn release(&mut self) {
        if self.0.take().is_some() {
            sys::return_free_memory();
        }
    }
}
