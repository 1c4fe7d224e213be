//! The owner of a volume: the container whose shared memory it is, or the pod whose persistent
//! volume it is. Derived from the volume's mount point on the host.

use std::path::Path;

use tracer_model::snapshot::{Group, GroupKind, Pod};

use super::Groups;
use super::logs::LogOwner;
use tracer_host::mounts::MountedVolume;

/// The owner of a volume, with the names that go with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// The container or pod that it belongs to.
    pub container: Option<Group>,
    /// Name of the persistent volume in Kubernetes.
    pub persistent_volume: Option<String>,
    /// Shown in texts instead of the mount point.
    pub label: Option<String>,
}

/// The owner of a volume, as its mount point on the host shows it.
#[derive(Debug, PartialEq, Eq)]
enum MountPointOwner<'a> {
    /// /dev/shm of a container, by the container's id.
    Shm(&'a str),
    /// A volume of a pod: the pod's UID, kubelet's plugin, the volume's name.
    Pod { uid: &'a str, plugin: &'a str, name: &'a str },
}

impl Groups {
    /// The owner of a volume; all fields are `None` for an ordinary volume.
    pub fn owner(&mut self, volume: &MountedVolume) -> Owner {
        if let Some(inside) = &volume.container {
            return Owner {
                container: Some(inside.group.clone()),
                label: Some(volume.primary().mount_point.display().to_string()),
                ..Owner::default()
            };
        }
        let point = &volume.primary().mount_point;
        match point.to_str().and_then(parse_mount_point) {
            Some(MountPointOwner::Shm(id)) => {
                let Some(group) = self.container_of(&LogOwner::Container(id.to_owned())) else {
                    return Owner::default();
                };
                // The pause container holds the shared memory of its pod.
                let name = group.pod.as_ref().map_or_else(|| group.name.clone(), Pod::full_name);
                let label = Some(format!("{name}:/dev/shm"));
                Owner { container: Some(group), label, ..Owner::default() }
            }
            Some(MountPointOwner::Pod { uid, plugin, name }) => {
                let pod = self.pod(uid);
                let whose = pod.as_ref().map(Pod::full_name);
                let container = pod.map(|pod| Group {
                    kind: GroupKind::Pod,
                    name: pod.full_name(),
                    pod: Some(pod),
                    ..Group::default()
                });
                Owner {
                    container,
                    label: Some(
                        whose.map_or_else(|| name.to_owned(), |pod| format!("{pod}:{name}")),
                    ),
                    persistent_volume: is_persistent(plugin).then(|| name.to_owned()),
                }
            }
            None => Owner::default(),
        }
    }
}

/// Parses a mount point. Podman: `…-containers/ID/userdata/shm`. Docker:
/// `containers/ID/mounts/shm`. containerd's CRI: `sandboxes/ID/shm`. kubelet:
/// `pods/UID/volumes/PLUGIN/NAME`, with `/mount` at the end for CSI.
fn parse_mount_point(point: &str) -> Option<MountPointOwner<'_>> {
    let parts: Vec<&str> = Path::new(point).iter().filter_map(|part| part.to_str()).collect();
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match *parts {
        [.., _, id, "userdata" | "mounts", "shm"] | [.., "sandboxes", id, "shm"] if is_id(id) => {
            Some(MountPointOwner::Shm(id))
        }
        [.., "pods", uid, "volumes", plugin, name, "mount"]
        | [.., "pods", uid, "volumes", plugin, name]
            if plugin.starts_with("kubernetes.io~") =>
        {
            Some(MountPointOwner::Pod { uid, plugin, name })
        }
        _ => None,
    }
}

/// Whether a volume of this plugin outlives its pod.
fn is_persistent(plugin: &str) -> bool {
    !matches!(
        plugin.trim_start_matches("kubernetes.io~"),
        "empty-dir" | "projected" | "secret" | "configmap" | "downward-api" | "git-repo"
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ID: &str = "3f1c2a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";
    const UID: &str = "5fb2a3c4-d5e6-4789-8abc-0123456789ab";

    #[rstest]
    #[case("/var/lib/containers/storage/overlay-containers/{ID}/userdata/shm")]
    #[case("/var/lib/docker/containers/{ID}/mounts/shm")]
    #[case("/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{ID}/shm")]
    fn shared_memory_belongs_to_its_container(#[case] point: &str) {
        assert_eq!(parse_mount_point(&point.replace("{ID}", ID)), Some(MountPointOwner::Shm(ID)));
    }

    #[rstest]
    #[case("kubernetes.io~csi/pvc-7c1/mount", "pvc-7c1", true)]
    #[case("kubernetes.io~nfs/pv-nfs", "pv-nfs", true)]
    #[case("kubernetes.io~empty-dir/cache", "cache", false)]
    fn a_pods_volume_has_its_name(#[case] rest: &str, #[case] name: &str, #[case] lasts: bool) {
        let point = format!("/var/lib/kubelet/pods/{UID}/volumes/{rest}");
        let Some(MountPointOwner::Pod { uid, plugin, name: found }) = parse_mount_point(&point)
        else {
            panic!("{point}")
        };
        assert_eq!((uid, found, is_persistent(plugin)), (UID, name, lasts));
    }

    #[rstest]
    #[case("/dev/shm")]
    #[case("/srv/userdata/shm")]
    #[case("/srv/{ID}/shm")]
    #[case("/srv/pods/x/volumes/other/name")]
    #[case("/")]
    fn other_volumes_have_no_owner(#[case] point: &str) {
        assert_eq!(parse_mount_point(&point.replace("{ID}", ID)), None);
    }
}
