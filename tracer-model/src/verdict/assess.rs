//! Makes the verdict of one volume from its window.

use std::collections::{BTreeMap, HashMap};

use super::ledger::{GroupKey, Ledger, Member, group_key};
use super::limits::Limits;
use super::window::{MemberId, Window};
use super::{behalf, directory, reclaim, suggestion, text};
use crate::action::protect;
use crate::snapshot::{
    Blind, Culprit, Group, LimitKind, MAX_CULPRITS, MAX_PIDS, MAX_SUSPECTS, NoSuggestion, Resource,
    Snapshot, State, Suspect, Verdict, Victim, Volume, Writer,
};

/// A process or group with less than this share is not a culprit...
const MIN_SHARE: f64 = 0.05;
/// ... unless no other one has more: then the first is named all the same.
const NAMED_AT_LEAST: usize = 1;
/// A group is named instead of its processes if the largest of them has less than this part of it.
const GROUP_PART: f64 = 0.5;
/// Above this share of unexplained growth, no process is named a culprit of it.
const MOSTLY_UNEXPLAINED: f64 = 0.5;
/// Unexplained changes below this are a filesystem's own housekeeping (journals, chunks): bytes, and
/// inodes.
const HOUSEKEEPING: [f64; 2] = [8.0 * 1024.0 * 1024.0, 100.0];
/// A group whose processes have all ended has ended if none has written for this long, seconds.
const GROUP_ENDED_S: f64 = 10.0;
/// A culprit with at least this share is not listed among the victims as well.
const MAIN_SHARE: f64 = 0.25;
/// Maximum number of rows of processes.
pub(super) const MAX_ROWS: usize = 3;

/// What a verdict is made for.
pub(super) struct Situation {
    pub(super) state: State,
    pub(super) limit: Limits,
    pub(super) window: Window,
}

/// What is known of a volume besides its window.
pub(super) struct Known<'k> {
    /// The victims of the last minute.
    pub(super) victims: Vec<Victim>,
    /// Processes with files open or mapped there, largest first.
    pub(super) suspects: Vec<Suspect>,
    /// The processes that write to volumes that something on this one serves or backs, by mount point.
    pub(super) served: &'k HashMap<String, Vec<Writer>>,
}

/// A verdict, the rows of the processes that it names, and the directories that they were found to
/// fill.
pub(super) struct Assessment {
    pub(super) verdict: Verdict,
    pub(super) writers: Vec<Writer>,
    pub(super) directories: Vec<(MemberId, String)>,
}

/// A process or group with what it took.
pub(super) struct Candidate<'l> {
    /// Largest first.
    members: Vec<(MemberId, &'l Member, f64)>,
    pub(super) taken: f64,
    is_group: bool,
}

impl Candidate<'_> {
    /// The group, if it is named as a whole.
    pub(super) fn group(&self) -> Option<&Group> {
        self.members.first().filter(|_| self.is_group)?.1.charged_group()
    }

    /// Whether one of its processes still runs.
    pub(super) fn runs(&self) -> bool {
        self.members.iter().any(|(_, member, _)| member.row.alive)
    }
}

