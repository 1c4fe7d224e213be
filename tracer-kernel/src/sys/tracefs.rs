//! Defines kprobes and kretprobes in tracefs, and finds filesystems' own events there.
//!
//! The probes do not use perf's own kprobe PMU: its kretprobes have slots for only a handful of
//! concurrent calls and silently drop the rest (64 threads of O_DSYNC writes: 4 % of the bytes seen
//! on 5.10, 19 % on 6.1). In tracefs, `r1024` requests more slots.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::capabilities::has_sys_admin;
use crate::sys;

const PREFIX: &str = "filltop_";
/// Calls that a return probe can follow at the same time. Documentation/trace/kprobetrace.rst: at
/// most 4096.
const MAX_ACTIVE: u32 = 1024;

/// The mounted tracefs, and the probes defined in it, which are removed on drop. After kill -9 they
/// stay defined but disarmed, and the next start removes them.
pub(crate) struct TraceFs {
    root: PathBuf,
    group: String,
    defined: Vec<String>,
    /// Attached programs; must be dropped before the definitions can be removed.
    links: Vec<OwnedFd>,
}

impl TraceFs {
    /// Finds tracefs, mounts it at its usual place if necessary, and removes probes left by
    /// instances that no longer run.
    ///
    /// # Errors
    /// If there is no tracefs, or it is not writable.
    pub(crate) fn open() -> io::Result<Self> {
        if is_perf_restricted() {
            return Err(perf_restricted());
        }
        let root = find_or_mount()?;
        if !root.join("kprobe_events").exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "this kernel has no kprobe events (CONFIG_KPROBE_EVENTS)",
            ));
        }
        let fs = Self {
            root,
            group: format!("{PREFIX}{}", std::process::id()),
            defined: Vec::new(),
            links: Vec::new(),
        };
        fs.remove_leftovers()?;
        Ok(fs)
    }

    /// Whether this kernel has kprobe events and this process may use them.
    #[must_use]
    pub(crate) fn has_kprobes() -> bool {
        !is_perf_restricted()
            && find_or_mount().is_ok_and(|root| root.join("kprobe_events").exists())
    }

    /// Defines a probe at `function` and attaches `program` to it.
    ///
    /// # Errors
    /// The kernel's error; most often that there is no such function.
    pub(crate) fn attach(
        &mut self,
        program: BorrowedFd<'_>,
        function: &str,
        on_return: bool,
    ) -> io::Result<()> {
        let (kind, event) = if on_return {
            (format!("r{MAX_ACTIVE}"), format!("{function}_ret"))
        } else {
            ("p".to_owned(), function.to_owned())
        };
        self.define(&format!("{kind}:{}/{event} {function}", self.group))?;
        self.defined.push(event.clone());
        let id =
            fs::read_to_string(self.root.join("events").join(&self.group).join(&event).join("id"))?;
        let id = id.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        self.links.push(sys::attach_to_trace_event(program, id)?);
        Ok(())
    }

    /// Returns the number of calls whose return was not seen for lack of slots, over all own
    /// probes.
    #[must_use]
    pub(crate) fn missed(&self) -> u64 {
        let text = fs::read_to_string(self.root.join("kprobe_profile")).unwrap_or_default();
        missed_in_profile(&text, &self.defined)
    }

    fn define(&self, line: &str) -> io::Result<()> {
        use io::Write as _;
        let mut file = fs::OpenOptions::new().append(true).open(self.root.join("kprobe_events"))?;
        file.write_all(line.as_bytes())
    }

    fn remove_leftovers(&self) -> io::Result<()> {
        for (group, event) in
            stale_events(&fs::read_to_string(self.root.join("kprobe_events"))?, |pid| {
                Path::new("/proc").join(pid.to_string()).exists()
            })
        {
            // Another process may still use it; then leave it alone.
            let _ = self.define(&format!("-:{group}/{event}"));
        }
        Ok(())
    }
}

impl Drop for TraceFs {
    fn drop(&mut self) {
        self.links.clear();
        for event in &self.defined {
            // Nothing is lost if this fails: the next start tries again.
            let _ = self.define(&format!("-:{}/{event}", self.group));
        }
    }
}

/// An event that a filesystem defines itself.
pub(crate) struct Event {
    id: u64,
    /// Text that describes the fields of a record.
    format: String,
}

