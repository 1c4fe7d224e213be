//! The guard: decides which action to take next when a volume is about to be full and one group fills
//! it, and why no other group is chosen.
//!
//! Pure: takes a time, a [`Snapshot`] and the suspensions in force, returns [`Decision`]s. The caller
//! carries them out and reports the results with [`Policy::record_result`]. `docs/actions.md` describes the
//! rules for users.

pub mod config;
mod decision;
mod exclusions;
mod message;
mod shares;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use self::config::{GuardConfig, Seconds};
pub use self::decision::{ActionResult, Decision, Excluded};
use self::shares::{Candidate, Key, Shares};
use crate::action::Action;
use crate::snapshot::{Group, Snapshot, Volume};

/// How long a group counts as a victim on a volume after a write there failed for lack of space,
/// seconds.
const VICTIM_S: f64 = 600.0;
/// The hour of `max_per_hour`, seconds.
const HOUR_S: f64 = 3600.0;

/// The escalation against one culprit: how far along the ladder it is.
#[derive(Debug, Clone)]
struct Escalation {
    group: Group,
    /// Index of the ladder's next step.
    next: usize,
    /// Id of the decision that took the last step.
    id: u64,
    /// Whether the last step can be undone (freeze, throttle or fence) and is still in force.
    in_force: bool,
    /// When the last step was taken, seconds.
    since_s: f64,
    /// Number of the episode in which the group was the culprit.
    episode: u64,
    /// Whether the escalation is over for this episode: the action was refused, or its suspension
    /// ended (resumed by an operator, or the time limit was reached).
    over: bool,
}

#[derive(Debug, Clone, Default)]
struct VolumeState {
    shares: Shares,
    /// Number of the current or most recent episode of danger.
    episode: u64,
    /// Since when the volume is in episode, seconds; `None` while it is not.
    since_s: Option<f64>,
    /// When the volume was last in episode, seconds.
    endangered_s: Option<f64>,
    /// Groups whose writes failed for lack of space, and until when they count as victims.
    victims: BTreeMap<Key, f64>,
    escalations: BTreeMap<Key, Escalation>,
    /// The reasons for inaction that were already reported in this episode.
    reported: BTreeSet<Restraint>,
}

/// Why nothing is done. Each reason is reported once per episode, even if the numbers in its message
/// change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Restraint {
    /// Most of the growth is not explained.
    Blind,
    /// `max_per_hour` is reached.
    HourlyLimit,
    /// The last action was less than `cool_down` ago.
    CoolDown,
    /// This group must not be acted on, for this reason.
    Forbidden(Key, String),
}

/// The guard's policy and state.
#[derive(Debug, Clone)]
pub struct Policy {
    config: GuardConfig,
    volumes: BTreeMap<String, VolumeState>,
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

