//! Which modules may import which: reads every module of the workspace and fails on a cycle between
//! modules, or on an import in a forbidden direction. docs/architecture.md has the picture.
//!
//! A module is a file. Items under `#[cfg(test)]` are left out, because tests may use anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Crates with their source folders, relative to the workspace.
const CRATES: &[(&str, &str)] = &[
    ("tracer", "tracer/src"),
    ("tracer_common", "tracer-common/src"),
    ("tracer_ebpf", "tracer-ebpf/src"),
    ("tracer_host", "tracer-host/src"),
    ("tracer_kernel", "tracer-kernel/src"),
    ("tracer_model", "tracer-model/src"),
    ("xtask", "xtask/src"),
];

/// What may not be imported: (from, to). Each covers the module and all below it.
const FORBIDDEN: &[(&str, &str)] = &[
    // The model does not access the machine: it is replayed and tested without one.
    ("tracer_model", "tracer_host"),
    ("tracer_model", "tracer_kernel"),
    ("tracer_model", "tracer_common"),
    // Siblings: either can be used without the other.
    ("tracer_host", "tracer_kernel"),
    ("tracer_kernel", "tracer_host"),
    // Code that shows a Snapshot takes it from the model.
    ("tracer::output", "tracer_kernel"),
    ("tracer::tui", "tracer_kernel"),
    // Code that runs without a screen does not depend on one.
    ("tracer::actions", "tracer::tui"),
    ("tracer::service", "tracer::tui"),
    // A configuration is plain data; sinks are built from it.
    ("tracer::config", "tracer::alerting"),
];

/// Only this module and those below it may import it.
const PRIVATE: &[&str] = &["tracer::cli"];

/// From a module to the modules it imports, each with the names it takes from there.
type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All modules of the workspace that are not tests: path → source.
fn modules() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, folder) in CRATES {
        let root = workspace().join(folder);
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let source = fs::read_to_string(&path).unwrap();
                    found.insert(module_of(name, path.strip_prefix(&root).unwrap()), source);
                }
            }
        }
    }
    found
}

/// `tracer` and `tui/rows/mod.rs` → `tracer::tui::rows`.
fn module_of(name: &str, file: &Path) -> String {
    let mut parts = vec![name.to_owned()];
    parts.extend(file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()));
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts.join("::")
}

/// Collects the absolute paths that a file names.
struct Paths<'a> {
    module: &'a str,
    found: BTreeSet<Vec<String>>,
    /// Modules declared under `#[cfg(test)]`.
    tests: BTreeSet<String>,
}

impl Paths<'_> {
    /// Records a path if it starts in this workspace.
    fn add(&mut self, segments: &[String]) {
        let Some(first) = segments.first() else { return };
        let own: Vec<&str> = self.module.split("::").collect();
        let mut rest = &segments[1..];
        let mut base: Vec<String> = match first.as_str() {
            "crate" => vec![own[0].to_owned()],
            "self" => own.iter().map(|part| (*part).to_owned()).collect(),
            "super" => own[..own.len() - 1].iter().map(|part| (*part).to_owned()).collect(),
            name if CRATES.iter().any(|(known, _)| *known == name) => vec![name.to_owned()],
            _ => return,
        };
        while rest.first().is_some_and(|segment| segment == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend(rest.iter().cloned());
        self.found.insert(base);
    }

    fn add_tree(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_tree(&path.tree, prefix);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                for item in &group.items {
                    self.add_tree(item, prefix);
                }
            }
            syn::UseTree::Name(syn::UseName { ident })
            | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                let mut whole = prefix.clone();
                if ident != "self" {
                    whole.push(ident.to_string());
                }
                self.add(&whole);
            }
            syn::UseTree::Glob(_) => self.add(&prefix.clone()),
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let is_cfg_test = |attribute: &syn::Attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    };
    attributes.iter().any(is_cfg_test)
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_test(&item.attrs) {
            self.tests.insert(format!("{}::{}", self.module, item.ident));
        } else {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.add_tree(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.add(&segments);
        }
        visit::visit_path(self, path);
    }
}

fn imports(modules: &BTreeMap<String, String>) -> Imports {
    let mut imports = Imports::new();
    let mut tests = BTreeSet::new();
    for (module, source) in modules {
        let file = syn::parse_file(source).unwrap_or_else(|error| panic!("{module}: {error}"));
        let mut paths = Paths { module, found: BTreeSet::new(), tests: BTreeSet::new() };
        paths.visit_file(&file);
        tests.append(&mut paths.tests);
        let targets = imports.entry(module.clone()).or_default();
        for path in paths.found {
            let known = |length: &usize| modules.contains_key(&path[..*length].join("::"));
            let Some(length) = (1..=path.len()).rev().find(known) else { continue };
            let target = path[..length].join("::");
            // A module that is imported as such is imported by the names that are used through it.
            let is_own_child = length == path.len()
                && target.rsplit_once("::").map(|(parent, _)| parent) == Some(module);
            if target != *module && !is_own_child {
                let name = path.get(length).cloned().unwrap_or_default();
                targets.entry(target).or_default().insert(name);
            }
        }
    }
    let is_test = |module: &String| tests.iter().any(|test| covers(test, module));
    imports.retain(|module, _| !is_test(module));
    for targets in imports.values_mut() {
        targets.retain(|module, _| !is_test(module));
    }
    imports
}

