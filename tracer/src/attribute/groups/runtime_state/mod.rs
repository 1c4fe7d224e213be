//! Names of containers, from the state that their runtimes keep on disk. The runtimes themselves
//! are not queried: their daemons may be blocked by the full disk.
//!
//! The usual places are searched first, then those that the container's own mounts lead to
//! ([`state_dirs`]), so that no data root has to be configured.

pub(crate) mod files;
mod state_dirs;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tracer_model::snapshot::GroupKind;

use self::files::{json, json_below};
use self::state_dirs::{Location, StateDir};
use tracer_host::mounts::Mount;

/// Maximum number of containers that are remembered, with or without a name.
const MAX_KNOWN: usize = 4_096;

/// Time until a missing name is looked up again.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// Where containerd's shims keep the bundles of running containers, below the state directory.
const TASKS: &str = "io.containerd.runtime.v2.task";

/// The name of a container as its runtime recorded it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerName {
    /// `docker`, `podman`, `containerd` or `crio`.
    pub runtime: GroupKind,
    /// The name that the user or an orchestrator gave it.
    pub name: Option<String>,
    /// Namespace, pod and container, if Kubernetes runs it.
    pub pod: Option<(String, String, String)>,
}

/// A container to look up.
#[derive(Debug, Clone, Copy)]
pub struct ContainerQuery<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The user whose systemd slice contains its cgroup; `None` for root.
    pub user: Option<u32>,
}

/// Looks names up below a root directory (`/`, except in tests), and caches them.
pub struct RuntimeState {
    root: PathBuf,
    /// Owner of the root directory: root, except in tests.
    owner: u32,
    /// Names found, keyed by id and user: a user cannot obtain the name of another user's container
    /// by naming a cgroup like it.
    known: HashMap<(String, Option<u32>), ContainerName>,
    /// Failed lookups, keyed likewise.
    failed: HashMap<(String, Option<u32>), FailedLookup>,
    /// Namespace and name of pods, keyed by UID.
    pods: HashMap<String, Option<(String, String)>>,
    /// Whether containerd runs a container, keyed by (namespace, name).
    tasks: HashMap<(String, String), bool>,
}

/// A container whose name was not found.
struct FailedLookup {
    /// Number of failed lookups.
    times: u32,
    /// Time of the last lookup.
    at: Instant,
}

impl FailedLookup {
    /// Whether it is too soon to search again. A new container gets its name soon or never, and a
    /// search reads users' home directories, so the pauses double, up to a minute.
    fn is_too_soon(&self) -> bool {
        self.at.elapsed() < FIRST_RETRY * 2_u32.pow(self.times.saturating_sub(1).min(7))
    }
}

impl Default for FailedLookup {
    fn default() -> Self {
        Self { times: 0, at: Instant::now() }
    }
}

