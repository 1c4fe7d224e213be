//! The action engine, shared by the command line, the screen and the guard: prepare (find the target,
//! gather facts, plan), audit, carry out.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracer_model::action::event::StopEvent;
use tracer_model::action::facts::Facts;
use tracer_model::action::measurement::Measurement;
use tracer_model::action::plan::{Plan, PlanRequest};
use tracer_model::action::protect::Protection;
use tracer_model::action::{Action, Intent};
use tracer_model::snapshot::{Group, SCHEMA};

use super::audit::Audit;
use super::executor::{Dry, Hands, Real};
use super::facts::survey;
use super::fence::Wall;
use super::footing::Footing;
use super::pins::{CgroupId, Pins};
use super::record::Record;
use super::supervisor::{Kept, Order};
use super::suspend::{Brake, Halted, Halter};
use super::target::{Reach, Target};
use super::terminate::Ended;
use super::truncate::truncate;
use super::{footing, record, restart, resume, supervisor, target, terminate, unit};
use crate::attribute::groups::Groups;
use tracer_host::cgroup::Hierarchies;
use tracer_host::process::pidfd::{PidHandle, UniqueProcess};
use tracer_host::{clock, host_root};
use tracer_kernel::fence;

/// How a request names its target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Spec {
    /// TARGET as given on the command line.
    Word(String),
    /// A process from a Snapshot.
    Process {
        /// Process id.
        pid: u32,
        /// Start time from the Snapshot; `None` if unknown.
        start_time: Option<Timestamp>,
    },
    /// A group from a Snapshot, with the pids and start times of its processes.
    Group(Group, Vec<(u32, Option<Timestamp>)>),
}

/// A requested action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The target.
    pub spec: Spec,
    /// Which related processes a pid includes.
    pub reach: Reach,
    /// The action.
    pub how: Action,
    /// Rate of a throttle, bytes per second.
    pub rate: Option<u64>,
    /// For a fence: any path on the volume.
    pub volume: Option<PathBuf>,
    /// Time limit of a freeze, throttle or fence, seconds.
    pub for_s: f64,
    /// The file to truncate.
    pub file: Option<String>,
    /// Who decided.
    pub intent: Intent,
    /// Whether to stop before the last system call.
    pub dry_run: bool,
    /// Whether the suspension ends when the requester exits.
    pub lifeline: bool,
    /// The requester, for the audit line.
    pub who: String,
    /// The reason, for the audit line.
    pub reason: String,
    /// An additional file for the audit line.
    pub log: Option<PathBuf>,
}

/// Default time limit of a freeze, throttle or fence, seconds.
pub const DEFAULT_FOR_S: f64 = 15.0 * 60.0;

/// Start times in a Snapshot come from nanoseconds, those in /proc from ticks of 10 ms, and both are
/// converted to wall-clock time. If they differ by more than this, they are of two processes.
const SAME_START: SignedDuration = SignedDuration::from_millis(50);

/// A request with its resolved target, its facts and its plan.
#[derive(Debug)]
pub struct Prepared {
    /// The plan.
    pub plan: Plan,
    request: Request,
    target: Target,
    facts: Facts,
    hierarchies: Hierarchies,
    wall: Option<Wall>,
    footing: Footing,
    id: Option<String>,
}

/// The result of an action.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Version of the JSON form.
    pub schema: u32,
    /// [`StopEvent::Done`].
    pub event: StopEvent,
    /// The action.
    pub how: Action,
    /// Id for `filltop resume`.
    pub id: Option<String>,
    /// Result of a freeze, throttle or fence.
    pub halted: Option<Halted>,
    /// Result of `term`, `kill` and `unit`.
    pub ended: Option<Ended>,
    /// Space freed by a truncate, bytes.
    pub freed_bytes: Option<u64>,
    /// When the time limit is reached.
    pub until: Option<Timestamp>,
    /// System calls that a dry run left out, one line each.
    pub would: Vec<String>,
    /// Whether this was a dry run.
    pub dry_run: bool,
    /// The supervisor, for the process that owns it.
    #[serde(skip)]
    pub kept: Option<Kept>,
}

impl Outcome {
    /// Creates the outcome of an action that has not had any effect yet.
    fn new(how: Action, dry_run: bool) -> Self {
        Self {
            schema: SCHEMA,
            event: StopEvent::Done,
            how,
            id: None,
            halted: None,
            ended: None,
            freed_bytes: None,
            until: None,
            would: Vec::new(),
            dry_run,
            kept: None,
        }
    }
}

