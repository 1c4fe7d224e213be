//! Which service manager would restart a target, and whether it did.
//!
//! Docker's policy is in `hostconfig.json` next to the container's configuration, which is found
//! through the container's own mounts. Podman's policy is in its database: BoltDB (Podman 4) is read,
//! SQLite (Podman 5) is not. systemd is queried with `systemctl show`. For pods, kubelet knows the
//! policy only from the API server.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracer_model::action::Action;
use tracer_model::action::restart::{Manager, RestartPolicy};
use tracer_model::snapshot::{Group, GroupKind};

use super::members::{Scope, is_namespace_init};
use super::target::Target;
use super::{target, unit};
use crate::attribute::groups::Groups;
use crate::attribute::groups::runtime_state::files;
use tracer_host::mounts::MountedVolume;
use tracer_host::process::pidfd::ProcessId;
use tracer_host::{clock, mounts};

/// How long systemd may take to answer.
const SYSTEMCTL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait for a restart of the target.
const RESTART_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval between two checks for a restart.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Returns the restart policy of a target; `None` if nothing is known to restart it. If the target is
/// only some processes of a container or unit, the policy applies if the first process is among them.
#[must_use]
pub(crate) fn policy(target: &Target) -> Option<RestartPolicy> {
    let group = target.group.as_ref();
    let kind = group.map_or(target.subject.kind.group(), |group| Some(group.kind))?;
    let name = group.map_or(target.subject.name.as_str(), |group| group.name.as_str());
    let members = target.scope.members();
    let whole = matches!(target.scope, Scope::Cgroup(_));
    let of = |by, policy| Some(RestartPolicy { by, policy });
    match kind {
        _ if !whole
            && kind != GroupKind::Unit
            && !members.iter().any(|member| is_namespace_init(member.pid)) =>
        {
            None
        }
        GroupKind::Docker => {
            let id = target.container()?;
            of(Manager::Docker, first_of(&members).and_then(|pid| docker(pid, &id)))
        }
        GroupKind::Podman => {
            let id = target.container()?;
            of(Manager::Podman, first_of(&members).and_then(|pid| podman(pid, &id)))
        }
        GroupKind::Pod => of(Manager::Kubelet, None),
        GroupKind::Unit => {
            let shown = unit::show(name, &["Restart", "MainPID"], SYSTEMCTL_TIMEOUT)?;
            let main: Option<u32> = shown.get("MainPID").and_then(|pid| pid.parse().ok());
            let main = main.filter(|pid| *pid != 0);
            let is_included = whole || members.iter().any(|member| Some(member.pid) == main);
            let policy =
                shown.get("Restart").filter(|policy| is_included && !policy.is_empty())?.clone();
            of(Manager::Systemd, Some(policy))
        }
        _ => None,
    }
}

/// Returns the process whose mounts are read for a container: the first of its pid namespace, or any if
/// the container has no pid namespace of its own. Only 256 are checked, because a container may have
/// very many.
fn first_of(members: &[ProcessId]) -> Option<u32> {
    let mut some = members.iter().take(256).map(|member| member.pid);
    some.find(|pid| is_namespace_init(*pid)).or_else(|| members.first().map(|member| member.pid))
}

/// Returns Docker's policy for the container of a process, e.g. `always`, `on-failure:3`; `None` if it
/// cannot be read.
fn docker(pid: u32, id: &str) -> Option<String> {
    let mountinfo = fs::read(format!("/proc/{pid}/mountinfo")).ok()?;
    let volumes = mounts::read().unwrap_or_default();
    let stock = || vec![Path::new("/var/lib/docker/containers").join(id)];
    let dirs = container_dirs(&mountinfo, id, &volumes);
    let dirs = if dirs.is_empty() { stock() } else { dirs };
    dirs.iter().find_map(|dir| host_config(&dir.join("hostconfig.json")))
}

/// Returns the directories in which the daemon keeps a container's files, as seen from the host: the
/// files that it mounts into the container (`/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf`) are in
/// `ROOT/containers/ID`.
fn container_dirs(mountinfo: &[u8], id: &str, volumes: &[MountedVolume]) -> Vec<PathBuf> {
    let end = Path::new("containers").join(id);
    mounts::parse(mountinfo)
        .into_iter()
        .filter_map(|mount| {
            let within = mount.root.parent().filter(|dir| dir.ends_with(&end))?.to_owned();
            let volume = volumes.iter().find(|volume| volume.dev == mount.dev)?;
            volume.host_path(&within)
        })
        .collect()
}

fn host_config(file: &Path) -> Option<String> {
    let config: serde_json::Value =
        serde_json::from_slice(&files::bytes(file, MAX_CONFIGURATION)?).ok()?;
    let policy = &config["RestartPolicy"];
    let name = policy["Name"].as_str()?;
    Some(match policy["MaximumRetryCount"].as_u64() {
        Some(count) if count > 0 => format!("{name}:{count}"),
        _ if name.is_empty() => "no".to_owned(),
        _ => name.to_owned(),
    })
}

/// Returns Podman's policy for the container of a process; `None` if it cannot be read.
fn podman(pid: u32, id: &str) -> Option<String> {
    let mountinfo = fs::read(format!("/proc/{pid}/mountinfo")).ok()?;
    let root =
        mounts::parse(&mountinfo).into_iter().find(|mount| mount.mount_point == Path::new("/"))?;
    // STORE/overlay/LAYER/diff, or STORE/vfs/dir/LAYER.
    let above = |path: &Path| path.ancestors().nth(3).map(Path::to_owned);
    let store = match &root.upper_dir {
        Some(upper) => above(upper),
        None => {
            let volumes = mounts::read().ok()?;
            let volume = volumes.iter().find(|volume| volume.dev == root.dev)?;
            volume.host_path(&above(&root.root)?)
        }
    }?;
    in_bolt(&files::bytes(&store.join("libpod/bolt_state.db"), MAX_DATABASE)?, id)
}

