//! What is learnt of the words of some sentences.

use std::path::Path;

use retune_data::{DataError, Example, Examples, NumberLists, Tokens};
use retune_metrics::{Prefix, Strictness, Tag};
use retune_tensor::{Error as TensorError, Result as TensorResult, Var, ops};

use super::score::TagScores;
use super::{EntityTags, tells_an_end};
use crate::AdaptError;
use crate::tasks::alignment::{Alignment, rows_from, words_of};
use crate::tasks::form::{LossOptions, Score, Scoring, Targets};
use crate::tasks::head::HeadOutput;
use crate::tasks::single_label::balanced;

/// How many words without a token are listed.
const LISTED: usize = 3;

/// The tags of each example's words, and where these are among the tokens.
#[derive(Debug)]
pub(super) struct TagTargets {
    pub form: EntityTags,
    pub examples: Examples,
    /// Whether their tags tell ends that the model's cannot, and are read without.
    without_ends: bool,
    /// Of each row its example, its length, and of each word in it the token, the word among the example's, and its class.
    rows: NumberLists,
    /// What each row's losses add to what they are divided by: words, or the weights of their classes.
    weights: Vec<f32>,
    class_weights: Option<Vec<f32>>,
    label_smoothing: f32,
    lost: Lost,
    /// Whether the model's tags tell where entities end, and none of these does.
    endless: bool,
}

/// Words that no token stands for.
#[derive(Debug, Default)]
struct Lost {
    words: usize,
    in_entities: usize,
    /// The first, and where they are.
    first: Vec<String>,
}

/// What is learnt of a row.
pub(super) struct TagRow {
    pub example: usize,
    /// Its tokens.
    pub length: usize,
    /// Of each word the token, the word among the example's, and its class.
    pub words: Vec<[u32; 3]>,
}

impl TagTargets {
    /// Errors if a type is none of the model's, with the first line that has it, or the system cannot read the examples
    /// again.
    pub fn new(
        form: &EntityTags,
        examples: &Examples,
        tokens: &Tokens,
        path: &Path,
        options: LossOptions,
    ) -> Result<Self, AdaptError> {
        let (mut any, mut ends) = (false, false);
        for example in examples.iter() {
            let example = example?;
            let gold = form.gold(&example, false);
            let gold = gold.map_err(|message| examples.error_at(&example, path, message))?;
            any |= gold.iter().any(|tag| tag.prefix != Prefix::O);
            ends |= gold.iter().any(|tag| tells_an_end(tag.prefix));
        }
        let without_ends = ends && form.strictness != Strictness::Iobes;
        let mut targets = TagTargets {
            form: form.clone(),
            examples: examples.clone(),
            without_ends,
            rows: NumberLists::default(),
            weights: Vec::with_capacity(tokens.len()),
            class_weights: None,
            label_smoothing: options.label_smoothing,
            lost: Lost::default(),
            endless: form.strictness == Strictness::Iobes && any && !ends,
        };
        let mut counts = vec![0; form.labels.len()];
        for example in examples.iter() {
            targets.add(&example?, tokens, &mut counts)?;
        }
        if options.balanced {
            let weights = balanced(&counts);
            let sum = |row| Ok(targets.row(row)?.classes().map(|class| weights[class]).sum());
            targets.weights = (0..targets.rows.len()).map(sum).collect::<Result<_, DataError>>()?;
            targets.class_weights = Some(weights);
        }
        Ok(targets)
    }

