//! The chart and the Kustomize directories with the usual tools: helm, kubectl, and a validator
//! with the schemas of Kubernetes' releases. None of them needs a cluster.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::Result;
use crate::install::contrib;
use crate::watch::succeeded;

/// Releases for which the validator has schemas, of those that the chart supports.
const RELEASES: [&str; 10] =
    ["1.28", "1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"];

/// helm, kubectl and the validator: unpacked by xtask, or installed.
struct Tools(Option<PathBuf>);

impl Tools {
    /// `None` if one is missing: the skip has been printed.
    fn find(test: &str) -> Option<Self> {
        let tools = Self(env::var_os("FILLTOP_KUBERNETES_TOOLS").map(PathBuf::from));
        for (name, argument) in
            [("helm", "version"), ("kubectl", "options"), ("validate", "--help")]
        {
            let there = tools.command(name).arg(argument).output();
            if !there.is_ok_and(|output| output.status.success()) {
                println!("SKIP {test}: {name} is not available (cargo xtask test unpacks it)");
                return None;
            }
        }
        Some(tools)
    }

    fn command(&self, name: &str) -> Command {
        let directory = self.0.as_deref();
        if name == "validate" {
            let mut command = Command::new("python3");
            if let Some(directory) = directory {
                command.env("PYTHONPATH", directory.join("python"));
            }
            command.args(["-m", "kubernetes_validate"]);
            return command;
        }
        let found = directory.map(|directory| directory.join("bin").join(name));
        Command::new(found.unwrap_or_else(|| PathBuf::from(name)))
    }

    fn helm(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.command("helm");
        // Otherwise it keeps its caches in the home directory.
        let home = tempfile::tempdir()?;
        command.env("HOME", home.path()).env_remove("KUBECONFIG").args(arguments);
        Ok(command.output()?)
    }

    /// The chart's objects, with these `--set`, for this release of Kubernetes.
    fn chart(&self, release: &str, set: &str) -> anyhow::Result<String> {
        let chart = contrib("helm/filltop")?;
        let chart = chart.to_str().context("not UTF-8")?;
        let mut arguments = vec!["template", "filltop", chart, "--namespace", "filltop"];
        arguments.extend(["--kube-version", release]);
        if !set.is_empty() {
            arguments.extend(["--set", set]);
        }
        Ok(String::from_utf8(succeeded(self.helm(&arguments)?)?.stdout)?)
    }

    /// The objects of a directory of contrib/kubernetes.
    fn kustomized(&self, directory: &str) -> anyhow::Result<String> {
        let directory = contrib("kubernetes")?.join(directory);
        let output = self.command("kubectl").arg("kustomize").arg(directory).output()?;
        Ok(String::from_utf8(succeeded(output)?.stdout)?)
    }

    /// The validator's result in strict mode: unknown fields of a release are errors.
    fn validate(&self, release: &str, text: &str) -> anyhow::Result<Output> {
        let mut command = self.command("validate");
        command.args(["--strict", "--no-warn", "-k", release, "/dev/stdin"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("no stdin")?.write_all(text.as_bytes())?;
        Ok(child.wait_with_output()?)
    }
}

/// Labels and annotations that Helm adds to every object of a chart, and that distinguish
/// installations.
const HELMS: [&str; 5] = [
    "helm.sh/chart",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "checksum/config",
];

/// The objects of a text, by kind and name, without what Helm adds to them and without the
/// namespace, which Helm creates with `--create-namespace`.
fn objects(text: &str) -> anyhow::Result<Vec<Value>> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(text)?;
    objects.retain(|object| object["kind"] != "Namespace" && !object.is_null());
    objects.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
    objects.iter_mut().for_each(without_helms);
    Ok(objects)
}

fn without_helms(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !HELMS.contains(&key.as_str()));
            map.values_mut().for_each(without_helms);
        }
        Value::Array(values) => values.iter_mut().for_each(without_helms),
        _ => {}
    }
}