impl RuntimeState {
    /// Creates a lookup below `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let owner = fs::metadata(&root).map_or(0, |meta| meta.uid());
        Self {
            root,
            owner,
            known: HashMap::new(),
            failed: HashMap::new(),
            pods: HashMap::new(),
            tasks: HashMap::new(),
        }
    }

    /// The name of a container. A missing name is looked up again after [`FIRST_RETRY`], then after
    /// longer pauses: a container that is just being created does not have the mounts yet that lead
    /// to it.
    ///
    /// `mounts` returns the mounts of the host and those that a process of the container sees; it
    /// is called only if the usual places have no name.
    pub fn container(
        &mut self,
        query: ContainerQuery<'_>,
        mounts: impl FnOnce() -> (Vec<Mount>, Vec<Mount>),
    ) -> Option<ContainerName> {
        let key = (query.id.to_owned(), query.user);
        if let Some(known) = self.known.get(&key) {
            return Some(known.clone());
        }
        if self.failed.get(&key).is_some_and(FailedLookup::is_too_soon) {
            return None;
        }
        // The usual places belong to root. A user can name the cgroups in their own slice at will.
        let of_root = if query.user.is_none() { self.look_up(query.id) } else { None };
        let found = of_root.or_else(|| {
            let (host, own) = mounts();
            self.by_mounts(query, &host, &own).or_else(|| self.homes(query))
        });
        if self.known.len() + self.failed.len() >= MAX_KNOWN {
            self.known.clear();
            self.failed.clear();
        }
        if let Some(found) = &found {
            self.failed.remove(&key);
            self.known.insert(key, found.clone());
        } else {
            let failed = self.failed.entry(key).or_default();
            *failed = FailedLookup { times: failed.times + 1, at: Instant::now() };
        }
        found
    }

    /// The name of a container, if the usual places have it. A missing name is not remembered as
    /// unknown, because the container's mounts may still lead to it.
    #[must_use]
    pub fn in_usual_places(&self, id: &str) -> Option<ContainerName> {
        let known = self.known.get(&(id.to_owned(), None));
        known.cloned().or_else(|| self.look_up(id))
    }

    /// Whether containerd runs a container of this name in this namespace. `ctr run NAME` creates a
    /// cgroup `/NAMESPACE/NAME`.
    pub fn is_containerd_task(
        &mut self,
        namespace: &str,
        name: &str,
        host: impl FnOnce() -> Vec<Mount>,
    ) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(known) = self.tasks.get(&key) {
            return *known;
        }
        let usual = self.root.join("run/containerd").join(TASKS).join(namespace).join(name);
        // A non-default state directory is found through the host's mount of the container's root.
        let end = Path::new(TASKS).join(namespace).join(name).join("rootfs");
        let runs = usual.is_dir() || host().iter().any(|mount| mount.mount_point.ends_with(&end));
        if self.tasks.len() >= MAX_KNOWN {
            self.tasks.clear();
        }
        self.tasks.insert(key, runs);
        runs
    }

    /// Namespace and name of a pod, by its UID: kubelet keeps its logs in
    /// `/var/log/pods/NAMESPACE_POD_UID`.
    pub fn pod(&mut self, uid: &str) -> Option<(String, String)> {
        if let Some(known) = self.pods.get(uid) {
            return known.clone();
        }
        let found = file_names(&self.root.join("var/log/pods")).find_map(|name| {
            let (namespace, pod) = name.strip_suffix(uid)?.strip_suffix('_')?.split_once('_')?;
            Some((namespace.to_owned(), pod.to_owned()))
        });
        if self.pods.len() >= MAX_KNOWN {
            self.pods.clear();
        }
        self.pods.insert(uid.to_owned(), found.clone());
        found
    }

    /// Begins a new interval: forgets the pods and tasks that were not found.
    pub fn next_interval(&mut self) {
        self.pods.retain(|_, found| found.is_some());
        self.tasks.retain(|_, runs| *runs);
    }

    fn look_up(&self, id: &str) -> Option<ContainerName> {
        self.docker(id)
            .or_else(|| self.containerd(id))
            .or_else(|| self.crio_bundle(id))
            .or_else(|| {
                let lists = self.root.join("var/lib/containers/storage/overlay-containers");
                in_storage(id, |list| json(&lists.join(list)))
            })
            .or_else(|| self.kubelet_log(id))
    }

    /// Looks a container up through its own mounts.
    fn by_mounts(
        &self,
        query: ContainerQuery<'_>,
        host: &[Mount],
        own: &[Mount],
    ) -> Option<ContainerName> {
        let id = query.id;
        let read = |located: &Location, file: &str| {
            state_dirs::on_host(located, host)
                .into_iter()
                .find_map(|(point, rest)| self.trusted(query, &point, &rest.join(file)))
        };
        state_dirs::of(own, id)
            .into_iter()
            .find_map(|dir| match dir {
                StateDir::Docker(at) => docker_name(id, &read(&at, "config.v2.json")?),
                StateDir::Storage(at) => in_storage(id, |list| read(&at, list)),
            })
            .or_else(|| {
                let end = Path::new(id).join("rootfs");
                let mount = host.iter().find(|mount| {
                    let mut above = mount.mount_point.ancestors().skip(3);
                    mount.mount_point.ends_with(&end)
                        && above.next().is_some_and(|tasks| tasks.ends_with(TASKS))
                })?;
                let bundle = mount.mount_point.parent()?;
                containerd_name(&self.trusted(query, bundle, Path::new("config.json"))?)
            })
    }

    /// Rootless Podman: the stores in the users' home directories.
    fn homes(&self, query: ContainerQuery<'_>) -> Option<ContainerName> {
        let lists = Path::new(".local/share/containers/storage/overlay-containers");
        file_names(&self.root.join("home")).find_map(|user| {
            let home = Path::new("/home").join(user);
            in_storage(query.id, |list| self.trusted(query, &home, &lists.join(list)))
        })
    }

    /// Reads a state file that belongs to root, or to the user in whose slice the container runs:
    /// no other user can give the container a name.
    fn trusted(&self, query: ContainerQuery<'_>, base: &Path, rest: &Path) -> Option<Value> {
        let base = self.root.join(base.strip_prefix("/").unwrap_or(base));
        json_below(&base, rest, |uid| uid == self.owner || Some(uid) == query.user)
    }

    /// Docker: `Name` and the labels of `config.v2.json`.
    fn docker(&self, id: &str) -> Option<ContainerName> {
        let data = json(&self.root.join("etc/docker/daemon.json"))
            .and_then(|config| {
                Some(config["data-root"].as_str()?.trim_start_matches('/').to_owned())
            })
            .unwrap_or_else(|| "var/lib/docker".to_owned());
        let dir = self.root.join(data).join("containers").join(id);
        docker_name(id, &json(&dir.join("config.v2.json"))?)
    }

    /// containerd: the annotations of the bundle's OCI `config.json`.
    fn containerd(&self, id: &str) -> Option<ContainerName> {
        let tasks = self.root.join("run/containerd").join(TASKS);
        let bundle =
            file_names(&tasks).map(|space| tasks.join(space).join(id)).find(|b| b.is_dir())?;
        containerd_name(&json(&bundle.join("config.json"))?)
    }

    /// CRI-O: the annotations of the bundle.
    fn crio_bundle(&self, id: &str) -> Option<ContainerName> {
        let bundle = self.root.join("run/containers/storage/overlay-containers").join(id);
        let config = json(&bundle.join("userdata/config.json"))?;
        let pod = pod_of(&config["annotations"], KUBELET_LABELS)?;
        Some(ContainerName { runtime: GroupKind::Crio, name: None, pod: Some(pod) })
    }

    /// kubelet: `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`.
    fn kubelet_log(&self, id: &str) -> Option<ContainerName> {
        file_names(&self.root.join("var/log/containers")).find_map(|name| {
            let rest = name.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?;
            let mut parts = rest.splitn(3, '_');
            let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
            Some(ContainerName {
                runtime: GroupKind::Containerd,
                name: None,
                pod: Some((namespace.to_owned(), pod.to_owned(), container.to_owned())),
            })
        })
    }
}

