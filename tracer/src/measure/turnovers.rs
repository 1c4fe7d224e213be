//! Tells directories that stay from those that come and go, for each volume.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::SystemTime;

use tracer_host::mounts::MountedVolume;
use tracer_host::{clock, file_facts, host_root};
use tracer_model::tree::{Birth, Tree, Turnover};

use super::space_sampler;

/// The memory of each volume's directories, keyed by device.
#[derive(Default)]
pub(super) struct Turnovers {
    volumes: HashMap<u32, Turnover>,
}

impl Turnovers {
    /// Ends an interval of `interval_s` seconds: these devices are watched.
    pub(super) fn watch(&mut self, devices: &HashSet<u32>, interval_s: f64) {
        self.volumes.retain(|dev, _| devices.contains(dev));
        let began_s = clock::boottime_s() - interval_s;
        for dev in devices {
            self.volumes.entry(*dev).or_insert_with(|| Turnover::since(began_s));
        }
    }

    /// The directories of the volume that only pass, by path from its mount point.
    pub(super) fn passing(
        &mut self,
        volume: &MountedVolume,
        tree: &Tree,
        interval_s: f64,
    ) -> HashSet<Vec<u8>> {
        let Some(turnover) = self.volumes.get_mut(&volume.dev) else {
            return HashSet::new();
        };
        let now_s = clock::boottime_s();
        turnover.observe(now_s, interval_s, tree, |path| birth(volume, path, now_s));
        turnover.passing()
    }
}

/// When a directory was created; `path` is relative to the volume's mount point, or to the root if
/// it is below another one.
fn birth(volume: &MountedVolume, path: &[u8], now_s: f64) -> Birth {
    let relative = Path::new(OsStr::from_bytes(path));
    // The host cannot look into a container's memory filesystem, and an unknown path has a `?`.
    if volume.container.is_some() || relative.starts_with("?") {
        return Birth::Unknown;
    }
    let may_wait = space_sampler::can_sample(&volume.fs_type);
    let below = |base: &Path| file_facts::look_up(&host_root::path(&base.join(relative)), may_wait);
    let path = volume.primary().mount_point.join(relative);
    if volume.hidden_by(&path).is_some() {
        return Birth::Unknown;
    }
    if is_of_container(&path) {
        return Birth::At(f64::NEG_INFINITY);
    }
    let mut found = below(&volume.primary().mount_point);
    let is_nowhere = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    if volume.mounts.len() > 1 && found.as_ref().is_err_and(is_nowhere) {
        found = below(Path::new("/"));
    }
    match found {
        Ok(facts) => facts.born.map_or(Birth::Unknown, |born| {
            let age = SystemTime::now().duration_since(born).unwrap_or_default();
            Birth::At(now_s - age.as_secs_f64())
        }),
        Err(error) if is_nowhere(&error) => Birth::Gone,
        Err(_) => Birth::Unknown,
    }
}

/// Whether it is the directory of one container or layer, which docker and podman name by an id. It is the
/// useful level however new it is: others beside it are other containers'.
fn is_of_container(path: &Path) -> bool {
    let name = |path: &Path| path.file_name().and_then(OsStr::to_str).map(str::to_owned);
    let is_id = name(path).is_some_and(|name| {
        name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    let above = path.parent().and_then(name);
    let is_store = |name: &str| matches!(name, "overlay2" | "overlay" | "containers");
    is_id && above.is_some_and(|above| is_store(&above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_container_is_known_by_its_id() {
        let id = "d771c0ffee00000000000000000000000000000000000000000000000000aaaa";
        let is = |path: String| is_of_container(Path::new(&path));
        assert!(is(format!("/var/lib/docker/overlay2/{id}")));
        assert!(is(format!("/var/lib/docker/containers/{id}")));
        assert!(is(format!("/var/lib/containers/storage/overlay/{id}")));
        assert!(!is(format!("/var/lib/docker/overlay2/{id}/diff")));
        assert!(!is(format!("/var/lib/docker/overlay2/{id}-init")));
        assert!(!is("/var/lib/docker/overlay2/l".to_owned()));
        assert!(!is(format!("/srv/.minio.sys/multipart/{id}")), "an upload");
    }
}