/// Finds the target and makes a plan.
///
/// # Errors
/// If there is no such target, or its pid belongs to another process by now.
pub fn prepare(request: Request, protection: &Protection) -> anyhow::Result<Prepared> {
    let mut groups = Groups::default();
    let hierarchies = Hierarchies::read();
    let target = find(&request, &mut groups, &hierarchies)?;
    let facts = survey(&target, &mut groups, &hierarchies)?;
    let wanted =
        PlanRequest { how: request.how, intent: request.intent, file: request.file.clone() };
    let mut plan = Plan::new(&facts, &wanted, protection);
    if request.how == Action::Throttle && request.rate.is_none() {
        plan.refuse("a throttle needs a rate; add e.g. --rate 5MiB".to_owned());
    }
    let mut wall = None;
    if request.how == Action::Fence {
        match Wall::choose(&target.scope, &hierarchies, &facts.files, request.volume.as_deref()) {
            Ok(chosen) => {
                plan.by = plan.by.map(|_| chosen.words());
                wall = Some(chosen);
            }
            Err(reason) => plan.refuse(reason),
        }
        if plan.allowed()
            && let Err(reason) = fence::try_here(false, host_root::in_container())
        {
            plan.refuse(reason);
        }
    }
    if request.how.reversible() {
        for (record, _) in resume::concerning(&target.scope) {
            if record.how == request.how && !elsewhere(&record, wall.as_ref()) {
                plan.refuse(format!("it is already suspended by {}", record.id));
            }
        }
    }
    // A fence always ends with its supervisor, so it needs no other guarantee.
    let footing = match request.how {
        Action::Freeze | Action::Throttle => {
            footing::footing(&target.scope.members(), &hierarchies)
        }
        _ => Footing::Firm,
    };
    if footing == Footing::None {
        plan.refuse(footing::REFUSAL.to_owned());
    }
    let id = request.how.reversible().then(|| record::new_id(request.how)).transpose()?;
    Ok(Prepared { plan, request, target, facts, hierarchies, wall, footing, id })
}

/// Whether both are fences, and for different volumes.
fn elsewhere(record: &Record, wall: Option<&Wall>) -> bool {
    matches!((&record.brake, wall), (Brake::Fence(other), Some(wall)) if other.dev != wall.dev)
}

fn find(
    request: &Request,
    groups: &mut Groups,
    hierarchies: &Hierarchies,
) -> anyhow::Result<Target> {
    match &request.spec {
        Spec::Word(word) => {
            target::resolve(word, request.reach, request.how.ends(), groups, hierarchies)
        }
        Spec::Process { pid, start_time } => {
            let ticks = start_time.map(|time| same_start(*pid, time)).transpose()?;
            target::process(*pid, ticks, request.reach, groups)
        }
        Spec::Group(group, members) => {
            let pids: Vec<UniqueProcess> = members
                .iter()
                .filter_map(|(pid, start)| {
                    let (handle, _) = PidHandle::open(*pid)?;
                    let ticks = handle.identity.start_ticks;
                    let same =
                        start.is_none_or(|start| same_start(*pid, start).ok() == Some(ticks));
                    same.then(|| handle.unique())
                })
                .collect();
            Ok(target::group_target(&group.name, group.clone(), pids, hierarchies))
        }
    }
}

/// Returns the start time in ticks of a process from a Snapshot, after checking that the pid still
/// belongs to it.
fn same_start(pid: u32, seen: Timestamp) -> anyhow::Result<u64> {
    let (handle, _) = PidHandle::open(pid)
        .with_context(|| format!("there is no longer a process with pid {pid}"))?;
    let ticks = handle.identity.start_ticks;
    let now = clock::at_boottime(ticks * tracer_host::process::stat::NS_PER_TICK);
    if seen.duration_since(now).abs() > SAME_START {
        bail!(
            "pid {pid} is now another process: the intended one started at {seen}, this one at {now}"
        );
    }
    Ok(ticks)
}

impl Prepared {
    /// Adds the measurement of the target to the plan.
    pub fn attach_measurement(&mut self, measured: Measurement) {
        self.plan.attach_measurement(measured);
    }

    /// Whether the suspension lasts only as long as the requester runs, because this filltop runs in a
    /// container and the target does not.
    #[must_use]
    pub fn needs_us(&self) -> bool {
        self.footing != Footing::Firm
    }

    /// Returns the audit line, to be written before the action is carried out.
    #[must_use]
    pub fn audit(&self) -> Audit {
        let Request { how, who, reason, dry_run, .. } = &self.request;
        let mut audit = Audit::new(*how, &self.plan.target.name, who.clone(), reason);
        audit.id = self.id.clone();
        audit.pids = self.plan.processes.iter().map(|process| process.pid).collect();
        audit.by = self.plan.by.clone();
        audit.dry_run = *dry_run;
        audit
    }

