//! contrib/kubernetes against the fields that Kubernetes' API has, and its names against each other.
//!
//! Of each kind those fields are here that a manifest of ours may have: one that is misspelt, in the wrong
//! place or of the wrong type is an error, as with `kubectl apply --validate=strict`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::{Result, install::contrib};

type Labels = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
#[serde(tag = "kind")]
enum Object {
    Namespace(Plain),
    ServiceAccount(Plain),
    DaemonSet(Box<Whole<DaemonSet>>),
    NetworkPolicy(Whole<NetworkPolicy>),
}

/// `apiVersion: v1` objects without a spec.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plain {
    api_version: String,
    metadata: Metadata,
    automount_service_account_token: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Whole<S> {
    api_version: String,
    metadata: Metadata,
    spec: S,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    #[expect(dead_code, reason = "only that each value is a string")]
    annotations: Labels,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
struct DaemonSet {
    selector: Selector,
    update_strategy: UpdateStrategy,
    template: Template,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    #[serde(default)]
    match_labels: Labels,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
struct UpdateStrategy {
    r#type: UpdateType,
    rolling_update: RollingUpdate,
}

#[derive(Debug, Deserialize)]
enum UpdateType {
    RollingUpdate,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
struct RollingUpdate {
    max_unavailable: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Template {
    metadata: Metadata,
    spec: Pod,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
struct Pod {
    service_account_name: String,
    automount_service_account_token: bool,
    #[serde(rename = "hostPID")]
    host_pid: bool,
    tolerations: Vec<Toleration>,
    priority_class_name: String,
    termination_grace_period_seconds: u32,
    node_selector: Labels,
    containers: Vec<Container>,
    volumes: Vec<Volume>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
struct Toleration {
    operator: Operator,
}

#[derive(Debug, Deserialize)]
enum Operator {
    Exists,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
struct Container {
    name: String,
    image: String,
    args: Vec<String>,
    env: Vec<Variable>,
    ports: Vec<Port>,
    readiness_probe: Probe,
    liveness_probe: Probe,
    security_context: Security,
    resources: BTreeMap<String, Labels>,
    volume_mounts: Vec<Mount>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Port {
    name: String,
    container_port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
struct Probe {
    http_get: HttpGet,
    period_seconds: u32,
    failure_threshold: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpGet {
    path: String,
    port: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
struct Security {
    run_as_user: u32,
    run_as_group: u32,
    privileged: bool,
    allow_privilege_escalation: bool,
    read_only_root_filesystem: bool,
    capabilities: Capabilities,
    app_armor_profile: Profile,
    seccomp_profile: Profile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Capabilities {
    drop: Vec<String>,
    add: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
struct Profile {
    r#type: ProfileType,
}

#[derive(Debug, Deserialize)]
enum ProfileType {
    Unconfined,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    name: String,
    mount_path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Volume {
    name: String,
    empty_dir: Option<EmptyDir>,
    host_path: Option<HostPath>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
struct EmptyDir {
    medium: String,
    size_limit: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostPath {
    path: String,
    r#type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetworkPolicy {
    pod_selector: Selector,
    policy_types: Vec<String>,
    ingress: Vec<Ingress>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
struct Ingress {
    from: Vec<Peer>,
    ports: Vec<PolicyPort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
struct Peer {
    namespace_selector: Selector,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyPort {
    port: String,
}

fn objects(text: &str) -> anyhow::Result<Vec<Object>> {
    serde_saphyr::from_multiple(text).context("contrib/kubernetes/filltop.yaml")
}

#[test]
fn the_manifest_has_kubernetes_fields_and_its_names_fit() -> Result {
    let text = std::fs::read_to_string(contrib("kubernetes/filltop.yaml")?)?;
    let objects = objects(&text)?;
    let [
        Object::Namespace(space),
        Object::ServiceAccount(account),
        Object::DaemonSet(set),
        Object::NetworkPolicy(policy),
    ] = &objects[..]
    else {
        anyhow::bail!("{objects:?}");
    };
    ensure!(space.api_version == "v1" && account.api_version == "v1");
    ensure!(set.api_version == "apps/v1" && policy.api_version == "networking.k8s.io/v1");
    ensure!(account.automount_service_account_token == Some(false));
    for metadata in [&account.metadata, &set.metadata, &policy.metadata] {
        ensure!(metadata.namespace == space.metadata.name, "{metadata:?}");
    }
    let (template, pod) = (&set.spec.template, &set.spec.template.spec);
    ensure!(Some(&pod.service_account_name) == account.metadata.name.as_ref());
    // What is selected, and allowed to be scraped, are the pods of the set.
    for selector in [&set.spec.selector, &policy.spec.pod_selector] {
        ensure!(!selector.match_labels.is_empty());
        for (key, value) in &selector.match_labels {
            ensure!(template.metadata.labels.get(key) == Some(value), "{key}: {value}");
        }
    }
    let [container] = &pod.containers[..] else { anyhow::bail!("{:?}", pod.containers) };
    let ports: BTreeSet<&str> = container.ports.iter().map(|port| port.name.as_str()).collect();
    let probes = [&container.readiness_probe.http_get, &container.liveness_probe.http_get];
    for probe in probes {
        ensure!(ports.contains(probe.port.as_str()) && probe.path.starts_with('/'), "{probe:?}");
    }
    let allowed = policy.spec.ingress.iter().flat_map(|rule| &rule.ports);
    ensure!(allowed.map(|port| port.port.as_str()).eq(ports.iter().copied()));
    ensure!(policy.spec.policy_types == ["Ingress", "Egress"]);
    ensure!(
        container.args.last() == Some(&format!("0.0.0.0:{}", container.ports[0].container_port))
    );
    let volumes: BTreeSet<&str> = pod.volumes.iter().map(|volume| volume.name.as_str()).collect();
    let mounted: BTreeSet<&str> = container.volume_mounts.iter().map(|m| m.name.as_str()).collect();
    ensure!(volumes == mounted, "{volumes:?} {mounted:?}");
    for volume in &pod.volumes {
        ensure!(volume.empty_dir.is_some() != volume.host_path.is_some(), "{volume:?}");
        // The host's tracefs is where the program looks for it.
        if let Some(host) = &volume.host_path {
            let mount = container.volume_mounts.iter().find(|mount| mount.name == volume.name);
            ensure!(mount.is_some_and(|mount| mount.mount_path == host.path), "{host:?}");
            ensure!(host.r#type == "Directory");
        }
    }
    let variable = container.env.iter().find(|variable| variable.name == "FILLTOP_HOST_ROOT");
    ensure!(variable.is_some_and(|variable| variable.value == "/proc/1/root"));
    let capabilities = &container.security_context.capabilities;
    ensure!(capabilities.drop == ["ALL"] && capabilities.add.len() == 4, "{capabilities:?}");
    Ok(())
}

#[test]
fn a_manifest_that_is_wrong_is_seen() -> Result {
    let text = std::fs::read_to_string(contrib("kubernetes/filltop.yaml")?)?;
    for (right, wrong) in [
        ("hostPID: true", "hostPid: true"),
        ("hostPID: true", "hostPID: \"yes\""),
        ("runAsUser: 0", "runAsUsr: 0"),
        ("containerPort: 9823", "containerPort: 98230"),
        ("kind: DaemonSet", "kind: Daemonset"),
        (
            "        - name: tracing\n          hostPath:",
            "        - name: tracing\n        hostPath:",
        ),
    ] {
        ensure!(text.contains(right), "{right}");
        ensure!(objects(&text.replacen(right, wrong, 1)).is_err(), "{wrong} passes");
    }
    Ok(())
}
