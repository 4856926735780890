//! A tag for each word: softmax and cross-entropy at its first token; entities are read from the tags.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use retune_data::{DataError, Example, Examples, LabelMap, TagScheme, Tokens, tag_parts};
use retune_metrics::{
    Bootstrap, ConfusionMatrix, Entity, EntityCounts, Prefix, Strictness, Tag, Tally, entities,
};
use retune_model::tokenizer::Tokenizer;
use retune_tensor::{Result as TensorResult, Var, ops};

use super::alignment::{Alignment, given};
use super::form::{
    About, Answer, Answered, Decode, EntityAnswer, Form, FormSpec, LabelScore, LossOptions, Measured,
    Metrics, Mistake, Score, Scoring, Targets,
};
use super::head::HeadOutput;
use super::mistakes::Mistakes;
use super::single_label::{balanced, most_probable};
use crate::AdaptError;

pub(super) static SPEC: FormSpec = FormSpec {
    problem_type: None,
    summary: "a tag for each word, and the entities that they make",
    decides: "f1",
    decided: EntityCounts::f1_of,
    shown: &[
        ("f1", "entity F1"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("f1_strict", "strict F1"),
        ("f1_macro", "macro F1"),
        ("token_accuracy", "token accuracy"),
    ],
};

/// The share of a window's tokens that the next one repeats.
const OVERLAP: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct EntityTags {
    labels: LabelMap,
    /// Of each label.
    tags: Vec<Tag>,
    /// The names of the types, by their numbers.
    kinds: Vec<String>,
    strictness: Strictness,
}

impl EntityTags {
    /// Of the tags that a model gives. Errors if one is none.
    pub fn new(labels: LabelMap) -> Result<Self, AdaptError> {
        let parsed = labels.names().iter().map(|name| tag_parts(name).ok_or(name));
        let parts: Vec<(char, &str)> = parsed.collect::<Result<_, _>>().map_err(|name| {
            DataError::new(format!(
                "the model's label `{name}` is no tag: expected O and tags such as B-person; is it a model for entities?"
            ))
        })?;
        let mut kinds: Vec<String> =
            parts.iter().filter(|(p, _)| *p != 'O').map(|(_, kind)| (*kind).to_string()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let tags: Vec<Tag> = parts.iter().map(|parts| tag(*parts, &kinds).unwrap_or(Tag::OUTSIDE)).collect();
        let ends = tags.iter().any(|tag| tells_an_end(tag.prefix));
        let strictness = if ends { Strictness::Iobes } else { Strictness::Iob2 };
        Ok(EntityTags { labels, tags, kinds, strictness })
    }

    /// The type `kind` as people are shown it.
    fn kind_name(&self, kind: u32) -> &str {
        self.kinds.get(kind as usize).map_or("", String::as_str)
    }

    /// The class of a tag; that of `O`, or else the first, where the model lacks it.
    fn class(&self, tag: Tag) -> usize {
        let is =
            |known: &Tag| known.prefix == tag.prefix && (tag.prefix == Prefix::O || known.kind == tag.kind);
        self.tags.iter().position(is).unwrap_or_else(|| self.outside())
    }

    fn outside(&self) -> usize {
        self.tags.iter().position(|tag| tag.prefix == Prefix::O).unwrap_or(0)
    }
}

/// A tag of its parts; none if its type is not among `kinds`.
fn tag((prefix, kind): (char, &str), kinds: &[String]) -> Option<Tag> {
    let prefix = match prefix {
        'B' => Prefix::B,
        'I' | 'M' => Prefix::I,
        'E' | 'L' => Prefix::E,
        'S' | 'U' => Prefix::S,
        _ => return Some(Tag::OUTSIDE),
    };
    let kind = kinds.iter().position(|known| known == kind)?;
    Some(Tag { prefix, kind: u32::try_from(kind).unwrap_or(u32::MAX) })
}

impl Form for EntityTags {
    fn spec(&self) -> &'static FormSpec {
        &SPEC
    }

    fn labels(&self) -> &LabelMap {
        &self.labels
    }

    fn tokens(
        &self,
        examples: &Examples,
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<Tokens, AdaptError> {
        Ok(Tokens::of_texts(tokenizer, examples, max_length, max_length / OVERLAP)?)
    }

    fn targets(
        &self,
        examples: &Examples,
        tokens: &Tokens,
        path: &Path,
        options: LossOptions,
    ) -> Result<Box<dyn Targets>, AdaptError> {
        let (all, rows) = (examples, examples.all()?);
        let gold = self.gold(all, &rows, path)?;
        let alignment = Alignment::new(&rows, tokens);
        let class = |tag: &Tag| u32::try_from(self.class(*tag)).unwrap_or(u32::MAX);
        let classes: Vec<u32> = gold.iter().flatten().map(class).collect();
        let lost = alignment.lost().iter().map(|[example, word]| {
            let (row, tag) = (&rows[*example], gold[*example][*word]);
            let text = row.text[alignment.words(*example)[*word].clone()].to_string();
            Lost { place: all.place_words(row.row, row.line), text, tag }
        });
        let prefixes = || gold.iter().flatten().map(|tag| tag.prefix);
        Ok(Box::new(TagTargets {
            form: self.clone(),
            class_weights: options.balanced.then(|| balanced(&classes, self.labels.len())),
            label_smoothing: options.label_smoothing,
            windows: tokens.len() - tokens.examples(),
            lost: lost.collect(),
            endless: self.strictness == Strictness::Iobes
                && prefixes().any(|prefix| prefix != Prefix::O)
                && !prefixes().any(tells_an_end),
            example_of: (0..tokens.len()).map(|row| tokens.example(row)).collect(),
            lengths: (0..tokens.len()).map(|row| tokens.length(row)).collect(),
            gold,
            alignment,
        }))
    }

    fn decode<'a>(
        &'a self,
        examples: &'a Examples,
        tokens: &'a Tokens,
    ) -> Result<Box<dyn Decode + 'a>, AdaptError> {
        let examples = examples.all()?;
        let alignment = Alignment::new(&examples, tokens);
        Ok(Box::new(TagDecode { form: self, examples, tokens, alignment, words: Vec::new() }))
    }
}

