//! The plan: what a step would hit, what it would free now, what else it would touch, and why it is
//! refused. A pure, deterministic function of facts.

use serde::{Deserialize, Serialize};

use super::blast::Blast;
use super::effects::Effect;
use super::instead::Instead;
use super::measured::Measured;
use super::protect::{Protection, unit_rule};
use super::restart::{Policy, Restart};
use super::subject_kind::SubjectKind;
use super::{Action, Intent, Process, Role, effects, instead};
use crate::snapshot::Group;

/// What was asked for, and what it was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The word of the command line.
    pub asked: String,
    /// Processes, or the kind of a group.
    pub kind: SubjectKind,
    /// The name that people use for it.
    pub name: String,
    /// Path of its cgroup as /proc/PID/cgroup prints it; `None` for processes.
    pub cgroup: Option<String>,
}

/// A file that a process of the target holds open for writing, or that has no name left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Last known path from the host's root.
    pub path: String,
    /// The same as its holder sees it, where that is another path: in a container or a chroot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_in_container: Option<String>,
    /// What the link /proc/PID/fd/FD says, without ` (deleted)`, where that is no path of the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Mount point of its volume.
    pub volume: String,
    /// Space that it occupies: st_blocks × 512.
    pub bytes: u64,
    /// Has it no name left?
    pub deleted: bool,
    /// A process of the target that holds it, and its descriptor.
    pub pid: u32,
    /// Its descriptor there.
    pub fd: i32,
    /// Processes outside the target that hold it, too.
    pub others: Vec<u32>,
}

/// How a step would be carried out here, or why it cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Means {
    /// The step.
    pub how: Action,
    /// With what, e.g. `cgroup v2 freezer /sys/fs/cgroup/web`; else the reason.
    pub by: Result<String, String>,
}

/// All that a plan is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The target.
    pub subject: Subject,
    /// Its processes.
    pub processes: Vec<Process>,
    /// What it holds open.
    pub files: Vec<File>,
    /// For every step, how it would be done.
    pub means: Vec<Means>,
    /// Who starts it again once it has ended; `None` if nobody is known to.
    pub restart: Option<Policy>,
    /// What is worth knowing beforehand, a sentence each.
    pub warnings: Vec<String>,
}

impl File {
    /// Is it called so: on the host, or by its holder, as `PATH` or as `NAME:PATH`, where that is the name
    /// of the holder's group?
    fn is_called(&self, wanted: &str, group: Option<&Group>) -> bool {
        let inside = self.path_in_container.as_deref();
        let named = |group: &Group| wanted.strip_prefix(&group.name)?.strip_prefix(':');
        self.path == wanted
            || self.link.as_deref() == Some(wanted)
            || inside.is_some_and(|path| path == wanted || group.and_then(named) == Some(path))
    }
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// The step.
    pub how: Action,
    /// Who decided.
    pub intent: Intent,
    /// The file to truncate: its path before it was deleted, on the host or in its container, or its
    /// descriptor's number.
    pub file: Option<String>,
}

/// One step of the ladder, as it would be for this target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The step.
    pub how: Action,
    /// Space that it gives back at once, bytes.
    pub frees_bytes: u64,
    /// With what it would be done.
    pub by: Option<String>,
    /// Why it would not be done.
    pub refused: Option<String>,
    /// Who would start it again afterwards; `None` if nobody is known to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Of `term`: processes that would go on after SIGTERM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_by: Vec<u32>,
}

/// A process in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// Process id.
    pub pid: u32,
    /// Clock ticks since boot at its start.
    pub start_ticks: u64,
    /// Name.
    pub comm: String,
    /// Arguments.
    pub cmdline: Option<String>,
    /// User.
    pub user: String,
    /// Why it is a part of the target.
    pub role: Role,
    /// Why it must not be hit.
    pub refused: Option<String>,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of the JSON form.
    pub schema: u32,
    /// `plan`: the first line of `--json`.
    pub event: String,
    /// The target.
    pub target: Subject,
    /// The step that was asked for.
    pub how: Action,
    /// With what it would be done; `None` where it cannot be.
    pub by: Option<String>,
    /// Space that it gives back at once, bytes. A file that still has a name gives back nothing.
    pub frees_bytes: u64,
    /// Why the step is not taken; empty if it may be.
    pub refused: Vec<String>,
    /// Who is hit, the named ones first, then by pid.
    pub processes: Vec<Hit>,
    /// Who else is touched.
    pub blast: Blast,
    /// Files that it holds open, largest first, at most [`MAX_FILES`].
    pub files: Vec<File>,
    /// Files beyond those.
    pub more_files: usize,
    /// All steps for this target.
    pub steps: Vec<Step>,
    /// What else the step does to a container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Effect>,
    /// Where it is refused because a container runtime is hit: containers whose logs that writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instead: Vec<Instead>,
    /// What is worth knowing beforehand.
    pub warnings: Vec<String>,
    /// The command that undoes it; `None` where nothing can.
    pub undo: Option<String>,
    /// What was measured of it; `None` if nothing was.
    pub measured: Option<Measured>,
}