impl Event {
    /// Finds an event; `None` if the filesystem is not loaded or has no such event.
    ///
    /// # Errors
    /// If there is no tracefs, or it is not readable.
    pub(crate) fn find(fs_type: &str, name: &str) -> io::Result<Option<Self>> {
        if !Path::new("/sys/fs").join(fs_type).exists() {
            return Ok(None);
        }
        let event = find_or_mount()?.join("events").join(fs_type).join(name);
        if !event.exists() {
            return Ok(None);
        }
        let id = fs::read_to_string(event.join("id"))?;
        let id = id.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Some(Self { id, format: fs::read_to_string(event.join("format"))? }))
    }

    /// Returns the offset of a field in a record.
    #[must_use]
    pub(crate) fn offset(&self, field: &str) -> Option<u32> {
        self.format.lines().find_map(|line| {
            // `field:u8 fsid[16];	offset:8;	size:16;	signed:0;`
            let (declared, rest) = line.trim().strip_prefix("field:")?.split_once(';')?;
            let name = declared.split_whitespace().last()?.split('[').next()?;
            let (offset, _) = rest.trim().strip_prefix("offset:")?.split_once(';')?;
            if name == field { offset.parse().ok() } else { None }
        })
    }

    /// Runs the program whenever the event occurs, until the returned descriptor is closed.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn attach(&self, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        if is_perf_restricted() {
            Err(perf_restricted())
        } else {
            sys::attach_to_trace_event(program, self.id)
        }
    }
}

fn perf_restricted() -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        "kernel.perf_event_paranoid is 3, which restricts kprobes to CAP_SYS_ADMIN",
    )
}

/// Debian's kernels deny perf_event_open, which attaches a program to an event, without
/// CAP_SYS_ADMIN if `kernel.perf_event_paranoid` is 3, their default.
fn is_perf_restricted() -> bool {
    let text = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    text.trim().parse::<i32>().is_ok_and(|paranoid| paranoid >= 3) && !has_sys_admin()
}

/// Returns the events of instances whose process is gone, as (group, event).
fn stale_events(kprobe_events: &str, is_alive: impl Fn(u32) -> bool) -> Vec<(String, String)> {
    kprobe_events
        .lines()
        .filter_map(|line| {
            let (_, name) = line.split_whitespace().next()?.split_once(':')?;
            let (group, event) = name.split_once('/')?;
            let pid: u32 = group.strip_prefix(PREFIX)?.parse().ok()?;
            (!is_alive(pid)).then(|| (group.to_owned(), event.to_owned()))
        })
        .collect()
}

/// Sums up the third column of `kprobe_profile` (event, hits, misses) over `events`.
fn missed_in_profile(profile: &str, events: &[String]) -> u64 {
    profile
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let event = columns.next()?;
            let missed: u64 = columns.nth(1)?.parse().ok()?;
            events.iter().any(|ours| ours == event).then_some(missed)
        })
        .sum()
}

fn find_or_mount() -> io::Result<PathBuf> {
    let usual = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    if let Some(found) = usual.iter().map(PathBuf::from).find(|path| path.join("events").exists()) {
        return Ok(found);
    }
    let target = PathBuf::from(usual[0]);
    rustix::mount::mount(
        c"tracefs",
        target.as_path(),
        c"tracefs",
        rustix::mount::MountFlags::NOSUID
            | rustix::mount::MountFlags::NODEV
            | rustix::mount::MountFlags::NOEXEC,
        None,
    )?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_instances_are_cleaned_up() {
        let events = "p:filltop_10/vfs_write vfs_write\n\
                      r1024:filltop_11/vfs_write_ret vfs_write\n\
                      p:kprobes/other do_exit\n\
                      p:filltop_x/odd odd\n";
        let stale = stale_events(events, |pid| pid == 10);
        assert_eq!(stale, [("filltop_11".to_owned(), "vfs_write_ret".to_owned())]);
    }

    #[test]
    fn field_offsets_are_parsed_from_the_format() {
        let format = "name: btrfs_ordered_extent_remove\nID: 1307\nformat:\n\
            \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
            \tfield:u8 fsid[16];\toffset:8;\tsize:16;\tsigned:0;\n\
            \tfield:u64 disk_len;\toffset:56;\tsize:8;\tsigned:0;\n\
            \tfield:u64 len;\toffset:48;\tsize:8;\tsigned:0;\n\n\
            print fmt: \"%pU: len=%llu\", REC->fsid, REC->len\n";
        let event = Event { id: 1307, format: format.to_owned() };
        assert_eq!(["fsid", "len", "disk_len"].map(|it| event.offset(it)), [8, 48, 56].map(Some));
        assert_eq!(event.offset("ino"), None);
    }

    #[test]
    fn misses_are_summed_over_our_events() {
        let profile = "  vfs_write_ret   100   7\n  vfs_write  100  2\n  other  5  50\n";
        let ours = ["vfs_write_ret".to_owned(), "vfs_write".to_owned()];
        assert_eq!(missed_in_profile(profile, &ours), 9);
        assert_eq!(missed_in_profile("", &ours), 0);
    }
}
