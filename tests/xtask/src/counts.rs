//! How many tests passed, failed and were left out, as the runners themselves report it.

use std::{fmt, ops::AddAssign};

/// A number of tests.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// They passed.
    pub(crate) passed: u64,
    /// They failed.
    pub(crate) failed: u64,
    /// They were not run.
    pub(crate) skipped: u64,
}

impl Counts {
    /// Adds what a line of a runner's output reports; most lines report nothing.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(number) = line.strip_prefix("skipped with a reason: ") {
            // the scenarios, after the summary of libtest, which does not know them
            self.add(&format!("{number} skipped"));
        } else if let Some(summary) = line.strip_prefix("test result: ") {
            // libtest: `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s`
            for part in summary.split(&['.', ';']) {
                self.add(part);
            }
        } else if let Some(report) = line.strip_prefix("# ").or_else(|| line.strip_prefix("ℹ ")) {
            // node --test: `# pass 3`
            let mut words = report.split(' ');
            if let (Some(word), Some(number), None) = (words.next(), words.next(), words.next()) {
                self.add(&format!("{number} {word}"));
            }
        } else if line.contains(" passed, ")
            && line
                .chars()
                .next()
                .is_some_and(|first| first.is_ascii_digit())
        {
            // our own clients: `3 passed, 0 failed, 1 skipped`
            for part in line.split(", ") {
                self.add(part);
            }
        }
    }

    fn add(&mut self, part: &str) {
        let mut words = part.split_whitespace();
        let (Some(number), Some(what), None) = (words.next(), words.next(), words.next()) else {
            return;
        };
        let Ok(number) = number.parse::<u64>() else {
            return;
        };
        match what {
            "passed" | "pass" => self.passed += number,
            "failed" | "fail" | "cancelled" => self.failed += number,
            "ignored" | "skipped" | "todo" => self.skipped += number,
            _ => {}
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn every_runner_is_understood() {
        let mut counts = Counts::default();
        for line in [
            "running 5 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s",
            "# tests 6",
            "# pass 4",
            "# fail 1",
            "# skipped 1",
            "ℹ pass 10",
            "2 passed, 1 failed, 0 skipped",
            "this passed, 9 failed",
            "skipped with a reason: 5",
        ] {
            counts.read(line);
        }
        assert_eq!(
            counts,
            Counts {
                passed: 19,
                failed: 2,
                skipped: 7
            }
        );
    }
}
