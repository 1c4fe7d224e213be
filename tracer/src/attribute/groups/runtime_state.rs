//! Names of containers, from what their runtimes keep on disk. No runtime is asked: its daemon may
//! be the one that hangs on the full disk.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Containers whose names are remembered, found or not.
const MAX_KNOWN: usize = 4_096;
/// Longest state file that is read, bytes.
const MAX_FILE: u64 = 8 << 20;

/// What a runtime knows of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerName {
    /// `docker`, `podman`, `containerd` or `crio`.
    pub runtime: &'static str,
    /// The name that people gave it.
    pub name: Option<String>,
    /// Namespace, pod and container, where Kubernetes runs it.
    pub pod: Option<(String, String, String)>,
}

/// Looks names up below a root directory (`/`, but in tests), and remembers them.
pub struct RuntimeState {
    root: PathBuf,
    known: HashMap<String, Option<ContainerName>>,
}

impl RuntimeState {
    /// Looks below `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), known: HashMap::new() }
    }

    /// The name of a container. What was not found is looked up again in the next window.
    pub fn container(&mut self, id: &str) -> Option<ContainerName> {
        if let Some(known) = self.known.get(id) {
            return known.clone();
        }
        let found = self.look_up(id);
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(id.to_owned(), found.clone());
        found
    }

    /// Namespace and name of a pod, by its UID: kubelet keeps its logs in
    /// `/var/log/pods/NAMESPACE_POD_UID`.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<(String, String)> {
        file_names(&self.root.join("var/log/pods")).find_map(|name| {
            let (namespace, pod) = name.strip_suffix(uid)?.strip_suffix('_')?.split_once('_')?;
            Some((namespace.to_owned(), pod.to_owned()))
        })
    }

    /// Forgets what was not found.
    pub fn next_window(&mut self) {
        self.known.retain(|_, found| found.is_some());
    }

    fn look_up(&self, id: &str) -> Option<ContainerName> {
        self.docker(id)
            .or_else(|| self.containerd(id))
            .or_else(|| self.containers_storage(id))
            .or_else(|| self.kubelet_log(id))
    }

    /// Docker: `Name` and the labels of `config.v2.json`.
    fn docker(&self, id: &str) -> Option<ContainerName> {
        let data = json(&self.root.join("etc/docker/daemon.json"))
            .and_then(|config| {
                Some(config["data-root"].as_str()?.trim_start_matches('/').to_owned())
            })
            .unwrap_or_else(|| "var/lib/docker".to_owned());
        let config =
            json(&self.root.join(data).join("containers").join(id).join("config.v2.json"))?;
        let labels = &config["Config"]["Labels"];
        Some(ContainerName {
            runtime: "docker",
            name: text(&config["Name"]).map(|name| name.trim_start_matches('/').to_owned()),
            pod: pod_of(labels, KUBELET_LABELS),
        })
    }

    /// containerd: the annotations of the bundle's OCI `config.json`.
    fn containerd(&self, id: &str) -> Option<ContainerName> {
        let tasks = self.root.join("run/containerd/io.containerd.runtime.v2.task");
        let bundle =
            file_names(&tasks).map(|space| tasks.join(space).join(id)).find(|b| b.is_dir())?;
        let config = json(&bundle.join("config.json"))?;
        let annotations = &config["annotations"];
        let name = text(&annotations["nerdctl/name"]).or_else(|| text(&config["hostname"]));
        Some(ContainerName {
            runtime: "containerd",
            name,
            pod: pod_of(annotations, CONTAINERD_ANNOTATIONS).or_else(|| {
                // The sandbox has no container name: it holds the pod's namespaces.
                let (namespace, pod) = (
                    text(&annotations["io.kubernetes.cri.sandbox-namespace"])?,
                    text(&annotations["io.kubernetes.cri.sandbox-name"])?,
                );
                Some((namespace, pod, "POD".to_owned()))
            }),
        })
    }

    /// Podman and CRI-O: containers/storage, root's and each user's.
    fn containers_storage(&self, id: &str) -> Option<ContainerName> {
        let bundle = self.root.join("run/containers/storage/overlay-containers").join(id);
        if let Some(config) = json(&bundle.join("userdata/config.json"))
            && let Some(pod) = pod_of(&config["annotations"], KUBELET_LABELS)
        {
            return Some(ContainerName { runtime: "crio", name: None, pod: Some(pod) });
        }
        let mut stores = vec![self.root.join("var/lib/containers/storage")];
        let homes = self.root.join("home");
        stores.extend(
            file_names(&homes).map(|user| homes.join(user).join(".local/share/containers/storage")),
        );
        stores.iter().find_map(|store| {
            let list = json(&store.join("overlay-containers/containers.json"))?;
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
            let runtime = if pod.is_some() { "crio" } else { "podman" };
            Some(ContainerName { runtime, name: Some(name), pod })
        })
    }

    /// kubelet: `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`.
    fn kubelet_log(&self, id: &str) -> Option<ContainerName> {
        file_names(&self.root.join("var/log/containers")).find_map(|name| {
            let rest = name.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?;
            let mut parts = rest.splitn(3, '_');
            let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
            Some(ContainerName {
                runtime: "containerd",
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

fn json(path: &Path) -> Option<Value> {
    let size = fs::metadata(path).ok()?.len();
    (size <= MAX_FILE)
        .then(|| fs::read(path).ok())
        .flatten()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

fn file_names(dir: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c2a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";

    /// A host with one file of state.
    fn found(path: &str, content: &str) -> Option<ContainerName> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(path.replace("{ID}", ID));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.replace("{ID}", ID)).unwrap();
        RuntimeState::new(root.path()).container(ID)
    }

    fn in_pod(runtime: &'static str, name: Option<&str>) -> Option<ContainerName> {
        let pod = Some(("shop".to_owned(), "web-7d9".to_owned(), "nginx".to_owned()));
        Some(ContainerName { runtime, name: name.map(str::to_owned), pod })
    }

    fn named(runtime: &'static str, name: &str) -> Option<ContainerName> {
        Some(ContainerName { runtime, name: Some(name.to_owned()), pod: None })
    }

    #[test]
    fn docker_keeps_config_v2() {
        let path = "var/lib/docker/containers/{ID}/config.v2.json";
        assert_eq!(
            found(path, r#"{"Name":"/web","Config":{"Labels":{}}}"#),
            named("docker", "web")
        );
        let labels = r#"{"io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.name":"web-7d9",
            "io.kubernetes.container.name":"nginx"}"#;
        let content = format!(r#"{{"Name":"/k8s_x","Config":{{"Labels":{labels}}}}}"#);
        assert_eq!(found(path, &content), in_pod("docker", Some("k8s_x")));
    }

    #[test]
    fn containerd_keeps_a_bundle() {
        let path = "run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json";
        let content = r#"{"annotations":{"io.kubernetes.cri.sandbox-namespace":"shop",
            "io.kubernetes.cri.sandbox-name":"web-7d9","io.kubernetes.cri.container-name":"nginx"}}"#;
        assert_eq!(found(path, content), in_pod("containerd", None));
        let path = "run/containerd/io.containerd.runtime.v2.task/default/{ID}/config.json";
        let content = r#"{"annotations":{"nerdctl/name":"web"}}"#;
        assert_eq!(found(path, content), named("containerd", "web"));
    }

    #[test]
    fn podman_and_crio_share_a_store() {
        let root = "var/lib/containers/storage/overlay-containers/containers.json";
        let user = "home/ann/.local/share/containers/storage/overlay-containers/containers.json";
        let content = r#"[{"id":"other","names":["x"]},{"id":"{ID}","names":["web"]}]"#;
        assert_eq!(found(root, content), named("podman", "web"));
        assert_eq!(found(user, content), named("podman", "web"));
        let name = "k8s_nginx_web-7d9_shop_5fb2_0";
        let content = format!(r#"[{{"id":"{{ID}}","names":["{name}"]}}]"#);
        assert_eq!(found(root, &content), in_pod("crio", Some(name)));
        let path = "run/containers/storage/overlay-containers/{ID}/userdata/config.json";
        let content = r#"{"annotations":{"io.kubernetes.pod.namespace":"shop",
            "io.kubernetes.pod.name":"web-7d9","io.kubernetes.container.name":"nginx"}}"#;
        assert_eq!(found(path, content), in_pod("crio", None));
    }

    #[test]
    fn kubelet_links_logs() {
        assert_eq!(
            found("var/log/containers/web-7d9_shop_nginx-{ID}.log", ""),
            in_pod("containerd", None)
        );
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/log/pods/shop_web-7d9_5fb2")).unwrap();
        let state = RuntimeState::new(root.path());
        assert_eq!(state.pod("5fb2"), Some(("shop".to_owned(), "web-7d9".to_owned())));
        assert_eq!(state.pod("b2"), None);
    }

    #[test]
    fn damaged_state_is_no_name() {
        assert_eq!(found("var/lib/docker/containers/{ID}/config.v2.json", "{\"Name\":"), None);
        assert_eq!(found("etc/hostname", "x"), None);
    }
}
