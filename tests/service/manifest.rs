//! contrib/kubernetes against the fields of Kubernetes' API, and its names against each other.

mod fields;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use fields::{ConfigMap, Container, Metadata, Object, Pod, PrometheusRule, Selector};
use filltop_tests::filltop;

use crate::Result;
use crate::install::contrib;
use crate::watch::succeeded;

fn objects(text: &str) -> anyhow::Result<Vec<Object>> {
    serde_saphyr::from_multiple(text).context("contrib/kubernetes")
}

#[test]
fn the_manifests_fields_are_valid_and_its_names_match() -> Result {
    let text = fs::read_to_string(contrib("kubernetes/filltop.yaml")?)?;
    let objects = objects(&text)?;
    let [
        Object::Namespace(space),
        Object::ServiceAccount(account),
        Object::ConfigMap(config),
        Object::DaemonSet(set),
        Object::NetworkPolicy(policy),
    ] = &objects[..]
    else {
        anyhow::bail!("{objects:?}");
    };
    ensure!(space.api_version == "v1" && account.api_version == "v1" && config.api_version == "v1");
    ensure!(set.api_version == "apps/v1" && policy.api_version == "networking.k8s.io/v1");
    ensure!(account.automount_service_account_token == Some(false));
    for metadata in [&account.metadata, &config.metadata, &set.metadata, &policy.metadata] {
        ensure!(metadata.namespace == space.metadata.name, "{metadata:?}");
    }
    let (template, pod) = (&set.spec.template, &set.spec.template.spec);
    ensure!(Some(&pod.service_account_name) == account.metadata.name.as_ref());
    // The selectors must match the pods of the set.
    for selector in [&set.spec.selector, &policy.spec.pod_selector] {
        fits(selector, &template.metadata)?;
    }
    let [container] = &pod.containers[..] else { anyhow::bail!("{:?}", pod.containers) };
    let ports: BTreeSet<&str> = container.ports.iter().map(|port| port.name.as_str()).collect();
    let probes = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
    for probe in probes.map(|probe| &probe.http_get) {
        ensure!(ports.contains(probe.port.as_str()) && probe.path.starts_with('/'), "{probe:?}");
    }
    let allowed = policy.spec.ingress.iter().flat_map(|rule| &rule.ports);
    ensure!(allowed.map(|port| port.port.as_str()).eq(ports.iter().copied()));
    ensure!(policy.spec.policy_types == ["Ingress", "Egress"]);
    ensure!(
        container.args.last() == Some(&format!("0.0.0.0:{}", container.ports[0].container_port))
    );
    // A class with a quota would exclude the pods from clusters that have none.
    ensure!(pod.priority_class_name.is_none());
    // Both ways to disable AppArmor: the one of 1.28 and 1.29 names the container.
    let key = format!("container.apparmor.security.beta.kubernetes.io/{}", container.name);
    ensure!(template.metadata.annotations.get(&key).is_some_and(|value| value == "unconfined"));
    mounts_fit(pod, container, config)?;
    let value = |name: &str| container.env.iter().find(|variable| variable.name == name);
    let root = value("FILLTOP_HOST_ROOT").and_then(|variable| variable.value.as_deref());
    ensure!(root == Some("/proc/1/root"));
    let node = value("NODE_NAME").and_then(|variable| variable.value_from.as_ref());
    ensure!(node.is_some_and(|from| from.field_ref.field_path == "spec.nodeName"));
    let capabilities = &container.security_context.capabilities;
    ensure!(capabilities.drop == ["ALL"] && !capabilities.add.is_empty());
    Ok(())
}

/// A selector matches this metadata.
fn fits(selector: &Selector, metadata: &Metadata) -> Result {
    ensure!(!selector.match_labels.is_empty());
    for (key, value) in &selector.match_labels {
        ensure!(metadata.labels.get(key) == Some(value), "{key}: {value}");
    }
    Ok(())
}

