//! Choosing the compiler for the eBPF objects.
//!
//! rustc can compile for BPF if it has the source of `core` (rust-src) and a bpf-linker that was built
//! against the same major version of LLVM. Nightly is usual, but a stable compiler works as well, because
//! `RUSTC_BOOTSTRAP=1` enables `-Z build-std`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::capture;
use crate::packages;
use crate::workspace::field;

/// Major versions of LLVM that bpf-linker 0.13 supports.
const SUPPORTED_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// The minor version of the workspace's `rust-version`.
const MIN_RUST_MINOR: u32 = 95;
/// Debian's compiler for its browsers, which is recent in every supported release.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "llvm-22-dev"];

/// An installed rustc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The name in messages: `rustup's nightly`, `/usr/bin/rustc`.
    pub(crate) name: String,
    /// The path of rustc.
    pub(crate) rustc: PathBuf,
    /// The cargo of the same toolchain; if `None`, the cargo that runs this process is used.
    pub(crate) cargo: Option<PathBuf>,
    /// The release as rustc prints it: `1.96.0`.
    pub(crate) release: String,
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
    /// Whether rust-src is installed.
    pub(crate) has_source: bool,
}

/// An installed LLVM with its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Llvm {
    /// The major version.
    pub(crate) major: u32,
    /// The output of `llvm-config --prefix`.
    pub(crate) prefix: PathBuf,
}

/// A compiler to use, or packages to install.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Use(Compiler, Llvm),
    Install(Vec<String>),
}

/// Finds a compiler for the eBPF objects, and installs one if necessary and possible.
///
/// # Errors
/// If there is none and none can be installed; the error has the commands to run.
pub(crate) fn ensure() -> Result<(Compiler, Llvm)> {
    let choice = choose(&compilers(), &llvms(), |_| false);
    if let Choice::Use(compiler, llvm) = choice {
        return Ok((compiler, llvm));
    }
    if packages::can_install() {
        eprintln!("No suitable compiler for eBPF found; searching apt's packages.");
        packages::update_lists()?;
        if let Choice::Install(missing) = choose(&compilers(), &llvms(), packages::is_available) {
            packages::install("the eBPF compiler", &missing)?;
        }
        if let Choice::Use(compiler, llvm) = choose(&compilers(), &llvms(), |_| false) {
            return Ok((compiler, llvm));
        }
        bail!("the packages are installed, but no compiler matches an LLVM: {}", summary());
    }
    bail!(
        "no suitable compiler for eBPF found ({}); on Debian, run:\n{}\nor use rustup, with LLVM's headers of \
         the version that `rustc +nightly -vV` prints:\n    \
         rustup toolchain install nightly --component rust-src\n    \
         sudo apt-get install llvm-NN-dev",
        summary(),
        packages::install_commands(&DEBIAN_PACKAGES.map(str::to_owned)),
    );
}

/// Returns the first compiler for which everything is installed, otherwise the packages to install: the LLVM of
/// a compiler that lacks only that, if apt has it, or else Debian's compiler.
fn choose(compilers: &[Compiler], llvms: &[Llvm], available: impl Fn(&str) -> bool) -> Choice {
    let suitable = || {
        compilers.iter().filter(|compiler| {
            compiler.has_source
                && SUPPORTED_LLVM.contains(&compiler.llvm)
                && minor(&compiler.release).is_some_and(|minor| minor >= MIN_RUST_MINOR)
        })
    };
    for compiler in suitable() {
        if let Some(llvm) = llvms.iter().find(|llvm| llvm.major == compiler.llvm) {
            return Choice::Use(compiler.clone(), llvm.clone());
        }
    }
    let headers = suitable().map(|compiler| format!("llvm-{}-dev", compiler.llvm));
    match headers.into_iter().find(|package| available(package)) {
        Some(package) => Choice::Install(vec![package]),
        None => Choice::Install(DEBIAN_PACKAGES.map(str::to_owned).to_vec()),
    }
}

fn minor(release: &str) -> Option<u32> {
    release.strip_prefix("1.")?.split('.').next()?.parse().ok()
}

/// The installed compilers and LLVM headers, for error messages.
fn summary() -> String {
    let mut parts: Vec<_> = compilers()
        .iter()
        .map(|c| {
            let source = if c.has_source { "" } else { " without rust-src" };
            format!("{}: {} on LLVM {}{source}", c.name, c.release, c.llvm)
        })
        .collect();
    parts.extend(llvms().iter().map(|llvm| format!("LLVM {} headers", llvm.major)));
    parts.join("; ")
}