    /// Carries out the action, or everything except the last system call in a dry run.
    ///
    /// # Errors
    /// The plan's refusals, and system errors.
    pub fn carry_out(self) -> anyhow::Result<Outcome> {
        if !self.plan.allowed() {
            bail!("refused: {}", self.plan.refusal());
        }
        self.audit().write(self.request.log.as_deref()).context("cannot write the audit line")?;
        let Request { how, dry_run, .. } = self.request;
        let mut outcome = Outcome::new(how, dry_run);
        let (mut dry, mut real) = (Dry::default(), Real);
        let hands: &mut dyn Hands = if dry_run { &mut dry } else { &mut real };
        let (scope, policy) = (&self.target.scope, self.facts.restart.as_ref());
        let policy = policy.filter(|_| how.ends() && !dry_run);
        let before = policy.map(|policy| (policy, restart::present(&self.target)));
        // Pins the cgroups of the plan: other cgroups may have their paths by now.
        let pins = Pins::open(&self.target.cgroups)?;
        let held = pins.scope(scope);
        // Read before the action: a target that has exited matches no record, and its supervisor may
        // need a second to notice.
        let halting = if dry_run { Vec::new() } else { resume::concerning(scope) };
        let mut thaw = || {
            for (record, path) in &halting {
                // The record is audited when it ends; a process that cannot be thawed is reported as
                // left over.
                let _ = resume::release(record, path);
            }
        };
        match how {
            Action::Freeze | Action::Throttle | Action::Fence => self.halt(hands, &mut outcome)?,
            Action::Term => outcome.ended = Some(terminate::terminate(&held, hands, &mut thaw)?),
            Action::Kill => {
                let file = terminate::kill_file(scope, &self.hierarchies);
                let file = file.map(|file| match file.parent() {
                    // A dry run prints the usual path of the file.
                    Some(dir) if !dry_run => pins.path(dir).join(terminate::KILL_FILE),
                    _ => file,
                });
                outcome.ended = Some(terminate::kill(&held, file.as_deref(), hands, &mut thaw)?);
            }
            Action::Unit => {
                let command = unit::command(&self.target).map_err(anyhow::Error::msg)?;
                if dry_run {
                    outcome.would.push(format!("run {}", command.words()));
                } else {
                    thaw();
                    let members = held.members();
                    command.run()?;
                    // Some managers return before the target has ended, or although it has not.
                    outcome.ended = Some(Ended {
                        signalled: members.len(),
                        left: terminate::outlasted(&members, command.patience()),
                        back: None,
                    });
                }
            }
            Action::Truncate => {
                let wanted = self.request.file.as_deref().unwrap_or_default();
                let file = self.facts.named_file(wanted).map_err(anyhow::Error::msg)?;
                outcome.freed_bytes = Some(truncate(file, dry_run)?);
                if dry_run {
                    let at = format!("truncate /proc/{}/fd/{} to 0", file.pid, file.fd);
                    outcome.would.push(at);
                }
            }
        }
        if let (Some(ended), Some((policy, before))) = (&mut outcome.ended, before) {
            ended.back = Some(restart::came_back(&self.target, how, &before, policy));
        }
        outcome.would.extend(dry.would);
        Ok(outcome)
    }

    /// Returns the target's cgroups, and the cgroup of the method if processes were named.
    fn cgroups_with(&self, brake: &Brake) -> Vec<CgroupId> {
        let mut cgroups = self.target.cgroups.clone();
        let dir = match brake {
            Brake::Freezer(freezer) => Some(freezer.dir().to_owned()),
            Brake::Fence(wall) => wall.cgroup.as_ref().map(|cgroup| cgroup.dir.clone()),
            Brake::Signals => None,
        };
        let new = dir.filter(|dir| cgroups.iter().all(|id| id.dir != *dir));
        cgroups.extend(CgroupId::of(new.as_slice()));
        cgroups
    }

    fn halt(&self, hands: &mut dyn Hands, outcome: &mut Outcome) -> anyhow::Result<()> {
        let brake = match &self.wall {
            Some(wall) => Brake::Fence(wall.clone()),
            None => Brake::choose(&self.target.scope, &self.hierarchies),
        };
        outcome.id = self.id.clone();
        if hands.dry() {
            let mut halter = Halter::new(self.target.scope.clone(), brake);
            outcome.halted = Some(halter.halt(hands, &mut |_| Ok(()))?);
            return Ok(());
        }
        // Switches from a freeze to a throttle, or back.
        for (record, path) in resume::concerning(&self.target.scope) {
            if !elsewhere(&record, self.wall.as_ref()) {
                resume::release(&record, &path)?;
            }
        }
        let kept = supervisor::start(&Order {
            id: self.id.clone().context("no id")?,
            asked: self.plan.target.asked.clone(),
            name: self.plan.target.name.clone(),
            how: self.request.how,
            rate: self.request.rate,
            scope: self.target.scope.clone(),
            cgroups: self.cgroups_with(&brake),
            brake,
            leave: match &self.footing {
                Footing::Leaves(files) => files.clone(),
                Footing::Firm | Footing::Recorded | Footing::None => Vec::new(),
            },
            for_s: self.request.for_s,
            lifeline: self.request.lifeline || self.needs_us(),
        })?;
        let length = SignedDuration::from_secs_f64(self.request.for_s);
        outcome.until = clock::now().checked_add(length).ok();
        outcome.halted = Some(kept.halted.clone());
        outcome.kept = Some(kept);
        Ok(())
    }
}
