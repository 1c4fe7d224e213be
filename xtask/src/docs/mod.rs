//! `cargo xtask docs`: the reference pages in docs/reference/, generated from the doc comments and serde
//! attributes of the source. A unit test checks that they are up to date.

mod configuration;
mod items;
mod json;
mod keys;
mod markdown;
mod metrics;
mod serde_attributes;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use items::Items;

/// Source folders whose types are documented. Names are looked up in this order.
const SOURCES: &[&str] = &["tracer-model/src", "tracer-host/src", "tracer/src"];

/// Writes the generated pages.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    for (name, text) in generate(&workspace.root)? {
        let path = workspace.root.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&workspace.root))?;
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        println!("{}", workspace.display(&path));
    }
    Ok(())
}

/// Paths below the workspace and contents of the generated pages.
fn generate(root: &Path) -> Result<[(&'static str, String); 4]> {
    let items = Items::read(root, SOURCES)?;
    Ok([
        ("docs/reference/json.md", json::page(&items)?),
        ("docs/reference/configuration.md", configuration::page(root, &items)?),
        ("docs/reference/keys.md", keys::page(root)?),
        ("docs/reference/metrics.md", metrics::page(root)?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn generated_pages_are_up_to_date() {
        for (name, text) in generate(&root()).unwrap() {
            let present = fs::read_to_string(root().join(name)).unwrap_or_default();
            assert!(present == text, "{name} is out of date; run `cargo xtask docs`");
        }
    }

    #[test]
    fn metrics_md_explains_every_metric() {
        let text = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
        for name in metrics::names(&root()).unwrap() {
            // `filltop_volume_size_bytes`, `_used_bytes` in one row.
            let short = |at: usize| text.contains(&format!("`{}", &name[at..]));
            let known = name.match_indices('_').any(|(at, _)| short(at)) || text.contains(&*name);
            assert!(known, "docs/metrics.md does not mention {name}");
        }
    }
}