/// Keys of namespace, pod and container.
type PodKeys = [&'static str; 3];
const KUBELET_LABELS: PodKeys =
    ["io.kubernetes.pod.namespace", "io.kubernetes.pod.name", "io.kubernetes.container.name"];
const CONTAINERD_ANNOTATIONS: PodKeys = [
    "io.kubernetes.cri.sandbox-namespace",
    "io.kubernetes.cri.sandbox-name",
    "io.kubernetes.cri.container-name",
];

fn pod_of(
    labels: &Value,
    [namespace, pod, container]: PodKeys,
) -> Option<(String, String, String)> {
    Some((text(&labels[namespace])?, text(&labels[pod])?, text(&labels[container])?))
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The name in Docker's `config.v2.json`, if that belongs to this container.
fn docker_name(id: &str, config: &Value) -> Option<ContainerName> {
    // Only old versions of Docker omit the id.
    text(&config["ID"]).is_none_or(|found| found == id).then_some(())?;
    Some(ContainerName {
        runtime: GroupKind::Docker,
        name: text(&config["Name"]).map(|name| name.trim_start_matches('/').to_owned()),
        pod: pod_of(&config["Config"]["Labels"], KUBELET_LABELS),
    })
}

fn containerd_name(config: &Value) -> Option<ContainerName> {
    let annotations = &config["annotations"];
    let name = text(&annotations["nerdctl/name"]).or_else(|| text(&config["hostname"]));
    Some(ContainerName {
        runtime: GroupKind::Containerd,
        name,
        pod: pod_of(annotations, CONTAINERD_ANNOTATIONS).or_else(|| {
            // The sandbox, which holds the pod's namespaces, has no container name.
            let (namespace, pod) = (
                text(&annotations["io.kubernetes.cri.sandbox-namespace"])?,
                text(&annotations["io.kubernetes.cri.sandbox-name"])?,
            );
            Some((namespace, pod, "POD".to_owned()))
        }),
    })
}

/// Podman and CRI-O: the lists of containers/storage. Containers that are removed when they end are
/// in a separate list.
fn in_storage(id: &str, list: impl Fn(&str) -> Option<Value>) -> Option<ContainerName> {
    ["containers.json", "volatile-containers.json"].into_iter().find_map(|file| {
        let list = list(file)?;
        let entry = list.as_array()?.iter().find(|entry| entry["id"] == id)?;
        let name = text(&entry["names"][0])?;
        // CRI-O names them k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT.
        let mut parts = name.strip_prefix("k8s_").unwrap_or_default().split('_');
        let pod = match (parts.next(), parts.next(), parts.next()) {
            (Some(container), Some(pod), Some(namespace)) => {
                Some((namespace.to_owned(), pod.to_owned(), container.to_owned()))
            }
            _ => None,
        };
        let runtime = if pod.is_some() { GroupKind::Crio } else { GroupKind::Podman };
        Some(ContainerName { runtime, name: Some(name), pod })
    })
}

fn file_names(dir: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
}
