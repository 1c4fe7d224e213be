//! A helper process that keeps CAP_SYS_ADMIN when filltop drops it, for the two things that require
//! it later: getting a descriptor of the BTF of a filesystem module that was loaded meanwhile, and
//! reading the quotas of other users.
//!
//! It has this capability and no other, and may only make the system calls of [`filter`]; any other
//! kills it. It accepts two requests. To one it answers with descriptors of the modules that were
//! named at its start; to the other, which has a descriptor of a filesystem attached, with one quota of
//! that filesystem. Anything else ends it. When the socket is closed, however filltop ends, it exits.
//! docs/decisions/0010.

#[cfg(test)]
mod tests;

use std::ffi::CStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::time::Duration;

use aya_obj::generated::bpf_cmd;
use bytemuck::{Pod, Zeroable};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_name, set_no_new_privs};
use seccompiler::{
    BpfProgram, BpfProgramRef, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::capabilities::narrow_bounding_set;
use crate::sys::detached;
use crate::sys::tracing::{TYPES_NAME, kernel_types};

/// Name of the process in the kernel.
pub(super) const NAME: &CStr = c"filltop-types";
/// Timeout for an answer. Its work takes milliseconds, or some hundreds of them under emulation.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Messages on the socket start with one of these. [`TYPES`] is followed by the module's name, with
/// the descriptor attached; [`FAILED`] by an errno.
const REQUEST: u8 = b'?';
/// Followed by the kind of quota and the lowest id; the answer, by an errno and the kernel's record.
const QUOTA: u8 = b'q';
const TYPES: u8 = b't';
const FAILED: u8 = b'!';
/// The helper is ready, or the answer is complete.
const DONE: u8 = b'.';

/// filltop's end of the socket. Dropping it ends the helper.
#[derive(Debug)]
pub(crate) struct Helper {
    socket: OwnedFd,
}

impl Helper {
    /// Starts the helper. `modules` are those whose BTF it hands out.
    ///
    /// # Errors
    /// If it cannot be started, or cannot be confined as described in the module documentation; it
    /// has exited then.
    pub(crate) fn start(modules: &[&str]) -> io::Result<Self> {
        let filter = filter()?;
        let flags = SocketFlags::CLOEXEC;
        let (socket, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WITHIN))?;
        detached::spawn_detached(|| match confine(its.as_fd(), &filter) {
            Ok(()) => serve(its.as_fd(), modules),
            Err(error) => report_failure(its.as_fd(), &error),
        })?;
        drop(its);
        let helper = Self { socket };
        helper.answers(|_, _| {})?;
        Ok(helper)
    }

    /// Returns the BTF of all modules that are loaded now and that the helper hands out.
    ///
    /// # Errors
    /// If it has exited, or does not answer.
    pub(crate) fn list(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        send(&self.socket, &[REQUEST], SendFlags::NOSIGNAL)?;
        let mut found = Vec::new();
        self.answers(|name, types| found.push((name, types)))?;
        Ok(found)
    }

    /// Returns the quota of the lowest id from `id` on that has one, on the filesystem of `root`; `None`
    /// if there is none.
    ///
    /// # Errors
    /// If the helper has exited or does not answer.
    pub(crate) fn next_quota(
        &self,
        root: BorrowedFd<'_>,
        kind: u8,
        id: u32,
    ) -> io::Result<Option<NextQuota>> {
        let mut request = [QUOTA, kind, 0, 0, 0, 0];
        request[2..].copy_from_slice(&id.to_ne_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [root];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.socket, &[IoSlice::new(&request)], &mut ancillary, SendFlags::NOSIGNAL)?;
        let mut found = None;
        self.messages(|bytes, _| {
            let (&QUOTA, answer) = bytes.split_first()? else { return None };
            let (errno, quota) = answer.split_first_chunk()?;
            if i32::from_ne_bytes(*errno) == 0 {
                found = Some(bytemuck::try_pod_read_unaligned(quota).ok()?);
            }
            Some(())
        })?;
        Ok(found)
    }

    /// Receives descriptors of modules' BTF until the answer is complete.
    fn answers(&self, mut each: impl FnMut(String, OwnedFd)) -> io::Result<()> {
        self.messages(|bytes, descriptor| {
            let (&TYPES, name) = bytes.split_first()? else { return None };
            each(String::from_utf8_lossy(name).into_owned(), descriptor?);
            Some(())
        })
    }

    /// Receives messages until the answer is complete. `each` returns `None` for an unexpected one.
    fn messages(
        &self,
        mut each: impl FnMut(&[u8], Option<OwnedFd>) -> Option<()>,
    ) -> io::Result<()> {
        loop {
            let mut bytes = [0; LONGEST];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let message = loop {
                let bytes = &mut [IoSliceMut::new(&mut bytes)];
                match recvmsg(&self.socket, bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => break result?,
                }
            };
            let descriptor = ancillary.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            match (bytes[..message.bytes].split_first(), descriptor) {
                (Some((&DONE, _)), None) => return Ok(()),
                (Some((&FAILED, errno)), None) => {
                    let errno = errno.try_into().map_or(0, i32::from_ne_bytes);
                    return Err(io::Error::from_raw_os_error(errno));
                }
                (None, _) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has exited"));
                }
                (Some(_), descriptor) => each(&bytes[..message.bytes], descriptor)
                    .ok_or_else(|| io::Error::other("unexpected message"))?,
            }
        }
    }
}

