//! The engine: keeps a ledger for each volume, and concludes a [`Verdict`] from each Snapshot.

use std::collections::{HashMap, HashSet};

use super::assess::{Assessment, Known, MAX_ROWS, Situation, assess, candidates};
use super::ledger::{Ledger, group_key};
use super::limits::{Limits, has_limit, limit_of, limited_user};
use super::window::Window;
use crate::snapshot::{
    LimitKind, Resource, Snapshot, State, Suspect, Verdict, Victim, Volume, Writer,
};

/// Lengths of windows, seconds, shortest first.
const LENGTHS_S: [f64; 9] = [3.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 900.0];
/// Length of the window if nothing is known about when the volume will be full, and if it is full.
const USUAL_S: f64 = 60.0;
const FULL_S: f64 = 20.0;
/// A window whose pace agrees with the estimate this much worse than the best one's is preferred if it
/// is longer: natural logarithm of a factor of 1.2.
const AGREEMENT: f64 = 0.18;
/// If processes that still run took at least [`ONGOING_AT_LEAST`] of a window that agrees, one is chosen of
/// which they took [`ONGOING_SHARE`], or else the most.
const ONGOING_SHARE: f64 = 0.75;
const ONGOING_AT_LEAST: f64 = 0.5;
/// A victim is named for this long after its last failure, seconds.
const VICTIM_S: f64 = 60.0;

/// What is remembered of a volume.
#[derive(Debug, Clone, Default)]
struct VolumeState {
    ledger: Ledger,
    /// Length of the last window that was chosen while it was filling, seconds.
    length_s: Option<f64>,
    /// The windows of bytes and inodes that led to the full volume; `None` while it is not full.
    led_to_full: Option<[Window; 2]>,
    /// Victims of the last [`VICTIM_S`], with the time since each was seen.
    victims: Vec<(Victim, f64)>,
    /// Suspects of the last [`VICTIM_S`] before it was full, with the time since each was seen.
    suspects: Vec<(Suspect, f64)>,
}

/// Concludes verdicts from consecutive Snapshots. Pure: the same Snapshots give the same verdicts,
/// live, from the service, and replayed.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    /// Keyed by mount point.
    volumes: HashMap<String, VolumeState>,
}

/// A verdict with the rows of the processes that it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Conclusion {
    /// The verdict.
    pub verdict: Verdict,
    /// The rows of the largest processes, largest first, each from an interval in which it grew.
    pub writers: Vec<Writer>,
}

impl Conclusion {
    /// The conclusion of a verdict that comes with a Snapshot. Rows of processes are taken from the
    /// Snapshot's `writers`, or from what was concluded here, if that names the same processes.
    #[must_use]
    pub fn of(verdict: &Verdict, writers: &[&Writer], own: Option<Self>) -> Self {
        let own = own.map(|own| own.writers).unwrap_or_default();
        let known = |pid: &u32| {
            let is_it = |row: &&Writer| row.pid == *pid;
            own.iter().find(is_it).or_else(|| writers.iter().copied().find(is_it)).cloned()
        };
        let pids = verdict.culprits.iter().flat_map(|culprit| &culprit.pids);
        let writers = pids.filter_map(known).take(MAX_ROWS).collect();
        Self { verdict: verdict.clone(), writers }
    }
}

impl Engine {
    /// Adds a Snapshot, and sets the verdict of each of its volumes.
    pub fn judge(&mut self, snapshot: &mut Snapshot) {
        self.add(snapshot);
        self.set_verdicts(snapshot);
    }

    fn set_verdicts(&mut self, snapshot: &mut Snapshot) {
        let mut conclusions = self.conclusions(snapshot);
        for volume in &mut snapshot.volumes {
            let concluded = conclusions.remove(&volume.mount_point);
            volume.verdict = concluded.map(|conclusion| conclusion.verdict);
        }
    }

    /// Sets the verdicts of the Snapshot that was added last again: suspects were found since.
    pub fn judge_again(&mut self, snapshot: &mut Snapshot) {
        for volume in &snapshot.volumes {
            if let Some(state) = self.volumes.get_mut(&volume.mount_point) {
                state.note_suspects(volume);
            }
        }
        self.set_verdicts(snapshot);
    }

    /// Adds a Snapshot, and returns what is concluded for each of its volumes, by mount point.
    pub fn conclude(&mut self, snapshot: &Snapshot) -> HashMap<String, Conclusion> {
        self.add(snapshot);
        self.conclusions(snapshot)
    }