    /// Adds the rows of the next example, and counts the classes of its words.
    fn add(&mut self, example: &Example, tokens: &Tokens, counts: &mut [usize]) -> Result<(), AdaptError> {
        let (rows, words) = (rows_from(self.rows.len(), tokens), words_of(example));
        let gold = self.gold(example)?;
        let class = |word: usize| self.form.class(gold[word]);
        (0..gold.len()).for_each(|word| counts[class(word)] += 1);
        let alignment = Alignment::new(&words, tokens, rows.clone())?;
        for word in alignment.lost {
            self.lost.words += 1;
            self.lost.in_entities += usize::from(gold[word].prefix != Prefix::O);
            if self.lost.first.len() < LISTED {
                let place = self.examples.place_words(example.row, example.line);
                self.lost.first.push(format!("{:?} ({place})", &example.text[words[word].clone()]));
            }
        }
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        for (row, places) in rows.zip(alignment.places) {
            let words =
                places.iter().flat_map(|[token, word]| [*token, *word, narrow(class(*word as usize))]);
            let head = [tokens.example(row), tokens.length(row)].map(narrow);
            self.rows.push(head.into_iter().chain(words))?;
            self.weights.push(places.len() as f32);
        }
        Ok(())
    }

    /// The tags of an example's words, all of which were looked at before.
    pub fn gold(&self, example: &Example) -> Result<Vec<Tag>, DataError> {
        self.form.gold(example, self.without_ends).map_err(DataError::new)
    }

    /// What is learnt of a row. Errors if the system cannot read it again.
    pub fn row(&self, row: usize) -> Result<TagRow, DataError> {
        Ok(TagRow::of(&self.rows.get(row)?))
    }
}

impl TagRow {
    fn of(numbers: &[u32]) -> Self {
        let (head, words) = numbers.split_at(numbers.len().min(2));
        let number = |at: usize| head.get(at).map_or(0, |number| *number as usize);
        TagRow { example: number(0), length: number(1), words: words.as_chunks().0.to_vec() }
    }

    fn classes(&self) -> impl Iterator<Item = usize> {
        self.words.iter().map(|[.., class]| *class as usize)
    }
}

impl Targets for TagTargets {
    fn denominator(&self, rows: &[usize]) -> f32 {
        let sum: f32 = rows.iter().map(|row| self.weights[*row]).sum();
        // Rows without a word have a loss of 0, whatever it is divided by.
        if sum > 0.0 { sum } else { 1.0 }
    }

    fn loss(&self, output: &HeadOutput<'_>, rows: &[usize], denominator: f32) -> TensorResult<Var> {
        let (tape, logits) = (output.tape(), &output.logits()?);
        let (mut places, mut targets, mut first) = (Vec::new(), Vec::new(), 0);
        for row in rows {
            let row = self.row(*row).map_err(|error| TensorError::Input(error.to_string()))?;
            places.extend(row.words.iter().map(|[token, ..]| first + *token as usize));
            targets.extend(row.words.iter().map(|[.., class]| *class));
            first += row.length;
        }
        let mut denominator = denominator;
        if places.is_empty() {
            // No word in any of the rows: whatever is read, the loss is 0.
            (places, targets, denominator) = (vec![0], vec![0], f32::INFINITY);
        }
        let words = ops::select_rows(tape, logits, &places)?;
        let options = ops::CrossEntropyOptions {
            class_weights: self.class_weights.as_deref(),
            label_smoothing: self.label_smoothing,
            denominator,
        };
        ops::cross_entropy(tape, &words, &targets, options)
    }

    fn score(&self, scoring: Scoring) -> Box<dyn Score + '_> {
        Box::new(TagScores::new(self, scoring))
    }

    fn said(&self) -> Vec<String> {
        let mut said = Vec::new();
        let texts = self.examples.len();
        if self.rows.len() > texts {
            said.push(format!(
                "{} windows more than the {texts} texts, as some are longer than a row; what overlaps counts once",
                self.rows.len() - texts
            ));
        }
        let Lost { words, in_entities, first } = &self.lost;
        if *words > 0 {
            said.push(format!(
                "{words} words have no token of their own, {in_entities} of them in entities; they are taken for O: {}{}",
                first.join(", "),
                if *words > first.len() { " ..." } else { "" }
            ));
        }
        if self.endless {
            said.push(
                "no tag of these rows tells where an entity ends, as the model's do: they count as they are, and none \
                 of these entities is in strict F1; if they are IOB2, --tag-scheme iob2 says so"
                    .into(),
            );
        }
        said
    }
}
