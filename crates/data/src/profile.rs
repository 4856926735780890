//! What is in the data, said before any time is spent on training.

use serde::Serialize;

use crate::error::DataError;
use crate::examples::Examples;
use crate::keys::Keys;
use crate::label::Label;
use crate::labels::LabelMap;
use crate::places::Places;
use crate::wording::{count, lines, thousands};

/// Counts and findings about a set of examples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataProfile {
    /// How many rows there are.
    pub rows: usize,
    /// The classes and their rows, the largest first; empty for examples without labels.
    pub classes: Vec<ClassCount>,
    /// The rows of the largest class over those of the smallest that has any; 1 is balance, none without
    /// labels.
    pub imbalance: Option<f64>,
    /// Several labels a row: how many rows have none.
    pub unlabelled: Option<usize>,
    /// What the numbers are like, where the labels are numbers.
    pub numbers: Option<Numbers>,
    /// The lengths in tokens.
    pub lengths: Option<Lengths>,
    /// Texts that come more than once.
    pub duplicates: Duplicates,
    /// Evaluation texts that training holds too; none where there are no evaluation examples.
    pub overlap: Option<Overlap>,
}

/// A class and its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// The label's name.
    pub name: String,
    /// How many rows have it.
    pub rows: usize,
}

/// The numbers of a regression.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Numbers {
    /// The smallest.
    pub min: f64,
    /// Half of them are no larger; by nearest rank, so it is some row's number.
    pub median: f64,
    /// The largest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// The standard deviation, of the rows as they are.
    pub deviation: f64,
}

/// How long the rows are, in tokens before truncation. Quantiles are by nearest rank, so each is some row's
/// length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The shortest.
    pub min: usize,
    /// Half of the rows are no longer.
    pub median: usize,
    /// Nine in ten rows are no longer.
    pub p90: usize,
    /// 99 in a hundred rows are no longer.
    pub p99: usize,
    /// The longest.
    pub max: usize,
    /// The sum.
    pub tokens: usize,
    /// What a row is truncated to.
    pub max_length: usize,
    /// How many rows are longer than that.
    pub truncated_rows: usize,
    /// How many tokens they lose together.
    pub truncated_tokens: usize,
}

/// Rows whose text (and second text), case and white space aside, came before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// How many rows repeat an earlier one.
    pub rows: usize,
    /// How many texts have different labels: whatever is learnt is wrong for some of their rows.
    pub conflicts: usize,
    /// The lines of the first such text.
    pub first_conflict_lines: Vec<u64>,
    /// The same in words.
    #[serde(skip)]
    first_conflict: String,
}

/// Evaluation rows whose text training holds too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// How many.
    pub rows: usize,
    /// Of how many.
    pub eval_rows: usize,
}

/// From this ratio of class sizes on, the smallest classes are easily neglected.
const IMBALANCED: f64 = 10.0;

impl DataProfile {
    /// Profiles `examples`, whose keys are `keys`; labels without a row are left out, and without `labels` so are all.
    ///
    /// # Errors
    /// The system cannot read the rows again.
    pub fn new(examples: &Examples, keys: &Keys, labels: Option<&LabelMap>) -> Result<Self, DataError> {
        let mut counts = vec![0_usize; labels.map_or(0, LabelMap::len)];
        let (mut numbers, mut lists, mut empty) = (Vec::new(), false, 0_usize);
        for example in examples.iter() {
            let example = example?;
            let known = example.names().iter().filter_map(|name| labels?.index(name));
            known.for_each(|class| counts[class] += 1);
            match &example.label {
                Some(Label::Number(number)) => numbers.push(*number),
                Some(Label::Labels(names)) => {
                    lists = true;
                    empty += usize::from(names.is_empty());
                }
                _ => {}
            }
        }
        let classes = labels.map(|labels| counted(labels, &counts)).unwrap_or_default();
        let unlabelled = lists.then_some(empty);
        let imbalance = match (classes.first(), classes.last()) {
            (Some(largest), Some(smallest)) => Some(largest.rows as f64 / smallest.rows as f64),
            _ => None,
        };
        let duplicates = Duplicates::of(examples, keys)?;
        Ok(DataProfile {
            rows: examples.len(),
            classes,
            imbalance,
            unlabelled,
            numbers: Numbers::of(numbers),
            lengths: None,
            duplicates,
            overlap: None,
        })
    }