    fn conclusions(&mut self, snapshot: &Snapshot) -> HashMap<String, Conclusion> {
        let mut concluded = HashMap::new();
        for volume in &snapshot.volumes {
            let Some(state) = self.volumes.get_mut(&volume.mount_point) else { continue };
            let situation = state.situation(volume);
            let victims: Vec<Victim> =
                state.victims.iter().map(|(victim, _)| victim.clone()).collect();
            let suspects = state.suspects(volume);
            let served = self.clients(snapshot, volume);
            let Some(state) = self.volumes.get_mut(&volume.mount_point) else { continue };
            let Assessment { verdict, writers, directories } = assess(
                snapshot,
                volume,
                &situation,
                &state.ledger,
                Known { victims, suspects, served: &served },
            );
            for (id, directory) in directories {
                state.ledger.set_directory(id, directory);
            }
            concluded.insert(volume.mount_point.clone(), Conclusion { verdict, writers });
        }
        concluded
    }

    fn add(&mut self, snapshot: &Snapshot) {
        self.volumes.retain(|name, _| snapshot.volumes.iter().any(|row| row.mount_point == *name));
        let mut writers: HashMap<&str, Vec<&Writer>> = HashMap::new();
        for row in &snapshot.writers {
            writers.entry(&row.volume).or_default().push(row);
        }
        for volume in &snapshot.volumes {
            let name = volume.mount_point.as_str();
            let state = self.volumes.entry(name.to_owned()).or_default();
            let here = writers.get(name).map_or(&[][..], Vec::as_slice);
            state.add(snapshot, volume, here);
        }
    }

    /// What is written to the volumes that are served or backed by something on this volume, by mount
    /// point: the largest processes of the last minute, largest first.
    fn clients(&self, snapshot: &Snapshot, volume: &Volume) -> HashMap<String, Vec<Writer>> {
        let mut clients = HashMap::new();
        for other in &snapshot.volumes {
            let is_served = other.served_by.is_some() || other.backing_file.is_some();
            if !is_served || other.mount_point == volume.mount_point {
                continue;
            }
            let Some(state) = self.volumes.get(&other.mount_point) else { continue };
            let window = state.ledger.window(USUAL_S, Resource::Bytes);
            let rows = window.taken.iter().filter(|(_, net)| *net > 0.0).take(3);
            let rows = rows.filter_map(|(id, _)| Some(state.ledger.get(*id)?.row.clone()));
            clients.insert(other.mount_point.clone(), rows.collect());
        }
        clients
    }
}

impl VolumeState {
    fn add(&mut self, snapshot: &Snapshot, volume: &Volume, writers: &[&Writer]) {
        let is_full = volume.full || volume.was_full;
        self.ledger.add(snapshot.interval_s, volume, writers);
        self.ledger.note_ended(snapshot);
        if is_full {
            let length_s = self.length_s.unwrap_or(FULL_S);
            let now = [Resource::Bytes, Resource::Inodes]
                .map(|resource| self.grown_window(length_s, resource));
            // What changes while the volume is full is not why it is full, unless it is as much.
            let replaces = self
                .led_to_full
                .as_ref()
                .is_none_or(|led| led.iter().zip(&now).any(|(led, now)| now.gains() > led.gains()));
            if replaces {
                self.led_to_full = Some(now);
            }
        } else {
            self.led_to_full = None;
        }
        self.victims.iter_mut().for_each(|(_, age_s)| *age_s += snapshot.interval_s);
        for victim in snapshot.victims.iter().filter(|row| row.volume == volume.mount_point) {
            self.victims.retain(|(known, _)| known.pid != victim.pid);
            self.victims.push((victim.clone(), 0.0));
        }
        self.victims.retain(|(_, age_s)| *age_s <= VICTIM_S);
        if !is_full {
            self.suspects.iter_mut().for_each(|(_, age_s)| *age_s += snapshot.interval_s);
            self.suspects.retain(|(_, age_s)| *age_s <= VICTIM_S);
        }
        self.note_suspects(volume);
        self.victims.sort_by(|(a, _), (b, _)| {
            b.errors.no_space().cmp(&a.errors.no_space()).then(a.pid.cmp(&b.pid))
        });
    }

    fn note_suspects(&mut self, volume: &Volume) {
        for suspect in &volume.suspects {
            self.suspects.retain(|(known, _)| known.pid != suspect.pid);
            self.suspects.push((suspect.clone(), 0.0));
        }
    }

