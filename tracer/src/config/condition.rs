//! `when` of a rule, with the keys that belong to it.

use std::ops::Range;

use toml::Spanned;
use tracer_model::alert::{Condition, Glob, Rule};
use tracer_model::units::parse;

use super::error::{ConfigError, Source};
use super::raw;
use super::raw::When;

/// Default of `per`, seconds.
const PER_S: f64 = 3600.0;

/// Builds the condition, and rejects keys that do not apply to it. Without a `when` it is that of
/// the rule of the same name.
pub(super) fn read(
    source: Source<'_>,
    raw: &raw::Rule,
    known: Option<&Rule>,
) -> Result<Condition, ConfigError> {
    let Some(when) = &raw.when else { return inherited(source, raw, known) };
    let when_span = when.span();
    let when = *when.get_ref();
    reject_inapplicable(source, raw, when)?;
    let path = || path(source, raw, when_span.clone());
    let names = || Glob::new(raw.who.as_ref().map_or("*", |who| who.get_ref()));
    let shrinking = raw.shrinking.as_ref().is_some_and(|shrinking| *shrinking.get_ref());
    Ok(match when {
        When::TimeToFull => Condition::TimeToFull,
        When::Full => Condition::Full,
        When::UsedPercent => Condition::UsedRatio,
        When::UsedBytes => Condition::UsedBytes,
        When::AvailPercent => Condition::AvailRatio { shrinking },
        When::AvailBytes => Condition::AvailBytes { shrinking },
        When::InodesPercent => Condition::InodesRatio,
        When::Growth => Condition::Growth,
        When::Held => Condition::Held,
        When::NoSpaceErrors => Condition::NoSpaceErrors,
        When::WriteErrors => Condition::WriteErrors,
        When::FsyncWait => Condition::FsyncWait,
        When::Refill => Condition::Refill,
        When::DirSize => Condition::DirSize { path: path()? },
        When::DirGrowth => {
            let per_s = per_s(source, raw)?;
            Condition::DirGrowth { path: path()?, per_s }
        }
        When::Drain => Condition::Drain { path: path()? },
        When::WriterRate => Condition::WriterRate { names: names() },
        When::GroupRate => Condition::GroupRate { names: names() },
    })
}

fn inherited(
    source: Source<'_>,
    raw: &raw::Rule,
    known: Option<&Rule>,
) -> Result<Condition, ConfigError> {
    let Some(known) = known else {
        let why = format!("rule `{}` has no `when`", raw.name.get_ref());
        return Err(source.error(Some(raw.name.span()), why));
    };
    match keys(raw).into_iter().find_map(|(key, span)| Some((key, span?))) {
        Some((key, span)) => {
            let why = format!("`{key}` needs a `when` in the same rule");
            Err(source.error(Some(span), why))
        }
        None => Ok(known.condition.clone()),
    }
}

/// The keys that only apply to some conditions, with their place if they are set.
fn keys(raw: &raw::Rule) -> [(&'static str, Option<Range<usize>>); 4] {
    [
        ("path", raw.path.as_ref().map(Spanned::span)),
        ("who", raw.who.as_ref().map(Spanned::span)),
        ("per", raw.per.as_ref().map(Spanned::span)),
        ("shrinking", raw.shrinking.as_ref().map(Spanned::span)),
    ]
}

fn reject_inapplicable(source: Source<'_>, raw: &raw::Rule, when: When) -> Result<(), ConfigError> {
    let applies = |key: &str| match key {
        "path" => matches!(when, When::DirSize | When::DirGrowth | When::Drain),
        "who" => matches!(when, When::WriterRate | When::GroupRate),
        "per" => when == When::DirGrowth,
        _ => matches!(when, When::AvailPercent | When::AvailBytes),
    };
    match keys(raw).into_iter().find(|(key, span)| span.is_some() && !applies(key)) {
        Some((key, span)) => {
            Err(source.error(span, format!("`{key}` does not apply to this `when`")))
        }
        None => Ok(()),
    }
}

fn path(source: Source<'_>, raw: &raw::Rule, when: Range<usize>) -> Result<String, ConfigError> {
    let Some(path) = &raw.path else {
        let why = format!("rule `{}` needs a `path`", raw.name.get_ref());
        return Err(source.error(Some(when), why));
    };
    if !path.get_ref().starts_with('/') {
        let why = "path: must be absolute, as seen from the host's root".to_owned();
        return Err(source.error(Some(path.span()), why));
    }
    let trimmed = path.get_ref().trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

fn per_s(source: Source<'_>, raw: &raw::Rule) -> Result<f64, ConfigError> {
    let Some(per) = &raw.per else { return Ok(PER_S) };
    parse::duration(per.get_ref(), 10.0, 31.0 * 86_400.0)
        .map(|per| per.as_secs_f64())
        .map_err(|why| source.error(Some(per.span()), format!("per: {why}")))
}
