//! Which compiler builds the kernel side.
//!
//! rustc compiles for BPF when it has the source of `core` (rust-src) and a bpf-linker that was
//! built on the same major version of LLVM. Nightly is the usual one; a stable compiler does as
//! well, as `RUSTC_BOOTSTRAP=1` opens `-Z build-std` to it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::step::capture;
use crate::workspace::field;

/// Majors of LLVM that bpf-linker 0.13 knows.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// The workspace's `rust-version`.
const OLDEST_RUST: u32 = 95;
/// Debian's compiler for its browsers: recent in every supported release.
const DEBIAN_SET: [&str; 3] = ["rustc-web", "rust-web-src", "llvm-22-dev"];

/// A rustc found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// What people call it: `rustup's nightly`, `/usr/bin/rustc`.
    pub(crate) name: String,
    /// The compiler itself.
    pub(crate) rustc: PathBuf,
    /// The cargo that came with it; without one, the cargo that runs us is used.
    pub(crate) cargo: Option<PathBuf>,
    /// As rustc prints it: `1.96.0`.
    pub(crate) release: String,
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
    /// Whether rust-src is installed with it.
    pub(crate) has_source: bool,
}

/// An LLVM with its headers, found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Llvm {
    /// Its major version.
    pub(crate) major: u32,
    /// What `llvm-config --prefix` prints.
    pub(crate) prefix: PathBuf,
}

/// What choosing ended with.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Use(Compiler, Llvm),
    Install(Vec<String>),
}

/// Finds a compiler for the kernel side, installing one where we may.
pub(crate) fn ensure() -> Result<(Compiler, Llvm)> {
    let choice = choose(&compilers(), &llvms(), |_| false);
    if let Choice::Use(compiler, llvm) = choice {
        return Ok((compiler, llvm));
    }
    if packages::can_install() {
        eprintln!("No compiler for eBPF here: asking apt for one.");
        packages::update()?;
        if let Choice::Install(missing) = choose(&compilers(), &llvms(), packages::available) {
            packages::install("the eBPF compiler", &missing)?;
        }
        if let Choice::Use(compiler, llvm) = choose(&compilers(), &llvms(), |_| false) {
            return Ok((compiler, llvm));
        }
        bail!("the packages are installed, but there is still no matching pair: {}", found());
    }
    bail!(
        "no compiler for eBPF here ({}). Either, on Debian:\n{}\nor with rustup, and LLVM's headers \
         of the version that `rustc +nightly -vV` names:\n    \
         rustup toolchain install nightly --component rust-src\n    \
         sudo apt-get install llvm-NN-dev",
        found(),
        packages::by_hand(&DEBIAN_SET.map(str::to_owned)),
    );
}

/// The first compiler for which everything is here, else what has to be installed. A compiler
/// that only lacks its LLVM is completed where apt has that LLVM.
fn choose(compilers: &[Compiler], llvms: &[Llvm], available: impl Fn(&str) -> bool) -> Choice {
    let able = || {
        compilers.iter().filter(|compiler| {
            compiler.has_source
                && LINKER_LLVM.contains(&compiler.llvm)
                && minor(&compiler.release).is_some_and(|minor| minor >= OLDEST_RUST)
        })
    };
    for compiler in able() {
        if let Some(llvm) = llvms.iter().find(|llvm| llvm.major == compiler.llvm) {
            return Choice::Use(compiler.clone(), llvm.clone());
        }
    }
    let headers = able().map(|compiler| format!("llvm-{}-dev", compiler.llvm));
    match headers.into_iter().find(|package| available(package)) {
        Some(package) => Choice::Install(vec![package]),
        None => Choice::Install(DEBIAN_SET.map(str::to_owned).to_vec()),
    }
}

fn minor(release: &str) -> Option<u32> {
    release.strip_prefix("1.")?.split('.').next()?.parse().ok()
}

fn found() -> String {
    let mut parts: Vec<_> = compilers()
        .iter()
        .map(|c| {
            let source = if c.has_source { "" } else { " without rust-src" };
            format!("{}: {} on LLVM {}{source}", c.name, c.release, c.llvm)
        })
        .collect();
    parts.extend(llvms().iter().map(|llvm| format!("headers of LLVM {}", llvm.major)));
    parts.join("; ")
}

/// In order of preference.
fn compilers() -> Vec<Compiler> {
    let rustup = |toolchain: &str, tool: &str| {
        let mut command = Command::new("rustup");
        // Asking must not download anything.
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

fn llvms() -> Vec<Llvm> {
    let versioned = LINKER_LLVM.flat_map(|major| {
        [format!("llvm-config-{major}"), format!("/usr/lib/llvm-{major}/bin/llvm-config")]
    });
    let tools = versioned.chain(["llvm-config".to_owned()]);
    let mut found: Vec<_> = tools.filter_map(|tool| inspect_llvm(&tool).ok()).collect();
    // One LLVM answers to several names.
    found.dedup();
    found
}

fn inspect_llvm(tool: &str) -> Result<Llvm> {
    let ask = |what: &str| capture(Command::new(tool).arg(what));
    let major = ask("--version")?.split('.').next().context("empty version")?.parse()?;
    let headers = PathBuf::from(ask("--includedir")?.trim()).join("llvm-c/Core.h");
    anyhow::ensure!(headers.is_file(), "{tool} has no headers");
    Ok(Llvm { major, prefix: ask("--prefix")?.trim().into() })
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

    fn debian_set() -> Choice {
        Choice::Install(DEBIAN_SET.map(str::to_owned).to_vec())
    }

    #[test]
    fn nightly_wins_where_it_is_complete() {
        let nightly = compiler("nightly", "1.97.0-nightly", 22, true);
        let debian = compiler("debian", "1.96.0", 22, true);
        let all = [nightly.clone(), debian];
        assert_eq!(choose(&all, &[llvm(22)], |_| false), Choice::Use(nightly, llvm(22)));
    }

    #[test]
    fn a_compiler_without_source_or_of_another_llvm_is_passed_over() {
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
    fn nothing_here_asks_for_debians_set() {
        assert_eq!(choose(&[], &[], |_| true), debian_set());
        let stable = compiler("stable", "1.95.0", 22, false);
        assert_eq!(choose(&[stable], &[llvm(22)], |_| true), debian_set());
    }

    #[test]
    fn a_compiler_that_only_lacks_headers_gets_them_where_apt_has_them() {
        let nightly = [compiler("nightly", "1.99.0-nightly", 23, true)];
        let wanted = Choice::Install(vec!["llvm-23-dev".into()]);
        assert_eq!(choose(&nightly, &[llvm(22)], |package| package == "llvm-23-dev"), wanted);
        assert_eq!(choose(&nightly, &[llvm(22)], |_| false), debian_set());
    }
}
