//! The limits of volumes that statvfs does not describe: the metadata of a btrfs, and quotas.

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use tracer_host::btrfs::{Btrfs, Reading};
use tracer_host::mounts::MountedVolume;
use tracer_host::qgroups;
use tracer_host::users::Users;
use tracer_kernel::quotas::{self, Quota, QuotaKind};
use tracer_model::forecast::{Limit, LimitUsage};
use tracer_model::snapshot::QuotaUse;

/// How often volumes are examined again, seconds: devices and quotas may be added.
const EXAMINE_S: f64 = 10.0;
/// How often quotas are read, seconds.
const QUOTAS_S: f64 = 2.0;
/// Filesystems with quotas of users, groups and projects.
const WITH_QUOTAS: [&str; 5] = ["ext2", "ext3", "ext4", "xfs", "f2fs"];
/// Number of such quotas that are read often, the fullest ones.
const MAX_READ: usize = 64;
/// Number of quotas of a volume that are kept, the fullest ones.
const MAX_QUOTAS: usize = 5;
/// A quota that is fuller than this may run out: it is forecast from then on.
const FORECAST_FROM: f64 = 0.5;

/// The limits of all volumes that have some, keyed by device.
#[derive(Default)]
pub(super) struct InnerLimits {
    volumes: HashMap<u32, VolumeLimits>,
    examined_s: Option<f64>,
    users: Users,
}

/// The limits of one volume.
#[derive(Default)]
pub(super) struct VolumeLimits {
    btrfs: Option<Btrfs>,
    /// Groups of a btrfs with a limit.
    groups: Vec<PathBuf>,
    /// Whose quotas are read on other filesystems: those with a limit.
    limited: Vec<(QuotaKind, u32)>,
    quotas_s: Option<f64>,
    /// How a btrfs divides its space.
    pub(super) reading: Option<Reading>,
    /// The fullest quotas, fullest first.
    pub(super) quotas: Vec<QuotaUse>,
    /// The quotas that are forecast, by name, with the last maximum.
    forecast: HashMap<String, u64>,
}

impl InnerLimits {
    /// Examines all volumes at the next sample, because the mount table has changed.
    pub(super) fn mounts_changed(&mut self) {
        self.examined_s = None;
    }

    /// Reads the limits as of `now_s`, seconds on a clock that does not step. `has_failed`: whether writes
    /// to a device have failed for lack of space or because of a quota since the last sample.
    pub(super) fn sample(
        &mut self,
        now_s: f64,
        mounted: &[MountedVolume],
        has_failed: impl Fn(u32) -> bool,
    ) {
        if self.examined_s.is_none_or(|at| now_s - at >= EXAMINE_S) {
            self.examined_s = Some(now_s);
            self.examine(mounted);
        }
        let users = &self.users;
        for (dev, limits) in &mut self.volumes {
            let volume = mounted.iter().find(|volume| volume.dev == *dev);
            limits.sample(now_s, has_failed(*dev), volume, users);
        }
    }

    /// Finds the volumes that have such limits. A btrfs that cannot be opened now keeps what is
    /// known of it.
    fn examine(&mut self, mounted: &[MountedVolume]) {
        self.volumes.retain(|dev, _| mounted.iter().any(|volume| volume.dev == *dev));
        for volume in mounted.iter().filter(|volume| volume.fs_type == "btrfs") {
            let limits = self.volumes.entry(volume.dev).or_default();
            // Opened only briefly: an open directory would keep it from being unmounted.
            if let Some(btrfs) = volume.open().ok().and_then(Btrfs::of) {
                limits.groups = qgroups::limited(btrfs.sysfs());
                limits.btrfs = Some(btrfs);
            }
        }
        self.users.refresh();
        for volume in mounted.iter().filter(|volume| WITH_QUOTAS.contains(&&*volume.fs_type)) {
            let Some(root) = volume.open_path() else { continue };
            let mut found = quotas::limited(root.as_fd());
            found.sort_by(|a, b| {
                fullness(&named(b, &self.users)).total_cmp(&fullness(&named(a, &self.users)))
            });
            if !found.is_empty() || self.volumes.contains_key(&volume.dev) {
                let limits = self.volumes.entry(volume.dev).or_default();
                limits.limited =
                    found.iter().take(MAX_READ).map(|one| (one.kind, one.id)).collect();
            }
        }
    }

    /// The limits of a volume, if it has some.
    pub(super) fn of(&self, dev: u32) -> Option<&VolumeLimits> {
        self.volumes.get(&dev)
    }
}

