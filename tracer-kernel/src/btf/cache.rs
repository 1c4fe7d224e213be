//! All types of the running kernel that are asked for, its modules' included.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::{KernelBtf, inode_layout, overlay_inode};
use crate::{attach, overlay, preflight};

/// Structs that may be in modules.
fn structs() -> Vec<&'static str> {
    let mut structs = inode_layout::structs();
    structs.push(overlay::STRUCT);
    structs.extend(overlay_inode::STRUCTS);
    structs
}

/// The kernel's types, twice: as we look them up, and as aya does.
pub(crate) struct Types {
    /// For offsets and arguments.
    pub(crate) kernel: Arc<KernelBtf>,
    /// For programs that the kernel checks against a function's types.
    pub(crate) bpf: aya::Btf,
    /// Those of modules that were asked for.
    modules: RefCell<HashMap<String, Option<Arc<KernelBtf>>>>,
}

impl Types {
    /// Reads them.
    ///
    /// # Errors
    /// If the kernel has none, or what it has is damaged.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let path = Path::new(preflight::VMLINUX_BTF);
        let kernel = KernelBtf::load(path, &attach::function_names(), &structs())?;
        let bpf = aya::Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
        Ok(Self { kernel: Arc::new(kernel), bpf, modules: RefCell::default() })
    }

    /// Those of a module; `None` if it is not loaded, or the kernel keeps none of modules (5.10).
    pub(crate) fn module(&self, name: &str) -> Option<Arc<KernelBtf>> {
        let read = || {
            let btf =
                KernelBtf::load_module(&self.kernel, name, &attach::function_names(), &structs());
            btf.inspect_err(|error| tracing::debug!("{name}: {error}")).ok().map(Arc::new)
        };
        self.modules.borrow_mut().entry(name.to_owned()).or_insert_with(read).clone()
    }

    /// A function's number, and the module that it is in; `None` for that: in the kernel itself.
    /// `module` is where it may be.
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
