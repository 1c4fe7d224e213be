//! The image of all containers: busybox, and the workload as `/bin/workload`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use filltop_tests::workload;
use serde_json::json;

use crate::tools::Tools;
use crate::{Result, Unavailable, succeed};

/// The image's name in every runtime.
pub const NAME: &str = "docker.io/library/filltop-test:1";

const APPLETS: [&str; 5] = ["sh", "sleep", "mkdir", "ls", "cat"];
const FOLDERS: [&str; 9] = ["bin", "bind", "proc", "sys", "dev", "etc", "tmp", "usr", "var"];

/// The image, built in a directory of the test's own.
pub struct Image {
    /// What `docker save` would print for it; every runtime can load that.
    pub archive: PathBuf,
    /// Its only layer.
    layer: PathBuf,
}

impl Image {
    pub fn new(tools: &Tools, dir: &Path) -> Result<Self> {
        let tree = dir.join("tree");
        for folder in FOLDERS {
            fs::create_dir_all(tree.join(folder))?;
        }
        fs::copy(tools.program("busybox")?, tree.join("bin/busybox"))?;
        for applet in APPLETS {
            symlink("busybox", tree.join("bin").join(applet))?;
        }
        fs::copy(workload().get_program(), tree.join("bin/workload"))?;
        let mut check = Command::new("chroot");
        check.arg(&tree).args(["/bin/sh", "-c", "exec /bin/workload --help"]);
        if !check.output()?.status.success() {
            let reason = "busybox and the workload have to be static, to run in an image";
            return Err(Unavailable(reason.to_owned()).into());
        }
        let layer = dir.join("layer.tar");
        succeed(tar(&layer, &tree).arg("."))?;
        let sum = succeed(Command::new("sha256sum").arg(&layer))?;
        let sum = sum.split_whitespace().next().context("sha256sum printed nothing")?;
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sleep", "100000"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
        });
        let manifest =
            json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
        fs::write(dir.join("config.json"), config.to_string())?;
        fs::write(dir.join("manifest.json"), manifest.to_string())?;
        let archive = dir.join("image.tar");
        succeed(tar(&archive, dir).args(["manifest.json", "config.json", "layer.tar"]))?;
        Ok(Self { archive, layer })
    }

    /// Its files in a directory, for runtimes that use plain directories.
    pub fn unpack(&self, into: &Path) -> Result {
        fs::create_dir_all(into)?;
        succeed(Command::new("tar").arg("-xf").arg(&self.layer).arg("-C").arg(into))?;
        Ok(())
    }
}

fn tar(archive: &Path, of: &Path) -> Command {
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(archive).arg("-C").arg(of);
    tar
}
