use super::*;
use tracer_host::mounts;

const ID: &str = "3f1c2a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";

/// The name of the container on a host with one state file.
fn found(path: &str, content: &str) -> Option<ContainerName> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(path.replace("{ID}", ID));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content.replace("{ID}", ID)).unwrap();
    let none = || (Vec::new(), Vec::new());
    RuntimeState::new(root.path()).container(ContainerQuery { id: ID, user: None }, none)
}

fn in_pod(runtime: GroupKind, name: Option<&str>) -> Option<ContainerName> {
    let pod = Some(("shop".to_owned(), "web-7d9".to_owned(), "nginx".to_owned()));
    Some(ContainerName { runtime, name: name.map(str::to_owned), pod })
}

fn named(runtime: GroupKind, name: &str) -> Option<ContainerName> {
    Some(ContainerName { runtime, name: Some(name.to_owned()), pod: None })
}

#[test]
fn docker_names_are_in_config_v2() {
    let path = "var/lib/docker/containers/{ID}/config.v2.json";
    assert_eq!(
        found(path, r#"{"Name":"/web","Config":{"Labels":{}}}"#),
        named(GroupKind::Docker, "web")
    );
    let labels = r#"{"io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.name":"web-7d9",
            "io.kubernetes.container.name":"nginx"}"#;
    let content = format!(r#"{{"Name":"/k8s_x","Config":{{"Labels":{labels}}}}}"#);
    assert_eq!(found(path, &content), in_pod(GroupKind::Docker, Some("k8s_x")));
}

#[test]
fn containerd_names_are_in_the_bundle() {
    let path = "run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json";
    let content = r#"{"annotations":{"io.kubernetes.cri.sandbox-namespace":"shop",
            "io.kubernetes.cri.sandbox-name":"web-7d9","io.kubernetes.cri.container-name":"nginx"}}"#;
    assert_eq!(found(path, content), in_pod(GroupKind::Containerd, None));
    let path = "run/containerd/io.containerd.runtime.v2.task/default/{ID}/config.json";
    let content = r#"{"annotations":{"nerdctl/name":"web"}}"#;
    assert_eq!(found(path, content), named(GroupKind::Containerd, "web"));
}

#[test]
fn podman_and_crio_share_a_store() {
    let root = "var/lib/containers/storage/overlay-containers/containers.json";
    let user = "home/ann/.local/share/containers/storage/overlay-containers/containers.json";
    let content = r#"[{"id":"other","names":["x"]},{"id":"{ID}","names":["web"]}]"#;
    assert_eq!(found(root, content), named(GroupKind::Podman, "web"));
    assert_eq!(found(user, content), named(GroupKind::Podman, "web"));
    let name = "k8s_nginx_web-7d9_shop_5fb2_0";
    let content = format!(r#"[{{"id":"{{ID}}","names":["{name}"]}}]"#);
    assert_eq!(found(root, &content), in_pod(GroupKind::Crio, Some(name)));
    let path = "run/containers/storage/overlay-containers/{ID}/userdata/config.json";
    let content = r#"{"annotations":{"io.kubernetes.pod.namespace":"shop",
            "io.kubernetes.pod.name":"web-7d9","io.kubernetes.container.name":"nginx"}}"#;
    assert_eq!(found(path, content), in_pod(GroupKind::Crio, None));
}

#[test]
fn kubelet_names_are_in_the_log_links() {
    assert_eq!(
        found("var/log/containers/web-7d9_shop_nginx-{ID}.log", ""),
        in_pod(GroupKind::Containerd, None)
    );
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("var/log/pods/shop_web-7d9_5fb2")).unwrap();
    let mut state = RuntimeState::new(root.path());
    assert_eq!(state.pod("5fb2"), Some(("shop".to_owned(), "web-7d9".to_owned())));
    assert_eq!(state.pod("b2"), None);
}

#[test]
fn damaged_state_gives_no_name() {
    assert_eq!(found("var/lib/docker/containers/{ID}/config.v2.json", "{\"Name\":"), None);
    assert_eq!(found("etc/hostname", "x"), None);
}

