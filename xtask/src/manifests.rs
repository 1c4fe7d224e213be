//! `cargo xtask manifests`: the files of contrib/ that are generated from other files of contrib/. A unit test
//! checks that they are up to date.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

const BASE: &str = "kubernetes/base";
/// The files of the base, in the order of its kustomization.yaml: the namespace is first.
const PARTS: [&str; 5] = [
    "namespace.yaml",
    "serviceaccount.yaml",
    "config.yaml",
    "daemonset.yaml",
    "networkpolicy.yaml",
];
const RULES: &str = "prometheus/filltop.rules.yml";

/// Writes the generated files.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let contrib = workspace.root.join("contrib");
    for (name, text) in generate(&contrib)? {
        let path = contrib.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        println!("{}", workspace.display(&path));
    }
    Ok(())
}

/// Paths below contrib/ and contents of the generated files.
fn generate(contrib: &Path) -> Result<[(&'static str, String); 3]> {
    let read = |name: &str| fs::read_to_string(contrib.join(name)).with_context(|| name.to_owned());
    let parts: Vec<String> =
        PARTS.iter().map(|part| read(&format!("{BASE}/{part}"))).collect::<Result<_>>()?;
    let rules = read(RULES)?;
    Ok([
        ("kubernetes/filltop.yaml", format!("{MANIFEST_HEAD}{}", parts.join("---\n"))),
        ("kubernetes/monitoring/prometheusrule.yaml", format!("{RULE_HEAD}{}", indent(&rules))),
        ("helm/filltop/files/filltop.rules.yml", rules),
    ])
}

const MANIFEST_HEAD: &str = "\
# Change the image's name to that of your registry, then: kubectl apply -f filltop.yaml
# For Kubernetes 1.30 and later; for older versions see before-1.30/. docs/containers.md explains each privilege.
# Generated from base/ by `cargo xtask manifests`; do not edit.
";

const RULE_HEAD: &str = "\
# Generated from contrib/prometheus/filltop.rules.yml by `cargo xtask manifests`; do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: filltop
  namespace: filltop
  labels:
    app.kubernetes.io/name: filltop
spec:
";

/// Indents a YAML document so that it can follow a key, and drops its comments.
fn indent(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_are_up_to_date() {
        let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib");
        for (name, text) in generate(&contrib).unwrap() {
            let present = fs::read_to_string(contrib.join(name)).unwrap();
            assert!(present == text, "{name} is out of date; run `cargo xtask manifests`");
        }
    }

    #[test]
    fn all_files_of_the_base_are_in_the_manifest() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib").join(BASE);
        let text = fs::read_to_string(base.join("kustomization.yaml")).unwrap();
        let listed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  - ")).collect();
        assert_eq!(listed, PARTS);
    }
}