impl EntityTags {
    /// The tags of each example's words, as they are; where they tell ends that the model's tags cannot, in its scheme. Errors if
    /// a type is none of the model's; it is named with its first line. `examples` are all of `rows`.
    fn gold(&self, examples: &Examples, rows: &[Example], path: &Path) -> Result<Vec<Vec<Tag>>, AdaptError> {
        let written = |example| {
            let words = given(example).unwrap_or_default().iter();
            words.map(|word| word.tag.as_deref().unwrap_or("O")).collect::<Vec<_>>()
        };
        let parsed = |tags: &[&str], example| {
            let tags = tags.iter().map(|written| {
                let parts = tag_parts(written).unwrap_or(('O', ""));
                tag(parts, &self.kinds).ok_or(parts.1)
            });
            tags.collect::<Result<Vec<Tag>, &str>>().map_err(|kind| {
                let message = format!(
                    "expected entities of training's {} types ({}), got `{kind}`: correct it, or train with rows that have it",
                    self.kinds.len(),
                    self.kinds.join(", ")
                );
                examples.error_at(example, path, message)
            })
        };
        let all: Result<Vec<Vec<Tag>>, DataError> =
            rows.iter().map(|example| parsed(&written(example), example)).collect();
        let all = all?;
        let ends = all.iter().flatten().any(|tag| tells_an_end(tag.prefix));
        if self.strictness == Strictness::Iobes || !ends {
            return Ok(all);
        }
        let told = rows.iter().map(|example| {
            let tags = TagScheme::Iob2.from_learnt(&written(example), TagScheme::Bioes);
            parsed(&tags.iter().map(String::as_str).collect::<Vec<_>>(), example)
        });
        Ok(told.collect::<Result<_, _>>()?)
    }
}

fn tells_an_end(prefix: Prefix) -> bool {
    matches!(prefix, Prefix::E | Prefix::S)
}

/// A word that no token stands for.
#[derive(Debug)]
struct Lost {
    place: String,
    text: String,
    tag: Tag,
}

/// The tags of each example's words, and where these are among the tokens.
#[derive(Debug)]
struct TagTargets {
    form: EntityTags,
    gold: Vec<Vec<Tag>>,
    alignment: Alignment,
    /// The example of each row.
    example_of: Vec<usize>,
    /// The tokens of each row.
    lengths: Vec<usize>,
    class_weights: Option<Vec<f32>>,
    label_smoothing: f32,
    /// Rows beyond the first of each example.
    windows: usize,
    lost: Vec<Lost>,
    /// Whether the model's tags tell where entities end, and none of these does.
    endless: bool,
}

impl TagTargets {
    fn classes(&self, row: usize) -> impl Iterator<Item = usize> {
        let gold = &self.gold[self.example_of[row]];
        self.alignment.places(row).iter().map(|[_, word]| self.form.class(gold[*word as usize]))
    }
}