    /// Replaces the configuration and keeps the state.
    pub fn replace(&mut self, config: GuardConfig) {
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
            let mut state = self.volumes.remove(name).unwrap_or_default();
            decisions
                .extend(self.evaluate_volume(now_s, dt, snapshot, volume, &mut state, in_force));
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
        now_s: f64,
        dt: f64,
        snapshot: &Snapshot,
        volume: &Volume,
        state: &mut VolumeState,
        in_force: &BTreeSet<u64>,
    ) -> Option<Decision> {
        state.shares.add(now_s, dt, self.config.length.0, snapshot, volume, &self.config.ignore);
        let endangered = volume.full || volume.eta_s.is_some_and(|eta| eta <= self.config.within.0);
        state.track_episode(now_s, endangered, self.config.cool_down.0);
        state.note_victims(now_s, snapshot, volume, self.config.share);
        self.end_released(state, in_force);
        if let Some(key) = self.due_escalation(now_s, state) {
            return self.escalate(now_s, snapshot, volume, state, &key);
        }
        if !endangered {
            return None;
        }
        self.choose_culprit(now_s, snapshot, volume, state)
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

    fn escalate(
        &mut self,
        now_s: f64,
        snapshot: &Snapshot,
        volume: &Volume,
        state: &mut VolumeState,
        key: &Key,
    ) -> Option<Decision> {
        if let Some(why) = self.restraint(now_s, volume) {
            return self.report_once(now_s, snapshot, volume, state, key, why);
        }
        let escalation = state.escalations.get(key)?.clone();
        let step = self.config.ladder[escalation.next];
        let earlier = self.config.ladder[escalation.next.saturating_sub(1)];
        let because = message::next_step(earlier, now_s - escalation.since_s, volume);
        let candidate =
            state.shares.of(key).unwrap_or_else(|| Candidate::without_growth(escalation.group));
        Some(self.decide(now_s, snapshot, volume, state, &candidate, step, &because))
    }

    fn choose_culprit(
        &mut self,
        now_s: f64,
        snapshot: &Snapshot,
        volume: &Volume,
        state: &mut VolumeState,
    ) -> Option<Decision> {
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
        if let Some(reason) = self.forbidden(now_s, snapshot, volume, state, &culprit) {
            let text = format!("no action on {}: {reason}", message::group(&culprit.group));
            let why = (Restraint::Forbidden(key.clone(), reason), text);
            return self.report_once(now_s, snapshot, volume, state, &key, why);
        }
        if let Some(why) = self.restraint(now_s, volume) {
            return self.report_once(now_s, snapshot, volume, state, &key, why);
        }
        let because = message::chosen(&culprit, volume, &self.config);
        let step = self.config.ladder[0];
        Some(self.decide(now_s, snapshot, volume, state, &culprit, step, &because))
    }

    fn required_share(&self, group: &Group) -> f64 {
        if self.is_preferred(group) { self.config.share / 2.0 } else { self.config.share }
    }

    fn is_preferred(&self, group: &Group) -> bool {
        self.config.prefer.iter().any(|pattern| pattern.matches(&group.name))
    }

    /// Returns why nothing may be done now, with the message.
    fn restraint(&self, now_s: f64, volume: &Volume) -> Option<(Restraint, String)> {
        if volume.blind.is_some_and(|blind| blind.hides_most()) {
            let text = "no action: most of the growth is not explained";
            return Some((Restraint::Blind, text.to_owned()));
        }
        if self.actions.len() >= self.config.max_per_hour as usize {
            let text = format!(
                "no action: limit of guard.max_per_hour reached ({} actions in the last hour)",
                self.actions.len()
            );
            return Some((Restraint::HourlyLimit, text));
        }
        let ago_s = now_s - self.actions.back()?;
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
        now_s: f64,
        snapshot: &Snapshot,
        volume: &Volume,
        state: &mut VolumeState,
        key: &Key,
        (restraint, reason): (Restraint, String),
    ) -> Option<Decision> {
        if !state.reported.insert(restraint) {
            return None;
        }
        let culprit = state.shares.of(key)?;
        let excluded = self.excluded(now_s, snapshot, volume, state, &culprit);
        let chosen = message::chosen(&culprit, volume, &self.config);
        Some(self.decision(
            snapshot,
            volume,
            &culprit,
            None,
            excluded,
            &format!("{reason} ({chosen})"),
        ))
    }

    #[expect(clippy::too_many_arguments, reason = "a decision depends on all of these")]
    fn decide(
        &mut self,
        now_s: f64,
        snapshot: &Snapshot,
        volume: &Volume,
        state: &mut VolumeState,
        culprit: &Candidate,
        step: Action,
        because: &str,
    ) -> Decision {
        let excluded = self.excluded(now_s, snapshot, volume, state, culprit);
        let decision = self.decision(snapshot, volume, culprit, Some(step), excluded, because);
        if !self.config.dry_run {
            self.actions.push_back(now_s);
        }
        let at = self.config.ladder.iter().position(|how| *how == step).unwrap_or(0);
        let escalation = Escalation {
            group: culprit.group.clone(),
            next: at + 1,
            id: decision.id,
            in_force: step.reversible(),
            since_s: now_s,
            episode: state.episode,
            over: false,
        };
        state.escalations.insert(culprit.key(), escalation);
        decision
    }

    fn decision(
        &mut self,
        snapshot: &Snapshot,
        volume: &Volume,
        culprit: &Candidate,
        step: Option<Action>,
        excluded: Vec<Excluded>,
        because: &str,
    ) -> Decision {
        self.last_id += 1;
        Decision {
            id: self.last_id,
            volume: volume.mount_point.clone(),
            group: culprit.group.clone(),
            step,
            dry_run: self.config.dry_run,
            rate: (step == Some(Action::Throttle)).then_some(self.config.throttle_bytes_per_s),
            for_s: self.config.hold.0,
            members: exclusions::members(snapshot, &culprit.group),
            share: culprit.share,
            growth_bytes_per_s: culprit.growth_bytes_per_s,
            explanation: message::explanation(step, culprit, because, &excluded, &self.config),
            excluded,
        }
    }
}

impl VolumeState {
    /// Tracks whether the volume is in danger. A danger that begins after more than `rest_s` without
    /// one is a new episode.
    fn track_episode(&mut self, now_s: f64, endangered: bool, rest_s: f64) {
        if endangered {
            let rested = self.endangered_s.is_none_or(|last| now_s - last > rest_s);
            if self.since_s.is_none() && rested {
                self.episode += 1;
                self.reported.clear();
            }
            self.endangered_s = Some(now_s);
            self.since_s.get_or_insert(now_s);
        } else {
            self.since_s = None;
        }
    }

    /// Records victims: a group whose writes fail, but that does not fill the volume, counts as a
    /// victim for [`VICTIM_S`], whatever it writes once there is space again.
    fn note_victims(&mut self, now_s: f64, snapshot: &Snapshot, volume: &Volume, share: f64) {
        self.victims.retain(|_, until| *until > now_s);
        for victim in snapshot.victims.iter().filter(|row| row.volume == volume.mount_point) {
            let writer = snapshot.writers.iter().find(|writer| writer.pid == victim.pid);
            let Some(group) = writer.and_then(|writer| writer.group.as_ref()) else { continue };
            let key = shares::key(group);
            let fills = self.shares.of(&key).is_some_and(|candidate| candidate.share >= share);
            // A culprit does not become a victim because the volume that it filled is full.
            if !fills && !self.escalations.contains_key(&key) {
                self.victims.insert(key, now_s + VICTIM_S);
            }
        }
    }
}
