//! Files without a name that are held in ways other than a descriptor of the process.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use std::{ptr, thread};

use anyhow::ensure;
use clap::{Args, ValueEnum};

use super::{Truth, print, wait_for_line, write_blocks};

#[derive(Args)]
pub struct Hold {
    path: PathBuf,
    #[arg(long)]
    bytes: u64,
    /// What is left when its descriptor is closed and its name is removed
    #[arg(long, value_enum)]
    by: By,
    /// Keep its name
    #[arg(long)]
    named: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// A shared mapping
    Mapping,
    /// A descriptor in a message that waits in a socket of this process
    Socket,
    /// Its descriptor, in a process whose main thread has exited
    Thread,
}

/// Holds a file until a line comes on stdin.
pub fn run(hold: Hold, truth: &mut Truth) -> anyhow::Result<()> {
    let Hold { path, bytes, by, named } = hold;
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let written = write_blocks(&file, bytes, 1 << 20)?;
    file.sync_all()?;
    let sockets = UnixStream::pair()?;
    match by {
        By::Mapping => {
            let length = usize::try_from(bytes)?;
            // SAFETY: a new mapping, which stays until the process ends.
            let address = unsafe {
                let protection = libc::PROT_READ | libc::PROT_WRITE;
                libc::mmap(
                    ptr::null_mut(),
                    length,
                    protection,
                    libc::MAP_SHARED,
                    file.as_raw_fd(),
                    0,
                )
            };
            ensure!(address != libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        }
        By::Socket => send(&sockets.0, file.as_raw_fd())?,
        By::Thread => {}
    }
    if !named {
        fs::remove_file(&path)?;
    }
    truth.written.insert(path, written);
    if by == By::Thread {
        return without_main_thread(truth);
    }
    drop(file);
    print(truth)?;
    wait_for_line()
}

/// Ends the main thread; another one says so, and waits for a line on stdin.
fn without_main_thread(truth: &Truth) -> anyhow::Result<()> {
    let line = serde_json::to_string(truth)?;
    let main = format!("/proc/self/task/{}/stat", std::process::id());
    thread::spawn(move || {
        while fs::read_to_string(&main).is_ok_and(|stat| !stat.contains(") Z ")) {
            thread::sleep(Duration::from_millis(1));
        }
        println!("{line}");
        let waited = wait_for_line();
        std::process::exit(i32::from(waited.is_err()));
    });
    // SAFETY: ends this thread only; nothing on its stack is needed any more, and descriptors stay open.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    Ok(())
}

/// Sends a descriptor, which nobody receives (unix(7), `SCM_RIGHTS`).
fn send(socket: &UnixStream, fd: i32) -> anyhow::Result<()> {
    let mut byte = 0u8;
    let mut data = libc::iovec { iov_base: ptr::from_mut(&mut byte).cast(), iov_len: 1 };
    // Aligned as a `cmsghdr` has to be.
    let mut control = [0u64; 8];
    // SAFETY: all pointers are valid during the call, and the control message fits into its buffer.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as _;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, 0)
    };
    ensure!(sent == 1, "sendmsg: {}", io::Error::last_os_error());
    Ok(())
}
