//! For each kind, the fields that our manifests may use: one that is misspelt, in the wrong place
//! or of the wrong type is an error, as with `kubectl apply --validate=strict`.

use std::collections::BTreeMap;

use serde::Deserialize;

pub type Labels = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
#[serde(tag = "kind")]
pub enum Object {
    Namespace(Plain),
    ServiceAccount(Plain),
    ConfigMap(ConfigMap),
    DaemonSet(Box<Whole<DaemonSet>>),
    NetworkPolicy(Whole<NetworkPolicy>),
    PodMonitor(Whole<PodMonitor>),
    PrometheusRule(Whole<PrometheusRule>),
}

/// `apiVersion: v1` objects without a spec.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plain {
    pub api_version: String,
    pub metadata: Metadata,
    pub automount_service_account_token: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMap {
    pub api_version: String,
    pub metadata: Metadata,
    pub data: Labels,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Whole<S> {
    pub api_version: String,
    pub metadata: Metadata,
    pub spec: S,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    pub name: Option<String>,
    pub namespace: Option<String>,
    #[serde(default)]
    pub labels: Labels,
    #[serde(default)]
    pub annotations: Labels,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
pub struct DaemonSet {
    pub selector: Selector,
    pub update_strategy: UpdateStrategy,
    pub template: Template,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    #[serde(default)]
    pub match_labels: Labels,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
pub struct UpdateStrategy {
    pub r#type: UpdateType,
    pub rolling_update: RollingUpdate,
}

#[derive(Debug, Deserialize)]
pub enum UpdateType {
    RollingUpdate,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
pub struct RollingUpdate {
    pub max_unavailable: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Template {
    pub metadata: Metadata,
    pub spec: Pod,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
pub struct Pod {
    pub service_account_name: String,
    pub automount_service_account_token: bool,
    #[serde(rename = "hostPID")]
    pub host_pid: bool,
    pub tolerations: Vec<Toleration>,
    pub priority_class_name: Option<String>,
    pub termination_grace_period_seconds: u32,
    pub node_selector: Labels,
    pub containers: Vec<Container>,
    pub volumes: Vec<Volume>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
pub struct Toleration {
    pub operator: Operator,
}

#[derive(Debug, Deserialize)]
pub enum Operator {
    Exists,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
pub struct Container {
    pub name: String,
    pub image: String,
    pub image_pull_policy: PullPolicy,
    pub args: Vec<String>,
    pub env: Vec<Variable>,
    pub ports: Vec<Port>,
    pub startup_probe: Probe,
    pub readiness_probe: Probe,
    pub liveness_probe: Probe,
    pub security_context: Security,
    pub resources: BTreeMap<String, Labels>,
    pub volume_mounts: Vec<Mount>,
}

#[derive(Debug, Deserialize)]
pub enum PullPolicy {
    IfNotPresent,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variable {
    pub name: String,
    pub value: Option<String>,
    pub value_from: Option<ValueFrom>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueFrom {
    pub field_ref: FieldRef,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldRef {
    pub field_path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    pub name: String,
    pub container_port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
pub struct Probe {
    pub http_get: HttpGet,
    pub period_seconds: u32,
    pub failure_threshold: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpGet {
    pub path: String,
    pub port: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
pub struct Security {
    pub run_as_user: u32,
    pub run_as_group: u32,
    pub privileged: bool,
    pub allow_privilege_escalation: bool,
    pub read_only_root_filesystem: bool,
    pub capabilities: Capabilities,
    pub app_armor_profile: Profile,
    pub seccomp_profile: Profile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    pub drop: Vec<String>,
    pub add: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
pub struct Profile {
    pub r#type: ProfileType,
}

#[derive(Debug, Deserialize)]
pub enum ProfileType {
    Unconfined,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    pub name: String,
    pub mount_path: String,
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    pub name: String,
    pub config_map: Option<Named>,
    pub host_path: Option<HostPath>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    pub name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPath {
    pub path: String,
    pub r#type: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicy {
    pub pod_selector: Selector,
    pub policy_types: Vec<String>,
    pub ingress: Vec<Ingress>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
pub struct Ingress {
    pub from: Vec<Peer>,
    pub ports: Vec<PolicyPort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
pub struct Peer {
    pub namespace_selector: Selector,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyPort {
    pub port: String,
}

/// From the Prometheus Operator, `monitoring.coreos.com/v1`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodMonitor {
    pub selector: Selector,
    pub pod_metrics_endpoints: Vec<PodEndpoint>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter of some fields")]
pub struct PodEndpoint {
    pub port: String,
    pub interval: String,
    pub relabelings: Vec<Relabeling>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "types alone matter")]
pub struct Relabeling {
    pub source_labels: Vec<String>,
    pub target_label: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrometheusRule {
    pub groups: Vec<serde_json::Value>,
}
