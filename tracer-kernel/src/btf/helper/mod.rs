//! A process that keeps CAP_SYS_ADMIN when filltop gives it up, for the one thing that takes it later: a
//! descriptor of the types of a filesystem's module that was loaded meanwhile.
//!
//! It has that right and no other, and may make the system calls of [`filter`] alone: any other kills it. It is
//! asked one thing, to look, and answers with descriptors of the modules that were named at its start, whatever
//! comes over the socket. When the socket is closed, by whatever end of filltop, it ends. docs/decisions/0010.

#[cfg(test)]
mod tests;

use std::ffi::CStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya_obj::generated::bpf_cmd;
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
use crate::sys::apart;
use crate::sys::tracing::{TYPES_NAME, kernel_types};

/// Its name in the kernel.
const NAME: &CStr = c"filltop-types";
/// Its whole work takes milliseconds, under emulation some hundreds of them.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What is said over the socket: one of these, then for [`TYPES`] the module's name with the descriptor beside it,
/// and for [`FAILED`] an errno.
const LOOK: u8 = b'?';
const TYPES: u8 = b't';
const FAILED: u8 = b'!';
/// It is ready, or all was said.
const DONE: u8 = b'.';

/// The other end. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Helper {
    socket: OwnedFd,
}

impl Helper {
    /// Starts it. `modules` are those whose types it hands out.
    ///
    /// # Errors
    /// If it cannot be started, or not be confined as the module says: then it has ended.
    pub(crate) fn start(modules: &[&str]) -> io::Result<Self> {
        let filter = filter()?;
        let flags = SocketFlags::CLOEXEC;
        let (socket, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WITHIN))?;
        apart::run_apart(|| match confine(its.as_fd(), &filter) {
            Ok(()) => serve(its.as_fd(), modules),
            Err(error) => tell_failure(its.as_fd(), &error),
        })?;
        drop(its);
        let helper = Self { socket };
        helper.answers(|_, _| {})?;
        Ok(helper)
    }

    /// The types of all modules that are loaded now and that it knows.
    ///
    /// # Errors
    /// If it has ended, or does not answer.
    pub(crate) fn look(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        send(&self.socket, &[LOOK], SendFlags::NOSIGNAL)?;
        let mut found = Vec::new();
        self.answers(|name, types| found.push((name, types)))?;
        Ok(found)
    }

    /// Takes messages until all was said.
    fn answers(&self, mut each: impl FnMut(String, OwnedFd)) -> io::Result<()> {
        loop {
            let mut bytes = [0; 1 + TYPES_NAME];
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut beside = RecvAncillaryBuffer::new(&mut room);
            let message = loop {
                let bytes = &mut [IoSliceMut::new(&mut bytes)];
                match recvmsg(&self.socket, bytes, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => break result?,
                }
            };
            let descriptor = beside.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            match (bytes[..message.bytes].split_first(), descriptor) {
                (Some((&DONE, _)), None) => return Ok(()),
                (Some((&TYPES, name)), Some(types)) => {
                    each(String::from_utf8_lossy(name).into_owned(), types);
                }
                (Some((&FAILED, errno)), None) => {
                    let errno = errno.try_into().map_or(0, i32::from_ne_bytes);
                    return Err(io::Error::from_raw_os_error(errno));
                }
                (None, _) => return Err(io::Error::other("it has ended")),
                _ => return Err(io::Error::other("it said something else")),
            }
        }
    }
}

/// The system calls that it needs, and no others.
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
        // Without rules: whatever the arguments. `recvfrom` and `sendto` are what recv and send are.
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

/// Gives up everything but the socket and CAP_SYS_ADMIN. Allocates nothing.
fn confine(socket: BorrowedFd<'_>, filter: BpfProgramRef<'_>) -> io::Result<()> {
    set_name(NAME)?;
    apart::close_all_but(socket)?;
    // Else whoever has our user could trace it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    narrow_bounding_set(CapabilitySet::empty())?;
    let admin = CapabilitySet::SYS_ADMIN;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: admin, permitted: admin, inheritable })?;
    set_no_new_privs(true)?;
    seccompiler::apply_filter(filter).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        // Neither is about a filter that is not empty and for one thread.
        _ => io::Error::from_raw_os_error(libc::EINVAL),
    })
}

/// Answers until the other end is closed. Allocates nothing.
fn serve(socket: BorrowedFd<'_>, modules: &[&str]) {
    loop {
        if send(socket, &[DONE], SendFlags::NOSIGNAL).is_err() {
            return;
        }
        // One byte more than a request has: what is longer is none.
        let mut request = [0; 2];
        loop {
            let mut nothing_beside = RecvAncillaryBuffer::default();
            let bytes = &mut [IoSliceMut::new(&mut request)];
            match recvmsg(socket, bytes, &mut nothing_beside, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(message) if message.bytes == 1 && request[0] == LOOK => break,
                _ => return,
            }
        }
        let found = kernel_types(|name, types| {
            if modules.iter().any(|module| module.as_bytes() == name.to_bytes()) {
                hand_out(socket, name, types)?;
            }
            Ok(())
        });
        if let Err(error) = found {
            return tell_failure(socket, &error);
        }
    }
}

fn hand_out(socket: BorrowedFd<'_>, name: &CStr, types: BorrowedFd<'_>) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut room);
    let descriptors = [types];
    beside.push(SendAncillaryMessage::ScmRights(&descriptors));
    let bytes = [IoSlice::new(&[TYPES]), IoSlice::new(name.to_bytes())];
    sendmsg(socket, &bytes, &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn tell_failure(socket: BorrowedFd<'_>, error: &io::Error) {
    let mut bytes = [FAILED; 5];
    bytes[1..].copy_from_slice(&error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes());
    // Nobody else is there to be told.
    let _ = send(socket, &bytes, SendFlags::NOSIGNAL);
}