/// Allows only the system calls that the helper needs.
fn filter() -> io::Result<BpfProgram> {
    let commands = [
        bpf_cmd::BPF_BTF_GET_NEXT_ID,
        bpf_cmd::BPF_BTF_GET_FD_BY_ID,
        bpf_cmd::BPF_OBJ_GET_INFO_BY_FD,
    ];
    let is = |command: bpf_cmd| {
        let (length, is) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
        SeccompRule::new(vec![SeccompCondition::new(0, length, is, command as u64)?])
    };
    let compile = || -> Result<BpfProgram, seccompiler::BackendError> {
        let commands = commands.into_iter().map(is).collect::<Result<_, _>>()?;
        let mut rules = vec![(libc::SYS_bpf, commands)];
        let quotas = (0..QUOTA_KINDS).map(|kind| {
            let (length, is) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
            let command = next_quota_command(kind);
            SeccompRule::new(vec![SeccompCondition::new(1, length, is, command.into())?])
        });
        rules.push((libc::SYS_quotactl_fd, quotas.collect::<Result<_, _>>()?));
        // Without rules: any arguments. `recvfrom` and `sendto` implement recv and send.
        let calls = [
            libc::SYS_recvmsg,
            libc::SYS_sendmsg,
            libc::SYS_sendto,
            libc::SYS_close,
            libc::SYS_exit_group,
        ];
        rules.extend(calls.map(|call| (call, Vec::new())));
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let (others, these) = (SeccompAction::KillProcess, SeccompAction::Allow);
        SeccompFilter::new(rules.into_iter().collect(), others, these, arch)?.try_into()
    };
    compile().map_err(io::Error::other)
}

/// Drops everything except the socket and CAP_SYS_ADMIN. Allocates nothing.
fn confine(socket: BorrowedFd<'_>, filter: BpfProgramRef<'_>) -> io::Result<()> {
    set_name(NAME)?;
    detached::close_all_except(socket)?;
    // Otherwise a process of the same user could trace it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    narrow_bounding_set(CapabilitySet::empty())?;
    let admin = CapabilitySet::SYS_ADMIN;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: admin, permitted: admin, inheritable })?;
    set_no_new_privs(true)?;
    seccompiler::apply_filter(filter).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        // The other errors are about an empty filter or several threads.
        _ => io::Error::from_raw_os_error(libc::EINVAL),
    })
}

