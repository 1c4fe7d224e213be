//! Reads a volume's history from CSV: columns `time_s,total_bytes,used_bytes,avail_bytes` in any
//! order; others are ignored.

use std::io::BufRead;

use anyhow::{Context, Result, bail, ensure};
use tracer_model::forecast::Sample;

const COLUMNS: [&str; 4] = ["time_s", "total_bytes", "used_bytes", "avail_bytes"];
/// Longest line that is accepted, bytes. A longer one is not a volume's history, and reading it
/// would only use up memory.
const MAX_LINE: u64 = 64 * 1024;

/// Reads the rows of a history as samples.
pub(crate) struct SampleReader<R> {
    input: R,
    name: String,
    /// Index of each of [`COLUMNS`] in a row.
    positions: [usize; 4],
    line: usize,
}

impl<R: BufRead> SampleReader<R> {
    /// Reads the header and finds the columns.
    pub(crate) fn open(input: R, name: String) -> Result<Self> {
        let mut reader = Self { input, name, positions: [0; 4], line: 0 };
        let Some(header) = reader.next_line()? else {
            bail!("{} is empty: expected a header line {}", reader.name, COLUMNS.join(","));
        };
        let cells: Vec<&str> = header
            .trim_start_matches('\u{feff}')
            .split(',')
            .map(|c| c.trim().trim_matches('"'))
            .collect();
        for (position, column) in reader.positions.iter_mut().zip(COLUMNS) {
            *position = cells.iter().position(|c| *c == column).with_context(|| {
                format!(
                    "{}: no column {column} in its first line, expected {}",
                    reader.name,
                    COLUMNS.join(",")
                )
            })?;
        }
        Ok(reader)
    }

    fn next_line(&mut self) -> Result<Option<String>> {
        loop {
            let mut bytes = Vec::new();
            let mut limited = std::io::Read::take(&mut self.input, MAX_LINE);
            let n = limited.read_until(b'\n', &mut bytes).with_context(|| self.name.clone())?;
            if n == 0 {
                return Ok(None);
            }
            self.line += 1;
            ensure!((n as u64) < MAX_LINE, "{}:{}: the line is too long", self.name, self.line);
            let text = String::from_utf8(bytes)
                .ok()
                .with_context(|| format!("{}:{}: not text", self.name, self.line))?;
            if !text.trim().is_empty() {
                return Ok(Some(text.trim_end().to_owned()));
            }
        }
    }

    /// Reads the next row; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Sample>> {
        let Some(text) = self.next_line()? else { return Ok(None) };
        let cells: Vec<&str> = text.split(',').map(|c| c.trim().trim_matches('"')).collect();
        let cell = |i: usize| {
            let name = COLUMNS[i];
            let text = cells
                .get(self.positions[i])
                .with_context(|| format!("{}:{}: no {name} in this line", self.name, self.line))?;
            let wrong = || {
                let what =
                    if i == 0 { "a finite number" } else { "a number of bytes from 0 to 2^64" };
                format!("{}:{}: {name} is {text:?}, expected {what}", self.name, self.line)
            };
            let value: f64 = text.parse().ok().with_context(wrong)?;
            ensure!(value.is_finite() && (i == 0 || (0.0..1.9e19).contains(&value)), wrong());
            Ok((value, *text))
        };
        let bytes = |i: usize| {
            let (value, text) = cell(i)?;
            // Exact if written as an integer; floats, which some tools write, are accepted too.
            Ok::<u64, anyhow::Error>(text.parse().unwrap_or(value as u64))
        };
        let sample = Sample {
            time_s: cell(0)?.0,
            total: bytes(1)?,
            used: bytes(2)?,
            avail: bytes(3)?,
            ..Sample::default()
        };
        ensure!(
            sample.used <= sample.total && sample.avail <= sample.total,
            "{}:{}: more bytes used or available than the total of {}",
            self.name,
            self.line,
            sample.total
        );
        Ok(Some(sample))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(text: &[u8]) -> Result<Vec<Sample>> {
        let mut reader = SampleReader::open(text, "x.csv".to_owned())?;
        let mut out = Vec::new();
        while let Some(sample) = reader.next()? {
            out.push(sample);
        }
        Ok(out)
    }

    #[test]
    fn columns_in_any_order_quotes_floats_and_blank_lines_are_read() {
        let got = read(b"\xef\xbb\xbfused_bytes,\"time_s\",host,avail_bytes,total_bytes\r\n\r\n 7 ,1.5,x,1e1,20.0\r\n").unwrap();
        assert_eq!(
            got,
            [Sample { time_s: 1.5, total: 20, used: 7, avail: 10, ..Sample::default() }]
        );
    }

    #[test]
    fn integers_keep_every_byte() {
        let got = read(b"time_s,total_bytes,used_bytes,avail_bytes\n0,18446744073709551615,9007199254740993,0\n").unwrap();
        assert_eq!(got[0].used, 9_007_199_254_740_993);
        assert_eq!(got[0].total, u64::MAX);
    }

    #[rstest]
    #[case(b"", "is empty")]
    #[case(b"a,b\n1,2\n", "no column time_s")]
    #[case(b"time_s,total_bytes,used_bytes\n", "no column avail_bytes")]
    #[case(b"time_s,total_bytes,used_bytes,avail_bytes\n1,2\n", "x.csv:2: no used_bytes")]
    #[case(b"time_s,total_bytes,used_bytes,avail_bytes\nNaN,10,5,5\n", "time_s is \"NaN\"")]
    #[case(b"time_s,total_bytes,used_bytes,avail_bytes\n1,10,-5,5\n", "used_bytes is \"-5\"")]
    #[case(b"time_s,total_bytes,used_bytes,avail_bytes\n1,1e40,5,5\n", "total_bytes is \"1e40\"")]
    #[case(b"time_s,total_bytes,used_bytes,avail_bytes\n1,10,5,\n", "avail_bytes is \"\"")]
    #[case(b"time_s,total_bytes,used_bytes,avail_bytes\n1,10,50,5\n", "more bytes used")]
    #[case(b"time_s,total_bytes,used_bytes,avail_bytes\n\xff\n", "not text")]
    fn bad_input_gets_one_clear_error(#[case] text: &[u8], #[case] expected: &str) {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains('\n'));
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_read_or_rejected(
            header in "(time_s,total_bytes,used_bytes,avail_bytes)?[ -~]{0,40}",
            body in proptest::collection::vec("[-+0-9.,eEnaifNI\"\t \r\u{0}é]{0,60}", 0..8),
        ) {
            let text = format!("{header}\n{}", body.join("\n"));
            if let Err(error) = read(text.as_bytes()) {
                proptest::prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