/// Whether `module` is `folder`, or below it.
fn covers(folder: &str, module: &str) -> bool {
    module.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Groups of modules that import each other (Tarjan's strongly connected components of two or more).
fn cycles(imports: &Imports) -> Vec<Vec<String>> {
    struct Search<'a> {
        imports: &'a Imports,
        index: BTreeMap<&'a str, usize>,
        low: BTreeMap<&'a str, usize>,
        stack: Vec<&'a str>,
        found: Vec<Vec<String>>,
    }
    impl<'a> Search<'a> {
        fn visit(&mut self, module: &'a str) {
            let number = self.index.len();
            self.index.insert(module, number);
            self.low.insert(module, number);
            self.stack.push(module);
            for target in self.imports.get(module).into_iter().flat_map(BTreeMap::keys) {
                if !self.index.contains_key(target.as_str()) {
                    self.visit(target);
                    let low = self.low[module].min(self.low[target.as_str()]);
                    self.low.insert(module, low);
                } else if self.stack.contains(&target.as_str()) {
                    let low = self.low[module].min(self.index[target.as_str()]);
                    self.low.insert(module, low);
                }
            }
            if self.low[module] == number {
                let start = self.stack.iter().position(|other| *other == module).unwrap();
                let group = self.stack.split_off(start);
                if group.len() > 1 {
                    self.found.push(group.into_iter().map(str::to_owned).collect());
                }
            }
        }
    }
    let mut search = Search {
        imports,
        index: BTreeMap::new(),
        low: BTreeMap::new(),
        stack: Vec::new(),
        found: Vec::new(),
    };
    for module in imports.keys() {
        if !search.index.contains_key(module.as_str()) {
            search.visit(module);
        }
    }
    search.found
}

/// All violations, one each: cycles with the imports that form them, and forbidden imports.
fn violations(imports: &Imports) -> Vec<String> {
    let mut violations = Vec::new();
    for cycle in cycles(imports) {
        let mut text = format!("cycle between {}:", cycle.join(", "));
        for module in &cycle {
            for (target, names) in &imports[module] {
                if cycle.contains(target) {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    text.push_str(&format!("\n    {module} -> {target}: {}", names.join(", ")));
                }
            }
        }
        violations.push(text);
    }
    for (module, targets) in imports {
        for (target, names) in targets {
            let forbidden =
                FORBIDDEN.iter().any(|(from, to)| covers(from, module) && covers(to, target));
            // A binary's root starts the command line.
            let private = PRIVATE.iter().any(|inner| {
                covers(inner, target) && !covers(inner, module) && module.contains("::")
            });
            if forbidden || private {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                violations.push(format!("{module} may not import {target}: {}", names.join(", ")));
            }
        }
    }
    violations
}

#[test]
fn modules_import_each_other_in_one_direction() {
    let violations = violations(&imports(&modules()));
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn a_cycle_and_a_forbidden_import_are_found() {
    let sources = [
        ("tracer", "pub mod a; pub mod cli; pub mod output;"),
        (
            "tracer::a",
            "use crate::output::{text, Options}; #[cfg(test)] mod tests { use crate::cli::x; }",
        ),
        (
            "tracer::output",
            "fn x() { super::a::y(); } #[cfg(test)] mod tests { use tracer_host::z; }",
        ),
        ("tracer::cli", "use crate::a; use tracer_kernel::Tracer;"),
        ("tracer_kernel", "pub struct Tracer;"),
        ("tracer_host", ""),
    ];
    let owned = |sources: &[(&str, &str)]| {
        sources.iter().map(|(module, text)| ((*module).to_owned(), (*text).to_owned())).collect()
    };
    let found = violations(&imports(&owned(&sources)));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("cycle between "), "{found:?}");
    assert!(found[0].contains("tracer::a -> tracer::output: Options, text"), "{found:?}");

    let mut sources = sources.to_vec();
    sources[2] = ("tracer::output", "use tracer_kernel::Tracer; use crate::cli::main;");
    let found = violations(&imports(&owned(&sources)));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("cycle between "), "{found:?}");
    assert!(found[0].contains("tracer::output -> tracer::cli: main"), "{found:?}");
    assert_eq!(found[1], "tracer::output may not import tracer::cli: main");
    assert_eq!(found[2], "tracer::output may not import tracer_kernel: Tracer");
}