    /// Adds the rows' lengths in tokens, special tokens included, before they are cut to `max_length`.
    ///
    /// # Errors
    /// There are not as many lengths as rows.
    pub fn with_lengths(mut self, lengths: Vec<u32>, max_length: usize) -> Result<Self, DataError> {
        if lengths.len() != self.rows {
            return Err(DataError::new(format!(
                "expected a length for each of {}, got {}",
                count(self.rows, "row"),
                lengths.len()
            )));
        }
        self.lengths = Lengths::of(lengths, max_length);
        Ok(self)
    }

    /// Adds what `eval` shares with the profiled examples, whose keys are `train`.
    pub fn with_eval(mut self, train: &Keys, eval: &Keys) -> Self {
        let rows = train.shared_with(eval).len();
        self.overlap = Some(Overlap { rows, eval_rows: eval.len() });
        self
    }

    /// The class with the most rows.
    pub fn largest(&self) -> Option<&ClassCount> {
        self.classes.first()
    }

    /// The class with the fewest rows.
    pub fn smallest(&self) -> Option<&ClassCount> {
        self.classes.last()
    }

    /// The profile as sentences: first what there is, then what should be looked at.
    pub fn lines(&self) -> Vec<String> {
        let parts = [
            Some(self.balance_line()),
            self.lengths.as_ref().map(Lengths::line),
            self.imbalance_line(),
            self.lengths.as_ref().and_then(|lengths| lengths.truncation_line(self.rows)),
            self.duplicates.repeat_line(),
            self.duplicates.conflict_line(),
            self.overlap.as_ref().and_then(Overlap::line),
        ];
        parts.into_iter().flatten().collect()
    }

    fn balance_line(&self) -> String {
        let rows = count(self.rows, "row");
        if let Some(numbers) = &self.numbers {
            return numbers.line(&rows);
        }
        let (Some(largest), Some(smallest)) = (self.largest(), self.smallest()) else { return rows };
        let (kinds, more) = match self.unlabelled {
            None => (count(self.classes.len(), "class"), String::new()),
            Some(unlabelled) => {
                let given: usize = self.classes.iter().map(|class| class.rows).sum();
                let mean = given as f64 / self.rows.max(1) as f64;
                let more = format!("; {mean:.2} labels a row, {} without any", count(unlabelled, "row"));
                (count(self.classes.len(), "label"), more)
            }
        };
        format!(
            "{rows} in {kinds}: from {} of `{}` to {} of `{}`{more}",
            thousands(smallest.rows),
            smallest.name,
            thousands(largest.rows),
            largest.name
        )
    }

    fn imbalance_line(&self) -> Option<String> {
        let ratio = self.imbalance.filter(|ratio| *ratio >= IMBALANCED)?;
        let (kind, usual) = match self.unlabelled {
            None => ("class", "accuracy"),
            Some(_) => ("label", "micro F1"),
        };
        Some(format!(
            "the largest {kind} has {ratio:.0} times the rows of the smallest: look at macro F1 beside {usual}, \
             and consider class weights"
        ))
    }
}

fn counted(labels: &LabelMap, counts: &[usize]) -> Vec<ClassCount> {
    let named = labels.names().iter().zip(counts).filter(|(_, rows)| **rows > 0);
    let mut classes: Vec<ClassCount> =
        named.map(|(name, rows)| ClassCount { name: name.clone(), rows: *rows }).collect();
    // Stable, so equal classes keep the order of their numbers.
    classes.sort_by_key(|class| std::cmp::Reverse(class.rows));
    classes
}

impl Numbers {
    fn of(numbers: Vec<f64>) -> Option<Self> {
        let mut sorted = numbers;
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len() as f64;
        let mean = sorted.iter().sum::<f64>() / count;
        let variance = sorted.iter().map(|number| (number - mean) * (number - mean)).sum::<f64>() / count;
        Some(Numbers {
            min: *sorted.first()?,
            median: *sorted.get(sorted.len().div_ceil(2) - 1)?,
            max: *sorted.last()?,
            mean,
            deviation: variance.sqrt(),
        })
    }

