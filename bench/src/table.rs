//! What was measured: one line for each thing, printed as soon as it is known, and all of it as JSON.

use crate::stage::Kind;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// What a line has to show, by the issue that asked for it.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
}

impl Bound {
    fn is_met(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        }
    }

    fn text(self, value: f64) -> String {
        let (sign, bound) = match self {
            Bound::AtLeast(bound) => ("≥", bound),
            Bound::AtMost(bound) => ("≤", bound),
        };
        format!("{sign} {bound}{}", if self.is_met(value) { "" } else { ", missed" })
    }

    fn json(self, value: f64) -> String {
        let (name, bound) = match self {
            Bound::AtLeast(bound) => ("at_least", bound),
            Bound::AtMost(bound) => ("at_most", bound),
        };
        format!("\"{name}\": {bound}, \"met\": {}", self.is_met(value))
    }
}

/// One line.
#[derive(Debug)]
pub struct Row {
    what: String,
    unit: &'static str,
    values: BTreeMap<Kind, f64>,
    bound: Option<Bound>,
    ratios: Vec<(String, f64, Option<Bound>)>,
    /// Whether the Python program is measured too, where there is one.
    with_python: bool,
    note: String,
}

impl Row {
    /// wsnic alone.
    pub fn of(what: impl Into<String>, unit: &'static str, value: f64) -> Row {
        let values = BTreeMap::from([(Kind::Wsnic, value)]);
        Row::new(what.into(), unit, values, false)
    }

    /// Rounds in which each server was measured, one after the other: the medians, and the medians
    /// of the ratios within a round to those servers that `bounds` names.
    pub fn compared(
        what: impl Into<String>,
        unit: &'static str,
        rounds: &[BTreeMap<Kind, f64>],
        bounds: &[(Kind, Option<Bound>)],
    ) -> Row {
        let kinds: Vec<Kind> =
            rounds.first().into_iter().flat_map(|round| round.keys().copied()).collect();
        let column = |kind: Kind| rounds.iter().map(|round| round[&kind]).collect::<Vec<f64>>();
        let values = kinds.iter().map(|kind| (*kind, median(column(*kind)))).collect();
        let mut row =
            Row::new(what.into(), unit, values, bounds.iter().any(|bound| bound.0 == Kind::Python));
        for (kind, bound) in bounds.iter().filter(|(kind, _)| kinds.contains(kind)) {
            let ratios = rounds.iter().map(|round| round[&Kind::Wsnic] / round[kind]).collect();
            row = row.ratio(format!("to {}", kind.name()), median(ratios), *bound);
        }
        row
    }

    fn new(
        what: String,
        unit: &'static str,
        values: BTreeMap<Kind, f64>,
        with_python: bool,
    ) -> Row {
        Row {
            what,
            unit,
            values,
            bound: None,
            ratios: Vec::new(),
            with_python,
            note: String::new(),
        }
    }

    /// With something that is only to be read.
    pub fn note(mut self, note: impl Into<String>) -> Row {
        self.note = note.into();
        self
    }

    /// With a bound on the value.
    pub fn bound(mut self, bound: Bound) -> Row {
        self.bound = Some(bound);
        self
    }

    /// With a ratio.
    pub fn ratio(mut self, to: impl Into<String>, ratio: f64, bound: Option<Bound>) -> Row {
        self.ratios.push((to.into(), ratio, bound));
        self
    }

    fn line(&self) -> String {
        let cell = |kind| match self.values.get(&kind) {
            Some(value) => rounded(*value),
            None if self.with_python && kind == Kind::Python => "skipped".to_owned(),
            None => String::new(),
        };
        let mut remarks = Vec::new();
        if let Some(bound) = self.bound {
            remarks.push(bound.text(self.values[&Kind::Wsnic]));
        }
        for (to, ratio, bound) in &self.ratios {
            let bar = bound.map_or(String::new(), |bound| format!(" ({})", bound.text(*ratio)));
            remarks.push(format!("{to} {}{bar}", rounded(*ratio)));
        }
        if !self.note.is_empty() {
            remarks.push(self.note.clone());
        }
        line(
            &[&self.what, self.unit],
            [Kind::Wsnic, Kind::Naive, Kind::Limit, Kind::Python].map(cell),
            &remarks.join(", "),
        )
    }

    fn json(&self) -> String {
        let mut text =
            format!("{{\"what\": {}, \"unit\": {}", quoted(&self.what), quoted(self.unit));
        for (kind, value) in &self.values {
            let _ = write!(text, ", {}: {value}", quoted(kind.name()));
        }
        if self.with_python && !self.values.contains_key(&Kind::Python) {
            let _ = write!(text, ", {}: \"skipped\"", quoted(Kind::Python.name()));
        }
        if !self.note.is_empty() {
            let _ = write!(text, ", \"note\": {}", quoted(&self.note));
        }
        if let Some(bound) = self.bound {
            let _ = write!(text, ", {}", bound.json(self.values[&Kind::Wsnic]));
        }
        let ratios = self.ratios.iter().map(|(to, ratio, bound)| {
            let bound = bound.map_or(String::new(), |bound| format!(", {}", bound.json(*ratio)));
            format!("{}: {{\"ratio\": {ratio}{bound}}}", quoted(to))
        });
        let _ = write!(text, ", \"ratios\": {{{}}}}}", ratios.collect::<Vec<_>>().join(", "));
        text
    }
}

/// All lines so far.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// Prints the head.
    pub fn begin() -> Table {
        let names = [Kind::Wsnic, Kind::Naive, Kind::Limit, Kind::Python];
        println!(
            "{}",
            line(&["what", "unit"], names.map(|kind| kind.name().to_owned()), "ratios and bars")
        );
        println!("|{:-<58}|{:-<10}|{}{:-<40}|", "", "", "---------:|".repeat(4), "");
        Table::default()
    }

    /// Prints a line and keeps it.
    pub fn add(&mut self, row: Row) {
        println!("{}", row.line());
        self.0.push(row);
    }

    /// Writes all lines as JSON.
    pub fn write(&self, path: &Path, facts: &[(&str, String)]) -> std::io::Result<()> {
        let facts =
            facts.iter().map(|(name, value)| format!("  {}: {},\n", quoted(name), quoted(value)));
        let rows = self.0.iter().map(|row| format!("    {}", row.json())).collect::<Vec<_>>();
        let text = format!(
            "{{\n{}  \"rows\": [\n{}\n  ]\n}}\n",
            facts.collect::<String>(),
            rows.join(",\n")
        );
        std::fs::write(path, text)
    }
}

/// A line of Markdown.
fn line(left: &[&str; 2], values: [String; 4], remarks: &str) -> String {
    let [what, unit] = left;
    let [a, b, c, d] = values;
    format!("| {what:<56} | {unit:<8} | {a:>8} | {b:>8} | {c:>8} | {d:>8} | {remarks:<38} |")
}

/// Three digits that count.
pub fn rounded(value: f64) -> String {
    let digits = if value == 0.0 { 0.0 } else { 2.0 - value.abs().log10().floor() };
    format!("{value:.*}", digits.clamp(0.0, 3.0) as usize)
}

/// The middle one.
pub fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// The smallest of `values` that is not exceeded by this part of them.
///
/// # Panics
/// Without values.
pub fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * part).ceil() as usize;
    values[rank.max(1) - 1]
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\n' => out.push_str("\\n"),
            control if control.is_control() => {}
            other => out.push(other),
        }
    }
    out + "\""
}
