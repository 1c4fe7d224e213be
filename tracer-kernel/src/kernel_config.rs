//! Configuration of the eBPF object for the running kernel.

use anyhow::anyhow;
use tracer_common::Offsets;
use tracer_common::offsets::Config;

use crate::btf::cache::KernelTypes;
use crate::hooks;
use crate::kernel_version::kernel_at_least;

/// Returns the configuration that matches the kernel's version and types.
pub(crate) fn kernel_config(types: &KernelTypes, slots_per_cpu: u32) -> Config {
    let arguments = |tracepoint, module: Option<&str>| {
        let (_, module) = types.find(tracepoint, module)?;
        let module = module.and_then(|module| types.module(module));
        let btf = module.as_ref().unwrap_or(&types.kernel);
        Some(btf.arguments(tracepoint)?.len())
    };
    // The tracepoint's own argument, the task, and since 6.17 group_dead.
    let exit = arguments("btf_trace_sched_process_exit", None).unwrap_or(2);
    // ext4 may be a module that is loaded later; it has the argument since 6.11.
    let reserve = arguments("btf_trace_ext4_da_reserve_space", Some("ext4"))
        .unwrap_or(2 + usize::from(kernel_at_least(6, 11)));
    let (fault_bits_at, fault_bits) = types.kernel.bits("task_struct", &hooks::FAULT_BITS);
    Config {
        slot_mask: slots_per_cpu - 1,
        slots_per_cpu,
        exit_has_group_dead: u32::from(exit >= 3),
        has_task_btf: u32::from(kernel_at_least(5, 11)),
        has_cmpxchg: u32::from(kernel_at_least(5, 12)),
        reserve_has_count: u32::from(reserve >= 3),
        has_loop: u32::from(kernel_at_least(5, 17)),
        fault_bits_at,
        fault_bits,
    }
}

/// Checks the fields without which nothing can be counted.
pub(crate) fn check_offsets(offsets: &Offsets) -> anyhow::Result<()> {
    let needed = [
        ("task_struct.start_boottime", offsets.task_start_boottime),
        ("task_struct.group_leader", offsets.task_group_leader),
        ("file.f_inode", offsets.file_inode),
        ("file.f_path.dentry", offsets.file_dentry),
        ("inode.i_ino", offsets.inode_ino),
        ("inode.i_generation", offsets.inode_generation),
        ("inode.i_sb", offsets.inode_sb),
        ("super_block.s_dev", offsets.sb_dev),
        ("dentry.d_parent", offsets.dentry_parent),
        ("dentry.d_name.len", offsets.dentry_name_len),
    ];
    match needed.iter().find(|(_, offset)| *offset == Offsets::ABSENT) {
        Some((name, _)) => Err(anyhow!(
            "this kernel's type information has no {name}: this kernel is not supported yet; please \
             report its version (`uname -r`)"
        )),
        None => Ok(()),
    }
}
