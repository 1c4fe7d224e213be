use rustix::thread::capabilities;

use super::*;
use crate::kernel_version::kernel_at_least;

/// Returns why no helper can run here.
fn cannot() -> Option<&'static str> {
    let is_admin =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    if !is_admin {
        Some("no CAP_SYS_ADMIN")
    } else if !kernel_at_least(5, 11) {
        Some("BTF of modules requires Linux 5.11")
    } else {
        None
    }
}

#[test]
fn the_named_types_are_handed_out_and_no_others() {
    if let Some(reason) = cannot() {
        println!("SKIP the_named_types_are_handed_out_and_no_others: {reason}");
        return;
    }
    // The kernel's own: there is BTF of modules only if some are loaded.
    let helper = Helper::start(&["vmlinux", "no_such_module"]).unwrap();
    for _ in 0..2 {
        let found = helper.list().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "vmlinux");
        let target = std::fs::read_link(format!("/proc/self/fd/{}", descriptor(&found[0].1)));
        assert_eq!(target.unwrap().to_str(), Some("anon_inode:btf"));
    }
    assert!(Helper::start(&["no_such_module"]).unwrap().list().unwrap().is_empty());
}

fn descriptor(fd: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd as _;
    fd.as_raw_fd()
}

#[test]
fn quotas_are_read_where_there_are_some() {
    if let Some(reason) = cannot() {
        println!("SKIP quotas_are_read_where_there_are_some: {reason}");
        return;
    }
    let helper = Helper::start(&["vmlinux"]).unwrap();
    let no_quotas = std::fs::File::open("/proc").unwrap();
    for kind in 0..QUOTA_KINDS {
        assert_eq!(helper.next_quota(no_quotas.as_fd(), kind, 0).unwrap(), None);
    }
    // It goes on.
    assert_eq!(helper.list().unwrap().len(), 1);
    // No such kind.
    assert!(helper.next_quota(no_quotas.as_fd(), QUOTA_KINDS, 0).is_err());
}

#[test]
fn any_other_message_ends_the_helper() {
    if let Some(reason) = cannot() {
        println!("SKIP any_other_message_ends_the_helper: {reason}");
        return;
    }
    for message in [&b"x"[..], b"??", b"", b"q\0\0\0\0\0", b"q\0\0\0\0\0\0\0"] {
        let helper = Helper::start(&["vmlinux"]).unwrap();
        send(&helper.socket, message, SendFlags::NOSIGNAL).unwrap();
        // It may exit before the request is sent.
        let error = helper.list().unwrap_err();
        let is_gone = error.kind() == io::ErrorKind::UnexpectedEof
            || matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET));
        assert!(is_gone, "{error:?}");
    }
}

/// Returns how a process ends that is confined and then calls this: signal, or exit status.
fn end_of(call: impl FnOnce() -> i64) -> Result<i32, i32> {
    let filter = filter().unwrap();
    let (_ours, its) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    // SAFETY: the child only makes system calls, and exits.
    unsafe {
        match libc::fork() {
            0 => {
                if confine(its.as_fd(), &filter).is_err() {
                    libc::_exit(1);
                }
                libc::_exit(if call() < 0 { *libc::__errno_location() } else { 0 });
            }
            child => {
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                if libc::WIFSIGNALED(status) {
                    Err(libc::WTERMSIG(status))
                } else {
                    Ok(libc::WEXITSTATUS(status))
                }
            }
        }
    }
}

fn bpf_command(command: bpf_cmd) -> i64 {
    let mut attr = [0u64; 16];
    // SAFETY: `attr` has the size that is passed.
    unsafe { libc::syscall(libc::SYS_bpf, command as i64, attr.as_mut_ptr(), size_of_val(&attr)) }
}

#[test]
fn any_other_system_call_kills_the_helper() {
    if let Some(reason) = cannot() {
        println!("SKIP any_other_system_call_kills_the_helper: {reason}");
        return;
    }
    assert_eq!(end_of(|| bpf_command(bpf_cmd::BPF_BTF_GET_NEXT_ID)), Ok(0));
    assert_eq!(end_of(|| bpf_command(bpf_cmd::BPF_BTF_GET_FD_BY_ID)), Ok(libc::ENOENT));
    for command in [
        bpf_cmd::BPF_MAP_CREATE,
        bpf_cmd::BPF_PROG_LOAD,
        bpf_cmd::BPF_PROG_GET_FD_BY_ID,
        bpf_cmd::BPF_MAP_GET_FD_BY_ID,
        bpf_cmd::BPF_OBJ_PIN,
        bpf_cmd::BPF_BTF_LOAD,
        bpf_cmd::BPF_TOKEN_CREATE,
    ] {
        assert_eq!(end_of(|| bpf_command(command)), Err(libc::SIGSYS), "{command:?}");
    }
    let quotas = |command: u32| {
        // SAFETY: no filesystem has this descriptor.
        end_of(|| unsafe { libc::syscall(libc::SYS_quotactl_fd, -1, command, 0, 0) })
    };
    assert_eq!(quotas(next_quota_command(1)), Ok(libc::EBADF));
    let set = 0x80_0008 << 8 | 1;
    assert_eq!(quotas(set), Err(libc::SIGSYS));
    for call in [
        libc::SYS_getpid,
        libc::SYS_openat,
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_mount,
        libc::SYS_ptrace,
        libc::SYS_execve,
        libc::SYS_clone,
        libc::SYS_socket,
        libc::SYS_capset,
        libc::SYS_prctl,
        libc::SYS_kill,
        libc::SYS_mmap,
    ] {
        // SAFETY: the call is not made.
        let end = end_of(|| unsafe { libc::syscall(call, 0, 0, 0, 0, 0, 0) });
        assert_eq!(end, Err(libc::SIGSYS), "system call {call}");
    }
    // The same number as an x32 call (x86-64 only).
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the call is not made.
    let x32 = end_of(|| unsafe { libc::syscall(libc::SYS_sendmsg | 0x4000_0000, 0, 0, 0) });
    #[cfg(target_arch = "x86_64")]
    assert_eq!(x32, Err(libc::SIGSYS));
}