#[test]
fn the_chart_passes_lint_and_renders_the_same_objects_as_the_manifests() -> Result {
    let Some(tools) =
        Tools::find("the_chart_passes_lint_and_renders_the_same_objects_as_the_manifests")
    else {
        return Ok(());
    };
    let chart = contrib("helm/filltop")?;
    let linted = tools.helm(&["lint", "--strict", chart.to_str().context("not UTF-8")?])?;
    println!("{}", String::from_utf8_lossy(&linted.stdout));
    succeeded(linted)?;
    let one_file = fs::read_to_string(contrib("kubernetes/filltop.yaml")?)?;
    ensure!(objects(&one_file)?.len() == 4);
    ensure!(objects(&one_file)? == objects(&tools.kustomized("base")?)?, "filltop.yaml, base");
    for (directory, release, set) in [
        ("base", "1.37", ""),
        ("act", "1.37", "mayAct=true"),
        ("strict", "1.30", "strict=true,tracefs=true"),
        ("before-1.30", "1.29", ""),
    ] {
        let made = objects(&tools.kustomized(directory)?)?;
        ensure!(
            made == objects(&tools.chart(release, set)?)?,
            "{directory} is not the chart's {set}"
        );
        ensure!((made == objects(&one_file)?) == (directory == "base"), "{directory}");
    }
    // The base's objects, and then those for the operator.
    let set = "podMonitor.enabled=true,prometheusRule.enabled=true";
    let with_monitors = objects(&tools.chart("1.37", set)?)?;
    let monitors = objects(&tools.kustomized("monitoring")?)?;
    ensure!(monitors.len() == 2 && with_monitors.len() == 6);
    for monitor in &monitors {
        ensure!(with_monitors.contains(monitor), "{monitor}");
    }
    Ok(())
}

/// Invalid values are refused: incomplete capabilities, a rule in the wrong place.
#[test]
fn the_chart_refuses_invalid_values() -> Result {
    let Some(tools) = Tools::find("the_chart_refuses_invalid_values") else {
        return Ok(());
    };
    for wrong in ["mayact=true", "strict=perhaps", "image.digest=sha256:12", "podMonitor=true"] {
        ensure!(tools.chart("1.37", wrong).is_err(), "{wrong} passes");
    }
    // A cluster older than the tested releases is refused as well.
    ensure!(tools.chart("1.27", "").is_err());
    Ok(())
}

#[test]
fn every_release_of_kubernetes_knows_all_fields() -> Result {
    let Some(tools) = Tools::find("every_release_of_kubernetes_knows_all_fields") else {
        return Ok(());
    };
    for release in RELEASES {
        // 1.28 and 1.29 do not know appArmorProfile; before-1.30 is for them.
        let old = ["1.28", "1.29"].contains(&release);
        let directories: &[&str] = if old { &["before-1.30"] } else { &["base", "act", "strict"] };
        let mut all = Vec::new();
        for set in ["", "mayAct=true", "strict=true,tracefs=true,priorityClassName=high"] {
            all.push(tools.chart(release, set)?);
        }
        for directory in directories {
            all.push(tools.kustomized(directory)?);
        }
        let output = tools.validate(release, &all.join("\n---\n"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        succeeded(output).with_context(|| format!("{release}: {said}"))?;
        // Every object was checked.
        ensure!(
            said.matches("passed for resource daemonset/filltop").count() == all.len(),
            "{said}"
        );
        if old {
            ensure!(!tools.validate(release, &tools.kustomized("base")?)?.status.success());
        }
    }
    Ok(())
}

/// All places have the same version.
#[test]
fn chart_and_manifests_have_this_version() -> Result {
    let version = env!("CARGO_PKG_VERSION");
    let chart: Value =
        serde_saphyr::from_str(&fs::read_to_string(contrib("helm/filltop/Chart.yaml")?)?)?;
    ensure!(chart["version"] == version && chart["appVersion"] == version, "{chart}");
    let set = fs::read_to_string(contrib("kubernetes/base/daemonset.yaml")?)?;
    ensure!(set.contains(&format!("/filltop:{version}\n")));
    Ok(())
}
