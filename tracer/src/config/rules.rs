//! `[[rule]]`: new rules, and changes to built-in ones.

use std::fmt::Display;
use toml::Spanned;
use tracer_model::alert::{Glob, Rule, When};
use tracer_model::units::parse;

use super::error::{ConfigError, Source, did_you_mean};
use super::raw::{Number, Text};
use super::{raw, values};

/// Builds the list of all rules, built-in ones first.
pub(super) fn read(
    source: Source<'_>,
    wanted: &[Spanned<raw::Rule>],
    builtin: bool,
) -> Result<Vec<Rule>, ConfigError> {
    let mut rules = if builtin { Rule::defaults() } else { Vec::new() };
    let mut seen: Vec<&str> = Vec::new();
    for entry in wanted {
        let raw = entry.get_ref();
        let name = raw.name.get_ref().as_str();
        let wrong = |why: String| source.error(Some(raw.name.span()), why);
        if name.is_empty() || name.chars().any(|c| c.is_control() || c == '/') {
            let why = "must not be empty or contain `/` or control characters";
            return Err(wrong(format!("invalid rule name {name:?}: {why}")));
        }
        if seen.contains(&name) {
            return Err(wrong(format!("duplicate rule `{name}`")));
        }
        seen.push(name);
        let known = rules.iter().position(|rule| rule.name == name);
        if raw.enabled == Some(false) {
            if let Some(at) = known {
                rules.remove(at);
            }
            continue;
        }
        let rule = one(source, raw, known.map(|at| rules[at].clone()))?;
        match known {
            Some(at) => rules[at] = rule,
            None => rules.push(rule),
        }
    }
    let names: Vec<String> = rules.iter().map(|rule| rule.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for other in wanted.iter().flat_map(|entry| entry.get_ref().yields_to.iter().flatten()) {
        let name = other.get_ref().as_str();
        if !names.contains(&name) {
            let why = format!("yields_to: no rule `{name}`{}", did_you_mean(name, &names));
            return Err(source.error(Some(other.span()), why));
        }
    }
    Ok(rules)
}

/// The unit in which a rule's threshold is written.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Time,
    Size,
    Rate,
    Ratio,
    Count,
    None,
}

const fn unit(when: &When) -> Unit {
    match when {
        When::TimeToFull | When::FsyncWait | When::Refill => Unit::Time,
        When::Full => Unit::None,
        When::UsedRatio | When::AvailRatio { .. } | When::InodesRatio | When::Drain { .. } => {
            Unit::Ratio
        }
        When::UsedBytes
        | When::AvailBytes { .. }
        | When::Held
        | When::DirSize { .. }
        | When::DirGrowth { .. } => Unit::Size,
        When::Growth | When::WriterRate { .. } | When::GroupRate { .. } => Unit::Rate,
        When::NoSpaceErrors | When::WriteErrors => Unit::Count,
    }
}

fn one(source: Source<'_>, raw: &raw::Rule, known: Option<Rule>) -> Result<Rule, ConfigError> {
    let name = raw.name.get_ref();
    let at = |text: &Text, key: &str, why: &dyn Display| {
        source.error(Some(text.span()), format!("{key}: {why}"))
    };
    let when = when(source, raw, known.as_ref())?;
    let mut rule = match known {
        Some(rule) if raw.when.is_none() || rule.when == when => Rule { when, ..rule },
        _ => Rule::new(name, when, None, None),
    };
    let unit = unit(&rule.when);
    for (key, text, threshold) in [
        ("warning", &raw.warning, &mut rule.warning),
        ("critical", &raw.critical, &mut rule.critical),
    ] {
        if let Some(text) = text {
            *threshold = Some(value(source, key, text, unit)?);
        }
    }
    if rule.when == When::Full {
        rule.critical = Some(0.5);
    }
    let span = Some(raw.name.span());
    match (rule.warning, rule.critical) {
        (None, None) => {
            let why = format!("rule `{name}` has neither `warning` nor `critical`");
            return Err(source.error(span, why));
        }
        (Some(warning), Some(critical)) => {
            let upside_down =
                if rule.when.below() { critical > warning } else { critical < warning };
            if upside_down {
                let why = format!(
                    "rule `{name}`: the critical threshold is reached before the warning one"
                );
                return Err(source.error(span, why));
            }
        }
        _ => {}
    }
    if let Some(volumes) = &raw.volumes {
        rule.volumes = volumes.iter().map(|pattern| Glob::new(pattern)).collect();
    }
    if let Some(number) = &raw.hysteresis {
        rule.hysteresis = value(source, "hysteresis", number, Unit::Ratio)?;
        if !rule.when.below() && rule.hysteresis > 1.0 {
            let why = "hysteresis: above 100% the alert would never resolve".to_owned();
            return Err(source.error(Some(number.span()), why));
        }
    }
    if let Some(text) = &raw.hold {
        rule.hold_s = parse::seconds(text.get_ref()).map_err(|why| at(text, "for", &why))?;
    }
    if let Some(text) = &raw.clear_after {
        rule.clear_s =
            parse::seconds(text.get_ref()).map_err(|why| at(text, "clear_after", &why))?;
    }
    match &raw.repeat {
        None => {}
        Some(text) if text.get_ref() == "never" => rule.repeat_s = None,
        Some(text) => {
            let every = parse::duration(text.get_ref(), 1.0, 3650.0 * 86_400.0)
                .map_err(|why| at(text, "repeat", &format_args!("{why}, or \"never\"")))?;
            rule.repeat_s = Some(every.as_secs_f64());
        }
    }
    if let Some(quiet) = &raw.quiet {
        let texts = match quiet.get_ref() {
            raw::Quiet::One(text) => std::slice::from_ref(text),
            raw::Quiet::Several(texts) => texts,
        };
        let read = texts.iter().map(|text| values::quiet(text)).collect::<Result<_, _>>();
        rule.quiet =
            read.map_err(|why| source.error(Some(quiet.span()), format!("quiet: {why}")))?;
    }
    if let Some(others) = &raw.yields_to {
        rule.yields_to = others.iter().map(|other| other.get_ref().clone()).collect();
    }
    Ok(rule)
}