/// Files that a plan lists.
pub const MAX_FILES: usize = 10;

impl Plan {
    /// Plans a step.
    #[must_use]
    pub fn new(facts: &Facts, wish: &Wish, protection: &Protection) -> Self {
        let mut processes: Vec<Hit> =
            facts.processes.iter().map(|process| hit(process, wish.intent, protection)).collect();
        processes.sort_by_key(|hit| (hit.role, hit.pid));
        let common = general_refusals(facts, &processes);
        let held: u64 = facts.files.iter().filter(|file| ends_with(file)).map(|f| f.bytes).sum();
        let file = wish.file.as_ref().map(|file| named_file(facts, file));
        let steps: Vec<Step> = Action::ALL
            .into_iter()
            .map(|how| {
                let by = means(facts, how);
                let truncated = file.as_ref().and_then(|file| file.as_ref().ok());
                let refused = match (how, &by, &file) {
                    (Action::Truncate, _, None) => {
                        Some("name the file with --file, as `filltop held` shows it".to_owned())
                    }
                    (Action::Truncate, _, Some(Err(reason))) => Some(reason.clone()),
                    // A unit that starts a new process each time is stopped between two of them.
                    (Action::Unit, Ok(_), _) => {
                        common.iter().find(|reason| reason.as_str() != ENDED).cloned()
                    }
                    (_, Ok(_), _) => common.first().cloned(),
                    (_, Err(reason), _) => Some(reason.clone()),
                };
                let refused =
                    refused.or_else(|| common.first().filter(|_| how == Action::Truncate).cloned());
                Step {
                    how,
                    frees_bytes: match how {
                        Action::Truncate => truncated.map_or(0, |file| file.bytes),
                        _ if how.ends() => held,
                        _ => 0,
                    },
                    by: by.ok(),
                    refused,
                    restart: facts.restart.as_ref().and_then(|policy| policy.after(how)),
                    ignored_by: match how {
                        Action::Term => super::deaf(&facts.processes),
                        _ => Vec::new(),
                    },
                }
            })
            .collect();
        let chosen = steps.iter().find(|step| step.how == wish.how);
        let mut refused: Vec<String> =
            chosen.and_then(|step| step.refused.clone()).into_iter().collect();
        for reason in &common {
            if !(refused.contains(reason) || wish.how == Action::Unit && reason == ENDED) {
                refused.push(reason.clone());
            }
        }
        let mut files = facts.files.clone();
        files.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        let more_files = files.len().saturating_sub(MAX_FILES);
        files.truncate(MAX_FILES);
        Self {
            schema: crate::snapshot::SCHEMA,
            event: "plan".to_owned(),
            target: facts.subject.clone(),
            how: wish.how,
            by: chosen.and_then(|step| step.by.clone()),
            frees_bytes: chosen.map_or(0, |step| step.frees_bytes),
            instead: if refused.is_empty() { Vec::new() } else { instead::of(&facts.files) },
            refused,
            blast: Blast::of(facts),
            processes,
            files,
            more_files,
            steps,
            effects: effects::of(&facts.processes, wish.how),
            warnings: warnings(facts, wish, protection),
            undo: wish.how.reversible().then(|| format!("filltop resume {}", facts.subject.asked)),
            measured: None,
        }
    }