impl Targets for TagTargets {
    /// Words, or the weights of their classes.
    fn denominator(&self, rows: &[usize]) -> f32 {
        let of_row = |row: &usize| match &self.class_weights {
            None => self.alignment.places(*row).len() as f32,
            Some(weights) => self.classes(*row).map(|class| weights[class]).sum(),
        };
        let sum: f32 = rows.iter().map(of_row).sum();
        // Rows without a word have a loss of 0, whatever it is divided by.
        if sum > 0.0 { sum } else { 1.0 }
    }

    fn loss(&self, output: &HeadOutput<'_>, rows: &[usize], denominator: f32) -> TensorResult<Var> {
        let (tape, logits) = (output.tape(), &output.logits()?);
        let (mut places, mut targets, mut first) = (Vec::new(), Vec::new(), 0);
        for row in rows {
            places.extend(self.alignment.places(*row).iter().map(|[token, _]| first + *token as usize));
            targets.extend(self.classes(*row).map(|class| u32::try_from(class).unwrap_or(u32::MAX)));
            first += self.lengths[*row];
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
        Box::new(TagScores {
            targets: self,
            counts: EntityCounts::new(self.form.kinds.len(), self.form.strictness),
            matrix: ConfusionMatrix::new(self.form.labels.len()),
            loss: 0.0,
            words: 0,
            example: 0,
            predicted: Vec::new(),
            scoring,
            tallies: Vec::new(),
            mistakes: Mistakes::new(scoring.mistakes),
        })
    }

    fn said(&self) -> Vec<String> {
        const LISTED: usize = 3;
        let mut said = Vec::new();
        if self.windows > 0 {
            let texts = self.gold.len();
            said.push(format!(
                "{} windows more than the {texts} texts, as some are longer than a row; what overlaps counts once",
                self.windows
            ));
        }
        if !self.lost.is_empty() {
            let inside = self.lost.iter().filter(|lost| lost.tag.prefix != Prefix::O).count();
            let listed =
                self.lost.iter().take(LISTED).map(|Lost { place, text, .. }| format!("{text:?} ({place})"));
            said.push(format!(
                "{} words have no token of their own, {inside} of them in entities; they are taken for O: {}{}",
                self.lost.len(),
                listed.collect::<Vec<_>>().join(", "),
                if self.lost.len() > LISTED { " ..." } else { "" }
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

struct TagScores<'a> {
    targets: &'a TagTargets,
    counts: EntityCounts,
    matrix: ConfusionMatrix,
    loss: f64,
    words: usize,
    /// The one that is under way.
    example: usize,
    /// The class of each of its words so far, and how probable it is.
    predicted: Vec<(usize, f32)>,
    scoring: Scoring,
    tallies: Vec<Tally>,
    mistakes: Mistakes,
}

impl TagScores<'_> {
    fn begin(&mut self, example: usize) {
        self.example = example;
        let outside = self.targets.form.outside();
        self.predicted = vec![(outside, 0.0); self.targets.gold.get(example).map_or(0, Vec::len)];
    }

    /// Counts the example that is under way.
    fn end(&mut self) {
        let Some(gold) = self.targets.gold.get(self.example) else { return };
        let form = &self.targets.form;
        let predicted: Vec<Tag> = self.predicted.iter().map(|(class, _)| form.tags[*class]).collect();
        // As many, of the form's own types.
        let Ok(tally) = self.counts.record(gold, &predicted) else { return };
        for (gold, (class, _)) in gold.iter().zip(&self.predicted) {
            let counted = self.matrix.record(form.class(*gold), *class);
            debug_assert!(counted.is_ok(), "{counted:?}");
        }
        if self.scoring.tallies {
            self.tallies.push(tally);
        }
        if self.scoring.mistakes > 0 {
            self.note_mistakes(&entities(gold), &entities(&predicted));
        }
    }

    /// Entities that are not there, and words of entities that were missed.
    fn note_mistakes(&mut self, gold: &[Entity], predicted: &[Entity]) {
        let form = &self.targets.form;
        let score = |words: &Range<usize>| {
            let sum: f32 = self.predicted[words.clone()].iter().map(|(_, score)| score).sum();
            sum / words.len().max(1) as f32
        };
        let overlapping = |entity: &Entity, others: &[Entity]| {
            let other = others
                .iter()
                .find(|other| other.words.start < entity.words.end && entity.words.start < other.words.end);
            other.map(|other| other.kind)
        };
        let wrong = |one: &[Entity], others: &[Entity]| {
            one.iter().filter(|entity| !others.contains(entity)).cloned().collect::<Vec<_>>()
        };
        let mistake = |words: &Range<usize>, gold: Option<u32>, predicted: Option<u32>| {
            let all = self.targets.alignment.words(self.example);
            Mistake {
                example: self.example,
                about: About::Part(all[words.start].start..all[words.end - 1].end),
                expected: gold.map(|kind| form.kind_name(kind).to_string()).into_iter().collect(),
                predicted: predicted.map_or("", |kind| form.kind_name(kind)).to_string(),
                score: score(words),
            }
        };
        let mut found = Vec::new();
        for entity in wrong(predicted, gold) {
            found.push(mistake(&entity.words, overlapping(&entity, gold), Some(entity.kind)));
        }
        for entity in wrong(gold, predicted) {
            // What was predicted there is a mistake already.
            if overlapping(&entity, predicted).is_none() {
                found.push(mistake(&entity.words, Some(entity.kind), None));
            }
        }
        found.into_iter().for_each(|mistake| self.mistakes.add(mistake));
    }
}

impl Score for TagScores<'_> {
    fn add(&mut self, rows: &[usize], logits: &[f32]) {
        let targets = self.targets;
        let labels = targets.form.labels.len().max(1);
        let mut first = 0;
        for row in rows {
            let example = targets.example_of[*row];
            if example != self.example || self.predicted.is_empty() {
                if example != self.example {
                    self.end();
                }
                self.begin(example);
            }
            for ([token, word], target) in targets.alignment.places(*row).iter().zip(targets.classes(*row)) {
                let at = (first + *token as usize) * labels;
                let logits = logits.get(at..at + labels).unwrap_or_default();
                let (class, score) = most_probable(logits);
                let lse =
                    logits.get(class).map_or(f64::NAN, |logit| f64::from(*logit)) - f64::from(score).ln();
                self.loss += lse - logits.get(target).map_or(f64::NAN, |logit| f64::from(*logit));
                self.words += 1;
                self.predicted[*word as usize] = (class, score);
            }
            first += targets.lengths[*row];
        }
    }

    fn measure(mut self: Box<Self>, bootstrap: Option<Bootstrap>) -> Measured {
        self.end();
        let TagScores { targets, counts, matrix, loss, words, tallies, mistakes, .. } = *self;
        let intervals = bootstrap.map(|bootstrap| counts.intervals(&bootstrap));
        Measured {
            loss: loss / (words as f64).max(1.0),
            metrics: Metrics::of(&counts.report(), counts.rows(), intervals),
            labels: LabelScore::named(&targets.form.kinds, counts.per_kind()),
            matrix: Some(matrix),
            thresholds: None,
            tallies,
            mistakes: mistakes.sorted(),
        }
    }
}

struct TagDecode<'a> {
    form: &'a EntityTags,
    examples: Cow<'a, [Example]>,
    tokens: &'a Tokens,
    alignment: Alignment,
    /// The class of each word of the example that is under way, and how probable it is.
    words: Vec<(usize, f32)>,
}

impl TagDecode<'_> {
    fn answer(&self, example: usize) -> Answered {
        let text = &self.examples[example].text;
        let words = self.alignment.words(example);
        let tags: Vec<Tag> = self.words.iter().map(|(class, _)| self.form.tags[*class]).collect();
        let characters = |byte: usize| text[..byte].chars().count();
        let entity = |Entity { kind, words: of }: Entity| {
            let range = words[of.start].start..words[of.end - 1].end;
            let sum: f32 = self.words[of.clone()].iter().map(|(_, score)| score).sum();
            EntityAnswer {
                start: characters(range.start),
                end: characters(range.end),
                text: text[range].to_string(),
                kind: self.form.kind_name(kind).to_string(),
                score: sum / of.len().max(1) as f32,
            }
        };
        let entities = entities(&tags).into_iter().map(entity).collect();
        let names = self.words.iter().map(|(class, _)| self.form.labels.name(*class).unwrap_or_default());
        Answered {
            answer: Answer::Entities { entities, tags: Some(names.map(str::to_string).collect()) },
            logits: None,
        }
    }
}

impl Decode for TagDecode<'_> {
    fn add(&mut self, rows: &[usize], logits: &[f32]) -> Vec<Answered> {
        let labels = self.form.labels.len().max(1);
        let (mut answers, mut first) = (Vec::new(), 0);
        for row in rows {
            let example = self.tokens.example(*row);
            let begins = *row == 0 || self.tokens.example(row - 1) != example;
            if begins {
                self.words = vec![(self.form.outside(), 0.0); self.alignment.words(example).len()];
            }
            for [token, word] in self.alignment.places(*row) {
                let at = (first + *token as usize) * labels;
                self.words[*word as usize] = most_probable(logits.get(at..at + labels).unwrap_or_default());
            }
            first += self.tokens.length(*row);
            let ends = row + 1 == self.tokens.len() || self.tokens.example(row + 1) != example;
            if ends {
                answers.push(self.answer(example));
            }
        }
        answers
    }
}