/// Makes the verdict of `volume`.
pub(super) fn assess(
    snapshot: &Snapshot,
    volume: &Volume,
    situation: &Situation,
    ledger: &Ledger,
    known: Known<'_>,
) -> Assessment {
    let Known { victims, mut suspects, served } = known;
    let Situation { state, limit, window, .. } = situation;
    let gains = window.gains();
    let share = |taken: f64| if gains > 0.0 { (taken / gains).clamp(0.0, 1.0) } else { 0.0 };
    let candidates = candidates(window, ledger);
    let mut directories = Vec::new();
    let mut culprits = Vec::new();
    let mut writers = Vec::new();
    for candidate in &candidates {
        let of_all = share(candidate.taken);
        let is_named = of_all >= MIN_SHARE || culprits.len() < NAMED_AT_LEAST;
        if culprits.len() == MAX_CULPRITS || !is_named {
            break;
        }
        let found = directory::of(snapshot, volume, &candidate.members, limit.resource);
        if let (Some(found), Some((id, ..))) = (&found, candidate.members.first()) {
            directories.push((*id, found.clone()));
        }
        let remembered =
            candidate.members.iter().find_map(|(_, member, _)| member.directory.clone());
        culprits.push(culprit(snapshot, candidate, window, of_all, found.or(remembered)));
        writers.extend(candidate.members.iter().map(|(_, member, _)| member.row.clone()));
    }
    writers.truncate(MAX_ROWS);
    for culprit in &mut culprits {
        culprit.on_behalf_of =
            behalf::of(snapshot, volume, culprit, &candidates_rows(&candidates), served);
    }
    let named: f64 = culprits.iter().map(|culprit| culprit.share).sum();
    let unexplained_share = (gains > 0.0).then(|| share(window.unattributed().max(0.0)));
    let others_share =
        if gains > 0.0 { (1.0 - named - unexplained_share.unwrap_or(0.0)).max(0.0) } else { 0.0 };
    let hides_most = hides_most(volume, window, unexplained_share);
    suspects.truncate(if hides_most { MAX_SUSPECTS } else { 0 });
    // Who took little of it and fails now is a victim, too, and so is a process of a group that is to
    // blame as a whole.
    let main = culprits.iter().filter(|culprit| culprit.share >= MAIN_SHARE && !culprit.is_group);
    let pids: Vec<u32> = main.flat_map(|culprit| culprit.pids.iter().copied()).collect();
    let (own, others): (Vec<_>, Vec<_>) =
        victims.into_iter().partition(|victim| pids.contains(&victim.pid));
    // If nobody else fails, it is said that the culprits do.
    let victims = if others.is_empty() { own } else { others };
    // The visible writers are not the ones that fill the volume.
    let mut others_share = others_share;
    if hides_most {
        culprits.clear();
        writers.clear();
        others_share += named;
    }
    let per_s = if limit.kind == LimitKind::Metadata { 0.0 } else { window.per_s() };
    let mut verdict = Verdict {
        state: *state,
        limit: limit.kind,
        resource: limit.resource,
        left: limit.left,
        window_s: window.length_s,
        per_s,
        pace_s: volume
            .pace_s
            .filter(|_| volume.limit == limit.kind)
            .or((per_s > 0.0).then(|| limit.left as f64 / per_s)),
        eta_s: volume.eta_s,
        eta_lo_s: volume.eta_lo_s,
        eta_hi_s: volume.eta_hi_s,
        reason: volume.no_eta.map(|reason| reason.to_string()),
        culprits,
        others_share,
        unexplained_share,
        mostly_unexplained: hides_most,
        suspects,
        victims,
        reclaim: Vec::new(),
        suggestion: None,
        no_suggestion: None,
        why_no_suggestion: None,
        summary: String::new(),
    };
    conclude(snapshot, volume, &mut verdict);
    Assessment { verdict, writers, directories }
}

/// Adds what can be freed, the next step, and the sentence to a verdict.
pub(super) fn conclude(snapshot: &Snapshot, volume: &Volume, verdict: &mut Verdict) {
    verdict.reclaim = reclaim::of(snapshot, volume, verdict);
    match suggestion::next_step(snapshot, volume, verdict) {
        Ok(next) => verdict.suggestion = Some(next),
        Err(why) => {
            verdict.no_suggestion = Some(why);
            if why != NoSuggestion::NotNeeded {
                verdict.why_no_suggestion = Some(text::why_no_suggestion(why, verdict));
            }
        }
    }
    verdict.summary = text::summary(volume, verdict);
}

/// Whether so much is unexplained that no visible process may be blamed.
fn hides_most(volume: &Volume, window: &Window, unexplained_share: Option<f64>) -> bool {
    let enough = HOUSEKEEPING[usize::from(window.resource == Resource::Inodes)];
    let by_window = unexplained_share.is_some_and(|share| share > MOSTLY_UNEXPLAINED)
        && window.unattributed() >= enough;
    let is_blind = window.resource == Resource::Bytes
        && volume.blind.is_some_and(|blind| Blind::hides_most(&blind));
    by_window || is_blind
}