    /// The suspects of now, or if it is full also those of before, largest first.
    fn suspects(&self, volume: &Volume) -> Vec<Suspect> {
        let mut suspects = volume.suspects.clone();
        if volume.full {
            let is_now = |one: &Suspect| volume.suspects.iter().any(|now| now.pid == one.pid);
            let earlier = self.suspects.iter().map(|(one, _)| one).filter(|one| !is_now(one));
            suspects.extend(earlier.map(|one| Suspect { gone: true, ..one.clone() }));
            suspects.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.pid.cmp(&b.pid)));
        }
        suspects
    }

    /// The window of this length, or the shortest longer one in which something grew.
    fn grown_window(&self, length_s: f64, resource: Resource) -> Window {
        let longer = LENGTHS_S.into_iter().filter(|length| *length > length_s);
        std::iter::once(length_s)
            .chain(longer)
            .map(|length| self.ledger.window(length, resource))
            .find(|window| window.gains() > 0.0)
            .unwrap_or_else(|| self.ledger.window(length_s, resource))
    }

    /// The state of the volume, its limit, and the window that led to it.
    fn situation(&mut self, volume: &Volume) -> Situation {
        let limit = limit_of(volume);
        let resource = limit.resource;
        let state = if volume.read_only || !has_limit(volume) {
            State::Calm
        } else if volume.full || volume.was_full {
            State::Full
        } else if volume.eta_s.is_some() {
            State::Filling
        } else {
            State::Calm
        };
        let window = match (state, volume.eta_s) {
            (State::Full, _) if self.led_to_full.is_some() => {
                let led = self.led_to_full.clone();
                let at = usize::from(resource == Resource::Inodes);
                led.map_or_else(|| self.grown_window(FULL_S, resource), |led| led[at].clone())
            }
            (State::Filling, Some(eta_s)) => {
                self.agreeing_window(&limit, eta_s, limited_user(volume))
            }
            _ => {
                self.length_s = None;
                self.grown_window(USUAL_S, resource)
            }
        };
        let window = match limited_user(volume) {
            Some(user) => self.ledger.of_user(window, user),
            None => window,
        };
        Situation { state, limit, window }
    }

    /// The share of what processes took in the window that was taken by those that still run, or by
    /// groups that are named as a whole and of which some process took something lately.
    fn ongoing_share(&self, window: &Window) -> f64 {
        let recent = self.ledger.window(LENGTHS_S[0], window.resource);
        let groups: HashSet<_> = recent
            .taken
            .iter()
            .filter(|(_, net)| *net > 0.0)
            .filter_map(|(id, _)| self.ledger.get(*id)?.charged_group().map(group_key))
            .collect();
        let (mut ongoing, mut all) = (0.0, 0.0);
        for candidate in candidates(window, &self.ledger) {
            let group = candidate.group().map(group_key);
            let goes_on = candidate.runs() || group.is_some_and(|group| groups.contains(&group));
            all += candidate.taken;
            ongoing += if goes_on { candidate.taken } else { 0.0 };
        }
        if all > 0.0 { ongoing / all } else { 0.0 }
    }

    /// The longest window whose pace agrees with the estimate about as well as the best one's: the
    /// growth that is shown, and the time to full, must not contradict each other.
    fn agreeing_window(&mut self, limit: &Limits, eta_s: f64, user: Option<&str>) -> Window {
        let mut windows = self.ledger.windows(&LENGTHS_S, limit.resource);
        if let Some(user) = user {
            windows = windows.into_iter().map(|it| self.ledger.of_user(it, user)).collect();
        }
        let differs = |window: &Window| {
            // Metadata has no change of its own; a clean-up and an idle volume have no pace.
            let per_s = if limit.kind == LimitKind::Metadata {
                window.gains() / window.length_s.max(1.0)
            } else {
                window.per_s().max(0.0)
            };
            if per_s > 0.0 && eta_s > 0.0 {
                (per_s * eta_s / (limit.left as f64).max(1.0)).ln().abs()
            } else {
                f64::INFINITY
            }
        };
        let best = windows.iter().map(differs).fold(f64::INFINITY, f64::min);
        let agreeing: Vec<&Window> = windows
            .iter()
            .rev()
            .filter(|window| {
                best.is_finite() && differs(window) <= best + AGREEMENT && window.gains() > 0.0
            })
            .collect();
        // Who has ended does not fill it up any more, if somebody else goes on at that pace.
        let ongoing: Vec<f64> = agreeing.iter().map(|window| self.ongoing_share(window)).collect();
        let most = ongoing.iter().copied().fold(0.0, f64::max);
        let enough = if most < ONGOING_AT_LEAST { 0.0 } else { most.min(ONGOING_SHARE) };
        let chosen = agreeing.iter().zip(&ongoing).find(|(_, share)| **share >= enough);
        match chosen.map(|(window, _)| window) {
            Some(window) => {
                self.length_s = Some(window.length_s);
                (*window).clone()
            }
            None => self.grown_window(FULL_S, limit.resource),
        }
    }
}
