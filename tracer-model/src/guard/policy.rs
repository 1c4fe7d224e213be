//! The policy: evaluates Snapshots, and decides which action to take next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::config::GuardConfig;
use super::decision::{ActionResult, Decision, Excluded};
use super::shares::{Candidate, Key};
use super::state::{Escalation, Moment, Restraint, VolumeState};
use super::{exclusions, message};
use crate::action::Action;
use crate::snapshot::{Group, Snapshot};

/// The hour of `max_per_hour`, seconds.
pub(super) const HOUR_S: f64 = 3600.0;

/// The guard's policy and state.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(super) config: GuardConfig,
    pub(super) volumes: BTreeMap<String, VolumeState>,
    /// Times of the actions in the last hour, seconds.
    actions: VecDeque<f64>,
    last_id: u64,
    evaluated_s: Option<f64>,
}

impl Policy {
    /// Creates a policy with a [checked](GuardConfig::check) configuration.
    #[must_use]
    pub fn new(config: GuardConfig) -> Self {
        Self {
            config,
            volumes: BTreeMap::new(),
            actions: VecDeque::new(),
            last_id: 0,
            evaluated_s: None,
        }
    }

    /// Returns the current configuration.
    #[must_use]
    pub fn config(&self) -> &GuardConfig {
        &self.config
    }

    /// Replaces the configuration and keeps the state. What a dry run only announced was not done, so
    /// an armed guard starts at the first step of its ladder.
    pub fn replace(&mut self, config: GuardConfig) {
        if self.config.dry_run && !config.dry_run {
            self.volumes.values_mut().for_each(|state| state.escalations.clear());
        }
        self.config = config;
    }

    /// Evaluates a Snapshot taken at `now_s` (seconds, monotonic clock). `in_force` contains the
    /// decisions whose freeze, throttle or fence is in force. Returns at most one decision per volume.
    pub fn evaluate(
        &mut self,
        now_s: f64,
        snapshot: &Snapshot,
        in_force: &BTreeSet<u64>,
    ) -> Vec<Decision> {
        let dt = self.evaluated_s.map_or(snapshot.interval_s, |seen| (now_s - seen).max(0.0));
        self.evaluated_s = Some(now_s);
        if !self.config.enabled {
            return Vec::new();
        }
        while self.actions.front().is_some_and(|at| now_s - at > HOUR_S) {
            self.actions.pop_front();
        }
        let mut decisions = Vec::new();
        for volume in &snapshot.volumes {
            let name = &volume.mount_point;
            if !self.config.volumes.is_empty() && !self.config.volumes.contains(name) {
                continue;
            }
            let at = Moment { now_s, snapshot, volume };
            let mut state = self.volumes.remove(name).unwrap_or_default();
            decisions.extend(self.evaluate_volume(at, dt, &mut state, in_force));
            self.volumes.insert(name.clone(), state);
        }
        decisions
    }

    /// Records the result of a decision.
    pub fn record_result(&mut self, id: u64, result: &ActionResult) {
        for state in self.volumes.values_mut() {
            let Some(key) =
                state.escalations.iter().find(|(_, c)| c.id == id).map(|(k, _)| k.clone())
            else {
                continue;
            };
            match result {
                ActionResult::Done => {}
                // Later processes with this name are new ones: a separate cause.
                ActionResult::Ended => {
                    state.escalations.remove(&key);
                    state.shares.forget(&key);
                }
                ActionResult::Refused(_) | ActionResult::Failed(_) => {
                    if let Some(escalation) = state.escalations.get_mut(&key) {
                        escalation.in_force = false;
                        escalation.over = true;
                    }
                }
            }
        }
    }

    fn evaluate_volume(
        &mut self,
        at: Moment<'_>,
        dt: f64,
        state: &mut VolumeState,
        in_force: &BTreeSet<u64>,
    ) -> Option<Decision> {
        let Moment { now_s, snapshot, volume } = at;
        state.shares.add(now_s, dt, self.config.length.0, snapshot, volume, &self.config.ignore);
        let endangered = volume.full || volume.eta_s.is_some_and(|eta| eta <= self.config.within.0);
        state.track_episode(now_s, endangered, self.config.cool_down.0);
        state.note_victims(at, self.config.share);
        self.end_released(state, in_force);
        if let Some(key) = self.due_escalation(now_s, state) {
            return self.escalate(at, state, &key);
        }
        if !endangered {
            return None;
        }
        self.choose_culprit(at, state)
    }

    /// Ends an escalation whose suspension is no longer in force (resumed, or the time limit was
    /// reached), until a new episode begins.
    fn end_released(&self, state: &mut VolumeState, in_force: &BTreeSet<u64>) {
        for escalation in state.escalations.values_mut() {
            if escalation.in_force && !in_force.contains(&escalation.id) && !self.config.dry_run {
                escalation.in_force = false;
                escalation.over = true;
            }
        }
    }

    /// Returns the culprit whose next step is due.
    fn due_escalation(&self, now_s: f64, state: &VolumeState) -> Option<Key> {
        let waiting = state.escalations.iter().find(|(_, escalation)| {
            if escalation.over || self.config.dry_run || escalation.next >= self.config.ladder.len()
            {
                return false;
            }
            let frozen = escalation.next.checked_sub(1).map(|at| self.config.ladder[at]);
            match frozen {
                // No operator has intervened.
                Some(Action::Freeze) => now_s - escalation.since_s >= self.config.wait.0,
                // The last step was not enough, and the danger has lasted since then.
                _ => state.since_s.is_some_and(|since| {
                    now_s - since.max(escalation.since_s) >= self.config.step.0
                }),
            }
        });
        waiting.map(|(key, _)| key.clone())
    }