impl VolumeLimits {
    fn sample(
        &mut self,
        now_s: f64,
        has_failed: bool,
        volume: Option<&MountedVolume>,
        users: &Users,
    ) {
        self.reading = self.btrfs.as_ref().and_then(Btrfs::read);
        if !has_failed && self.quotas_s.is_some_and(|at| now_s - at < QUOTAS_S) {
            return;
        }
        self.quotas_s = Some(now_s);
        let mut found = qgroups::read(&self.groups);
        // Opened only briefly, as above.
        if !self.limited.is_empty()
            && let Some(root) = volume.and_then(MountedVolume::open_path)
        {
            let read = quotas::read(root.as_fd(), &self.limited);
            found.extend(read.iter().map(|quota| named(quota, users)));
        }
        self.set_quotas(found);
    }

    fn set_quotas(&mut self, mut quotas: Vec<QuotaUse>) {
        quotas
            .sort_by(|a, b| fullness(b).total_cmp(&fullness(a)).then_with(|| a.name.cmp(&b.name)));
        for quota in &quotas {
            let is_forecast = self.forecast.contains_key(&quota.name);
            if let Some(max) = quota.limit_bytes
                && (is_forecast || fullness(quota) > FORECAST_FROM)
                && (is_forecast || self.forecast.len() < MAX_QUOTAS)
            {
                self.forecast.insert(quota.name.clone(), max);
            }
        }
        self.quotas = quotas;
    }

    /// Whether a quota has next to nothing left: less than a hundredth.
    pub(super) fn has_used_up_quota(&self) -> bool {
        const USED_UP: f64 = 0.99;
        self.quotas.first().is_some_and(|quota| fullness(quota) >= USED_UP)
    }

    /// The quotas for the forecast. One that is gone is not used any more.
    pub(super) fn quota_usage(&self) -> impl Iterator<Item = LimitUsage> {
        self.forecast.iter().map(|(name, max)| {
            let quota = self.quotas.iter().find(|quota| quota.name == *name);
            let used = quota.map_or(0, |quota| quota.used_bytes);
            LimitUsage { limit: Limit::Quota(name.clone()), used, max: *max }
        })
    }

    /// The quotas for the Snapshot, fullest first.
    pub(super) fn nearest_quotas(&self) -> Vec<QuotaUse> {
        self.quotas.iter().take(MAX_QUOTAS).cloned().collect()
    }
}

/// A quota with the name that it is known by: `user deploy`, `group 33`, `project 42`.
fn named(quota: &Quota, users: &Users) -> QuotaUse {
    let user = (quota.kind == QuotaKind::User)
        .then(|| users.name(quota.id).map_or_else(|| quota.id.to_string(), str::to_owned));
    let name = match (&user, quota.kind) {
        (Some(user), _) => format!("user {user}"),
        (None, QuotaKind::Group) => format!("group {}", quota.id),
        (None, _) => format!("project {}", quota.id),
    };
    QuotaUse {
        name,
        user,
        used_bytes: quota.used_bytes,
        limit_bytes: quota.limit_bytes,
        used_inodes: quota.used_inodes,
        limit_inodes: quota.limit_inodes,
    }
}

/// The used share of the quota's nearer limit.
fn fullness(quota: &QuotaUse) -> f64 {
    let share = |used: u64, limit: Option<u64>| match limit {
        Some(limit) => used as f64 / limit.max(1) as f64,
        None => 0.0,
    };
    share(quota.used_bytes, quota.limit_bytes).max(share(quota.used_inodes, quota.limit_inodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(name: &str, used: u64, limit: u64) -> QuotaUse {
        QuotaUse {
            name: name.to_owned(),
            user: None,
            used_bytes: used,
            limit_bytes: Some(limit),
            used_inodes: 0,
            limit_inodes: None,
        }
    }

    fn forecast(limits: &VolumeLimits) -> Vec<(String, u64, u64)> {
        let row = |usage: LimitUsage| (usage.limit.to_string(), usage.used, usage.max);
        let mut rows: Vec<_> = limits.quota_usage().map(row).collect();
        rows.sort();
        rows
    }

    #[test]
    fn the_fullest_quotas_are_shown_and_those_above_half_are_forecast() {
        let mut limits = VolumeLimits::default();
        limits.set_quotas((0..20).map(|n| quota(&format!("qgroup 0/{n}"), n, 30)).collect());
        let shown = limits.nearest_quotas();
        assert_eq!(shown.len(), MAX_QUOTAS);
        assert_eq!(shown[0].name, "qgroup 0/19");
        assert_eq!(forecast(&limits).len(), 4);
        // It was cleaned up, and its limit was raised: its forecast goes on.
        limits.set_quotas(vec![quota("qgroup 0/19", 10, 60)]);
        let rows = forecast(&limits);
        assert_eq!(rows.last().unwrap(), &("quota qgroup 0/19".to_owned(), 10, 60));
        // The others are gone.
        assert!(rows[..3].iter().all(|(_, used, _)| *used == 0), "{rows:?}");
    }
}
