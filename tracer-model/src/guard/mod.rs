//! The guard: when a volume is about to be full and one group fills it, which step is taken next, and
//! why nobody else is chosen.
//!
//! Pure: a time, a [`Snapshot`] and what is still held go in, [`Decision`]s come out. Whoever carries
//! them out reports back by [`Policy::done`]. `docs/actions.md` tells the rules to people.

pub mod config;
mod decision;
mod exclusions;
mod message;
mod shares;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use self::config::{GuardConfig, Seconds};
pub use self::decision::{Decision, Did, Spared};
use self::shares::{Candidate, Key, Shares};
use crate::action::Action;
use crate::snapshot::{Group, Snapshot, Volume};

/// How long a group that found no space on a volume is taken for a victim there, seconds.
const VICTIM_S: f64 = 600.0;
/// The hour of `max_per_hour`.
const HOUR_S: f64 = 3600.0;

/// A culprit that the ladder has begun with.
#[derive(Debug, Clone)]
struct Climb {
    group: Group,
    /// Which of the ladder's steps is the next.
    next: usize,
    /// The decision that took its last step.
    id: u64,
    /// Is that a freeze or throttle, which somebody may undo?
    holding: bool,
    /// When its last step was taken.
    since_s: f64,
    /// Of which danger of its volume it was the culprit.
    danger: u64,
    /// Is the ladder over for this danger: refused, or let go by somebody?
    over: bool,
}

#[derive(Debug, Clone, Default)]
struct Guarded {
    shares: Shares,
    /// Number of the danger that it is, or was last, in.
    danger: u64,
    /// Since when it is in danger; `None` while it is not.
    since_s: Option<f64>,
    /// When it was in danger last.
    endangered_s: Option<f64>,
    /// Groups that found no space, and until when they count as victims.
    victims: BTreeMap<Key, f64>,
    climbs: BTreeMap<Key, Climb>,
    /// Why nothing was done in this danger, as far as it has been said.
    said: BTreeSet<Restraint>,
}

/// Why nothing is done. Each is said once in a danger, whatever numbers its words have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Restraint {
    /// Most of the growth is not explained.
    Blind,
    /// As much was done in the last hour as may be.
    Budget,
    /// The last action is not long ago.
    CoolDown,
    /// This group must not be touched, for this reason.
    Forbidden(Key, String),
}

/// The guard's memory.
#[derive(Debug, Clone)]
pub struct Policy {
    config: GuardConfig,
    volumes: BTreeMap<String, Guarded>,
    /// Times of what was done in the last hour.
    actions: VecDeque<f64>,
    last_id: u64,
    seen_s: Option<f64>,
}

impl Policy {
    /// With a [checked](GuardConfig::check) configuration.
    #[must_use]
    pub fn new(config: GuardConfig) -> Self {
        Self {
            config,
            volumes: BTreeMap::new(),
            actions: VecDeque::new(),
            last_id: 0,
            seen_s: None,
        }
    }

    /// What it goes by.
    #[must_use]
    pub fn config(&self) -> &GuardConfig {
        &self.config
    }

    /// Goes by another configuration from now on; what it remembers stays.
    pub fn replace(&mut self, config: GuardConfig) {
        self.config = config;
    }

