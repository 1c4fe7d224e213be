//! docs/reference/keys.md: the keys of the live screen, from the table of its help page.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use syn::visit::{self, Visit};

use super::items::literal;
use super::markdown::head;

const SOURCE: &str = "tracer/src/tui/keys.rs";

const INTRODUCTION: &str = "\
# Keys of the live screen

`filltop` (and `filltop top`) handle these keys on the main screen; `?` shows the same list. With `--mouse`, a
click selects a row, a volume or a table, and the wheel moves the selection.

";

const REST: &str = "
## While typing a filter (`/`)

| key | what it does |
|---|---|
| `Enter` | keeps the filter |
| `Esc` | drops what was typed |
| `Ctrl-R` | switches between plain text and a regular expression |
| `Ctrl-U` | clears the line |
| `Backspace` | deletes a character; on an empty line, ends typing |
| `↑` `↓` | move the selection |

## In the action menu (`x`)

| key | what it does |
|---|---|
| `↑` `↓` `k` `j` | choose an action |
| `Enter` | shows the confirmation |
| `y` | in the confirmation: carries out the action |
| `Esc` | closes without acting (also `x`, `q`; in the confirmation `n`) |
";

/// The page.
pub(super) fn page(root: &Path) -> Result<String> {
    let source = fs::read_to_string(root.join(SOURCE)).context(SOURCE)?;
    let bindings = bindings(&source)?;
    ensure!(!bindings.is_empty(), "{SOURCE} has no table BINDINGS; adapt xtask/src/docs/keys.rs");
    let mut page = head(&format!("the help page of the screen ({SOURCE})"));
    page.push_str(INTRODUCTION);
    page.push_str("| key | what it does |\n|---|---|\n");
    for (keys, does) in bindings {
        page.push_str(&format!("| `{keys}` | {does} |\n"));
    }
    page.push_str(REST);
    Ok(page)
}

/// Keys and their meaning, from the calls in the constant `BINDINGS`.
fn bindings(source: &str) -> Result<Vec<(String, String)>> {
    struct Calls(Vec<(String, String)>);
    impl<'ast> Visit<'ast> for Calls {
        fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
            let mut texts = call.args.iter().filter_map(literal);
            match (texts.next(), texts.next()) {
                (Some(keys), Some(does)) => self.0.push((keys, does)),
                _ => visit::visit_expr_call(self, call),
            }
        }
    }
    let mut calls = Calls(Vec::new());
    for item in &syn::parse_file(source)?.items {
        match item {
            syn::Item::Const(table) if table.ident == "BINDINGS" => calls.visit_expr(&table.expr),
            _ => {}
        }
    }
    Ok(calls.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table() {
        let source = "const BINDINGS: &[B] = &[line(\"a\", \"first\", &[(Key::Char('a'), F)]), line(\"b\", \"second\", &[])];";
        let expected = [("a", "first"), ("b", "second")];
        assert_eq!(bindings(source).unwrap(), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
