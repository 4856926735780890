//! Rows held back for evaluation, and samples; both seeded and stratified by label.

use crate::error::DataError;
use crate::examples::Examples;
use crate::keys::Keys;
use crate::random::Random;

/// Which rows train and which evaluate: indices in ascending order, together every row once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The rows to train on.
    pub train: Vec<u32>,
    /// The rows to evaluate on.
    pub eval: Vec<u32>,
}

/// For each example the index of the first one with the same text (and second text), case and white space aside. Questions
/// over one text are one group, whatever they ask: see [`Keys`].
///
/// Rows of one group must not be divided between training and evaluation: a model that has seen the text
/// would be praised for its memory.
///
/// # Errors
/// The system cannot read the rows again.
pub fn duplicate_groups(examples: &Examples) -> Result<Vec<u32>, DataError> {
    Ok(Keys::of(examples)?.groups())
}

/// Holds back `fraction` of the rows for evaluation.
///
/// `labels` are class numbers below `classes`, a row each; `groups` says which rows stay together (see
/// [`duplicate_groups`]): rows with the same number do.
///
/// The number of evaluation rows is `fraction` times the rows, rounded. Each class gives its share of them
/// (largest remainder), and every class keeps at least one row in training. Groups are drawn in a random
/// order while their rows fit into the shares of their classes; what then is still missing, since a group is
/// drawn whole or not at all, is drawn from any class that can spare it. So only where groups are too large
/// is the number a little smaller.
///
/// # Errors
/// A fraction that is not between 0 and 1, or one that leaves no row for evaluation; labels or groups that do
/// not fit.
pub fn stratified_split(
    labels: &[u32],
    groups: &[u32],
    classes: usize,
    fraction: f64,
    seed: u64,
) -> Result<Split, DataError> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(DataError::new(format!(
            "expected a fraction between 0 and 1 for evaluation, got {fraction}: 0.1 holds back a tenth of \
             the rows"
        )));
    }
    if labels.len() != groups.len() {
        return Err(DataError::new(format!(
            "expected a group for each of {} rows, got {}",
            labels.len(),
            groups.len()
        )));
    }
    let counts = count_classes(labels, classes)?;
    let wanted = (fraction * labels.len() as f64).round() as usize;
    let most: Vec<usize> = counts.iter().map(|count| count.saturating_sub(1)).collect();
    let wanted = wanted.min(most.iter().sum());
    let mut by_group = all_rows(labels);
    by_group.sort_by_key(|&row| groups[row as usize]);
    // Where each group begins, which takes a quarter of what a slice of it would.
    let begins = |place: &u32| match by_group.get((*place as usize).wrapping_sub(1)) {
        Some(before) => groups[*before as usize] != groups[by_group[*place as usize] as usize],
        None => true,
    };
    let mut starts: Vec<u32> = all_rows(labels).into_iter().filter(begins).collect();
    Random::new(seed).shuffle(&mut starts);
    let group = |start: &u32| {
        let rows = &by_group[*start as usize..];
        let same = rows.iter().take_while(|row| groups[**row as usize] == groups[rows[0] as usize]);
        &rows[..same.count()]
    };
    let mut draw = Draw {
        labels,
        left: wanted,
        room: shares(&counts, &most, wanted),
        chosen: vec![false; labels.len()],
    };
    draw.take(starts.iter().map(group));
    let drawn = draw.count(classes);
    draw.room = most.iter().zip(drawn).map(|(most, drawn)| most - drawn).collect();
    draw.take(starts.iter().map(group));
    let (eval, train): (Vec<u32>, Vec<u32>) =
        all_rows(labels).into_iter().partition(|&row| draw.chosen[row as usize]);
    if eval.is_empty() {
        return Err(DataError::new(format!(
            "expected a fraction that leaves rows for evaluation, got {fraction} of {} rows in {classes} \
             classes, which leaves none: give a larger fraction, more rows, or an evaluation file",
            labels.len()
        )));
    }
    Ok(Split { train, eval })
}

