//! On whose behalf a culprit writes: a process that serves others is not the cause.

use std::collections::HashMap;

use super::ledger::Member;
use crate::action::protect;
use crate::sanitize::display;
use crate::snapshot::{BehalfKind, Culprit, OnBehalfOf, Parent, Snapshot, Volume, Writer};

/// The one behind a culprit; `None` if it writes for itself, or nothing tells. `members` are the
/// processes that took something; `clients` those that write to volumes that something on this volume
/// serves or backs, by mount point.
pub(super) fn of(
    snapshot: &Snapshot,
    volume: &Volume,
    culprit: &Culprit,
    members: &[&Member],
    clients: &HashMap<String, Vec<Writer>>,
) -> Option<OnBehalfOf> {
    let pid = *culprit.pids.first()?;
    if culprit.writer_group.is_some() {
        let group = culprit.group.clone()?;
        return Some(OnBehalfOf {
            kind: BehalfKind::ContainerLog,
            name: super::text::group_name(&group),
            group: Some(group),
            processes: Vec::new(),
            mount_point: None,
            share: Some(1.0),
        });
    }
    let member = members.iter().find(|member| member.row.pid == pid)?;
    let row = &member.row;
    if let Some(served) = served_by(snapshot, volume, pid) {
        return Some(through(BehalfKind::Fuse, served, clients));
    }
    if protect::is_kernel_thread(row) {
        if let Some(backed) = backed_here(snapshot, volume, row) {
            return Some(through(BehalfKind::LoopDevice, backed, clients));
        }
        if row.comm == "nfsd" {
            return Some(unknown(BehalfKind::Nfs, "clients of the NFS server"));
        }
    }
    if protect::is_log_daemon(row) {
        return Some(match row.log_senders.first() {
            Some(first) => {
                let pid = first.pid.map_or_else(String::new, |pid| format!("[{pid}]"));
                OnBehalfOf {
                    share: Some(first.share),
                    ..unknown(BehalfKind::Log, &format!("{}{pid}", display(&first.name)))
                }
            }
            None => unknown(BehalfKind::Log, "a program that is not known"),
        });
    }
    let is_machine = row.comm.starts_with("qemu-") || row.comm == "kvm" || row.comm == "qemu-kvm";
    is_machine.then(|| {
        let name = row.cmdline.as_deref().and_then(machine_name).unwrap_or("without a name");
        unknown(BehalfKind::VirtualMachine, &format!("the virtual machine {}", display(name)))
    })
}

fn unknown(kind: BehalfKind, name: &str) -> OnBehalfOf {
    OnBehalfOf {
        kind,
        name: name.to_owned(),
        group: None,
        processes: Vec::new(),
        mount_point: None,
        share: None,
    }
}

/// The FUSE filesystem, other than this volume, that a process serves.
fn served_by<'s>(snapshot: &'s Snapshot, volume: &Volume, pid: u32) -> Option<&'s Volume> {
    snapshot.volumes.iter().find(|other| {
        other.mount_point != volume.mount_point
            && other.served_by.as_ref().is_some_and(|server| server.pid == pid)
    })
}

/// The filesystem on a loop device whose backing file this kernel thread wrote on this volume.
fn backed_here<'s>(snapshot: &'s Snapshot, volume: &Volume, row: &Writer) -> Option<&'s Volume> {
    let mut backed = snapshot.volumes.iter().filter(|other| {
        let Some(file) = &other.backing_file else { return false };
        crate::snapshot::volume_of(snapshot, file) == Some(volume.mount_point.as_str())
    });
    let wrote = |other: &&Volume| {
        let file = other.backing_file.as_deref();
        snapshot
            .paths
            .iter()
            .any(|path| Some(path.path.as_str()) == file && path.writers.contains(&row.pid))
    };
    let all: Vec<&Volume> = backed.by_ref().collect();
    // In an interval in which it wrote nothing, only a single candidate is unambiguous.
    all.iter().copied().find(wrote).or_else(|| match all[..] {
        [only] => Some(only),
        _ => None,
    })
}

fn through(kind: BehalfKind, other: &Volume, clients: &HashMap<String, Vec<Writer>>) -> OnBehalfOf {
    let rows = clients.get(&other.mount_point).map_or(&[][..], Vec::as_slice);
    let name = match rows.first() {
        Some(first) => super::text::process(&first.comm, first.pid),
        None => format!("the filesystem at {}", display(other.shown_as())),
    };
    OnBehalfOf {
        kind,
        name,
        group: rows.first().and_then(|row| row.group.clone()),
        processes: rows.iter().map(|row| Parent { pid: row.pid, comm: row.comm.clone() }).collect(),
        mount_point: Some(other.mount_point.clone()),
        share: None,
    }
}

/// The name of a virtual machine in QEMU's command line: `-name guest=web1,…` or `-name web1`.
fn machine_name(cmdline: &str) -> Option<&str> {
    let mut arguments = cmdline.split(' ').skip_while(|argument| *argument != "-name");
    let value = arguments.nth(1)?;
    let first = value.split(',').next()?;
    Some(first.strip_prefix("guest=").unwrap_or(first))
}
