//! Pods as kubelet has containerd run them: with the Container Runtime Interface, over its socket.
//! There is no kubelet, so that nothing restarts or probes a container. Field numbers are those of
//! k8s.io/cri-api/pkg/apis/runtime/v1/api.proto.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::containerd::Containerd;
use super::grpc::Message;
use super::{Home, Runtime, Spec, grpc};
use crate::{Result, image};

const NAMESPACE: &str = "shop";
/// The container's name in each pod.
const CONTAINER: &str = "main";
/// NamespaceMode.NODE: the host's network.
const NODE: u32 = 2;

pub struct Cri {
    containerd: Containerd,
    pods: HashMap<String, Pod>,
}

struct Pod {
    sandbox: String,
    container: String,
    logs: PathBuf,
}

impl Cri {
    pub fn start(home: Home) -> Result<Self> {
        Ok(Self { containerd: Containerd::start(home, "k8s.io")?, pods: HashMap::new() })
    }

    fn call(&self, method: &str, request: &Message) -> Result<Vec<u8>> {
        let socket = self.containerd.home.state("containerd.sock");
        grpc::call(Path::new(&socket), &format!("runtime.v1.RuntimeService/{method}"), request)
    }

    fn running(&self, name: &str) -> Result<&Pod> {
        self.pods.get(name).context("no such pod")
    }
}

/// The pod's uid, made from its name.
fn uid(name: &str) -> String {
    format!(
        "0f1e2d3c-4b5a-4978-8796-{:012x}",
        name.bytes().fold(0, |sum, b| sum * 31 % 0xffff_ffff + u64::from(b))
    )
}

/// PodSandboxConfig.
fn pod_config(name: &str, logs: &Path) -> Message {
    let uid = uid(name);
    let metadata = Message::default().string(1, name).string(2, &uid).string(3, NAMESPACE);
    let namespaces = Message::default().number(1, NODE);
    let linux = Message::default()
        .string(1, &format!("/kubepods/besteffort/pod{uid}"))
        .message(2, Message::default().message(1, namespaces));
    Message::default()
        .message(1, metadata)
        .string(3, &logs.display().to_string())
        .entry(6, "io.kubernetes.pod.name", name)
        .entry(6, "io.kubernetes.pod.namespace", NAMESPACE)
        .entry(6, "io.kubernetes.pod.uid", &uid)
        .message(8, linux)
}

/// ContainerConfig.
fn container_config(name: &str, script: &str, bind: &str) -> Message {
    let namespaces = Message::default().number(1, NODE);
    let security = Message::default().message(3, namespaces);
    Message::default()
        .message(1, Message::default().string(1, CONTAINER))
        .message(2, Message::default().string(1, image::NAME))
        .string(3, "/bin/sh")
        .string(4, "-c")
        .string(4, script)
        .message(7, Message::default().string(1, "/bind").string(2, bind))
        .entry(9, "io.kubernetes.container.name", CONTAINER)
        .entry(9, "io.kubernetes.pod.name", name)
        .entry(9, "io.kubernetes.pod.namespace", NAMESPACE)
        .entry(9, "io.kubernetes.pod.uid", &uid(name))
        .string(11, &format!("{CONTAINER}/0.log"))
        .message(15, Message::default().message(2, security))
}

impl Runtime for Cri {
    fn kind(&self) -> &'static str {
        "pod"
    }

    fn called(&self, name: &str) -> String {
        format!("{NAMESPACE}/{name}/{CONTAINER}")
    }

    fn pod(&self, name: &str) -> Option<String> {
        Some(format!("{NAMESPACE}/{name}"))
    }

    fn also_called(&self, name: &str) -> Result<Vec<String>> {
        let id = &self.running(name)?.container;
        let pod = format!("{NAMESPACE}/{name}");
        Ok(vec![name.to_owned(), pod.clone(), format!("pod/{pod}"), id[..8].to_owned(), id.clone()])
    }

    fn run(&mut self, spec: &Spec<'_>) -> Result {
        let bind = self.containerd.home.make_bind(spec.name)?;
        let logs = format!("pods/{NAMESPACE}_{}_{}", spec.name, uid(spec.name));
        let logs = PathBuf::from(self.containerd.home.store(&logs));
        // As kubelet does.
        fs::create_dir_all(logs.join(CONTAINER))?;
        let config = || pod_config(spec.name, &logs);
        let request = Message::default().message(1, config());
        let sandbox = grpc::first_string(&self.call("RunPodSandbox", &request)?)?;
        let request = Message::default()
            .string(1, &sandbox)
            .message(2, container_config(spec.name, spec.script, &bind))
            .message(3, config());
        let container = grpc::first_string(&self.call("CreateContainer", &request)?)?;
        self.call("StartContainer", &Message::default().string(1, &container))?;
        self.pods.insert(spec.name.to_owned(), Pod { sandbox, container, logs });
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result {
        let pod = self.pods.remove(name).context("no such pod")?;
        // Stopping waits for the container to end, removing does not.
        let sandbox = Message::default().string(1, &pod.sandbox);
        self.call("RemovePodSandbox", &sandbox)?;
        Ok(())
    }

    fn pid(&self, name: &str) -> Result<u32> {
        self.containerd.pid(&self.running(name)?.container)
    }

    fn root(&self, name: &str) -> Result<PathBuf> {
        self.containerd.root(&self.running(name)?.container)
    }

    fn log(&self, name: &str) -> Result<Option<PathBuf>> {
        Ok(Some(self.running(name)?.logs.join(CONTAINER).join("0.log")))
    }

    fn home(&self) -> &Home {
        &self.containerd.home
    }
}
