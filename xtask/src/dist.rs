//! `cargo xtask dist`: everything that is installed, laid out as it lies below `/usr`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::step::step;
use crate::workspace::Workspace;

/// Files of the checkout, and their places below `/usr`.
const FILES: [(&str, &str); 2] = [
    ("contrib/systemd/filltop.service", "lib/systemd/system/filltop.service"),
    ("contrib/systemd/filltop.sysusers", "lib/sysusers.d/filltop.conf"),
];

/// Writes `target/dist` anew around the finished program.
pub(crate) fn write(workspace: &Workspace, filltop: &Path) -> Result<()> {
    let into = workspace.target.join("dist");
    if into.exists() {
        fs::remove_dir_all(&into).with_context(|| into.display().to_string())?;
    }
    let mut manual = workspace.cargo();
    manual.args(["run", "--quiet", "--package=tracer", "--example=manual", "--"]).arg(&into);
    step("manual pages and completions", &mut manual)?;
    copy(filltop, &into.join("bin/filltop"), 0o755)?;
    for (from, to) in FILES {
        copy(&workspace.root.join(from), &into.join(to), 0o644)?;
    }
    println!("{}: to be copied to /usr", workspace.shown(&into));
    Ok(())
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file has a directory")?)?;
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}
