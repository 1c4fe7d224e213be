//! docs/reference/json.md: every object and field of the commands' JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::items::{Field, Item, Items, Shape, Variant, name_and_arguments};
use super::markdown::{bullet, head, plain, wrap};

/// A section: heading, text, and the type of the object with the file where it is.
struct Section {
    heading: &'static str,
    text: &'static str,
    root: (&'static str, &'static str),
}

const SECTIONS: &[Section] = &[
    Section {
        heading: "`filltop snapshot --json`",
        text: "One object: what was measured in one interval. `filltop replay --json` prints one such object for \
               each Snapshot of a recording.",
        root: ("Snapshot", "tracer-model/src/snapshot/mod.rs"),
    },
    Section {
        heading: "`filltop watch --json`",
        text: "One object per line and event. The sinks `webhook` (format `json`), `journald` and `exec` \
               (`FILLTOP_JSON`) send the same object.",
        root: ("Event", "tracer-model/src/alert/event.rs"),
    },
    Section {
        heading: "`filltop held --json`",
        text: "One array of these objects, largest first.",
        root: ("Held", "tracer-model/src/snapshot/mod.rs"),
    },
    Section {
        heading: "`filltop doctor --json`",
        text: "One object.",
        root: ("Report", "tracer/src/cli/doctor.rs"),
    },
    Section {
        heading: "`filltop stop --json`: the plan",
        text: "The first line. If the plan is refused, it is the only one.",
        root: ("Plan", "tracer-model/src/action/plan.rs"),
    },
    Section {
        heading: "`filltop stop --json`: the audit record",
        text: "The second line, printed before the action.",
        root: ("Audit", "tracer/src/actions/audit.rs"),
    },
    Section {
        heading: "`filltop stop --json`: the result",
        text: "The third line. With `--dry-run`, the action stopped before the last system call.",
        root: ("Outcome", "tracer/src/actions/outcome.rs"),
    },
    Section {
        heading: "`filltop resume --json`",
        text: "One object per line and resumed target.",
        root: ("Record", "tracer/src/actions/record.rs"),
    },
    Section {
        heading: "`filltop resume --list --json`",
        text: "One object per line and suspended target.",
        root: ("Listed", "tracer/src/cli/stop.rs"),
    },
    Section {
        heading: "`filltop forecast --csv FILE --json`",
        text: "One object per row of the history.",
        root: ("Line", "tracer/src/cli/forecast/mod.rs"),
    },
];

const INTRODUCTION: &str = "\
# JSON reference

Everything that filltop prints as JSON. Standard output contains nothing else; messages go to standard error.

- `\"schema\": 1` is a promise: existing fields keep their names and their meaning. New fields may be added, so
  readers must ignore fields that they do not know.
- Sizes are integers in bytes. Fields that end in `_s` are seconds, `_ms` milliseconds, `_per_s` per second.
  Shares are between 0 and 1.
- A *time* is text in RFC 3339, in UTC: `2026-11-21T14:25:49.000123Z`.
- `null` means unknown, or not applicable; it never stands for 0. A field that is marked *may be absent* is left
  out in the same cases.
- The words (written, allocated, held, victim, …) are explained in the [glossary](../glossary.md).
- A path or name is printed as it is, with JSON's own escapes. Bytes that are not UTF-8 are escaped.

`filltop check` prints no JSON: one line for monitoring plugins, with performance data.
";

/// The page.
pub(super) fn page(items: &Items) -> Result<String> {
    let mut page = head("the types in tracer-model/src and tracer/src");
    page.push_str(INTRODUCTION);
    let mut writer = Writer { items, known: BTreeSet::new(), text: String::new() };
    for section in SECTIONS {
        let (name, file) = section.root;
        let root = items.get(name, file)?;
        let _ = write!(writer.text, "\n## {}\n\n{}", section.heading, wrap(section.text, ""));
        if writer.known.insert(root.name.clone()) {
            writer.item(root, 2)?;
        } else {
            let _ = write!(
                writer.text,
                "\nThe fields are those of [{0}](#{1}).\n",
                root.name,
                anchor(&root.name)
            );
        }
    }
    page.push_str(&writer.text);
    Ok(page)
}

fn anchor(name: &str) -> String {
    name.to_lowercase()
}

struct Writer<'i> {
    items: &'i Items,
    /// Names of the types that have a heading.
    known: BTreeSet<String>,
    text: String,
}

/// The type of a value in a page.
struct Shown<'i> {
    text: String,
    nullable: bool,
    /// Types that need a heading.
    items: Vec<&'i Item>,
}

impl<'i> Writer<'i> {
    /// Writes a heading and its item, if there is none yet.
    fn heading(&mut self, item: &'i Item) -> Result<()> {
        if self.known.insert(item.name.clone()) {
            let _ = write!(self.text, "\n### {}\n\n", item.name);
            self.text.push_str(&wrap(&plain(&item.doc, self.items, &item.file, "`null`"), ""));
            self.item(item, 3)?;
        }
        Ok(())
    }