/// Searches a BoltDB file for a container's policy. BoltDB stores each value contiguously, and a
/// container's configuration is a JSON object that begins with `spec`. An earlier version may still be
/// in the file; if the two differ, the policy is unknown.
fn in_bolt(bytes: &[u8], id: &str) -> Option<String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    for (at, _) in
        bytes.windows(CONFIG_PREFIX.len()).enumerate().filter(|(_, part)| *part == CONFIG_PREFIX)
    {
        let mut values = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<Config>();
        if let Some(Ok(config)) = values.next()
            && config.id == id
        {
            found.insert(config.restart_policy);
        }
    }
    let policy = found.pop_first().filter(|_| found.is_empty())?;
    Some(if policy.is_empty() { "no".to_owned() } else { policy })
}

/// First bytes of a container's configuration.
const CONFIG_PREFIX: &[u8] = br#"{"spec":"#;
/// Largest database that is read, bytes.
const MAX_DATABASE: u64 = 64 << 20;
/// Largest configuration file that is read, bytes.
const MAX_CONFIGURATION: u64 = 8 << 20;

/// The part of libpod's `ContainerConfig` that is needed.
#[derive(serde::Deserialize)]
struct Config {
    id: String,
    #[serde(default)]
    restart_policy: String,
}

/// Returns all processes of the unit, container or pod that the target is or belongs to. A pod has the
/// processes of its containers.
#[must_use]
pub(crate) fn processes_of(target: &Target) -> BTreeSet<ProcessId> {
    let group = target.group.as_ref();
    let kind = group.map_or(target.subject.kind.group(), |group| Some(group.kind));
    let name = target.group.as_ref().map_or(&target.subject.name, |group| &group.name);
    let below = format!("{name}/");
    let is_it = |group: &Group| {
        Some(group.kind) == kind
            && (group.name == *name
                || group.kind == GroupKind::Pod && group.name.starts_with(&below))
    };
    target::candidates(&mut Groups::default())
        .into_iter()
        .filter(|candidate| is_it(&candidate.group))
        .flat_map(|candidate| candidate.roots)
        .map(|root| root.identity)
        .collect()
}

/// Waits up to 10 s for a terminated target to have processes that were not in `before`, and returns
/// their pids. Checks only once if no restart is expected.
#[must_use]
pub(crate) fn wait_for_restart(
    target: &Target,
    how: Action,
    before: &BTreeSet<ProcessId>,
    policy: &RestartPolicy,
) -> Vec<u32> {
    let awaited = policy.after(how).is_some_and(|restart| restart.returns != Some(false));
    let timeout = if awaited { RESTART_TIMEOUT } else { Duration::ZERO };
    let start = clock::instant();
    loop {
        let new: Vec<u32> = processes_of(target).difference(before).map(|who| who.pid).collect();
        if !new.is_empty() || start.elapsed() >= timeout {
            return new;
        }
        std::thread::sleep(CHECK_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c2a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";

    #[test]
    fn a_containers_mounts_lead_to_its_files() {
        let own = format!(
            "500 499 0:50 / / rw - overlay overlay rw\n\
             501 500 7:3 /data/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/loop3 rw\n\
             502 500 7:4 /containers/other/hosts /etc/hosts rw - ext4 /dev/loop4 rw\n"
        );
        let host =
            mounts::volumes(mounts::parse(b"40 1 7:3 / /srv/docker rw - ext4 /dev/loop3 rw\n"));
        let expected = PathBuf::from(format!("/srv/docker/data/containers/{ID}"));
        assert_eq!(container_dirs(own.as_bytes(), ID, &host), [expected]);
        assert!(container_dirs(own.as_bytes(), ID, &[]).is_empty());
    }

    #[test]
    fn podmans_policies_are_read() {
        let entry =
            |id: &str, rest: &str| format!(r#"{{"spec":{{"root":"{{"}},"id":"{id}"{rest}}}"#);
        let always = r#","restart_policy":"always""#;
        let database = |entries: &[String]| {
            let mut bytes = vec![0xed, 0xda, 0x0c, 0xed, b'"', b'{'];
            for entry in entries {
                bytes.extend(entry.as_bytes());
                bytes.extend([0, 255, 3]);
            }
            bytes
        };
        let other = entry("other", r#","restart_policy":"on-failure""#);
        let found = |entries: &[String]| in_bolt(&database(entries), ID);
        assert_eq!(found(&[other.clone(), entry(ID, always)]).as_deref(), Some("always"));
        assert_eq!(found(&[entry(ID, ""), other.clone()]).as_deref(), Some("no"));
        assert_eq!(found(&[entry(ID, always), entry(ID, always)]).as_deref(), Some("always"));
        assert_eq!(found(&[entry(ID, always), entry(ID, "")]), None, "the current one is unknown");
        assert_eq!(found(&[other]), None);
    }

    #[test]
    fn dockers_policies_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hostconfig.json");
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            host_config(&file)
        };
        let policy = |name: &str, count: u32| {
            format!(r#"{{"RestartPolicy":{{"Name":"{name}","MaximumRetryCount":{count}}}}}"#)
        };
        assert_eq!(read(&policy("always", 0)).as_deref(), Some("always"));
        assert_eq!(read(&policy("on-failure", 3)).as_deref(), Some("on-failure:3"));
        assert_eq!(read(&policy("", 0)).as_deref(), Some("no"));
        assert_eq!(read("{}"), None);
        assert_eq!(read("{\"Restart"), None);
    }
}
