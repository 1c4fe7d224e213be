//! The action engine, shared by the command line, the screen and the guard: prepare (find the target,
//! gather facts, plan), audit, carry out.

use anyhow::{Context as _, bail};
use jiff::{SignedDuration, Timestamp};
use tracer_model::action::Action;
use tracer_model::action::facts::Facts;
use tracer_model::action::measurement::Measurement;
use tracer_model::action::plan::{Plan, PlanRequest};
use tracer_model::action::protect::Protection;

use super::audit::Audit;
use super::executor::{DryRun, Executor, SystemExecutor};
use super::facts::gather_facts;
use super::fence::FenceSpec;
use super::outcome::Outcome;
use super::pins::{CgroupId, Pins};
use super::record::{Record, Suspension};
use super::request::{StopRequest, TargetSpec};
use super::resume_guarantee::ResumeGuarantee;
use super::supervisor::client;
use super::supervisor::protocol::SuspendOrder;
use super::suspend::{SuspendMethod, Suspender};
use super::target::Target;
use super::terminate::TerminateReport;
use super::truncate::truncate;
use super::{record, restart, resume, resume_guarantee, target, terminate, unit};
use crate::attribute::groups::Groups;
use tracer_host::cgroup::Hierarchies;
use tracer_host::process::pidfd::{PidHandle, UniqueProcessId};
use tracer_host::{clock, host_root};
use tracer_kernel::fence;

/// Start times in a Snapshot come from nanoseconds, those in /proc from ticks of 10 ms, and both are
/// converted to wall-clock time. If they differ by more than this, they are of two processes.
const SAME_START: SignedDuration = SignedDuration::from_millis(50);

/// A request with its resolved target, its facts and its plan.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The plan.
    pub plan: Plan,
    request: StopRequest,
    target: Target,
    facts: Facts,
    hierarchies: Hierarchies,
    fence: Option<FenceSpec>,
    guarantee: ResumeGuarantee,
    id: Option<String>,
}

/// Finds the target and makes a plan.
///
/// # Errors
/// If there is no such target, or its pid belongs to another process by now.
pub(crate) fn prepare(request: StopRequest, protection: &Protection) -> anyhow::Result<Prepared> {
    let mut groups = Groups::default();
    let hierarchies = Hierarchies::read();
    let target = find(&request, &mut groups, &hierarchies)?;
    let facts = gather_facts(&target, &mut groups, &hierarchies)?;
    let wanted =
        PlanRequest { how: request.how, intent: request.intent, file: request.file.clone() };
    let mut plan = Plan::new(&facts, &wanted, protection);
    if request.how == Action::Throttle && request.rate.is_none() {
        plan.refuse("a throttle needs a rate; add e.g. --rate 5MiB".to_owned());
    }
    let mut spec = None;
    if request.how == Action::Fence {
        match FenceSpec::choose(
            &target.scope,
            &hierarchies,
            &facts.files,
            request.volume.as_deref(),
        ) {
            Ok(chosen) => {
                plan.by = plan.by.map(|_| chosen.describe());
                spec = Some(chosen);
            }
            Err(reason) => plan.refuse(reason),
        }
        if plan.allowed()
            && let Err(reason) = fence::probe(false, host_root::in_container())
        {
            plan.refuse(reason);
        }
    }
    if request.how.reversible() {
        for (record, _) in resume::overlapping(&target.scope) {
            if record.suspension.how == request.how && !is_other_fence(&record, spec.as_ref()) {
                plan.refuse(format!("it is already suspended by {}", record.suspension.id));
            }
        }
    }
    // A fence always ends with its supervisor, so it needs no other guarantee.
    let guarantee = match request.how {
        Action::Freeze | Action::Throttle => {
            resume_guarantee::of(&target.scope.members(), &hierarchies)
        }
        _ => ResumeGuarantee::Supervisor,
    };
    if guarantee == ResumeGuarantee::None {
        plan.refuse(resume_guarantee::REFUSAL.to_owned());
    }
    let id = request.how.reversible().then(|| record::new_id(request.how)).transpose()?;
    Ok(Prepared { plan, request, target, facts, hierarchies, fence: spec, guarantee, id })
}