    /// Writes the fields or words of an item, then the items that they refer to.
    fn item(&mut self, item: &'i Item, level: usize) -> Result<()> {
        self.text.push('\n');
        if level == 2 && self.known.contains(&item.name) {
            // An anchor for references to the object of a command.
            let _ = write!(self.text, "<a id=\"{}\"></a>\n\n", anchor(&item.name));
        }
        let mut referred = Vec::new();
        match &item.shape {
            Shape::Struct(fields) => {
                for field in fields.iter().filter(|field| !field.serde.skip) {
                    referred.extend(self.field(item, field, 0)?);
                }
            }
            Shape::Enum(variants) => {
                if let Some(tag) = &item.serde.tag {
                    let _ = writeln!(self.text, "- **`{tag}`** (text): one of these words:");
                }
                for variant in variants {
                    referred.extend(self.variant(item, variant)?);
                }
            }
            Shape::Newtype(_) => {}
        }
        for item in referred {
            self.heading(item)?;
        }
        Ok(())
    }

    fn field(&mut self, owner: &'i Item, field: &'i Field, depth: usize) -> Result<Vec<&'i Item>> {
        let place = || format!("{}: {}.{}", owner.file, owner.name, field.name);
        let shown = self.shown(&field.ty, &owner.file).with_context(place)?;
        let none = if field.serde.may_be_absent { "absent" } else { "`null`" };
        let doc = plain(&field.doc, self.items, &owner.file, none);
        anyhow::ensure!(field.serde.flatten || !doc.is_empty(), "{}: no doc comment", place());
        let name = match field.serde.flatten {
            true => format!("the fields of {}", shown.text),
            false => {
                let null = match (shown.nullable, field.serde.may_be_absent) {
                    (_, true) => "; may be absent",
                    (true, false) => " or null",
                    (false, false) => "",
                };
                let name = field.serde.rename.as_ref().unwrap_or(&field.name);
                format!("**`{name}`** ({}{null})", shown.text)
            }
        };
        let separator = if doc.is_empty() { "" } else { ": " };
        self.text.push_str(&bullet(depth, &format!("{name}{separator}{doc}")));
        Ok(shown.items)
    }

    fn variant(&mut self, owner: &'i Item, variant: &'i Variant) -> Result<Vec<&'i Item>> {
        let word = variant.serde.word(&variant.name, owner.serde.rename_all.as_deref())?;
        let doc = plain(&variant.doc, self.items, &owner.file, "`null`");
        let depth = usize::from(owner.serde.tag.is_some());
        let mut referred = Vec::new();
        let form = match &variant.inner {
            None => format!("`{word}`"),
            Some(_) if variant.serde.untagged => "any other text".to_owned(),
            Some(ty) => {
                let shown = self.shown(ty, &owner.file)?;
                referred = shown.items;
                format!("`{{\"{word}\": …}}` with {}", shown.text)
            }
        };
        let with = if variant.fields.is_empty() { "" } else { " With:" };
        self.text.push_str(&bullet(depth, &format!("{form}: {doc}{with}")));
        for field in &variant.fields {
            referred.extend(self.field(owner, field, depth + 1)?);
        }
        Ok(referred)
    }

    fn shown(&self, ty: &syn::Type, near: &str) -> Result<Shown<'i>> {
        let of = |text: &str| Shown { text: text.to_owned(), nullable: false, items: Vec::new() };
        if let syn::Type::Tuple(tuple) = ty {
            let parts =
                tuple.elems.iter().map(|ty| self.shown(ty, near)).collect::<Result<Vec<_>>>()?;
            let text: Vec<&str> = parts.iter().map(|part| &*part.text).collect();
            return Ok(Shown {
                text: format!("array: {}", text.join(", then ")),
                nullable: false,
                items: parts.into_iter().flat_map(|part| part.items).collect(),
            });
        }
        let (name, arguments) = name_and_arguments(ty)?;
        Ok(match &*name {
            "Option" => Shown { nullable: true, ..self.shown(arguments[0], near)? },
            "Vec" | "BTreeSet" => {
                let inner = self.shown(arguments[0], near)?;
                Shown { text: format!("array of {}", plural(&inner.text)), ..inner }
            }
            "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" => of("integer"),
            "f64" => of("number"),
            "bool" => of("boolean"),
            "String" | "str" | "PathBuf" => of("text"),
            "Timestamp" => of("time"),
            _ => {
                let item = self.items.get(&name, near)?;
                match &item.shape {
                    _ if item.serde.into.as_deref() == Some("String") => of("text"),
                    Shape::Newtype(inner) => self.shown(inner, &item.file)?,
                    _ => Shown {
                        text: format!("[{name}](#{})", anchor(&name)),
                        nullable: false,
                        items: vec![item],
                    },
                }
            }
        })
    }
}

fn plural(word: &str) -> String {
    match word {
        "integer" | "number" | "text" | "time" => format!("{word}s"),
        other => other.to_owned(),
    }
}
