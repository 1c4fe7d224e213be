//! docs/reference/configuration.md: every key of filltop.toml, and the environment variables.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::items::{Field, Items, Shape, name_and_arguments};
use super::markdown::{bullet, head, plain, wrap};

/// The types of the file as it is written.
const RAW: &str = "tracer/src/config/raw.rs";
const SAMPLE: &str = "tracer/src/config/sample.toml";

const INTRODUCTION: &str = "\
# Configuration reference

`filltop watch` and `filltop check` read `--config FILE` (TOML). `filltop top` and `filltop stop` read only
`avoid`, `prefer` and `ignore` of `[guard]`, from `--config`, from `FILLTOP_CONFIG`, or from
`/etc/filltop/filltop.toml` if it exists.

- `filltop watch --print-config` prints the annotated sample that is at the end of this page.
- `filltop watch --check-config` checks a file and exits. An unknown key or value is an error, with file, line,
  column, and what was probably meant. A file with one error is rejected as a whole.
- SIGHUP makes a running `watch` read the file again ([alerts](../alerts.md#your-own-rules)).

Values:

| kind | form | examples |
|---|---|---|
| time | a number and `ms`, `s`, `m` (or `min`), `h` or `d`; a bare number is seconds | `\"500ms\"` `\"4h\"` `\"1.5d\"` |
| size | a number and `k` `M` `G` `T` or `KiB` `MiB` … (powers of 1024), or `kB` `MB` … (powers of 1000); a bare number is bytes | `\"10GiB\"` `\"500MB\"` `4096` |
| rate | a size per `s`, `m`, `h` or `d` | `\"50MB/s\"` `\"1GiB/h\"` |
| share | a percentage, or a bare number as a ratio | `\"90%\"` `0.9` |
| pattern | `*` is any text, `?` any character | `\"/srv*\"` |
";

/// Variables that the program reads, with the names of constants in the source that hold them.
const VARIABLES: &[(&str, &str)] = &[
    ("FILLTOP_CONFIG", "the configuration file of `top` and `stop` (`--config` overrides it)"),
    (
        "FILLTOP_SOCKET",
        "path of the service's socket (`--socket` overrides it). Default: `/run/filltop/filltop.sock`",
    ),
    (
        "FILLTOP_HOST_ROOT",
        "the host's root directory as filltop sees it: `/proc/1/root` in a container or in a unit that hides \
         directories. The unit, the manifests and the image set it. Default: `/`",
    ),
    (
        "FILLTOP_RUN_DIR",
        "directory for the records of suspended targets, for tests that must not see each other's. Default: \
         `/run/filltop`",
    ),
];

/// The same, for names that are not filltop's own.
const COMMON_VARIABLES: &[(&str, &str)] = &[
    ("NODE_NAME", "in a container: the host's name in all outputs (set it from `spec.nodeName`)"),
    ("NO_COLOR", "not empty: no colour (<https://no-color.org>)"),
    ("TERM", "whether the terminal has colours"),
    ("COLORFGBG", "whether its background is light"),
    ("LC_ALL", "the first that is set decides, with `LC_CTYPE` and `LANG`: UTF-8, or ASCII only"),
    (
        "TZ",
        "the time zone of `quiet` and of times on the screen, with `TZDIR`. Default: `/etc/localtime`",
    ),
    ("SUDO_USER", "the user that the audit line of `stop` names"),
    ("PATH", "where the runtime's command is looked up that stops a container (`stop --how unit`)"),
    (
        "NOTIFY_SOCKET",
        "set by systemd: where the service reports that it is ready, and its watchdog",
    ),
];

/// The page.
pub(super) fn page(root: &Path, items: &Items) -> Result<String> {
    let read = |file: &str| fs::read_to_string(root.join(file)).with_context(|| file.to_owned());
    let sample = read(SAMPLE)?;
    let mut page = head(&format!("{RAW} and {SAMPLE}"));
    page.push_str(INTRODUCTION);
    let file = items.get("File", RAW)?;
    let Shape::Struct(top) = &file.shape else { anyhow::bail!("{RAW}: File is not a struct") };
    page.push_str("\n## Top level\n\n");
    let (tables, values): (Vec<&Field>, Vec<&Field>) = top.iter().partition(|field| {
        inner(&field.ty).is_ok_and(|(_, item)| {
            items.find(&item, RAW).is_some_and(|item| matches!(item.shape, Shape::Struct(_)))
        })
    });
    for field in values {
        page.push_str(&key(items, RAW, field, &sample, None)?);
    }
    for table in tables {
        let (is_list, item) = inner(&table.ty)?;
        let item = items.get(&item, RAW)?;
        let name = table.serde.rename.as_ref().unwrap_or(&table.name);
        let heading = if is_list { format!("[[{name}]]") } else { format!("[{name}]") };
        let _ = write!(page, "\n## `{heading}`\n\n");
        page.push_str(&wrap(&described(items, RAW, table)?, ""));
        page.push('\n');
        let Shape::Struct(fields) = &item.shape else { continue };
        let section = (!is_list).then_some(heading.as_str());
        for field in fields {
            page.push_str(&key(items, &item.file, field, &sample, section)?);
        }
    }
    environment(&mut page);
    let _ = write!(page, "\n## Sample\n\n```toml\n{sample}```\n");
    Ok(page)
}

fn described(items: &Items, file: &str, field: &Field) -> Result<String> {
    ensure!(!field.doc.is_empty(), "{file}: the key `{}` has no doc comment", field.name);
    Ok(plain(&field.doc, items, file, "none"))
}

/// One key. In `section`, defaults are those of the sample.
fn key(
    items: &Items,
    file: &str,
    field: &Field,
    sample: &str,
    section: Option<&str>,
) -> Result<String> {
    let name = field.serde.rename.as_ref().unwrap_or(&field.name);
    let mut text = format!("**`{name}`** ({}", kind(items, file, &field.ty)?);
    let is_optional = field.serde.default || section.is_some() || file_default(items, file, field)?;
    if !is_optional {
        text.push_str(", required");
    }
    let _ = write!(text, "): {}", described(items, file, field)?);
    if let Some(section) = section {
        let value = in_sample(sample, section, name)
            .with_context(|| format!("{SAMPLE}: {section} has no `{name}`"))?;
        let _ = write!(text, " Default: `{value}`.");
    } else {
        let is_shown = sample.lines().any(|line| {
            let line = line.trim_start_matches(['#', ' ']);
            line.strip_prefix(&**name).is_some_and(|rest| rest.trim_start().starts_with('='))
        });
        // Keys that only a few sinks have are explained in a comment.
        ensure!(is_shown || sample.contains(&**name), "{SAMPLE} does not show `{name}`");
    }
    let mut lines = bullet(0, &text);
    for (word, doc) in words(items, file, &field.ty)? {
        lines.push_str(&bullet(1, &format!("`\"{word}\"`: {doc}")));
    }
    Ok(lines)
}

/// Whether a key may be left out because of its type, or because the whole file has defaults.
fn file_default(items: &Items, file: &str, field: &Field) -> Result<bool> {
    let whole = items.get("File", file).is_ok_and(|item| {
        matches!(&item.shape, Shape::Struct(fields) if fields.iter().any(|other| other.name == field.name))
    });
    Ok(name_and_arguments(&field.ty)?.0 == "Option" || whole)
}

/// The type below `Option`, `Vec` and `Spanned`, and whether there was a `Vec`.
fn inner(ty: &syn::Type) -> Result<(bool, String)> {
    let (name, arguments) = name_and_arguments(ty)?;
    match &*name {
        "Option" | "Spanned" => inner(arguments[0]),
        "Vec" => inner(arguments[0]).map(|(_, name)| (true, name)),
        _ => Ok((false, name)),
    }
}

/// The TOML type of a value.
fn kind(items: &Items, file: &str, ty: &syn::Type) -> Result<String> {
    let (name, arguments) = name_and_arguments(ty)?;
    Ok(match &*name {
        "Option" | "Spanned" => kind(items, file, arguments[0])?,
        "Vec" => format!("array of {}s", kind(items, file, arguments[0])?),
        "BTreeMap" => "table of texts".to_owned(),
        "String" | "Text" | "PathBuf" | "Pattern" => "text".to_owned(),
        "Number" => "text or number".to_owned(),
        "Seconds" => "time".to_owned(),
        "bool" => "boolean".to_owned(),
        "f64" => "number".to_owned(),
        "u32" | "u64" => "integer".to_owned(),
        "Quiet" => "text, or array of texts".to_owned(),
        _ => {
            items.get(&name, file)?;
            "word".to_owned()
        }
    })
}

/// The words of an enum, with their meaning.
fn words(items: &Items, file: &str, ty: &syn::Type) -> Result<Vec<(String, String)>> {
    let (_, name) = inner(ty)?;
    let Some(item) = items.find(&name, file).filter(|item| !item.serde.untagged) else {
        return Ok(Vec::new());
    };
    let Shape::Enum(variants) = &item.shape else { return Ok(Vec::new()) };
    let rename_all = item.serde.rename_all.as_deref();
    let words = variants.iter().map(|variant| {
        let word = variant.serde.word(&variant.name, rename_all)?;
        ensure!(!variant.doc.is_empty(), "{}: the word `{word}` has no doc comment", item.file);
        Ok((word, plain(&variant.doc, items, &item.file, "none")))
    });
    words.collect()
}

/// The value that the sample shows for a key of a section.
fn in_sample(sample: &str, section: &str, key: &str) -> Option<String> {
    let lines = sample.lines().map(|line| line.trim_start_matches('#'));
    let in_section = lines.skip_while(|line| *line != section).skip(1);
    for line in in_section.take_while(|line| !line.starts_with('[')) {
        let Some((name, value)) = line.split_once('=') else { continue };
        if name.trim() == key {
            return Some(value.split("  #").next().unwrap_or(value).trim().to_owned());
        }
    }
    None
}

fn environment(page: &mut String) {
    page.push_str("\n## Environment variables\n\n");
    for (name, meaning) in VARIABLES.iter().chain(COMMON_VARIABLES) {
        page.push_str(&bullet(0, &format!("**`{name}`**: {meaning}")));
    }
    let others = "Programs that the sinks `exec` and `mail` start get their own variables, `FILLTOP_EVENT` and \
                  others: see [alerts](../alerts.md#where-alerts-go). Variables of the build and the tests are in \
                  [building](../building.md).";
    let _ = write!(page, "\n{}", wrap(others, ""));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_values_are_found() {
        let sample = "#[guard]\n#share = 0.8    # of the growth\n#for = \"10s\"\n#[[x]]\n#y = 1\n";
        assert_eq!(in_sample(sample, "[guard]", "share").as_deref(), Some("0.8"));
        assert_eq!(in_sample(sample, "[guard]", "for").as_deref(), Some("\"10s\""));
        assert_eq!(in_sample(sample, "[guard]", "y"), None);
    }

    /// `env = "FILLTOP_…"`, `var_os("FILLTOP_…")` and constants named `…VAR`.
    #[test]
    fn every_variable_of_the_program_is_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut folders: Vec<_> = ["tracer/src", "tracer-host/src", "tracer-kernel/src"]
            .map(|name| root.join(name))
            .to_vec();
        let mut found = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let source = fs::read_to_string(&path).unwrap_or_default();
                let source = source.split("#[cfg(test)]").next().unwrap_or_default();
                for start in [", env = \"", "var_os(\"", "var(\"", "VAR: &str = \""] {
                    for (at, _) in source.match_indices(start) {
                        let name = source[at + start.len()..].split('"').next().unwrap_or_default();
                        let mut all = VARIABLES.iter().chain(COMMON_VARIABLES);
                        let is_known = all.any(|(known, meaning)| {
                            *known == name || meaning.contains(&format!("`{name}`"))
                        });
                        // The build's, and what systemd sets for every unit.
                        let is_other = ["INVOCATION_ID"].contains(&name);
                        assert!(is_known || is_other, "{}: {name}", path.display());
                        found += 1;
                    }
                }
            }
        }
        assert!(found >= VARIABLES.len(), "only {found} variables found");
    }
}
