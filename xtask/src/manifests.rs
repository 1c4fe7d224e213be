//! `cargo xtask manifests`: those files of contrib/ that are made from others of contrib/. A test holds
//! them against what they are made from.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

const BASE: &str = "kubernetes/base";
/// The parts of the base, in the order of its kustomization.yaml: the namespace comes first.
const PARTS: [&str; 5] = [
    "namespace.yaml",
    "serviceaccount.yaml",
    "config.yaml",
    "daemonset.yaml",
    "networkpolicy.yaml",
];
const RULES: &str = "prometheus/filltop.rules.yml";

/// Writes them.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let contrib = workspace.root.join("contrib");
    for (name, text) in made(&contrib)? {
        let path = contrib.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        println!("{}", workspace.shown(&path));
    }
    Ok(())
}

/// Their names below contrib/, and their texts.
fn made(contrib: &Path) -> Result<[(&'static str, String); 3]> {
    let read = |name: &str| fs::read_to_string(contrib.join(name)).with_context(|| name.to_owned());
    let parts: Vec<String> =
        PARTS.iter().map(|part| read(&format!("{BASE}/{part}"))).collect::<Result<_>>()?;
    let rules = read(RULES)?;
    Ok([
        ("kubernetes/filltop.yaml", format!("{WHOLE}{}", parts.join("---\n"))),
        ("kubernetes/monitoring/prometheusrule.yaml", format!("{RULE}{}", indented(&rules))),
        ("helm/filltop/files/filltop.rules.yml", rules),
    ])
}

const WHOLE: &str = "\
# Set the image name to that of your registry, then: kubectl apply -f filltop.yaml
# For Kubernetes 1.30 and later; for earlier releases see before-1.30/. docs/containers.md explains
# each privilege. Generated from base/ by `cargo xtask manifests`.
";

const RULE: &str = "\
# Generated from contrib/prometheus/filltop.rules.yml by `cargo xtask manifests`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: filltop
  namespace: filltop
  labels:
    app.kubernetes.io/name: filltop
spec:
";

/// Below a key of a YAML mapping.
fn indented(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_from_other_files_is_up_to_date() {
        let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib");
        for (name, text) in made(&contrib).unwrap() {
            let there = fs::read_to_string(contrib.join(name)).unwrap();
            assert!(there == text, "{name} is out of date: cargo xtask manifests");
        }
    }

    #[test]
    fn all_parts_of_the_base_are_in_the_one_file() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib").join(BASE);
        let text = fs::read_to_string(base.join("kustomization.yaml")).unwrap();
        let listed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  - ")).collect();
        assert_eq!(listed, PARTS);
    }
}