/// The name of the container on a host with one state file, if the container has these mounts.
fn mounted(host: &str, own: &str, path: &str, content: &str) -> Option<ContainerName> {
    let root = tempfile::tempdir().unwrap();
    let fill = |text: &str| text.replace("{ID}", ID);
    let path = root.path().join(fill(path));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, fill(content)).unwrap();
    let mounts = || (mounts::parse(host.as_bytes()), mounts::parse(fill(own).as_bytes()));
    RuntimeState::new(root.path()).container(ContainerQuery { id: ID, user: None }, mounts)
}

const HOST: &str = "\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 7:3 / /srv/data rw - ext4 /dev/loop3 rw
";

#[test]
fn docker_is_found_wherever_its_data_root_is() {
    let own = "9 1 7:3 /dk/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/loop3 rw\n";
    let path = "srv/data/dk/containers/{ID}/config.v2.json";
    let web = r#"{"ID":"{ID}","Name":"/web"}"#;
    assert_eq!(mounted(HOST, own, path, web), named(GroupKind::Docker, "web"));
    let another = r#"{"ID":"0f1e","Name":"/postgres"}"#;
    assert_eq!(mounted(HOST, own, path, another), None, "the state of another container");
    let own = own.replace("7:3", "7:4");
    assert_eq!(mounted(HOST, &own, path, web), None, "a device that the host has not mounted");
}

#[test]
fn podman_is_found_by_the_root_of_its_container() {
    let vfs = "9 1 7:3 /st/vfs/dir/b7 / rw - ext4 /dev/loop3 rw\n";
    let overlay = "9 1 0:70 / / rw - overlay overlay rw,upperdir=/srv/data/st/overlay/b7/diff\n";
    let list = r#"[{"id":"{ID}","names":["web"]}]"#;
    let path = "srv/data/st/vfs-containers/containers.json";
    assert_eq!(mounted(HOST, vfs, path, list), named(GroupKind::Podman, "web"));
    let path = "srv/data/st/overlay-containers/volatile-containers.json";
    assert_eq!(mounted(HOST, overlay, path, list), named(GroupKind::Podman, "web"));
    assert_eq!(mounted(HOST, vfs, path, list), None);
}

#[test]
fn containerd_is_found_wherever_its_state_is() {
    let end = format!("/srv/ctd/{TASKS}/default/{ID}/rootfs");
    let host = format!("{HOST}3 1 0:70 / {end} rw - overlay overlay rw\n");
    let path = format!("srv/ctd/{TASKS}/default/{{ID}}/config.json");
    let content = r#"{"annotations":{"nerdctl/name":"web"}}"#;
    assert_eq!(mounted(&host, "", &path, content), named(GroupKind::Containerd, "web"));
    let mut state = RuntimeState::new("/nonexistent");
    let host = |name: &str| {
        mounts::parse(
            format!("3 1 0:70 / /s/{TASKS}/default/{name}/rootfs rw - overlay o rw\n").as_bytes(),
        )
    };
    assert!(!state.is_containerd_task("default", "ctrweb", || host("other")));
    state.next_interval();
    assert!(state.is_containerd_task("default", "ctrweb", || host("ctrweb")));
    assert!(!state.is_containerd_task("jobs", "ctrweb", || host("ctrweb")));
}

#[test]
fn a_users_store_names_only_that_users_containers() {
    let root = tempfile::tempdir().unwrap();
    let lists = root.path().join("home/ann/.local/share/containers/storage/overlay-containers");
    fs::create_dir_all(&lists).unwrap();
    let list = lists.join("containers.json");
    fs::write(&list, format!(r#"[{{"id":"{ID}","names":["postgres"]}}]"#)).unwrap();
    if std::os::unix::fs::chown(&list, Some(4242), None).is_err() {
        println!("SKIP a_users_store_names_only_that_users_containers: cannot give a file away");
        return;
    }
    let none = || (Vec::new(), Vec::new());
    let name =
        |user| RuntimeState::new(root.path()).container(ContainerQuery { id: ID, user }, none);
    assert_eq!(name(None), None);
    assert_eq!(name(Some(4243)), None);
    assert_eq!(name(Some(4242)), named(GroupKind::Podman, "postgres"));
}