/// Builds the condition, and rejects keys that do not apply to it.
fn when(source: Source<'_>, raw: &raw::Rule, known: Option<&Rule>) -> Result<When, ConfigError> {
    use raw::When as Raw;
    let name = raw.name.get_ref();
    let Some(kind) = &raw.when else {
        let Some(known) = known else {
            let why = format!("rule `{name}` has no `when`");
            return Err(source.error(Some(raw.name.span()), why));
        };
        let strange = [
            ("path", raw.path.as_ref().map(Spanned::span)),
            ("who", raw.who.as_ref().map(Spanned::span)),
            ("per", raw.per.as_ref().map(Spanned::span)),
            ("shrinking", raw.shrinking.as_ref().map(Spanned::span)),
        ];
        if let Some((key, span)) = strange.into_iter().find(|(_, span)| span.is_some()) {
            let why = format!("`{key}` needs a `when` in the same rule");
            return Err(source.error(span, why));
        }
        return Ok(known.when.clone());
    };
    let kind_at = kind.span();
    let kind = *kind.get_ref();
    let directory = matches!(kind, Raw::DirSize | Raw::DirGrowth | Raw::Drain);
    let rate = matches!(kind, Raw::WriterRate | Raw::GroupRate);
    let avail = matches!(kind, Raw::AvailPercent | Raw::AvailBytes);
    let fits = [
        ("path", raw.path.as_ref().map(Spanned::span), directory),
        ("who", raw.who.as_ref().map(Spanned::span), rate),
        ("per", raw.per.as_ref().map(Spanned::span), kind == Raw::DirGrowth),
        ("shrinking", raw.shrinking.as_ref().map(Spanned::span), avail),
    ];
    if let Some((key, span, _)) = fits.into_iter().find(|(_, span, fits)| span.is_some() && !fits) {
        return Err(source.error(span, format!("`{key}` does not apply to this `when`")));
    }
    let path = || match &raw.path {
        Some(path) if path.get_ref().starts_with('/') => {
            let trimmed = path.get_ref().trim_end_matches('/');
            Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
        }
        Some(path) => {
            let why = "path: must be absolute, as seen from the host's root".to_owned();
            Err(source.error(Some(path.span()), why))
        }
        None => {
            let why = format!("rule `{name}` needs a `path`");
            Err(source.error(Some(kind_at.clone()), why))
        }
    };
    let who = || Glob::new(raw.who.as_ref().map_or("*", |who| who.get_ref()));
    let shrinking = raw.shrinking.as_ref().is_some_and(|wanted| *wanted.get_ref());
    Ok(match kind {
        Raw::TimeToFull => When::TimeToFull,
        Raw::Full => When::Full,
        Raw::UsedPercent => When::UsedRatio,
        Raw::UsedBytes => When::UsedBytes,
        Raw::AvailPercent => When::AvailRatio { shrinking },
        Raw::AvailBytes => When::AvailBytes { shrinking },
        Raw::InodesPercent => When::InodesRatio,
        Raw::Growth => When::Growth,
        Raw::Held => When::Held,
        Raw::NoSpaceErrors => When::NoSpaceErrors,
        Raw::WriteErrors => When::WriteErrors,
        Raw::FsyncWait => When::FsyncWait,
        Raw::Refill => When::Refill,
        Raw::DirSize => When::DirSize { path: path()? },
        Raw::DirGrowth => {
            let per_s = match &raw.per {
                None => 3600.0,
                Some(per) => parse::duration(per.get_ref(), 10.0, 31.0 * 86_400.0)
                    .map_err(|why| source.error(Some(per.span()), format!("per: {why}")))?
                    .as_secs_f64(),
            };
            When::DirGrowth { path: path()?, per_s }
        }
        Raw::Drain => When::Drain { path: path()? },
        Raw::WriterRate => When::WriterRate { who: who() },
        Raw::GroupRate => When::GroupRate { who: who() },
    })
}

fn value(
    source: Source<'_>,
    key: &str,
    number: &Spanned<Number>,
    unit: Unit,
) -> Result<f64, ConfigError> {
    let text = number.get_ref().text();
    let read = match unit {
        Unit::Time => parse::seconds(&text).map_err(|why| why.to_string()),
        Unit::Size => parse::bytes(&text).map_err(|why| why.to_string()),
        Unit::Rate => parse::bytes_per_second(&text).map_err(|why| why.to_string()),
        Unit::Ratio => parse::ratio(&text).map_err(|why| why.to_string()),
        Unit::Count => {
            text.parse::<u32>().map(f64::from).map_err(|_| "must be a whole number".to_owned())
        }
        Unit::None => Err("this `when` has no threshold".to_owned()),
    };
    read.map_err(|why| source.error(Some(number.span()), format!("{key}: {why}")))
}
