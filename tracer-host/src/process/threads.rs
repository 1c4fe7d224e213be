//! Threads of a process: /proc/PID/task. A process whose main thread has exited goes on while other
//! threads run: /proc/PID then shows a zombie without any files.

use crate::process::stat;

/// Returns the thread through which a process's files, root and memory can be read, as /proc/TID:
/// its main thread, or another one if that has exited.
#[must_use]
pub fn running(pid: u32) -> u32 {
    if stat::of_main_thread(pid).is_some_and(|main| main.ended && main.threads > 1) {
        stat::live_threads(pid).first().map_or(pid, |(tid, _)| *tid)
    } else {
        pid
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::time::{Duration, Instant};

    use tracer_common::OpenFileRecord;

    use super::*;
    use crate::mounts;
    use crate::open_files::mount_lookup::MountLookup;
    use crate::open_files::{OpenFiles, from_bpf, from_proc};
    use crate::process::{descriptors, pidfd::PidHandle};

    /// A child whose main thread has exited while another one waits; killed on drop.
    struct Child(libc::pid_t);

    impl Child {
        fn start() -> Self {
            extern "C" fn wait(_: *mut libc::c_void) -> *mut libc::c_void {
                loop {
                    // SAFETY: pause(2) takes no arguments.
                    unsafe { libc::pause() };
                }
            }
            // SAFETY: the child calls nothing but these functions, and its thread waits until it is killed.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // SAFETY: the thread gets no argument; exit(2) ends the main thread only.
                unsafe {
                    let mut thread = std::mem::zeroed();
                    let null = std::ptr::null_mut();
                    libc::pthread_create(&raw mut thread, null, wait, null.cast());
                    libc::syscall(libc::SYS_exit, 0);
                }
            }
            let child = Self(pid);
            let began = Instant::now();
            while stat::of_main_thread(pid as u32).is_none_or(|main| !main.ended) {
                assert!(began.elapsed() < Duration::from_secs(10), "its main thread runs");
                std::thread::sleep(Duration::from_millis(1));
            }
            child
        }
    }

    impl Drop for Child {
        fn drop(&mut self) {
            // SAFETY: the child is ours, and its status is not wanted.
            unsafe {
                libc::kill(self.0, libc::SIGKILL);
                libc::waitpid(self.0, std::ptr::null_mut(), 0);
            }
        }
    }

    #[test]
    fn a_process_without_a_main_thread_runs_and_has_files() {
        let lookup = MountLookup::new(&mounts::read().unwrap());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        file.sync_all().unwrap();
        let (ino, fd) = (file.metadata().unwrap().ino(), file.as_raw_fd());
        let child = Child::start();
        let pid = child.0 as u32;
        assert_eq!(running(std::process::id()), std::process::id());
        assert_ne!(running(pid), pid);
        let seen = stat::stat(pid).unwrap();
        assert!(!seen.ended && !seen.exiting && seen.state == 'S', "{seen:?}");
        assert!(PidHandle::open(pid).is_some(), "it can be stopped");
        assert!(descriptors::paths_by_inode(pid, |it| it == ino).next().is_some());
        // As the kernel reports it: once for each thread.
        let record = OpenFileRecord {
            ino,
            bytes: 12_288,
            dev: 7,
            pid,
            fd: fd as u32,
            links: 0,
            writable: 1,
            overlay: 0,
            start: 0,
        };
        let by_kernel = from_bpf(&[record, record], &lookup);
        let theirs = |all: &OpenFiles| {
            let files = all.files.iter().filter(|file| file.pid == pid && file.ino == ino);
            files.map(|file| (file.fd, file.links, file.link.clone())).collect::<Vec<_>>()
        };
        let by_proc = theirs(&from_proc(&lookup));
        assert_eq!((by_proc.len(), by_proc[0].0, by_proc[0].1), (1, Some(fd), 0));
        assert_eq!(theirs(&by_kernel), by_proc);
    }
}
