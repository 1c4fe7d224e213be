//! `[[rule]]`: new rules, and changes to built-in ones.

use std::fmt::Display;
use toml::Spanned;
use tracer_model::alert::{Condition, Glob, Rule};
use tracer_model::units::parse;

use super::error::{ConfigError, Source, did_you_mean};
use super::raw::{Number, Text};
use super::values::Unit;
use super::{condition, raw, values};

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
        let rule = rule(source, raw, known.map(|at| rules[at].clone()))?;
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

/// Builds one rule. `known` is the rule of the same name so far, which keeps what is not set.
fn rule(source: Source<'_>, raw: &raw::Rule, known: Option<Rule>) -> Result<Rule, ConfigError> {
    let condition = condition::read(source, raw, known.as_ref())?;
    let mut rule = match known {
        Some(rule) if raw.when.is_none() || rule.condition == condition => {
            Rule { condition, ..rule }
        }
        _ => Rule::new(raw.name.get_ref(), condition, None, None),
    };
    read_thresholds(source, raw, &mut rule)?;
    if let Some(volumes) = &raw.volumes {
        rule.volumes = volumes.iter().map(|pattern| Glob::new(pattern)).collect();
    }
    read_delays(source, raw, &mut rule)?;
    if let Some(quiet) = &raw.quiet {
        let texts = match quiet.get_ref() {
            raw::Quiet::One(text) => std::slice::from_ref(text),
            raw::Quiet::Several(texts) => texts,
        };
        let hours = texts.iter().map(|text| values::quiet_hours(text)).collect::<Result<_, _>>();
        rule.quiet =
            hours.map_err(|why| source.error(Some(quiet.span()), format!("quiet: {why}")))?;
    }
    if let Some(others) = &raw.yields_to {
        rule.inhibited_by = others.iter().map(|other| other.get_ref().clone()).collect();
    }
    Ok(rule)
}

/// Reads the thresholds and the hysteresis.
fn read_thresholds(
    source: Source<'_>,
    raw: &raw::Rule,
    rule: &mut Rule,
) -> Result<(), ConfigError> {
    let unit = Unit::of(&rule.condition);
    for (key, text, threshold) in [
        ("warning", &raw.warning, &mut rule.warning),
        ("critical", &raw.critical, &mut rule.critical),
    ] {
        if let Some(text) = text {
            *threshold = Some(value(source, key, text, unit)?);
        }
    }
    if rule.condition == Condition::Full {
        rule.critical = Some(0.5);
    }
    let name = raw.name.get_ref();
    let wrong = |why: String| Err(source.error(Some(raw.name.span()), why));
    let below = rule.condition.fires_below();
    match (rule.warning, rule.critical) {
        (None, None) => {
            return wrong(format!("rule `{name}` has neither `warning` nor `critical`"));
        }
        (Some(warning), Some(critical))
            if if below { critical > warning } else { critical < warning } =>
        {
            return wrong(format!(
                "rule `{name}`: the critical threshold is reached before the warning one"
            ));
        }
        _ => {}
    }
    if let Some(number) = &raw.hysteresis {
        rule.hysteresis = value(source, "hysteresis", number, Unit::Ratio)?;
        if !below && rule.hysteresis > 1.0 {
            let why = "hysteresis: above 100% the alert would never resolve".to_owned();
            return Err(source.error(Some(number.span()), why));
        }
    }
    Ok(())
}

/// Reads `for`, `clear_after` and `repeat`.
fn read_delays(source: Source<'_>, raw: &raw::Rule, rule: &mut Rule) -> Result<(), ConfigError> {
    let at = |text: &Text, key: &str, why: &dyn Display| {
        source.error(Some(text.span()), format!("{key}: {why}"))
    };
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
    Ok(())
}

/// Reads a number in the unit of the rule's condition. `key` is for the message.
fn value(
    source: Source<'_>,
    key: &str,
    number: &Spanned<Number>,
    unit: Unit,
) -> Result<f64, ConfigError> {
    values::number(&number.get_ref().text(), unit)
        .map_err(|why| source.error(Some(number.span()), format!("{key}: {why}")))
}