/// Every volume is mounted, at the path that the program uses, and contains the files that it is
/// configured to read.
fn mounts_fit(pod: &Pod, container: &Container, config: &ConfigMap) -> Result {
    let volumes: BTreeSet<&str> = pod.volumes.iter().map(|volume| volume.name.as_str()).collect();
    let mounted: BTreeSet<&str> = container.volume_mounts.iter().map(|m| m.name.as_str()).collect();
    ensure!(volumes == mounted, "{volumes:?} {mounted:?}");
    for volume in &pod.volumes {
        let mount = container.volume_mounts.iter().find(|mount| mount.name == volume.name);
        let mount = mount.context("mounted nowhere")?;
        match (&volume.config_map, &volume.host_path) {
            (Some(map), None) => {
                ensure!(Some(&map.name) == config.metadata.name.as_ref() && mount.read_only);
                let given = container.args.iter().skip_while(|arg| *arg != "--config").nth(1);
                let file =
                    given.and_then(|path| Path::new(path).strip_prefix(&mount.mount_path).ok());
                let file = file.and_then(Path::to_str).context("--config is not on a volume")?;
                ensure!(config.data.contains_key(file), "no {file} in the ConfigMap");
            }
            // The records of actions, and the socket.
            (None, Some(host)) => {
                ensure!(host.path == "/run/filltop" && mount.mount_path == host.path, "{host:?}");
                ensure!(host.r#type == "DirectoryOrCreate" && !mount.read_only);
            }
            _ => anyhow::bail!("{volume:?}"),
        }
    }
    Ok(())
}

/// The configuration in the ConfigMap, read by the program itself.
#[test]
fn the_manifests_configuration_is_valid() -> Result {
    let text = fs::read_to_string(contrib("kubernetes/base/config.yaml")?)?;
    let objects = objects(&text)?;
    let [Object::ConfigMap(config)] = &objects[..] else { anyhow::bail!("{objects:?}") };
    let dir = tempfile::tempdir()?;
    for (name, text) in &config.data {
        let file = dir.path().join(name);
        fs::write(&file, text)?;
        let mut command = Command::new(filltop());
        succeeded(command.args(["watch", "--check-config", "--config"]).arg(&file).output()?)?;
    }
    ensure!(config.data.len() == 1);
    Ok(())
}

#[test]
fn the_operators_objects_are_valid_and_select_the_pods() -> Result {
    let read = |name: &str| -> anyhow::Result<Vec<Object>> {
        objects(&fs::read_to_string(contrib(&format!("kubernetes/{name}"))?)?)
    };
    let (set, monitor) = (read("base/daemonset.yaml")?, read("monitoring/podmonitor.yaml")?);
    let ([Object::DaemonSet(set)], [Object::PodMonitor(monitor)]) = (&set[..], &monitor[..]) else {
        anyhow::bail!("{set:?} {monitor:?}");
    };
    ensure!(monitor.api_version == "monitoring.coreos.com/v1");
    ensure!(monitor.metadata.namespace == set.metadata.namespace);
    fits(&monitor.spec.selector, &set.spec.template.metadata)?;
    let ports = &set.spec.template.spec.containers[0].ports;
    for endpoint in &monitor.spec.pod_metrics_endpoints {
        ensure!(ports.iter().any(|port| port.name == endpoint.port), "{endpoint:?}");
    }
    let rule = read("monitoring/prometheusrule.yaml")?;
    let [Object::PrometheusRule(rule)] = &rule[..] else { anyhow::bail!("{rule:?}") };
    ensure!(rule.api_version == "monitoring.coreos.com/v1");
    // The same rules that promtool tests.
    let rules = fs::read_to_string(contrib("prometheus/filltop.rules.yml")?)?;
    let rules: PrometheusRule = serde_saphyr::from_str(&rules)?;
    ensure!(rule.spec.groups == rules.groups && rules.groups.len() > 1);
    Ok(())
}

#[test]
fn an_invalid_manifest_is_detected() -> Result {
    let text = fs::read_to_string(contrib("kubernetes/filltop.yaml")?)?;
    for (right, wrong) in [
        ("hostPID: true", "hostPid: true"),
        ("hostPID: true", "hostPID: \"yes\""),
        ("runAsUser: 0", "runAsUsr: 0"),
        ("containerPort: 9823", "containerPort: 98230"),
        ("kind: DaemonSet", "kind: Daemonset"),
        ("        - name: run\n          hostPath:", "        - name: run\n        hostPath:"),
    ] {
        ensure!(text.contains(right), "{right}");
        ensure!(objects(&text.replacen(right, wrong, 1)).is_err(), "{wrong} passes");
    }
    Ok(())
}