    fn line(&self, rows: &str) -> String {
        let Numbers { min, median, max, mean, deviation } = self;
        format!(
            "{rows} with numbers from {min} to {max}: median {median}, mean {mean:.4}, deviation {deviation:.4}"
        )
    }
}

impl Lengths {
    fn of(lengths: Vec<u32>, max_length: usize) -> Option<Self> {
        let mut sorted = lengths;
        sorted.sort_unstable();
        let quantile = |percent: usize| {
            let rank = (percent * sorted.len()).div_ceil(100).max(1);
            sorted.get(rank - 1).map(|length| *length as usize)
        };
        let lengths = || sorted.iter().map(|length| *length as usize);
        let over = || lengths().filter_map(|length| length.checked_sub(max_length)).filter(|cut| *cut > 0);
        Some(Lengths {
            min: lengths().next()?,
            median: quantile(50)?,
            p90: quantile(90)?,
            p99: quantile(99)?,
            max: lengths().next_back()?,
            tokens: lengths().sum(),
            max_length,
            truncated_rows: over().count(),
            truncated_tokens: over().sum(),
        })
    }

    fn line(&self) -> String {
        format!(
            "tokens a row: median {}, 90% up to {}, 99% up to {}, from {} to {}; {} together",
            self.median,
            self.p90,
            self.p99,
            self.min,
            self.max,
            thousands(self.tokens)
        )
    }

    fn truncation_line(&self, rows: usize) -> Option<String> {
        (self.truncated_rows > 0).then(|| {
            format!(
                "{} of {} are longer than {} tokens and lose their ends, {} in all: raise --max-length if \
                 it matters",
                thousands(self.truncated_rows),
                count(rows, "row"),
                self.max_length,
                count(self.truncated_tokens, "token")
            )
        })
    }
}

impl Duplicates {
    fn of(examples: &Examples, keys: &Keys) -> Result<Self, DataError> {
        let (mut rows, mut conflicts) = (0, 0);
        // The first row of a text that has two labels, and the first that disagrees with it.
        let mut first: Option<[u32; 2]> = None;
        keys.each_group(|group| {
            rows += group.len() - 1;
            let other = group.iter().find(|row| !keys.same_label(group[0] as usize, **row as usize));
            if let Some(other) = other {
                conflicts += 1;
                if first.is_none_or(|[row, _]| group[0] < row) {
                    first = Some([group[0], *other]);
                }
            }
        });
        let mut first_conflict_lines = Vec::new();
        let mut places = Places::default();
        for row in first.into_iter().flatten() {
            if let Some(example) = examples.get(row as usize)? {
                first_conflict_lines.push(example.line);
                places.note(usize::try_from(example.row).unwrap_or_default(), example.line);
            }
        }
        let first_conflict = match examples.table() {
            Some(table) => places.words(table, table.path()),
            None => lines(&first_conflict_lines, first_conflict_lines.len()),
        };
        Ok(Duplicates { rows, conflicts, first_conflict_lines, first_conflict })
    }

    fn repeat_line(&self) -> Option<String> {
        let verb = if self.rows == 1 { "repeats" } else { "repeat" };
        (self.rows > 0).then(|| format!("{} {verb} the text of an earlier row", count(self.rows, "row")))
    }

    fn conflict_line(&self) -> Option<String> {
        let verb = if self.conflicts == 1 { "has" } else { "have" };
        (self.conflicts > 0).then(|| {
            format!(
                "{} {verb} different labels in different rows, such as on {}: no model can be right about \
                 all of them",
                count(self.conflicts, "text"),
                self.first_conflict
            )
        })
    }
}

impl Overlap {
    fn line(&self) -> Option<String> {
        (self.rows > 0).then(|| {
            format!(
                "{} of {} have a text that training holds too: their scores flatter",
                thousands(self.rows),
                count(self.eval_rows, "evaluation row")
            )
        })
    }
}
