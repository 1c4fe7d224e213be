//! Attaches one empty eBPF program until it is killed: the baseline with which `cargo xtask bench`
//! compares filltop's own programs. `raw-tp-filter` only recognises writes of one byte;
//! `raw-tp-hash` also counts them in a hash map.
//!
//! `floor fexit|kprobe|kretprobe FUNCTION` or `floor raw-tp|raw-tp-filter|raw-tp-hash TRACEPOINT`;
//! prints `ready` when the program is attached.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use aya::programs::{FExit, KProbe, RawTracePoint};
use aya::{Btf, Ebpf, EbpfLoader};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("FILLTOP_EBPF_OBJECT_PATH"));

fn main() -> ExitCode {
    let Err(error) = run();
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Attaches the program and waits; returns only on failure.
fn run() -> anyhow::Result<std::convert::Infallible> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [how, target] = &arguments[..] else {
        bail!(
            "usage: floor fexit|kprobe|kretprobe FUNCTION, \
             or floor raw-tp|raw-tp-filter|raw-tp-hash TRACEPOINT"
        );
    };
    let btf = Btf::from_sys_fs()?;
    let mut ebpf = EbpfLoader::new().btf(Some(&btf)).load(OBJECT)?;
    attach(&mut ebpf, &btf, how, target).with_context(|| format!("{how} on {target}"))?;
    println!("ready");
    loop {
        std::thread::park();
    }
}

fn attach(ebpf: &mut Ebpf, btf: &Btf, how: &str, target: &str) -> anyhow::Result<()> {
    let name = match how {
        "fexit" => "empty_fexit",
        "kprobe" => "empty_kprobe",
        "kretprobe" => "empty_kretprobe",
        "raw-tp" => "empty_raw_tp",
        "raw-tp-filter" => "filter_raw_tp",
        "raw-tp-hash" => "hash_raw_tp",
        other => bail!("unknown hook kind {other:?}; see the usage"),
    };
    let program = ebpf.program_mut(name).context("the eBPF object has no such program")?;
    match how {
        "fexit" => {
            let program: &mut FExit = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        "raw-tp" | "raw-tp-filter" | "raw-tp-hash" => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program.attach(target)?;
        }
        _ => {
            let program: &mut KProbe = program.try_into()?;
            program.load()?;
            program.attach(target, 0)?;
        }
    }
    Ok(())
}
