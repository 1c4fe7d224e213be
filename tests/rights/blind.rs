//! A service that lacks the capability to see all writes reports that, and root's commands measure
//! directly instead.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use filltop_tests::rights::{STRICT, keep_only};
use filltop_tests::{TestVolume, filltop, need_tracing, workload};
use serde_json::Value;
use tracer_model::snapshot::{BlindCause, Gap, Snapshot};

use crate::{Result, Running, backend};

#[test]
fn a_service_without_sys_admin_reports_the_gap_and_root_measures_directly() -> Result {
    need_tracing!();
    let name = "a_service_without_sys_admin_reports_the_gap_and_root_measures_directly";
    let volume = TestVolume::new("xfs", 600)?;
    let mount = volume.path().to_str().context("UTF-8")?;
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("filltop.sock");
    let mut strict = Command::new(filltop());
    strict.args(["watch", "-v", "--interval", "500ms", "--socket"]).arg(&socket);
    strict.stdout(Stdio::null()).stderr(Stdio::piped());
    strict.args(backend());
    keep_only(&mut strict, STRICT);
    let mut watch = Running::from(strict.spawn()?);
    let mut said = BufReader::new(watch.child.stderr.take().context("stderr is piped")?).lines();
    let traces = said.by_ref().map_while(io::Result::ok).any(|line| line.contains("tracing with"));
    ensure!(traces, "the service has ended");
    // Its output must be read.
    thread::spawn(move || said.count());
    let root_asks = |arguments: &[&str]| {
        let mut command = Command::new(filltop());
        command.args(arguments).arg("--socket").arg(&socket);
        command
    };
    // As a user without that capability runs the commands.
    let ask = |arguments: &[&str]| {
        let mut command = root_asks(arguments);
        keep_only(&mut command, STRICT);
        command
    };
    let mut writes = workload();
    writes.arg("pace").arg(volume.path().join("log")).args(["--rate", "4000000"]);
    let writer = Running::from(writes.args(["--block", "40000"]).stdout(Stdio::null()).spawn()?);
    thread::sleep(Duration::from_secs(3));
    let output = ask(&["snapshot", "--for", "2s", "--json"]).output()?;
    let seen: Snapshot = serde_json::from_slice(&output.stdout)?;
    let row = seen.volumes.iter().find(|row| row.mount_point == mount).context("no volume")?;
    if row.gap.is_none() {
        println!("SKIP {name}: xfs can be hooked here without CAP_SYS_ADMIN");
        return Ok(());
    }
    ensure!(row.gap == Some(Gap::NeedsSysAdmin), "{row:?}");
    let blind = row
        .blind
        .with_context(|| format!("the volume is not blind: {row:?}, {:?}", seen.backend.hooks))?;
    ensure!(blind.cause == BlindCause::NeedsSysAdmin, "{blind:?}");
    ensure!(!seen.backend.capabilities.iter().any(|name| name == "CAP_SYS_ADMIN"));
    let growth = row.used_delta_bytes as f64 / seen.interval_s;
    ensure!((row.growth_bytes_per_s - growth).abs() <= 1.0 + growth.abs() * 0.01, "{row:?}");
    // In the text output.
    let text = String::from_utf8(ask(&["snapshot", "--for", "2s"]).output()?.stdout)?;
    ensure!(
        text.contains("some writes are not traced") && text.contains("CAP_SYS_ADMIN"),
        "{text}"
    );
    let check = ask(&["check", "--for", "2s", "--volume", mount]).output()?;
    ensure!(check.status.code() != Some(0), "{}", String::from_utf8_lossy(&check.stdout));
    // `doctor` reports about the service, also where the caller has more privileges.
    let doctor = root_asks(&["doctor", "--json"]).output()?;
    ensure!(doctor.status.code() == Some(1), "{:?}", doctor.status);
    let report: Value = serde_json::from_slice(&doctor.stdout)?;
    ensure!(report["service"] == true, "{report}");
    let rows = report["volumes"].as_array().context("volumes")?;
    let told =
        rows.iter().find(|row| row["mount_point"] == mount).context("the volume is not listed")?;
    ensure!(told["gap"] == "needs_sys_admin", "{told}");
    // Root sees all of it, measuring next to the service.
    let output = root_asks(&["snapshot", "--for", "2s", "--json"]).output()?;
    let own: Snapshot = serde_json::from_slice(&output.stdout)?;
    let row = own.volumes.iter().find(|row| row.mount_point == mount).context("no volume")?;
    ensure!(row.gap.is_none() && row.blind.is_none(), "{row:?}");
    let said = String::from_utf8(output.stderr)?;
    ensure!(
        said.contains("CAP_SYS_ADMIN") && said.contains("measuring directly instead"),
        "{said}"
    );
    ensure!(own.writers.iter().any(|row| row.pid == writer.pid), "{:?}", own.writers);
    Ok(())
}