    /// Takes in a Snapshot at `now_s` (a clock that never steps). `holding` are the decisions whose
    /// freeze or throttle is in force. At most one decision a volume comes out.
    pub fn see(
        &mut self,
        now_s: f64,
        snapshot: &Snapshot,
        holding: &BTreeSet<u64>,
    ) -> Vec<Decision> {
        let dt = self.seen_s.map_or(snapshot.interval_s, |seen| (now_s - seen).max(0.0));
        self.seen_s = Some(now_s);
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
            let mut guarded = self.volumes.remove(name).unwrap_or_default();
            decisions.extend(self.look(now_s, dt, snapshot, volume, &mut guarded, holding));
            self.volumes.insert(name.clone(), guarded);
        }
        decisions
    }

    /// How a decision ended.
    pub fn done(&mut self, id: u64, did: &Did) {
        for guarded in self.volumes.values_mut() {
            let Some(key) = guarded.climbs.iter().find(|(_, c)| c.id == id).map(|(k, _)| k.clone())
            else {
                continue;
            };
            match did {
                Did::Done => {}
                // What has its name from now on are other processes: a cause of its own.
                Did::Ended => {
                    guarded.climbs.remove(&key);
                    guarded.shares.forget(&key);
                }
                Did::Refused(_) | Did::Failed(_) => {
                    if let Some(climb) = guarded.climbs.get_mut(&key) {
                        climb.holding = false;
                        climb.over = true;
                    }
                }
            }
        }
    }

    fn look(
        &mut self,
        now_s: f64,
        dt: f64,
        snapshot: &Snapshot,
        volume: &Volume,
        guarded: &mut Guarded,
        holding: &BTreeSet<u64>,
    ) -> Option<Decision> {
        guarded.shares.add(now_s, dt, self.config.length.0, snapshot, volume, &self.config.ignore);
        let endangered = volume.full || volume.eta_s.is_some_and(|eta| eta <= self.config.within.0);
        guarded.enter(now_s, endangered, self.config.cool_down.0);
        guarded.note_victims(now_s, snapshot, volume, self.config.share);
        self.let_go(guarded, holding);
        if let Some(key) = self.due(now_s, guarded) {
            return self.climb(now_s, snapshot, volume, guarded, &key);
        }
        if !endangered {
            return None;
        }
        self.choose(now_s, snapshot, volume, guarded)
    }

    /// Somebody let it go on, or its time was over: the ladder is over until there is a new danger.
    fn let_go(&self, guarded: &mut Guarded, holding: &BTreeSet<u64>) {
        for climb in guarded.climbs.values_mut() {
            if climb.holding && !holding.contains(&climb.id) && !self.config.dry_run {
                climb.holding = false;
                climb.over = true;
            }
        }
    }

    /// The culprit whose next step has come.
    fn due(&self, now_s: f64, guarded: &Guarded) -> Option<Key> {
        let waiting = guarded.climbs.iter().find(|(_, climb)| {
            if climb.over || self.config.dry_run || climb.next >= self.config.ladder.len() {
                return false;
            }
            let frozen = climb.next.checked_sub(1).map(|at| self.config.ladder[at]);
            match frozen {
                // Nobody came.
                Some(Action::Freeze) => now_s - climb.since_s >= self.config.wait.0,
                // It was not enough for as long.
                _ => guarded
                    .since_s
                    .is_some_and(|since| now_s - since.max(climb.since_s) >= self.config.step.0),
            }
        });
        waiting.map(|(key, _)| key.clone())
    }

    fn climb(
        &mut self,
        now_s: f64,
        snapshot: &Snapshot,
        volume: &Volume,
        guarded: &mut Guarded,
        key: &Key,
    ) -> Option<Decision> {
        if let Some(why) = self.limit(now_s, volume) {
            return self.say(now_s, snapshot, volume, guarded, key, why);
        }
        let climb = guarded.climbs.get(key)?.clone();
        let step = self.config.ladder[climb.next];
        let earlier = self.config.ladder[climb.next.saturating_sub(1)];
        let because = message::next_step(earlier, now_s - climb.since_s, volume);
        let candidate = guarded.shares.of(key).unwrap_or_else(|| Candidate::gone(climb.group));
        Some(self.decide(now_s, snapshot, volume, guarded, &candidate, step, &because))
    }

    fn choose(
        &mut self,
        now_s: f64,
        snapshot: &Snapshot,
        volume: &Volume,
        guarded: &mut Guarded,
    ) -> Option<Decision> {
        let candidates = guarded.shares.candidates();
        let culprit = candidates
            .iter()
            .filter(|candidate| candidate.least_share >= self.needed(&candidate.group))
            .max_by(|a, b| {
                let order = |c: &Candidate| (self.is_preferred(&c.group), c.share);
                let (a, b) = (order(a), order(b));
                a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
            })?
            .clone();
        let key = culprit.key();
        if let Some(climb) = guarded.climbs.get(&key) {
            // Its next step is not yet due; or the same processes again, without a new cause.
            let under_way = !climb.over && !self.config.dry_run;
            if under_way || climb.danger == guarded.danger {
                return None;
            }
        }
        if let Some(reason) = self.forbidden(now_s, snapshot, volume, guarded, &culprit) {
            let words = format!("{} is not touched: {reason}", message::group(&culprit.group));
            let why = (Restraint::Forbidden(key.clone(), reason), words);
            return self.say(now_s, snapshot, volume, guarded, &key, why);
        }
        if let Some(why) = self.limit(now_s, volume) {
            return self.say(now_s, snapshot, volume, guarded, &key, why);
        }
        let because = message::chosen(&culprit, volume, &self.config);
        let step = self.config.ladder[0];
        Some(self.decide(now_s, snapshot, volume, guarded, &culprit, step, &because))
    }

    fn needed(&self, group: &Group) -> f64 {
        if self.is_preferred(group) { self.config.share / 2.0 } else { self.config.share }
    }

    fn is_preferred(&self, group: &Group) -> bool {
        self.config.prefer.iter().any(|pattern| pattern.matches(&group.name))
    }

    /// Why nothing may be done now, also in words.
    fn limit(&self, now_s: f64, volume: &Volume) -> Option<(Restraint, String)> {
        if volume.blind.is_some_and(|blind| blind.hides_most()) {
            let words = "nothing is done: most of the growth is not explained";
            return Some((Restraint::Blind, words.to_owned()));
        }
        if self.actions.len() >= self.config.max_per_hour as usize {
            let words = format!(
                "nothing is done: {} actions in the last hour are the most that is allowed",
                self.actions.len()
            );
            return Some((Restraint::Budget, words));
        }
        let ago_s = now_s - self.actions.back()?;
        (ago_s < self.config.cool_down.0).then(|| {
            let words = format!("nothing is done yet: the last action was {ago_s:.0} s ago");
            (Restraint::CoolDown, words)
        })
    }

    /// Nothing is done; said once for each danger and reason.
    fn say(
        &mut self,
        now_s: f64,
        snapshot: &Snapshot,
        volume: &Volume,
        guarded: &mut Guarded,
        key: &Key,
        (restraint, reason): (Restraint, String),
    ) -> Option<Decision> {
        if !guarded.said.insert(restraint) {
            return None;
        }
        let culprit = guarded.shares.of(key)?;
        let spared = self.spared(now_s, snapshot, volume, guarded, &culprit);
        let chosen = message::chosen(&culprit, volume, &self.config);
        Some(self.decision(
            snapshot,
            volume,
            &culprit,
            None,
            spared,
            &format!("{reason} ({chosen})"),
        ))
    }

    #[expect(clippy::too_many_arguments, reason = "all that the decision is about")]
    fn decide(
        &mut self,
        now_s: f64,
        snapshot: &Snapshot,
        volume: &Volume,
        guarded: &mut Guarded,
        culprit: &Candidate,
        step: Action,
        because: &str,
    ) -> Decision {
        let spared = self.spared(now_s, snapshot, volume, guarded, culprit);
        let decision = self.decision(snapshot, volume, culprit, Some(step), spared, because);
        if !self.config.dry_run {
            self.actions.push_back(now_s);
        }
        let at = self.config.ladder.iter().position(|how| *how == step).unwrap_or(0);
        let climb = Climb {
            group: culprit.group.clone(),
            next: at + 1,
            id: decision.id,
            holding: step.reversible(),
            since_s: now_s,
            danger: guarded.danger,
            over: false,
        };
        guarded.climbs.insert(culprit.key(), climb);
        decision
    }

    fn decision(
        &mut self,
        snapshot: &Snapshot,
        volume: &Volume,
        culprit: &Candidate,
        step: Option<Action>,
        spared: Vec<Spared>,
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
            explanation: message::explanation(step, culprit, because, &spared, &self.config),
            spared,
        }
    }
}