    fn escalate(&mut self, at: Moment<'_>, state: &mut VolumeState, key: &Key) -> Option<Decision> {
        if let Some(why) = self.restraint(at) {
            return self.report_once(at, state, key, why);
        }
        let escalation = state.escalations.get(key)?.clone();
        let step = self.config.ladder[escalation.next];
        let earlier = self.config.ladder[escalation.next.saturating_sub(1)];
        let because = message::next_step(earlier, at.now_s - escalation.since_s, at.volume);
        let candidate =
            state.shares.of(key).unwrap_or_else(|| Candidate::without_growth(escalation.group));
        Some(self.decide(at, state, &candidate, step, &because))
    }

    fn choose_culprit(&mut self, at: Moment<'_>, state: &mut VolumeState) -> Option<Decision> {
        let candidates = state.shares.candidates();
        let culprit = candidates
            .iter()
            .filter(|candidate| candidate.least_share >= self.required_share(&candidate.group))
            .max_by(|a, b| {
                let order = |c: &Candidate| (self.is_preferred(&c.group), c.share);
                let (a, b) = (order(a), order(b));
                a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
            })?
            .clone();
        let key = culprit.key();
        if let Some(escalation) = state.escalations.get(&key) {
            // Its next step is not due yet, or these are the same processes without a new cause.
            let under_way = !escalation.over && !self.config.dry_run;
            if under_way || escalation.episode == state.episode {
                return None;
            }
        }
        if let Some(reason) = exclusions::forbidden(&self.config, at, state, &culprit) {
            let text = format!("no action on {}: {reason}", message::group(&culprit.group));
            let why = (Restraint::Forbidden(key.clone(), reason), text);
            return self.report_once(at, state, &key, why);
        }
        if let Some(why) = self.restraint(at) {
            return self.report_once(at, state, &key, why);
        }
        let because = message::chosen(&culprit, at.volume, &self.config);
        let step = self.config.ladder[0];
        Some(self.decide(at, state, &culprit, step, &because))
    }

    fn required_share(&self, group: &Group) -> f64 {
        if self.is_preferred(group) { self.config.share / 2.0 } else { self.config.share }
    }

    fn is_preferred(&self, group: &Group) -> bool {
        self.config.prefer.iter().any(|pattern| pattern.matches(&group.name))
    }

    /// Returns why nothing may be done now, with the message.
    fn restraint(&self, at: Moment<'_>) -> Option<(Restraint, String)> {
        let by_verdict =
            at.volume.verdict.as_ref().is_some_and(|verdict| verdict.mostly_unexplained);
        if by_verdict || at.volume.blind.is_some_and(|blind| blind.hides_most()) {
            let text = "no action: most of the growth is not explained";
            return Some((Restraint::Blind, text.to_owned()));
        }
        if self.actions.len() >= self.config.max_per_hour as usize {
            let count = self.actions.len();
            let actions = if count == 1 { "action" } else { "actions" };
            let text = format!(
                "no action: limit of guard.max_per_hour reached ({count} {actions} in the last hour)"
            );
            return Some((Restraint::HourlyLimit, text));
        }
        let ago_s = at.now_s - self.actions.back()?;
        (ago_s < self.config.cool_down.0).then(|| {
            let text = format!(
                "no action yet: the last one was {ago_s:.0} s ago (guard.cool_down = {})",
                self.config.cool_down.text()
            );
            (Restraint::CoolDown, text)
        })
    }

    /// Reports that nothing is done, once for each episode and reason.
    fn report_once(
        &mut self,
        at: Moment<'_>,
        state: &mut VolumeState,
        key: &Key,
        (restraint, reason): (Restraint, String),
    ) -> Option<Decision> {
        if !state.reported.insert(restraint) {
            return None;
        }
        let culprit = state.shares.of(key)?;
        let excluded = exclusions::excluded(&self.config, at, state, &culprit);
        let chosen = message::chosen(&culprit, at.volume, &self.config);
        Some(self.decision(at, &culprit, None, excluded, &format!("{reason} ({chosen})")))
    }

    fn decide(
        &mut self,
        at: Moment<'_>,
        state: &mut VolumeState,
        culprit: &Candidate,
        step: Action,
        because: &str,
    ) -> Decision {
        let excluded = exclusions::excluded(&self.config, at, state, culprit);
        let decision = self.decision(at, culprit, Some(step), excluded, because);
        if !self.config.dry_run {
            self.actions.push_back(at.now_s);
        }
        let taken = self.config.ladder.iter().position(|how| *how == step).unwrap_or(0);
        let escalation = Escalation {
            group: culprit.group.clone(),
            next: taken + 1,
            id: decision.id,
            in_force: step.reversible(),
            since_s: at.now_s,
            episode: state.episode,
            over: false,
        };
        state.escalations.insert(culprit.key(), escalation);
        decision
    }

    fn decision(
        &mut self,
        at: Moment<'_>,
        culprit: &Candidate,
        step: Option<Action>,
        excluded: Vec<Excluded>,
        because: &str,
    ) -> Decision {
        self.last_id += 1;
        Decision {
            id: self.last_id,
            volume: at.volume.mount_point.clone(),
            group: culprit.group.clone(),
            step,
            dry_run: self.config.dry_run,
            rate: (step == Some(Action::Throttle)).then_some(self.config.throttle_bytes_per_s),
            for_s: self.config.hold.0,
            members: exclusions::members(at.snapshot, &culprit.group),
            share: culprit.share,
            growth_bytes_per_s: culprit.growth_bytes_per_s,
            explanation: message::explanation(step, culprit, because, &excluded, &self.config),
            excluded,
        }
    }
}
