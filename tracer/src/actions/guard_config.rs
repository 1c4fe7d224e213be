//! What the configuration of `filltop watch` says about whom to touch, for people who act.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracer_model::action::protect::Configured;

use crate::config::Config;

/// The configuration that is gone by where none is named, if it is there.
pub const FILE: &str = "/etc/filltop/filltop.toml";

/// Which configuration's `[guard]` is gone by.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgs {
    /// Go by avoid, prefer and ignore of [guard] in this configuration
    /// [default: /etc/filltop/filltop.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "FILLTOP_CONFIG", verbatim_doc_comment)]
    config: Option<PathBuf>,
    /// Go by no configuration
    #[arg(long, conflicts_with = "config")]
    no_config: bool,
}

impl ConfigArgs {
    /// Reads it.
    ///
    /// # Errors
    /// If the one that was named is not there, or if it is wrong: whom it protects is not known then.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Configured>> {
        let file = match &self.config {
            _ if self.no_config => return Ok(None),
            Some(file) => file,
            None if Path::new(FILE).exists() => Path::new(FILE),
            None => return Ok(None),
        };
        let config = Config::load(Some(file))
            .context("whom the configuration protects is not known (--no-config goes by none)")?;
        let guard = config.guard;
        Ok(Some(Configured {
            file: file.display().to_string(),
            avoid: guard.avoid,
            prefer: guard.prefer,
            ignore: guard.ignore,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(config: &Path) -> ConfigArgs {
        ConfigArgs { config: Some(config.to_owned()), no_config: false }
    }

    #[test]
    fn patterns_come_from_the_guard_even_if_it_is_off() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f.toml");
        std::fs::write(&file, "[guard]\navoid = [\"^backup\"]\nignore = [\"log\"]\n").unwrap();
        let read = args(&file).read().unwrap().unwrap();
        assert_eq!(read.avoid[0].text(), "^backup");
        assert_eq!((read.ignore.len(), read.prefer.len()), (1, 0));
        let none = ConfigArgs { no_config: true, ..args(&file) };
        assert_eq!(none.read().unwrap(), None);
    }

    #[test]
    fn one_that_is_wrong_or_missing_protects_nobody_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f.toml");
        for text in [None, Some("[guard]\navoid = [\"(\"]\n")] {
            if let Some(text) = text {
                std::fs::write(&file, text).unwrap();
            }
            let error = format!("{:#}", args(&file).read().unwrap_err());
            assert!(error.contains("--no-config") && error.contains("f.toml"), "{error}");
        }
    }
}
