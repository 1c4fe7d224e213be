//! Cache of the requested types of the running kernel and its modules.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::{KernelBtf, VMLINUX_BTF, structs};
use crate::hooks::btf_functions;

/// The kernel's types, twice: for filltop's own lookups, and for aya's.
pub(crate) struct Types {
    /// For offsets and arguments.
    pub(crate) kernel: Arc<KernelBtf>,
    /// For programs that the kernel checks against a function's types.
    pub(crate) bpf: aya::Btf,
    /// Types of the modules requested so far; `None` for a module without any.
    modules: RefCell<HashMap<String, Option<Arc<KernelBtf>>>>,
}

impl Types {
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
