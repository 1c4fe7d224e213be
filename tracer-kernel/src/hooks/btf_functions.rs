//! The kernel functions that are looked up in BTF.

use super::{
    CREATES, DENTRY_FUNCTIONS, FS_SPACE, FSYNCS, NAMESPACE, OPENS, RENAMES, SPACE, VFS_WRITE,
    WRITE_ITERS,
};

/// Returns the names of the functions of all hooks, and of tracepoints whose arguments differ between
/// kernels (`btf_trace_…`).
pub(crate) fn all() -> Vec<&'static str> {
    let mut names = vec![
        "btf_trace_sched_process_exit",
        "btf_trace_ext4_da_reserve_space",
        "btf_trace_writeback_dirty_folio",
    ];
    names.extend(DENTRY_FUNCTIONS.iter().map(|(function, _, _)| function.name));
    names.extend(SPACE.iter().map(|function| function.name));
    names.extend(FS_SPACE.iter().map(|(_, function)| function.name));
    names.extend(optional_functions());
    names.extend(VFS_WRITE.iter().map(|function| function.name));
    names.extend(WRITE_ITERS.iter().flat_map(|fs| fs.functions).map(|f| f.name));
    names
}

fn optional_functions() -> impl Iterator<Item = &'static str> {
    ["btf_trace_balance_dirty_pages"]
        .into_iter()
        .chain(RENAMES.iter().map(|entry| entry.name))
        .chain(FSYNCS.iter().map(|fsync| fsync.name))
        .chain(CREATES.iter().chain(NAMESPACE).map(|function| function.name))
        .chain(OPENS.iter().map(|function| function.name))
}