/// The installed compilers, in order of preference.
fn compilers() -> Vec<Compiler> {
    let rustup = |toolchain: &str, tool: &str| {
        let mut command = Command::new("rustup");
        // rustup must not download a toolchain here.
        command.args(["which", "--toolchain", toolchain, tool]).env("RUSTUP_AUTO_INSTALL", "0");
        capture(&mut command).ok().map(|path| PathBuf::from(path.trim()))
    };
    let mut all = Vec::new();
    if let Some(rustc) = rustup("nightly", "rustc") {
        all.extend(inspect("rustup's nightly", &rustc, rustup("nightly", "cargo")));
    }
    all.extend(inspect("the default rustc", Path::new("rustc"), None));
    all.extend(inspect("/usr/bin/rustc", Path::new("/usr/bin/rustc"), None));
    all
}

fn inspect(name: &str, rustc: &Path, cargo: Option<PathBuf>) -> Option<Compiler> {
    let verbose = capture(Command::new(rustc).arg("-vV")).ok()?;
    let sysroot = capture(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    Some(Compiler {
        name: name.to_owned(),
        rustc: rustc.to_owned(),
        cargo,
        release: field(&verbose, "release")?.to_owned(),
        llvm: field(&verbose, "LLVM version")?.split('.').next()?.parse().ok()?,
        has_source: core.is_file(),
    })
}

/// The installed LLVMs that have headers.
fn llvms() -> Vec<Llvm> {
    let versioned = SUPPORTED_LLVM.flat_map(|major| {
        [format!("llvm-config-{major}"), format!("/usr/lib/llvm-{major}/bin/llvm-config")]
    });
    let tools = versioned.chain(["llvm-config".to_owned()]);
    let mut found: Vec<_> = tools.filter_map(|tool| inspect_llvm(&tool).ok()).collect();
    // Several of these names can be the same LLVM.
    found.dedup();
    found
}

fn inspect_llvm(tool: &str) -> Result<Llvm> {
    let query = |option: &str| capture(Command::new(tool).arg(option));
    let major = query("--version")?.split('.').next().context("no version")?.parse()?;
    let headers = PathBuf::from(query("--includedir")?.trim()).join("llvm-c/Core.h");
    anyhow::ensure!(headers.is_file(), "{tool} has no headers");
    Ok(Llvm { major, prefix: query("--prefix")?.trim().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(name: &str, release: &str, llvm: u32, has_source: bool) -> Compiler {
        Compiler {
            name: name.into(),
            rustc: name.into(),
            cargo: None,
            release: release.into(),
            llvm,
            has_source,
        }
    }

    fn llvm(major: u32) -> Llvm {
        Llvm { major, prefix: format!("/usr/lib/llvm-{major}").into() }
    }

    fn debian_packages() -> Choice {
        Choice::Install(DEBIAN_PACKAGES.map(str::to_owned).to_vec())
    }

    #[test]
    fn nightly_is_preferred_if_complete() {
        let nightly = compiler("nightly", "1.97.0-nightly", 22, true);
        let debian = compiler("debian", "1.96.0", 22, true);
        let all = [nightly.clone(), debian];
        assert_eq!(choose(&all, &[llvm(22)], |_| false), Choice::Use(nightly, llvm(22)));
    }

    #[test]
    fn compilers_without_source_or_matching_llvm_are_skipped() {
        let debian = compiler("debian", "1.96.0", 22, true);
        let all = [
            compiler("no source", "1.97.0-nightly", 22, false),
            compiler("other llvm", "1.99.0-nightly", 23, true),
            compiler("too new a llvm", "1.120.0-nightly", 29, true),
            compiler("too old", "1.63.0", 22, true),
            debian.clone(),
        ];
        assert_eq!(choose(&all, &[llvm(29), llvm(22)], |_| true), Choice::Use(debian, llvm(22)));
    }

    #[test]
    fn without_a_compiler_debians_packages_are_installed() {
        assert_eq!(choose(&[], &[], |_| true), debian_packages());
        let stable = compiler("stable", "1.95.0", 22, false);
        assert_eq!(choose(&[stable], &[llvm(22)], |_| true), debian_packages());
    }

    #[test]
    fn a_compiler_without_llvm_headers_gets_them_if_apt_has_them() {
        let nightly = [compiler("nightly", "1.99.0-nightly", 23, true)];
        let wanted = Choice::Install(vec!["llvm-23-dev".into()]);
        assert_eq!(choose(&nightly, &[llvm(22)], |package| package == "llvm-23-dev"), wanted);
        assert_eq!(choose(&nightly, &[llvm(22)], |_| false), debian_packages());
    }
}
