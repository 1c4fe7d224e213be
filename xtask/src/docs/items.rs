//! The structs, enums and integer constants of the source, by name.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ExprLit, Lit, Meta};

use super::serde_attributes::Serde;

/// A struct or an enum.
pub(super) struct Item {
    /// The file, relative to the workspace.
    pub(super) file: String,
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) serde: Serde,
    pub(super) shape: Shape,
    is_serialized: bool,
}

/// The contents of an [`Item`].
pub(super) enum Shape {
    /// A struct with named fields.
    Struct(Vec<Field>),
    /// A tuple struct with one field, which is written as that field.
    Newtype(syn::Type),
    Enum(Vec<Variant>),
}

/// A field of a struct or variant.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) serde: Serde,
    pub(super) ty: syn::Type,
}

/// A variant of an enum.
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) serde: Serde,
    pub(super) fields: Vec<Field>,
    /// The type of a variant with one unnamed field.
    pub(super) inner: Option<syn::Type>,
}

/// All items of some source folders.
#[derive(Default)]
pub(super) struct Items {
    all: Vec<Item>,
    constants: Vec<(String, String)>,
}

impl Items {
    /// Reads all files below these folders, which are relative to `root`.
    pub(super) fn read(root: &Path, folders: &[&str]) -> Result<Self> {
        let mut items = Self::default();
        for folder in folders {
            items.read_folder(root, &root.join(folder))?;
        }
        Ok(items)
    }

    fn read_folder(&mut self, root: &Path, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        let mut paths: Vec<_> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        // The order of a directory differs from one machine to the next.
        paths.sort();
        for path in paths {
            if path.is_dir() {
                self.read_folder(root, &path)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.strip_prefix(root)?.display().to_string();
                let source = fs::read_to_string(&path).with_context(|| file.clone())?;
                self.read_source(&file, &source).with_context(|| file.clone())?;
            }
        }
        Ok(())
    }

    fn read_source(&mut self, file: &str, source: &str) -> Result<()> {
        let mut reader = Reader { file, items: self, error: None };
        reader.visit_file(&syn::parse_file(source)?);
        reader.error.map_or(Ok(()), Err)
    }

    /// The item with this name that the file `near` means: its own, else the only one that is serialized,
    /// else the first one in the order of the folders.
    pub(super) fn find(&self, name: &str, near: &str) -> Option<&Item> {
        let called = || self.all.iter().filter(|item| item.name == name);
        called()
            .find(|item| item.file == near)
            .or_else(|| called().find(|item| item.is_serialized))
            .or_else(|| called().next())
    }

    /// As [`Self::find`], for an item that must be there.
    pub(super) fn get(&self, name: &str, near: &str) -> Result<&Item> {
        self.find(name, near)
            .ok_or_else(|| anyhow!("no type `{name}` for the reference; adapt xtask/src/docs"))
    }

    /// The value of an integer constant, as it is written in the source.
    pub(super) fn constant(&self, name: &str) -> Option<&str> {
        self.constants.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// Collects the items of one file, tests left out.
struct Reader<'a> {
    file: &'a str,
    items: &'a mut Items,
    error: Option<anyhow::Error>,
}

impl Reader<'_> {
    fn add(&mut self, name: String, attributes: &[Attribute], shape: Result<Shape>) {
        let serde = Serde::of(attributes);
        match (serde, shape) {
            (Ok(serde), Ok(shape)) => self.items.all.push(Item {
                file: self.file.to_owned(),
                doc: doc(attributes),
                serde,
                shape,
                is_serialized: derives_serialize(attributes),
                name,
            }),
            (Err(error), _) | (_, Err(error)) => {
                self.error.get_or_insert(error.context(name));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let shape = match &item.fields {
            syn::Fields::Named(_) => fields(&item.fields).map(Shape::Struct),
            syn::Fields::Unnamed(inner) if inner.unnamed.len() == 1 => {
                Ok(Shape::Newtype(inner.unnamed[0].ty.clone()))
            }
            _ => return,
        };
        self.add(item.ident.to_string(), &item.attrs, shape);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        let variant = |variant: &syn::Variant| {
            let inner = match &variant.fields {
                syn::Fields::Unnamed(inner) if inner.unnamed.len() == 1 => {
                    Some(inner.unnamed[0].ty.clone())
                }
                _ => None,
            };
            Ok(Variant {
                name: variant.ident.to_string(),
                doc: doc(&variant.attrs),
                serde: Serde::of(&variant.attrs)?,
                fields: fields(&variant.fields)?,
                inner,
            })
        };
        let variants = item.variants.iter().map(variant).collect::<Result<_>>();
        self.add(item.ident.to_string(), &item.attrs, variants.map(Shape::Enum));
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if let Expr::Lit(ExprLit { lit: Lit::Int(value), .. }) = &*item.expr {
            self.items.constants.push((item.ident.to_string(), value.to_string()));
        }
    }
}

/// The named fields.
fn fields(fields: &syn::Fields) -> Result<Vec<Field>> {
    let named = fields.iter().filter_map(|field| Some((field.ident.as_ref()?, field)));
    named
        .map(|(name, field)| {
            Ok(Field {
                name: name.to_string(),
                doc: doc(&field.attrs),
                serde: Serde::of(&field.attrs)?,
                ty: field.ty.clone(),
            })
        })
        .collect()
}

/// The doc comment in one line; its paragraphs are joined.
pub(super) fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => literal(&pair.value),
        _ => None,
    });
    let lines: Vec<String> = lines.map(|line| line.trim().to_owned()).collect();
    lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text of a string literal.
pub(super) fn literal(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

fn derives_serialize(attributes: &[Attribute]) -> bool {
    let mut found = false;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
        // A derive that cannot be parsed would not compile either.
        let _ = attribute.parse_nested_meta(|meta| {
            found |= meta.path.segments.last().is_some_and(|last| last.ident == "Serialize");
            Ok(())
        });
    }
    found
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

/// The name of a type without its path, and its type arguments: `Vec<Writer>` → `Vec`, `[Writer]`.
pub(super) fn name_and_arguments(ty: &syn::Type) -> Result<(String, Vec<&syn::Type>)> {
    match ty {
        syn::Type::Path(path) => {
            let Some(last) = path.path.segments.last() else { bail!("a type without a name") };
            let arguments = match &last.arguments {
                syn::PathArguments::AngleBracketed(arguments) => arguments
                    .args
                    .iter()
                    .filter_map(|argument| match argument {
                        syn::GenericArgument::Type(ty) => Some(ty),
                        _ => None,
                    })
                    .collect(),
                _ => Vec::new(),
            };
            Ok((last.ident.to_string(), arguments))
        }
        syn::Type::Reference(reference) => name_and_arguments(&reference.elem),
        _ => bail!("a type that is neither a name nor a reference"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_of_the_same_file_comes_first_then_a_serialized_one() {
        let mut items = Items::default();
        items.read_source("a.rs", "/// First.\nstruct File { x: u8 }").unwrap();
        items
            .read_source(
                "b.rs",
                "/// One\n/// row.\n\n#[derive(Debug, serde::Serialize)] struct File { y: u8 }",
            )
            .unwrap();
        items
            .read_source(
                "c.rs",
                "#[cfg(test)] mod tests { struct File { z: u8 } } const MAX: usize = 10;",
            )
            .unwrap();
        assert_eq!(items.get("File", "a.rs").unwrap().doc, "First.");
        assert_eq!(items.get("File", "c.rs").unwrap().doc, "One row.");
        assert_eq!(items.constant("MAX"), Some("10"));
        assert!(items.get("Folder", "a.rs").is_err());
    }
}
