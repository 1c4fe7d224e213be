//! docs/reference/metrics.md: every metric family, from the code that writes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use syn::visit::{self, Visit};
use syn::{Expr, ExprLit, Lit};

use super::items::literal;
use super::markdown::head;

/// The folder of the code that writes them.
const SOURCE: &str = "tracer/src/output/openmetrics";

const INTRODUCTION: &str = "\
# Metrics reference

Every metric family that `filltop watch --metrics` exports, with the help text of the endpoint. The units and the
bounds on the number of series are explained in [metrics](../metrics.md).

| metric | type | labels | help |
|---|---|---|---|
";

struct Family {
    /// With the `_total` of a counter.
    name: String,
    kind: &'static str,
    labels: Vec<String>,
    help: String,
}

/// The page.
pub(super) fn page(root: &Path) -> Result<String> {
    let mut page = head(SOURCE);
    page.push_str(INTRODUCTION);
    for family in families(root)? {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let Family { name, kind, help, .. } = &family;
        page.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
    }
    Ok(page)
}

/// The names of all families.
#[cfg(test)]
pub(super) fn names(root: &Path) -> Result<Vec<String>> {
    Ok(families(root)?.into_iter().map(|family| family.name).collect())
}

fn families(root: &Path) -> Result<Vec<Family>> {
    let entries = fs::read_dir(root.join(SOURCE)).context(SOURCE)?;
    let mut paths: Vec<_> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        found.extend(parse(&source)?);
    }
    ensure!(!found.is_empty(), "{SOURCE} has no metrics; adapt xtask/src/docs/metrics.rs");
    Ok(found)
}

/// Collects the calls `gauge(name, help)` and `counter(name, help)`, and the labels next to them.
#[derive(Default)]
struct Calls {
    found: Vec<Family>,
    /// Constants of the function that is being read.
    constants: BTreeMap<String, Vec<String>>,
    /// Labels of the families in the call that is being read.
    labels: Vec<String>,
}

fn parse(source: &str) -> Result<Vec<Family>> {
    let mut calls = Calls::default();
    calls.visit_file(&syn::parse_file(source)?);
    Ok(calls.found)
}

/// The texts of an array of string literals.
fn texts(expression: &Expr) -> Option<Vec<String>> {
    match expression {
        Expr::Array(array) => array.elems.iter().map(literal).collect(),
        _ => None,
    }
}

impl<'ast> Visit<'ast> for Calls {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        // The metrics of volumes are a table; their label is given where it is written.
        if item.ident == "VOLUME" {
            self.labels = vec!["volume".to_owned()];
        }
        if let Some(labels) = texts(&item.expr) {
            self.constants.insert(item.ident.to_string(), labels);
        }
        visit::visit_item_const(self, item);
        self.labels.clear();
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "family" {
            self.labels = match call.args.iter().nth(1) {
                Some(Expr::Path(path)) => {
                    let name = path.path.segments.last().map(|segment| segment.ident.to_string());
                    name.and_then(|name| self.constants.get(&name).cloned()).unwrap_or_default()
                }
                Some(labels) => texts(labels).unwrap_or_default(),
                None => Vec::new(),
            };
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        let kind = match &*call.func {
            Expr::Path(path) if path.path.is_ident("gauge") => Some("gauge"),
            Expr::Path(path) if path.path.is_ident("counter") => Some("counter"),
            _ => None,
        };
        let texts: Vec<String> = call
            .args
            .iter()
            .filter_map(|argument| match argument {
                Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
                _ => None,
            })
            .collect();
        match (kind, &texts[..]) {
            (Some(kind), [name, help]) => self.found.push(Family {
                name: format!("{name}{}", if kind == "counter" { "_total" } else { "" }),
                kind,
                labels: self.labels.clone(),
                help: help.clone(),
            }),
            _ => visit::visit_expr_call(self, call),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_with_their_labels() {
        let source = r#"
            const VOLUME: &[V] = &[(gauge("x_size", "Size."), |v| None)];
            fn groups() {
                const LABELS: [&str; 2] = ["group", "kind"];
                text.family(counter("x_written", "Written."), LABELS, rows());
                text.family(gauge("x_info", "Info."), ["host"], []);
            }"#;
        let found: Vec<String> = parse(source)
            .unwrap()
            .into_iter()
            .map(|family| format!("{} {} {}", family.name, family.kind, family.labels.join(",")))
            .collect();
        assert_eq!(
            found,
            ["x_size gauge volume", "x_written_total counter group,kind", "x_info gauge host"]
        );
    }
}
