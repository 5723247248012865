//! Rounds, and what they come to.

use super::{case::Case, load::Sample, process::Used};

/// What was measured in one case, contestant by contestant, round by round.
pub(super) struct Table {
    case: Case,
    columns: Vec<Column>,
}

struct Column {
    name: &'static str,
    samples: Vec<Sample>,
    /// Processor seconds of 1,000 requests.
    cpu: Vec<f64>,
    memory: Used,
}

impl Table {
    /// An empty table of `case`.
    pub(super) const fn new(case: Case) -> Self {
        Self {
            case,
            columns: Vec::new(),
        }
    }

    /// Adds a measurement of `name`; `used` is what it used before and after, if it is measured.
    pub(super) fn add(&mut self, name: &'static str, sample: Sample, used: Option<(Used, Used)>) {
        let index = self
            .columns
            .iter()
            .position(|column| column.name == name)
            .unwrap_or_else(|| {
                self.columns.push(Column {
                    name,
                    samples: Vec::new(),
                    cpu: Vec::new(),
                    memory: Used::default(),
                });
                self.columns.len() - 1
            });
        let Some(column) = self.columns.get_mut(index) else {
            return;
        };
        column.samples.push(sample);
        if let Some((before, after)) = used {
            column
                .cpu
                .push((after.cpu - before.cpu) * 1000.0 / sample.requests);
            column.memory = after;
        }
    }

    /// How many times the rate of `other` that of `name` is: the median of the rounds.
    pub(super) fn ratio(&self, name: &str, other: &str) -> f64 {
        let (Some(left), Some(right)) = (self.column(name), self.column(other)) else {
            return 0.0;
        };
        median(
            left.samples
                .iter()
                .zip(&right.samples)
                .map(|(left, right)| left.rate / right.rate),
        )
    }

    /// The most resident memory of `name`, in MiB.
    pub(super) fn peak(&self, name: &str) -> f64 {
        self.column(name).map_or(0.0, |column| column.memory.peak)
    }

    /// Prints it; ratios are to `base`, added time is to `direct`.
    pub(super) fn print(&self, base: &str, direct: &str) {
        println!("\n{}", self.case.name);
        println!(
            "  {:<10} {:>10} {:>8} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "",
            "requests/s",
            "ratio",
            "p50",
            "p99",
            "added p50",
            "CPU s/1000",
            "RSS MiB",
            "peak MiB"
        );
        let p50 = |column: &Column| median(column.samples.iter().map(|sample| sample.p50));
        for column in &self.columns {
            let rate = median(column.samples.iter().map(|sample| sample.rate));
            let added = self
                .column(direct)
                .filter(|other| other.name != column.name)
                .map(|other| p50(column) - p50(other));
            print!(
                "  {:<10} {rate:>10.0} {:>8.2}",
                column.name,
                self.ratio(column.name, base)
            );
            print!(
                " {:>10} {:>10}",
                time(p50(column)),
                time(median(column.samples.iter().map(|sample| sample.p99)))
            );
            print!(" {:>10}", added.map(time).unwrap_or_default());
            if column.cpu.is_empty() {
                println!();
            } else {
                let Used { resident, peak, .. } = column.memory;
                println!(
                    " {:>10.3} {resident:>10.1} {peak:>10.1}",
                    median(column.cpu.iter().copied())
                );
            }
        }
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// A time, as people read it.
pub(super) fn time(micros: f64) -> String {
    if micros.abs() < 10_000.0 {
        format!("{micros:.0} us")
    } else {
        format!("{:.1} ms", micros / 1000.0)
    }
}

/// The one in the middle.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or_default();
    if values.len() % 2 == 1 {
        upper
    } else {
        middle
            .checked_sub(1)
            .and_then(|lower| values.get(lower))
            .map_or(upper, |lower| (lower + upper) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(
            median([3.0, 1.0, 2.0].into_iter()).to_bits(),
            2.0f64.to_bits()
        );
        assert_eq!(
            median([4.0, 1.0, 2.0, 3.0].into_iter()).to_bits(),
            2.5f64.to_bits()
        );
        assert_eq!(median(std::iter::empty()).to_bits(), 0.0f64.to_bits());
    }
}
