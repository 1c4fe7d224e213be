//! The two text formats that Prometheus reads: OpenMetrics 1.0, and the older text format 0.0.4 for
//! clients that do not request the first (promtool among them).

use std::fmt::Write as _;

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/openmetrics-text`, version 1.0.0.
    OpenMetrics,
    /// `text/plain`, version 0.0.4.
    Text,
}

impl Format {
    /// The format requested by an `Accept` header.
    #[must_use]
    pub fn from_accept(accept: &str) -> Self {
        let openmetrics = accept.split(',').any(|one| {
            one.split(';').next().is_some_and(|kind| kind.trim() == "application/openmetrics-text")
        });
        if openmetrics { Self::OpenMetrics } else { Self::Text }
    }

    /// The value of the `Content-Type` header.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The type of a metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value that can go up and down.
    Gauge,
    /// A value that only goes up, until a restart.
    Counter,
}

/// A metric family.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Name, without the `_total` of a counter.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Help text, one line.
    pub help: &'static str,
}

/// A builder of the text.
pub struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    /// Creates an empty text.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// Adds a family with its samples, each with label values and a value. A family without samples
    /// is omitted. Writing to a String cannot fail.
    pub fn family<'l, const N: usize>(
        &mut self,
        family: Family,
        names: [&str; N],
        samples: impl IntoIterator<Item = ([&'l str; N], f64)>,
    ) {
        let Family { name, kind, help } = family;
        let suffix = if kind == Kind::Counter { "_total" } else { "" };
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let (word, described) = match kind {
            Kind::Gauge => ("gauge", name.to_owned()),
            // The older format has no families: the suffix is part of the name.
            Kind::Counter if self.format == Format::Text => ("counter", format!("{name}{suffix}")),
            Kind::Counter => ("counter", name.to_owned()),
        };
        let _ = writeln!(self.text, "# TYPE {described} {word}");
        let unit = ["bytes", "seconds", "ratio"]
            .into_iter()
            .find(|unit| name.strip_suffix(unit).is_some_and(|before| before.ends_with('_')));
        if let Some(unit) = unit.filter(|_| self.format == Format::OpenMetrics) {
            let _ = writeln!(self.text, "# UNIT {described} {unit}");
        }
        let _ = writeln!(self.text, "# HELP {described} {help}");
        for (labels, value) in samples {
            let _ = write!(self.text, "{name}{suffix}");
            for (at, (label, value)) in names.iter().zip(labels).enumerate() {
                let _ = write!(self.text, "{}{label}=\"", if at == 0 { '{' } else { ',' });
                escape(value, &mut self.text);
                self.text.push('"');
            }
            self.text.push_str(if N > 0 { "} " } else { " " });
            number(value, &mut self.text);
            self.text.push('\n');
        }
    }

    /// Completes and returns the text.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// Escapes a label value; both formats escape these three characters.
fn escape(value: &str, into: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            other => into.push(other),
        }
    }
}

fn number(value: f64, into: &mut String) {
    if value.is_nan() {
        into.push_str("NaN");
    } else if value.is_infinite() {
        into.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        // Rust's shortest form that parses back to the same number, without an exponent.
        let _ = write!(into, "{value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVAIL: Family = Family { name: "x_avail_bytes", kind: Kind::Gauge, help: "Left." };
    const SEEN: Family = Family { name: "x_seen_bytes", kind: Kind::Counter, help: "Seen." };

    fn text(format: Format) -> String {
        let mut text = Exposition::new(format);
        text.family(AVAIL, ["volume"], [(["/a\\b\"c\nd"], 1.5e15), (["/"], f64::INFINITY)]);
        text.family(SEEN, [], [([], 0.1)]);
        text.family(Family { name: "x_none", ..SEEN }, ["y"], []);
        text.finish()
    }

    #[test]
    fn openmetrics() {
        assert_eq!(
            text(Format::OpenMetrics),
            "# TYPE x_avail_bytes gauge\n# UNIT x_avail_bytes bytes\n# HELP x_avail_bytes Left.\n\
             x_avail_bytes{volume=\"/a\\\\b\\\"c\\nd\"} 1500000000000000\n\
             x_avail_bytes{volume=\"/\"} +Inf\n\
             # TYPE x_seen_bytes counter\n# UNIT x_seen_bytes bytes\n# HELP x_seen_bytes Seen.\n\
             x_seen_bytes_total 0.1\n# EOF\n"
        );
    }

    #[test]
    fn the_older_format() {
        let text = text(Format::Text);
        assert!(text.contains("# TYPE x_seen_bytes_total counter\n"), "{text}");
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"), "{text}");
    }

    #[test]
    fn the_accept_header_selects_the_format() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::from_accept(prometheus), Format::OpenMetrics);
        assert_eq!(Format::from_accept("*/*"), Format::Text);
        assert_eq!(Format::from_accept(""), Format::Text);
    }
}
