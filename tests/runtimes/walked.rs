//! Runs docs/containers.md in a Debian booted for it: the commands of its marked blocks, as
//! written, one after the other.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use filltop_tests::filltop;

use crate::measured::PACE;
use crate::world::World;
use crate::{Result, succeed};

const DOCS: &str = include_str!("../../docs/containers.md");
/// Precedes a block whose commands are run.
const MARK: &str = "<!-- walked by tests/systemd -->\n```\n";
/// The files of a checkout that the commands need, in addition to the program.
const CHECKOUT: [(&str, &str); 4] = [
    ("contrib/container/Containerfile", include_str!("../../contrib/container/Containerfile")),
    (
        "contrib/container/Containerfile.dockerignore",
        include_str!("../../contrib/container/Containerfile.dockerignore"),
    ),
    ("LICENSE-APACHE", include_str!("../../LICENSE-APACHE")),
    ("LICENSE-MIT", include_str!("../../LICENSE-MIT")),
];
/// Socket of its `watch` on the host.
const SOCKET: &str = "/run/filltop/filltop.sock";
/// How long it may take to respond: the machine is emulated.
const PATIENCE: Duration = Duration::from_secs(120);

/// The marked blocks of a section.
fn blocks(section: &str) -> Vec<&'static str> {
    let begins = format!("\n## {section}\n");
    let text = DOCS.split_once(&begins).map_or("", |(_, text)| text);
    let text = text.split("\n## ").next().unwrap_or_default();
    text.split(MARK).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Runs the runtime's section, while another container writes.
pub fn the_documented_commands_work(world: &mut World) -> Result {
    if !crate::world::is_ours() {
        let name = thread::current().name().unwrap_or("?").to_owned();
        println!("SKIP {name}: runs only in a Debian booted for this test");
        return Ok(());
    }
    let section = if world.runtime.kind() == "docker" { "Docker" } else { "podman" };
    let blocks = blocks(section);
    ensure!(!blocks.is_empty(), "docs/containers.md has no marked block under {section}");
    let checkout = tempfile::tempdir()?;
    for (path, text) in CHECKOUT {
        let path = checkout.path().join(path);
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        fs::write(path, text)?;
    }
    fs::create_dir_all(checkout.path().join("target/release"))?;
    fs::copy(filltop(), checkout.path().join("target/release/filltop"))?;
    let name = world.name("walked");
    world.run(&name, &format!("exec workload pace /fill --rate {PACE} --block 40000"), false)?;
    let mut printed = String::new();
    let mut walk = || -> Result {
        for block in &blocks {
            let mut shell = Command::new("sh");
            printed += &succeed(shell.args(["-exc", block]).current_dir(checkout.path()))?;
            if block.contains(" run -d ") {
                let start = Instant::now();
                while !Path::new(SOCKET).exists() {
                    ensure!(start.elapsed() < PATIENCE, "the container does not respond");
                    thread::sleep(Duration::from_millis(200));
                }
                // Long enough for one interval.
                thread::sleep(Duration::from_secs(5));
            }
        }
        Ok(())
    };
    let walked = walk();
    world.remove(&name)?;
    println!("{printed}");
    walked?;
    ensure!(printed.contains(&world.runtime.called(&name)), "{name} is not named");
    Ok(())
}