impl Guarded {
    /// A danger that begins after a rest is a new cause.
    fn enter(&mut self, now_s: f64, endangered: bool, rest_s: f64) {
        if endangered {
            let rested = self.endangered_s.is_none_or(|last| now_s - last > rest_s);
            if self.since_s.is_none() && rested {
                self.danger += 1;
                self.said.clear();
            }
            self.endangered_s = Some(now_s);
            self.since_s.get_or_insert(now_s);
        } else {
            self.since_s = None;
        }
    }

    /// Whoever finds no space without being the one that fills the volume is a victim for a while,
    /// whatever it writes once there is space again.
    fn note_victims(&mut self, now_s: f64, snapshot: &Snapshot, volume: &Volume, share: f64) {
        self.victims.retain(|_, until| *until > now_s);
        for victim in snapshot.victims.iter().filter(|row| row.volume == volume.mount_point) {
            let writer = snapshot.writers.iter().find(|writer| writer.pid == victim.pid);
            let Some(group) = writer.and_then(|writer| writer.group.as_ref()) else { continue };
            let key = shares::key(group);
            let fills = self.shares.of(&key).is_some_and(|candidate| candidate.share >= share);
            // Who was found to fill it does not become a victim by finding it full.
            if !fills && !self.climbs.contains_key(&key) {
                self.victims.insert(key, now_s + VICTIM_S);
            }
        }
    }
}
