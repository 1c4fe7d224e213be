//! Containers of real runtimes: what filltop reports about them, compared with the runtime, stat
//! and df, and what `stop` does to them.
//!
//! Each runtime is started once, with its store on a volume of its own; [`world`] has its
//! containers. If a runtime is not installed or cannot run here, each of its tests is skipped.

mod actions;
mod image;
mod measured;
mod runtime;
mod seen;
mod tools;
mod walked;
mod world;

use std::fmt;
use std::process::Command;

use anyhow::{Context as _, ensure};

type Result<T = ()> = anyhow::Result<T>;

/// The reason why a runtime is not available here.
#[derive(Debug)]
pub struct Unavailable(pub String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// Runs a command that has to succeed; returns its output.
fn succeed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {printed}{said}");
    Ok(printed)
}

/// The tests of one runtime.
macro_rules! suite {
    ($name:ident: $kind:ident: $($module:ident::{$($test:ident),* $(,)?}),* $(,)?) => {
        mod $name {
            $($(
                #[test]
                fn $test() -> crate::Result {
                    crate::world::with(crate::runtime::Kind::$kind, crate::$module::$test)
                }
            )*)*
        }
    };
}

suite!(containerd: Containerd:
    seen::{
        bytes_are_exact,
        growth_is_explained,
        the_rate_is_the_writers,
        the_group_is_named_and_has_the_sum,
        paths_are_given_as_host_and_container_see_them,
        a_held_file_has_its_container,
        its_shm_is_a_volume,
        the_text_names_the_container,
    },
    actions::{
        a_freeze_by_name_lasts_until_resume,
        other_names_are_accepted,
        the_plan_has_the_held_bytes_and_the_volume,
    },
);

suite!(cri: Cri:
    seen::{
        bytes_are_exact,
        growth_is_explained,
        the_rate_is_the_writers,
        the_group_is_named_and_has_the_sum,
        paths_are_given_as_host_and_container_see_them,
        a_held_file_has_its_container,
        a_log_belongs_to_its_container,
        its_shm_is_a_volume,
        the_text_names_the_container,
    },
    actions::{
        a_freeze_by_name_lasts_until_resume,
        other_names_are_accepted,
        the_plan_has_the_held_bytes_and_the_volume,
    },
);

suite!(docker: Docker:
    seen::{
        bytes_are_exact,
        growth_is_explained,
        the_rate_is_the_writers,
        the_group_is_named_and_has_the_sum,
        paths_are_given_as_host_and_container_see_them,
        a_held_file_has_its_container,
        a_log_belongs_to_its_container,
        its_shm_is_a_volume,
        the_text_names_the_container,
    },
    actions::{
        a_freeze_by_name_lasts_until_resume,
        other_names_are_accepted,
        the_plan_has_the_held_bytes_and_the_volume,
        a_restart_policy_is_in_the_plan,
    },
    walked::{the_documented_commands_work},
);

suite!(lxc: Lxc:
    seen::{
        bytes_are_exact,
        growth_is_explained,
        the_rate_is_the_writers,
        the_group_is_named_and_has_the_sum,
        paths_are_given_as_host_and_container_see_them,
        a_held_file_has_its_container,
        its_shm_is_a_volume,
        the_text_names_the_container,
    },
    actions::{
        a_freeze_by_name_lasts_until_resume,
        other_names_are_accepted,
        the_plan_has_the_held_bytes_and_the_volume,
    },
);

suite!(nspawn: Nspawn:
    seen::{
        bytes_are_exact,
        growth_is_explained,
        the_rate_is_the_writers,
        the_group_is_named_and_has_the_sum,
        paths_are_given_as_host_and_container_see_them,
        a_held_file_has_its_container,
        its_shm_is_a_volume,
        the_text_names_the_container,
    },
    actions::{
        a_freeze_by_name_lasts_until_resume,
        other_names_are_accepted,
        the_plan_has_the_held_bytes_and_the_volume,
    },
);

suite!(podman: Podman:
    seen::{
        bytes_are_exact,
        growth_is_explained,
        the_rate_is_the_writers,
        the_group_is_named_and_has_the_sum,
        paths_are_given_as_host_and_container_see_them,
        a_held_file_has_its_container,
        a_log_belongs_to_its_container,
        its_shm_is_a_volume,
        the_text_names_the_container,
    },
    actions::{
        a_freeze_by_name_lasts_until_resume,
        other_names_are_accepted,
        the_plan_has_the_held_bytes_and_the_volume,
        a_restart_policy_is_in_the_plan,
        an_id_that_sorts_after_its_monitor_is_frozen,
    },
    walked::{the_documented_commands_work},
);

suite!(podman_vfs: PodmanVfs:
    seen::{
        bytes_are_exact,
        growth_is_explained,
        the_group_is_named_and_has_the_sum,
        paths_are_given_as_host_and_container_see_them,
        a_held_file_has_its_container,
        a_log_belongs_to_its_container,
    },
);
