//! The serde attributes that change how a type, field or variant appears in JSON or TOML.

use anyhow::{Result, bail};
use syn::{Attribute, LitStr, Token};

/// The attributes of one type, field or variant.
#[derive(Debug, Default)]
pub(super) struct Serde {
    /// `rename = "…"`.
    pub(super) rename: Option<String>,
    /// `rename_all = "…"`.
    pub(super) rename_all: Option<String>,
    /// `tag = "…"`: the key that holds the variant's name.
    pub(super) tag: Option<String>,
    /// `into = "…"`: the type that is written in its place.
    pub(super) into: Option<String>,
    /// `untagged`: a variant is written as its value.
    pub(super) untagged: bool,
    /// `flatten`: the fields of the value stand in its place.
    pub(super) flatten: bool,
    /// `skip`: not written.
    pub(super) skip: bool,
    /// `default`: may be left out of the input.
    pub(super) default: bool,
    /// `skip_serializing_if = "…"`: left out of the output if it is empty.
    pub(super) may_be_absent: bool,
}

impl Serde {
    /// Reads the attributes.
    pub(super) fn of(attributes: &[Attribute]) -> Result<Self> {
        let mut serde = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
            attribute.parse_nested_meta(|meta| {
                let text = if meta.input.peek(Token![=]) {
                    Some(meta.value()?.parse::<LitStr>()?.value())
                } else {
                    None
                };
                match &*meta.path.get_ident().map(ToString::to_string).unwrap_or_default() {
                    "rename" => serde.rename = text,
                    "rename_all" => serde.rename_all = text,
                    "tag" => serde.tag = text,
                    "into" => serde.into = text,
                    "untagged" => serde.untagged = true,
                    "flatten" => serde.flatten = true,
                    "skip" | "skip_serializing" => serde.skip = true,
                    "default" => serde.default = true,
                    "skip_serializing_if" => serde.may_be_absent = true,
                    "deny_unknown_fields"
                    | "try_from"
                    | "from"
                    | "transparent"
                    | "other"
                    | "alias" => {}
                    _ => return Err(meta.error("`cargo xtask docs` does not know this attribute")),
                }
                Ok(())
            })?;
        }
        Ok(serde)
    }

    /// The name of a variant in the output, under the `rename_all` of its enum.
    pub(super) fn word(&self, variant: &str, rename_all: Option<&str>) -> Result<String> {
        if let Some(name) = &self.rename {
            return Ok(name.clone());
        }
        let separated = |separator: &str| {
            let mut word = String::new();
            for (at, c) in variant.char_indices() {
                if c.is_uppercase() && at > 0 {
                    word.push_str(separator);
                }
                word.extend(c.to_lowercase());
            }
            word
        };
        Ok(match rename_all {
            None => variant.to_owned(),
            Some("lowercase") => variant.to_lowercase(),
            Some("snake_case") => separated("_"),
            Some("kebab-case") => separated("-"),
            Some(other) => bail!("`cargo xtask docs` does not know rename_all = {other:?}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let plain = Serde::default();
        assert_eq!(plain.word("NoTrend", Some("snake_case")).unwrap(), "no_trend");
        assert_eq!(plain.word("NoTrend", Some("kebab-case")).unwrap(), "no-trend");
        assert_eq!(plain.word("NoTrend", Some("lowercase")).unwrap(), "notrend");
        assert_eq!(plain.word("NoTrend", None).unwrap(), "NoTrend");
        assert!(plain.word("NoTrend", Some("UPPERCASE")).is_err());
        let renamed = Serde { rename: Some("for".to_owned()), ..Serde::default() };
        assert_eq!(renamed.word("length", None).unwrap(), "for");
    }
}
