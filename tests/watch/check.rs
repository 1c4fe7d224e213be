//! `filltop check`: exit status, one line, perfdata.

use std::fs;

use anyhow::{Context as _, ensure};
use filltop_tests::{TestVolume, command, fill, need_tracing};

use super::Result;

/// Exit status and output line.
fn check(arguments: &[&str]) -> anyhow::Result<(i32, String)> {
    let mut all = vec!["check", "--for", "1s"];
    all.extend(arguments);
    let output = command(&all).output()?;
    let line = String::from_utf8(output.stdout)?;
    Ok((output.status.code().context("killed")?, line))
}

#[test]
fn ok_warning_critical_and_their_numbers() -> Result {
    need_tracing!();
    let volume = TestVolume::new("ext4", 100)?;
    let mount = volume.path().to_str().context("UTF-8")?;
    let (status, line) = check(&["--volume", mount])?;
    ensure!(status == 0 && line.starts_with("FILLTOP OK - "), "{status} {line}");
    ensure!(line.lines().count() == 1 && line.matches('|').count() == 1, "{line}");
    let numbers = line.split_once('|').context("no perfdata")?.1;
    let avail = format!("'{mount} avail'=");
    let value = numbers.split(&avail).nth(1).context(line.clone())?;
    let value: u64 = value[..value.find('B').context("B")?].parse()?;
    ensure!((60 << 20..100 << 20).contains(&value), "{value}");
    ensure!(numbers.contains(&format!("'{mount} time_to_full'=U;14400:;1800:;0;")), "{numbers}");
    // 3 % left and at rest.
    let left = value * 97 / 100;
    fs::write(volume.path().join("most"), vec![7; left as usize])?;
    rustix::fs::sync();
    let (status, line) = check(&["--volume", mount])?;
    ensure!(status == 1 && line.starts_with("FILLTOP WARNING - "), "{status} {line}");
    ensure!(line.contains("nearly full, but not growing"), "{line}");
    fill(&volume.path().join("rest"))?;
    let (status, line) = check(&["--volume", mount])?;
    ensure!(status == 2 && line.starts_with("FILLTOP CRITICAL - "), "{status} {line}");
    ensure!(line.contains("is FULL"), "{line}");
    Ok(())
}

#[test]
fn a_failure_to_measure_is_unknown() -> Result {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("filltop.toml");
    fs::write(&file, "[[rule]]\nname = \"x\"\n")?;
    let wrong: [&[&str]; 3] = [
        &["--config", file.to_str().context("UTF-8")?],
        &["--config", "/no/such/file"],
        &["--volume", "/no/such/place"],
    ];
    for arguments in wrong {
        let (status, line) = check(arguments)?;
        ensure!(status == 3 && line.starts_with("FILLTOP UNKNOWN - "), "{status} {line}");
        ensure!(line.lines().count() == 1, "{line}");
    }
    let usage = command(&["check", "--nonsense"]).output()?;
    ensure!(usage.status.code() == Some(3), "{:?}: 2 would mean CRITICAL", usage.status);
    Ok(())
}