/// The processes that took something, and the groups that are to be named instead of their processes;
/// largest first.
pub(super) fn candidates<'l>(window: &Window, ledger: &'l Ledger) -> Vec<Candidate<'l>> {
    let mut groups: BTreeMap<GroupKey, Vec<(MemberId, &Member, f64)>> = BTreeMap::new();
    let mut candidates = Vec::new();
    for (id, taken) in window.taken.iter().filter(|(_, taken)| *taken > 0.0) {
        let Some(member) = ledger.get(*id) else { continue };
        match member.charged_group() {
            Some(group) => groups.entry(group_key(group)).or_default().push((*id, member, *taken)),
            None => candidates.push(Candidate {
                members: vec![(*id, member, *taken)],
                taken: *taken,
                is_group: false,
            }),
        }
    }
    for members in groups.into_values() {
        let taken: f64 = members.iter().map(|(_, _, taken)| taken).sum();
        let singles = members.iter().filter(|(_, member, _)| !member.is_rest);
        let largest = singles.map(|(_, _, taken)| *taken).fold(0.0, f64::max);
        let are_several = members.len() > 1 || members.iter().any(|(_, member, _)| member.is_rest);
        if are_several && largest < GROUP_PART * taken {
            candidates.push(Candidate { members, taken, is_group: true });
        } else {
            candidates.extend(members.into_iter().map(|member| Candidate {
                taken: member.2,
                is_group: member.1.is_rest,
                members: vec![member],
            }));
        }
    }
    let first_id = |candidate: &Candidate<'_>| candidate.members.first().map(|(id, ..)| *id);
    candidates
        .sort_by(|a, b| b.taken.total_cmp(&a.taken).then_with(|| first_id(a).cmp(&first_id(b))));
    candidates
}

fn candidates_rows<'l>(candidates: &[Candidate<'l>]) -> Vec<&'l Member> {
    candidates.iter().flat_map(|one| one.members.iter().map(|(_, member, _)| *member)).collect()
}

fn culprit(
    snapshot: &Snapshot,
    candidate: &Candidate<'_>,
    window: &Window,
    share: f64,
    directory: Option<String>,
) -> Culprit {
    let first = candidate.members[0].1;
    let group = first.charged_group().cloned();
    let mut pids: Vec<u32> = Vec::new();
    for (_, member, _) in &candidate.members {
        if !pids.contains(&member.row.pid) {
            pids.push(member.row.pid);
        }
    }
    let known = group.as_ref().and_then(|group| rolled_up(snapshot, &first.row.volume, group));
    let processes = match (&known, candidate.is_group) {
        (Some(row), true) => row.processes.max(pids.len() as u64),
        _ => pids.len() as u64,
    };
    // A group goes on with processes that have not written yet: workers that live for a second.
    let goes_on = known.as_ref().is_some_and(|row| {
        let silent_s = snapshot.taken_at.duration_since(row.last_seen).as_secs_f64();
        candidate.is_group && !row.empty && (row.alive > 0 || silent_s < GROUP_ENDED_S)
    });
    let ended = !goes_on && candidate.members.iter().all(|(_, member, _)| !member.row.alive);
    pids.truncate(MAX_PIDS);
    let directory = match known {
        Some(row) if candidate.is_group => row.directory.clone().or(directory),
        _ => directory,
    };
    let any =
        |is: fn(&Writer) -> bool| candidate.members.iter().any(|(_, member, _)| is(&member.row));
    let mut culprit = Culprit {
        target: None,
        pids,
        processes,
        comm: first.row.comm.clone(),
        start_time: first.row.start_time,
        group,
        is_group: candidate.is_group,
        directory,
        resource_per_s: candidate.taken / window.length_s.max(1e-3),
        resource: window.resource,
        share,
        on_behalf_of: None,
        ended,
        protected: any(|row| {
            row.pid <= 1
                || protect::is_kernel_thread(row)
                || protect::is_protected_name(&row.comm, row.cmdline.as_deref())
        }),
        database: any(|row| protect::matching_rule(protect::DATABASES, &row.comm).is_some()),
        writer_group: first.behalf.as_ref().and(first.row.group.clone()),
    };
    culprit.target = suggestion::target(&culprit, first.behalf.is_some());
    culprit
}

fn rolled_up<'s>(
    snapshot: &'s Snapshot,
    volume: &str,
    group: &Group,
) -> Option<&'s crate::snapshot::GroupRow> {
    let key = group_key(group);
    snapshot.groups.iter().find(|row| row.volume == volume && group_key(&row.group) == key)
}
