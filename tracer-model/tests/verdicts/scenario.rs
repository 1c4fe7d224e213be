//! A verdict scenario: what happens on the volumes of a host, second by second, and what must be
//! concluded.

use serde::Deserialize;

/// One file of scenarios.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub scenario: Vec<Scenario>,
}

/// One scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Unique, for messages.
    pub name: String,
    /// What happens, in one sentence.
    pub title: String,
    /// The volumes; the first one is judged.
    pub volume: Vec<VolumeSpec>,
    /// What happens, in order.
    pub phase: Vec<Phase>,
    /// Databases with files on the first volume.
    #[serde(default)]
    pub resident: Vec<ResidentSpec>,
    pub expect: Expect,
}

/// A volume at the start. Sizes are written as in the configuration: `500 MiB`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    pub mount: String,
    #[serde(default = "ext4")]
    pub fs: String,
    pub size: String,
    pub used: String,
    /// All inodes; 0: not limited.
    #[serde(default)]
    pub inodes: u64,
    #[serde(default)]
    pub inodes_used: u64,
    /// For btrfs: size of the metadata's chunks and what is used of it, and what is unallocated.
    pub metadata: Option<[String; 2]>,
    pub unallocated: Option<String>,
    /// For a FUSE filesystem: pid and name of its server.
    pub served_by: Option<(u32, String)>,
    /// For a filesystem on a loop device: its file.
    pub backing_file: Option<String>,
    /// Whether space is not traced: growth is then the bytes written.
    #[serde(default)]
    pub untraced: bool,
    /// A quota on the volume: name, use at the start, limit. All growth counts, or for `user NAME` that
    /// of the user's processes.
    pub quota: Option<(String, String, String)>,
}

fn ext4() -> String {
    "ext4".to_owned()
}

fn one() -> u32 {
    1
}

/// Some seconds in which the same happens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    pub seconds: u32,
    #[serde(default)]
    pub process: Vec<ProcessSpec>,
    /// Space of the first volume that nobody accounts for, per second.
    pub unseen: Option<String>,
    /// Inodes of the first volume that nobody accounts for, per second.
    #[serde(default)]
    pub unseen_inodes: i64,
    #[serde(default)]
    pub held: Vec<HeldSpec>,
    /// Held space whose holder is unknown.
    pub held_unknown: Option<String>,
    /// Processes with files mapped there: pid, name, size.
    #[serde(default)]
    pub suspect: Vec<(u32, String, String)>,
    /// Processes that end in the first second of the phase without doing anything in it.
    #[serde(default)]
    pub ended: Vec<u32>,
    /// Groups without a process.
    #[serde(default)]
    pub empty: Vec<String>,
    /// Whether the volume is full for a moment in each second and not at its end.
    #[serde(default)]
    pub touches_zero: bool,
}

/// What a process does in each second.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    pub pid: u32,
    pub comm: String,
    pub user: Option<String>,
    /// KIND NAME: `unit web.service`, `docker web`; none: no group.
    pub group: Option<String>,
    /// Mount point; the first volume by default.
    pub on: Option<String>,
    /// Space that it takes; it gets what is available.
    pub takes: Option<String>,
    pub frees: Option<String>,
    /// Bytes written in place.
    pub rewrites: Option<String>,
    #[serde(default)]
    pub creates: u64,
    #[serde(default)]
    pub removes: u64,
    /// The file it writes. `{second}` is replaced by the number of the second.
    pub path: Option<String>,
    /// Directories at a useful level above the file, deepest last.
    #[serde(default)]
    pub dir: Option<String>,
    /// The name of the writing thread.
    pub thread: Option<String>,
    /// The container whose log it writes.
    pub log_of: Option<String>,
    /// For a log daemon: the programs that its lines name, with their shares.
    #[serde(default)]
    pub senders: Vec<(String, f64)>,
    pub cmdline: Option<String>,
    /// Whether it is a kernel thread.
    #[serde(default)]
    pub kernel: bool,
    /// Number of processes that do the same, each with the next pid.
    #[serde(default = "one")]
    pub processes: u32,
    /// A new process in each second, with the next pids.
    #[serde(default)]
    pub respawns: bool,
    /// Whether it ends in the last second of the phase.
    #[serde(default)]
    pub ends: bool,
    /// Writes that fail with ENOSPC, whatever it takes.
    #[serde(default)]
    pub enospc: u64,
    /// Writes that end early.
    #[serde(default)]
    pub short: u64,
}

/// A deleted file that is still held.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldSpec {
    pub pid: u32,
    pub comm: String,
    pub size: String,
    pub path: String,
    #[serde(default)]
    pub by: Option<String>,
    pub group: Option<String>,
    /// Further pids that hold it.
    #[serde(default)]
    pub also: Vec<u32>,
}

/// A database with files on the first volume.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResidentSpec {
    pub group: String,
    pub database: String,
}

/// What must be concluded after the last second. What is not given is not compared.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// `calm`, `filling`, `full`.
    pub state: String,
    pub limit: Option<String>,
    /// The first culprit: its group's name if the group is the culprit, its comm otherwise. Empty:
    /// there is none, or nobody may be blamed.
    pub culprit: Option<String>,
    pub pid: Option<u32>,
    pub share: Option<[f64; 2]>,
    /// What the first culprit takes per second, in bytes or inodes: `8 MiB` ± 15 %, or a number.
    pub rate: Option<String>,
    pub unexplained: Option<[f64; 2]>,
    pub behalf: Option<String>,
    /// Words in the name of the one behind the first culprit.
    pub behalf_name: Option<String>,
    pub directory: Option<String>,
    /// `freeze TARGET`, `term TARGET`, or the reason why nothing is suggested.
    pub next: String,
    pub victims: Option<Vec<String>>,
    /// Comms that must not be among the culprits.
    #[serde(default)]
    pub not: Vec<String>,
    pub suspects: Option<Vec<String>>,
    /// Words in the lines about what can be freed.
    #[serde(default)]
    pub reclaim: Vec<String>,
    /// Words in the summary.
    #[serde(default)]
    pub says: Vec<String>,
    /// Words that must not be in the summary.
    #[serde(default)]
    pub never_says: Vec<String>,
}