/// Answers requests until the other end is closed. Allocates nothing.
fn serve(socket: BorrowedFd<'_>, modules: &[&str]) {
    loop {
        if send(socket, &[DONE], SendFlags::NOSIGNAL).is_err() {
            return;
        }
        // One byte more than a request has: a longer message is not a request.
        let mut request = [0; 7];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = loop {
            let bytes = &mut [IoSliceMut::new(&mut request)];
            match recvmsg(socket, bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(message) => break message,
                Err(_) => return,
            }
        };
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        match (&request[..message.bytes], descriptor) {
            ([REQUEST], None) => {}
            ([QUOTA, kind, id @ ..], Some(root)) if *kind < QUOTA_KINDS => {
                let Ok(id) = id.try_into() else { return };
                let answered = answer_quota(socket, root.as_fd(), *kind, u32::from_ne_bytes(id));
                // Not by dropping it: with debug assertions, that makes another system call.
                // SAFETY: nothing else has this descriptor.
                unsafe { libc::close(root.into_raw_fd()) };
                if answered.is_err() {
                    return;
                }
                continue;
            }
            _ => return,
        }
        let found = kernel_types(|name, types| {
            if modules.iter().any(|module| module.as_bytes() == name.to_bytes()) {
                hand_out(socket, name, types)?;
            }
            Ok(())
        });
        if let Err(error) = found {
            return report_failure(socket, &error);
        }
    }
}

/// `struct if_nextdqblk` of linux/quota.h: the limits and the use of one id.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct NextQuota {
    /// Units of 1,024 bytes; 0 for none.
    pub(crate) hard_blocks: u64,
    /// Units of 1,024 bytes; 0 for none.
    pub(crate) soft_blocks: u64,
    /// Bytes.
    pub(crate) space: u64,
    /// 0 for none.
    pub(crate) hard_inodes: u64,
    /// 0 for none.
    pub(crate) soft_inodes: u64,
    pub(crate) inodes: u64,
    /// When the soft limits become hard ones.
    grace: [u64; 2],
    valid: u32,
    pub(crate) id: u32,
}

/// Number of kinds of quotas: of users, groups and projects.
pub(crate) const QUOTA_KINDS: u8 = 3;
/// Length of the longest message: with an errno and a quota.
const LONGEST: usize = {
    let (types, quota) = (1 + TYPES_NAME, 1 + 4 + size_of::<NextQuota>());
    if types > quota { types } else { quota }
};

/// `QCMD(Q_GETNEXTQUOTA, kind)`, quotactl(2).
const fn next_quota_command(kind: u8) -> u32 {
    const Q_GETNEXTQUOTA: u32 = 0x80_0009;
    Q_GETNEXTQUOTA << 8 | kind as u32
}

fn answer_quota(socket: BorrowedFd<'_>, root: BorrowedFd<'_>, kind: u8, id: u32) -> io::Result<()> {
    let mut quota = NextQuota::zeroed();
    // SAFETY: the record has the layout that the command writes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            root.as_raw_fd(),
            next_quota_command(kind),
            id,
            &raw mut quota,
        )
    };
    let failed = (result < 0).then(io::Error::last_os_error);
    let errno = failed.map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO)).to_ne_bytes();
    let bytes =
        [IoSlice::new(&[QUOTA]), IoSlice::new(&errno), IoSlice::new(bytemuck::bytes_of(&quota))];
    sendmsg(socket, &bytes, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?;
    Ok(())
}

fn hand_out(socket: BorrowedFd<'_>, name: &CStr, types: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [types];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let bytes = [IoSlice::new(&[TYPES]), IoSlice::new(name.to_bytes())];
    sendmsg(socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn report_failure(socket: BorrowedFd<'_>, error: &io::Error) {
    let mut bytes = [FAILED; 5];
    bytes[1..].copy_from_slice(&error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes());
    // There is no one else to report to.
    let _ = send(socket, &bytes, SendFlags::NOSIGNAL);
}
