//! Loads and attaches trampoline programs without aya, which supports only functions of the kernel
//! itself, and each program for only one function.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use aya_obj::Function;
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_btf_info, bpf_cmd, bpf_prog_type};

use super::{bpf, owned, zeroed_attr};

/// A program and the function that it is attached to.
pub(crate) struct Tracing<'a> {
    /// Name in the kernel; cut off after 15 bytes.
    pub name: &'a str,
    /// Relocated code, including the functions that it calls.
    pub code: &'a Function,
    /// The object's licence.
    pub license: &'a CStr,
    /// The object's own BTF.
    pub types: Option<BorrowedFd<'a>>,
    /// The BTF of the module that contains the function; `None` for the kernel's own.
    pub module: Option<BorrowedFd<'a>>,
    /// BTF id of the function.
    pub function: u32,
    /// Whether to attach at the function's exit rather than its entry.
    pub at_exit: bool,
}

/// Loads the program.
///
/// # Errors
/// The kernel's error, and the verifier's log.
pub(crate) fn load(program: &Tracing<'_>) -> Result<OwnedFd, (io::Error, String)> {
    let quiet = program_fd(program, &mut []);
    let Err(error) = quiet else { return quiet.map_err(|error| (error, String::new())) };
    // Once more, to get the log.
    let mut log = vec![0; 1 << 20];
    if let Ok(program) = program_fd(program, &mut log) {
        return Ok(program);
    }
    let words = CStr::from_bytes_until_nul(&log).unwrap_or_default();
    Err((error, words.to_string_lossy().into_owned()))
}

fn program_fd(program: &Tracing<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let functions = program.code.func_info.func_info_bytes();
    let kind = if program.at_exit {
        bpf_attach_type::BPF_TRACE_FEXIT
    } else {
        bpf_attach_type::BPF_TRACE_FENTRY
    };
    let mut attr = zeroed_attr();
    // SAFETY: a part of a union of plain integers, all of which are initialised.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    let room = load.prog_name.len() - 1;
    for (to, from) in load.prog_name.iter_mut().zip(program.name.bytes().take(room)) {
        *to = from as std::ffi::c_char;
    }
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    load.expected_attach_type = kind as u32;
    load.insns = program.code.instructions.as_ptr() as u64;
    load.insn_cnt = program.code.instructions.len() as u32;
    load.license = program.license.as_ptr() as u64;
    load.attach_btf_id = program.function;
    if let Some(module) = program.module {
        load.__bindgen_anon_1.attach_btf_obj_fd = module.as_raw_fd() as u32;
    }
    // Without it the verifier rejects functions that are passed to bpf_loop.
    if let Some(types) = program.types {
        load.prog_btf_fd = types.as_raw_fd() as u32;
        load.func_info = functions.as_ptr() as u64;
        load.func_info_cnt = program.code.func_info.len() as u32;
        load.func_info_rec_size = program.code.func_info_rec_size as u32;
    }
    if !log.is_empty() {
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = log.len() as u32;
    }
    Ok(owned(bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)?))
}

/// Attaches the program until the descriptor is closed, however the process ends.
///
/// # Errors
/// The kernel's error.
pub(crate) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    Ok(owned(bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)?))
}

/// Loads BTF into the kernel.
///
/// # Errors
/// The kernel's error.
pub(crate) fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = zeroed_attr();
    attr.__bindgen_anon_7.btf = types.as_ptr() as u64;
    attr.__bindgen_anon_7.btf_size = types.len() as u32;
    Ok(owned(bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr)?))
}

/// Iterates over all BTF of the kernel: that of its modules since 5.11, each under the module's
/// name, and its own as `vmlinux`; `each` borrows them. Requires CAP_SYS_ADMIN. Allocates nothing,
/// and makes no system calls except bpf(2) and close(2).
///
/// # Errors
/// The kernel's error, or that of `each`.
pub(crate) fn kernel_types(
    mut each: impl FnMut(&CStr, BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut attr = zeroed_attr();
    loop {
        match bpf(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => {
                // SAFETY: plain integers; the kernel wrote the next id there.
                let id = unsafe { attr.__bindgen_anon_6.next_id };
                match types_by_id(id) {
                    Ok(types) => {
                        let mut room = [0; TYPES_NAME];
                        // SAFETY: it is open until it is closed here.
                        let borrowed = unsafe { BorrowedFd::borrow_raw(types) };
                        let result = match name_of_kernel(borrowed, &mut room) {
                            Ok(Some(name)) => each(name, borrowed),
                            other => other.map(drop),
                        };
                        // SAFETY: nothing else uses it. Not an OwnedFd, which may inspect it first
                        // with a system call that the helper is not allowed to make.
                        unsafe { libc::close(types) };
                        result?;
                    }
                    // It was unloaded meanwhile.
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                    Err(error) => return Err(error),
                }
                attr = zeroed_attr();
                attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
            }
        }
    }
}

fn types_by_id(id: u32) -> io::Result<RawFd> {
    let mut attr: bpf_attr = zeroed_attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
    bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr)
}

/// Buffer size for the name of BTF: module names have at most 55 bytes (MODULE_NAME_LEN).
pub(crate) const TYPES_NAME: usize = 64;

/// Returns the name of the module, or `vmlinux`, if this BTF belongs to the kernel.
fn name_of_kernel<'a>(
    types: BorrowedFd<'_>,
    name: &'a mut [u8; TYPES_NAME],
) -> io::Result<Option<&'a CStr>> {
    // SAFETY: a struct of plain integers.
    let mut info: bpf_btf_info = unsafe { std::mem::zeroed() };
    info.name = name.as_mut_ptr() as u64;
    info.name_len = name.len() as u32;
    let mut attr = zeroed_attr();
    attr.info.bpf_fd = types.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_btf_info>() as u32;
    attr.info.info = &raw mut info as u64;
    match bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) {
        // BTF loaded by programs may have longer names.
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => return Ok(None),
        result => result?,
    };
    let name = CStr::from_bytes_until_nul(name).unwrap_or_default();
    Ok((info.kernel_btf != 0).then_some(name))
}
