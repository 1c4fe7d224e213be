//! `cargo xtask dist`: all files to install, laid out as below `/usr`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::command::run_step;
use crate::workspace::Workspace;

/// Files of the checkout, and their destinations below `/usr`.
const FILES: [(&str, &str); 2] = [
    ("contrib/systemd/filltop.service", "lib/systemd/system/filltop.service"),
    ("contrib/systemd/filltop.sysusers", "lib/sysusers.d/filltop.conf"),
];

/// Writes `target/dist` with this program, and replaces what was there.
pub(crate) fn write(workspace: &Workspace, filltop: &Path) -> Result<()> {
    let into = workspace.target.join("dist");
    if into.exists() {
        fs::remove_dir_all(&into).with_context(|| into.display().to_string())?;
    }
    let mut manual = workspace.cargo();
    manual.args(["run", "--quiet", "--package=tracer", "--example=manual", "--"]).arg(&into);
    run_step("manual pages and completions", &mut manual)?;
    copy(filltop, &into.join("bin/filltop"), 0o755)?;
    for (from, to) in FILES {
        copy(&workspace.root.join(from), &into.join(to), 0o644)?;
    }
    println!("{}: copy its contents to /usr", workspace.display(&into));
    Ok(())
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file without a directory")?)?;
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}
