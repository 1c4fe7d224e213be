//! The `[guard]` patterns of the `filltop watch` configuration, applied to an operator's actions.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tracer_model::action::protect::ConfiguredGuard;

use crate::config::Config;

/// The default configuration file, used if it exists.
pub(crate) const FILE: &str = "/etc/filltop/filltop.toml";

/// The configuration file whose `[guard]` section applies.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Read avoid, prefer and ignore from [guard] in this file
    /// [default: /etc/filltop/filltop.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "FILLTOP_CONFIG", verbatim_doc_comment)]
    config: Option<PathBuf>,
    /// Ignore the configuration file
    #[arg(long, conflicts_with = "config")]
    no_config: bool,
}

impl ConfigArgs {
    /// Reads the patterns; `None` if there is no configuration file.
    ///
    /// # Errors
    /// If a file that was named does not exist or is invalid: the protected processes are unknown then.
    pub(crate) fn read(&self) -> anyhow::Result<Option<ConfiguredGuard>> {
        let file = match &self.config {
            _ if self.no_config => return Ok(None),
            Some(file) => file,
            None if Path::new(FILE).exists() => Path::new(FILE),
            None => return Ok(None),
        };
        let config = Config::load(Some(file))
            .context("cannot read the protected list (use --no-config to proceed without it)")?;
        let guard = config.guard;
        Ok(Some(ConfiguredGuard {
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
    fn an_invalid_or_missing_file_is_an_error() {
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