    /// The step that was asked for.
    #[must_use]
    pub fn step(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.how == self.how)
    }

    /// Adds a reason against the step that was asked for.
    pub fn refuse(&mut self, reason: String) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.how == self.how) {
            step.refused.get_or_insert_with(|| reason.clone());
        }
        self.refused.push(reason);
    }

    /// Takes in what was measured: it is shown and warned of, and forbids nothing.
    pub fn know(&mut self, measured: Measured) {
        self.warnings.extend(measured.warnings());
        self.measured = Some(measured);
    }

    /// Why it is not carried out, in one line: the first reasons, and how many more there are.
    #[must_use]
    pub fn refusal(&self) -> String {
        let first: Vec<&str> = self.refused.iter().take(3).map(String::as_str).collect();
        match self.refused.len().saturating_sub(first.len()) {
            0 => first.join("; "),
            more => format!("{}; and {more} more", first.join("; ")),
        }
    }

    /// May it be carried out?
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.refused.is_empty()
    }
}

const ENDED: &str = "it has ended already: there is no process of it";

/// The deleted file of the target that is meant.
///
/// # Errors
/// If there is none, if it still has a name, or if several have been there.
pub fn named_file<'f>(facts: &'f Facts, wanted: &str) -> Result<&'f File, String> {
    let fd = wanted.parse::<i32>().ok();
    let group = |pid| facts.processes.iter().find(|process| process.pid == pid)?.group.as_ref();
    let is_meant = |file: &&File| {
        fd.map_or_else(|| file.is_called(wanted, group(file.pid)), |fd| file.fd == fd)
    };
    let found: Vec<&File> = facts.files.iter().filter(is_meant).collect();
    match found[..] {
        [] => Err(format!("the target holds no file {wanted} open for writing")),
        [file] if !file.deleted => {
            Err(format!("{} still has a name: truncate it by that, if you must", file.path))
        }
        [file] => Ok(file),
        _ => Err(format!(
            "{} files that it holds open were called {wanted}: give the descriptor's number",
            found.len()
        )),
    }
}

fn hit(process: &Process, intent: Intent, protection: &Protection) -> Hit {
    Hit {
        pid: process.pid,
        start_ticks: process.start_ticks,
        comm: process.comm.clone(),
        cmdline: process.cmdline.clone(),
        user: process.user.clone(),
        role: process.role,
        refused: protection.refusal(process, intent),
    }
}

fn general_refusals(facts: &Facts, processes: &[Hit]) -> Vec<String> {
    let mut reasons = Vec::new();
    let subject = &facts.subject;
    if let Some(rule) = subject.kind.group().and_then(|kind| unit_rule(kind, &subject.name)) {
        reasons.push(format!("unit {} is protected ({rule})", subject.name));
    }
    if subject.cgroup.as_deref().is_some_and(|path| path.trim_matches('/').is_empty()) {
        reasons.push("the root cgroup is the whole machine".to_owned());
    }
    if processes.is_empty() {
        reasons.push(ENDED.to_owned());
    }
    for hit in processes {
        if let Some(reason) = &hit.refused {
            reasons.push(format!("{} ({}): {reason}", hit.pid, hit.comm));
        }
    }
    reasons
}

fn means(facts: &Facts, how: Action) -> Result<String, String> {
    facts
        .means
        .iter()
        .find(|means| means.how == how)
        .map_or_else(|| Err("not possible here".to_owned()), |means| means.by.clone())
}

/// Is its space given back when the target ends?
fn ends_with(file: &File) -> bool {
    file.deleted && file.others.is_empty()
}

fn warnings(facts: &Facts, wish: &Wish, protection: &Protection) -> Vec<String> {
    let mut warnings = facts.warnings.clone();
    if let Some(configured) = &protection.configured {
        warnings.extend(configured.remarks(&facts.processes));
    }
    let shared: u64 =
        facts.files.iter().filter(|f| f.deleted && !f.others.is_empty()).map(|f| f.bytes).sum();
    if shared > 0 && wish.how.ends() {
        warnings.push(format!(
            "{shared} bytes of deleted files stay held by processes outside the target"
        ));
    }
    match wish.how {
        Action::Truncate => warnings.push(
            "truncating destroys what is in the file: its holder still reads and writes it, and may \
             fail or write wrong data"
                .to_owned(),
        ),
        Action::Fence => warnings.push(
            "who cannot write may give up, or lose what it could not write; what others write for it \
             (a loop device, a log daemon, a server that it asks) is not held back"
                .to_owned(),
        ),
        Action::Kill => warnings.push("SIGKILL leaves no process time to write what it has".to_owned()),
        _ => {}
    }
    warnings
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