/// Draws `wanted` rows, all of them where there are no more, and returns their indices in ascending order.
///
/// Each class gives its share (largest remainder), but a class keeps at least one row where there are as many
/// as classes.
///
/// # Errors
/// No rows wanted; labels that are not below `classes`.
pub fn stratified_sample(
    labels: &[u32],
    classes: usize,
    wanted: usize,
    seed: u64,
) -> Result<Vec<u32>, DataError> {
    if wanted == 0 {
        return Err(DataError::new("expected at least one row in a sample, got a limit of 0"));
    }
    let counts = count_classes(labels, classes)?;
    let wanted = wanted.min(labels.len());
    let mut room = shares(&counts, &counts, wanted);
    for class in 0..classes {
        if counts[class] > 0 && room[class] == 0 {
            // The largest share can give one up; the first of several, so that the choice is the same
            // everywhere.
            let largest =
                (0..classes).rev().max_by_key(|&other| room[other]).filter(|&other| room[other] > 1);
            let Some(largest) = largest else { break };
            room[largest] -= 1;
            room[class] = 1;
        }
    }
    let mut order = all_rows(labels);
    Random::new(seed).shuffle(&mut order);
    let mut draw = Draw { labels, left: wanted, room, chosen: vec![false; labels.len()] };
    draw.take(order.chunks(1));
    Ok(all_rows(labels).into_iter().filter(|&row| draw.chosen[row as usize]).collect())
}

/// A draw of whole groups under way.
struct Draw<'l> {
    labels: &'l [u32],
    /// How many more rows are wanted.
    left: usize,
    /// How many more rows each class may give.
    room: Vec<usize>,
    chosen: Vec<bool>,
}

impl Draw<'_> {
    /// Takes the groups that are not taken yet, in order, while they fit.
    fn take<'g>(&mut self, groups: impl Iterator<Item = &'g [u32]>) {
        for group in groups {
            if group.len() > self.left || group.iter().any(|&row| self.chosen[row as usize]) {
                continue;
            }
            // A group whose rows have different labels takes room from each class: step by step, and back if
            // one is full.
            let class = |row: u32| self.labels[row as usize] as usize;
            let fitting = group.iter().take_while(|&&row| match self.room[class(row)].checked_sub(1) {
                Some(room) => {
                    self.room[class(row)] = room;
                    true
                }
                None => false,
            });
            let fitting = fitting.count();
            if fitting < group.len() {
                for &row in &group[..fitting] {
                    self.room[class(row)] += 1;
                }
                continue;
            }
            self.left -= group.len();
            for &row in group {
                self.chosen[row as usize] = true;
            }
        }
    }

    /// How many rows of each class are taken.
    fn count(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        for (&label, _) in self.labels.iter().zip(&self.chosen).filter(|(_, chosen)| **chosen) {
            counts[label as usize] += 1;
        }
        counts
    }
}

fn all_rows(labels: &[u32]) -> Vec<u32> {
    // Rows are counted in four bytes: see the table.
    (0..u32::try_from(labels.len()).unwrap_or(u32::MAX)).collect()
}

fn count_classes(labels: &[u32], classes: usize) -> Result<Vec<usize>, DataError> {
    let mut counts = vec![0_usize; classes];
    for &label in labels {
        *counts.get_mut(label as usize).ok_or_else(|| {
            DataError::new(format!("expected class numbers below {classes}, got {label}"))
        })? += 1;
    }
    Ok(counts)
}

/// Divides `wanted` in proportion to `counts`, with at most `most` for each: the whole parts first, then the
/// largest remainders; the larger class and then the earlier one where remainders are equal.
fn shares(counts: &[usize], most: &[usize], wanted: usize) -> Vec<usize> {
    let total: usize = counts.iter().sum();
    // In whole numbers, so that no rounding decides: count * wanted = share * total + remainder.
    let parts = counts.iter().map(|&count| {
        let product = count as u128 * wanted as u128;
        let total = total.max(1) as u128;
        ((product / total) as usize, product % total)
    });
    let parts: Vec<(usize, u128)> = parts.collect();
    let mut shares: Vec<usize> = parts.iter().zip(most).map(|((share, _), most)| *share.min(most)).collect();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&class| (std::cmp::Reverse((parts[class].1, counts[class])), class));
    let mut left = wanted.saturating_sub(shares.iter().sum());
    while left > 0 {
        let before = left;
        for &class in &order {
            if left > 0 && shares[class] < most[class] {
                shares[class] += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    shares
}