/// Whether both are fences, and for different volumes.
fn is_other_fence(record: &Record, spec: Option<&FenceSpec>) -> bool {
    match (&record.suspension.method, spec) {
        (SuspendMethod::Fence(other), Some(spec)) => other.dev != spec.dev,
        _ => false,
    }
}

fn find(
    request: &StopRequest,
    groups: &mut Groups,
    hierarchies: &Hierarchies,
) -> anyhow::Result<Target> {
    match &request.spec {
        TargetSpec::Word(word) => {
            target::resolve(word, request.reach, request.how.ends(), groups, hierarchies)
        }
        TargetSpec::Process { pid, start_time } => {
            let ticks = start_time.map(|time| same_start(*pid, time)).transpose()?;
            target::process(*pid, ticks, request.reach, groups)
        }
        TargetSpec::Group(group, members) => {
            let pids: Vec<UniqueProcessId> = members
                .iter()
                .filter_map(|(pid, start)| {
                    let (handle, _) = PidHandle::open(*pid)?;
                    let ticks = handle.identity.start_ticks;
                    let same =
                        start.is_none_or(|start| same_start(*pid, start).ok() == Some(ticks));
                    same.then(|| handle.unique_id())
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
    pub(crate) fn attach_measurement(&mut self, measured: Measurement) {
        self.plan.attach_measurement(measured);
    }

    /// Whether the suspension lasts only as long as the requester runs, because this filltop runs in a
    /// container and the target does not.
    #[must_use]
    pub(crate) fn needs_requester(&self) -> bool {
        self.guarantee != ResumeGuarantee::Supervisor
    }

    /// Returns the audit line, to be written before the action is carried out.
    #[must_use]
    pub(crate) fn audit(&self) -> Audit {
        let StopRequest { how, who, reason, dry_run, .. } = &self.request;
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
    pub(crate) fn carry_out(self) -> anyhow::Result<Outcome> {
        if !self.plan.allowed() {
            bail!("refused: {}", self.plan.refusal());
        }
        self.audit().write(self.request.log.as_deref()).context("cannot write the audit line")?;
        let StopRequest { how, dry_run, .. } = self.request;
        let mut outcome = Outcome::new(how, dry_run);
        let (mut dry, mut real) = (DryRun::default(), SystemExecutor);
        let executor: &mut dyn Executor = if dry_run { &mut dry } else { &mut real };
        match how {
            Action::Freeze | Action::Throttle | Action::Fence => {
                self.suspend(executor, &mut outcome)?;
            }
            Action::Term | Action::Kill | Action::Unit => {
                self.terminate(executor, &mut outcome)?;
            }
            Action::Truncate => self.truncate(&mut outcome)?,
        }
        outcome.would.extend(dry.would);
        Ok(outcome)
    }

    /// Carries out an action that terminates the target, and waits for a restart if one is expected.
    fn terminate(&self, executor: &mut dyn Executor, outcome: &mut Outcome) -> anyhow::Result<()> {
        let StopRequest { how, dry_run, .. } = self.request;
        let scope = &self.target.scope;
        let policy = self.facts.restart.as_ref().filter(|_| !dry_run);
        let before = policy.map(|policy| (policy, restart::processes_of(&self.target)));
        // Pins the cgroups of the plan: other cgroups may have their paths by now.
        let pins = Pins::open(&self.target.cgroups)?;
        let pinned = pins.scope(scope);
        // Read before the action: a target that has exited matches no record, and its supervisor may
        // need a second to notice.
        let suspended = if dry_run { Vec::new() } else { resume::overlapping(scope) };
        let mut thaw = || {
            for (record, path) in &suspended {
                // The record is audited when it ends; a process that cannot be thawed is reported as
                // left over.
                let _ = resume::release(record, path);
            }
        };
        outcome.terminated = match how {
            Action::Term => Some(terminate::terminate(&pinned, executor, &mut thaw)?),
            Action::Kill => {
                let file = terminate::kill_file(scope, &self.hierarchies);
                let file = file.map(|file| match file.parent() {
                    // A dry run prints the usual path of the file.
                    Some(dir) if !dry_run => pins.path(dir).join(terminate::KILL_FILE),
                    _ => file,
                });
                Some(terminate::kill(&pinned, file.as_deref(), executor, &mut thaw)?)
            }
            _ => {
                let command = unit::command(&self.target).map_err(anyhow::Error::msg)?;
                if dry_run {
                    outcome.would.push(format!("run {}", command.describe()));
                    None
                } else {
                    thaw();
                    let members = pinned.members();
                    command.run()?;
                    // Some managers return before the target has ended, or although it has not.
                    let left = terminate::remaining_after(&members, command.exit_timeout());
                    Some(TerminateReport { signalled: members.len(), left, restarted: None })
                }
            }
        };
        if let (Some(report), Some((policy, before))) = (&mut outcome.terminated, before) {
            report.restarted = Some(restart::wait_for_restart(&self.target, how, &before, policy));
        }
        Ok(())
    }

    fn truncate(&self, outcome: &mut Outcome) -> anyhow::Result<()> {
        let dry_run = self.request.dry_run;
        let wanted = self.request.file.as_deref().unwrap_or_default();
        let file = self.facts.named_file(wanted).map_err(anyhow::Error::msg)?;
        // Fails if the target was restarted in a cgroup of the same path meanwhile.
        let _pins = Pins::open(&self.target.cgroups)?;
        outcome.freed_bytes = Some(truncate(file, dry_run)?);
        if let (true, Some(fd)) = (dry_run, file.fd) {
            outcome.would.push(format!("truncate /proc/{}/fd/{fd} to 0", file.pid));
        }
        Ok(())
    }

    /// Returns the target's cgroups, and the cgroup of the method if processes were named.
    fn cgroups_with(&self, method: &SuspendMethod) -> Vec<CgroupId> {
        let mut cgroups = self.target.cgroups.clone();
        let dir = match method {
            SuspendMethod::Freezer(freezer) => Some(freezer.dir().to_owned()),
            SuspendMethod::Fence(fence_spec) => {
                fence_spec.cgroup.as_ref().map(|cgroup| cgroup.dir.clone())
            }
            SuspendMethod::Signals => None,
        };
        let new = dir.filter(|dir| cgroups.iter().all(|id| id.dir != *dir));
        cgroups.extend(CgroupId::of(new.as_slice()));
        cgroups
    }

    /// Suspends the target: in a dry run up to the last system call, otherwise through a supervisor.
    fn suspend(&self, executor: &mut dyn Executor, outcome: &mut Outcome) -> anyhow::Result<()> {
        // Fails if another cgroup has the path of one of the plan's by now.
        let _pins = Pins::open(&self.target.cgroups)?;
        let method = match &self.fence {
            Some(spec) => SuspendMethod::Fence(spec.clone()),
            None => SuspendMethod::choose(&self.target.scope, &self.hierarchies),
        };
        outcome.id = self.id.clone();
        if executor.is_dry_run() {
            let mut suspender = Suspender::new(self.target.scope.clone(), method);
            outcome.suspended = Some(suspender.suspend(executor, &mut |_| Ok(()))?);
            return Ok(());
        }
        // Switches from a freeze to a throttle, or back.
        for (record, path) in resume::overlapping(&self.target.scope) {
            if !is_other_fence(&record, self.fence.as_ref()) {
                resume::release(&record, &path)?;
            }
        }
        let suspension = Suspension {
            id: self.id.clone().context("no id")?,
            argument: self.plan.target.argument.clone(),
            name: self.plan.target.name.clone(),
            how: self.request.how,
            rate: self.request.rate,
            scope: self.target.scope.clone(),
            cgroups: self.cgroups_with(&method),
            method,
        };
        let supervisor = client::start(&SuspendOrder {
            suspension,
            exit_files: match &self.guarantee {
                ResumeGuarantee::LeavesContainer(files) => files.clone(),
                ResumeGuarantee::Supervisor
                | ResumeGuarantee::HostRecord
                | ResumeGuarantee::None => Vec::new(),
            },
            for_s: self.request.for_s,
            ends_with_owner: self.request.ends_with_owner || self.needs_requester(),
        })?;
        let length = SignedDuration::from_secs_f64(self.request.for_s);
        outcome.until = clock::now().checked_add(length).ok();
        outcome.suspended = Some(supervisor.report.clone());
        outcome.supervisor = Some(supervisor);
        Ok(())
    }
}
