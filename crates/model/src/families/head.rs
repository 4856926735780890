//! What a task asks of a model, as transformers has its classes: which hidden states the last layer reads, and what
//! stands before it.

use retune_tensor::ParamId;

use crate::layers::Embedding;

/// The kinds of head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// One answer for each row, read from its pooled hidden state: `...ForSequenceClassification`.
    Sequence,
    /// One for each token: `...ForTokenClassification`.
    Token,
    /// Where an answer begins and ends among the tokens: `...ForQuestionAnswering`.
    Question,
    /// Which token comes next: `...ForCausalLM`. It is pretrained, and reads each token.
    Language,
}

impl HeadKind {
    /// All of them.
    pub const ALL: [HeadKind; 4] =
        [HeadKind::Sequence, HeadKind::Token, HeadKind::Question, HeadKind::Language];

    /// What its classes of transformers end with.
    pub fn class_suffix(self) -> &'static str {
        match self {
            HeadKind::Sequence => "ForSequenceClassification",
            HeadKind::Token => "ForTokenClassification",
            HeadKind::Question => "ForQuestionAnswering",
            HeadKind::Language => "ForCausalLM",
        }
    }

    /// The `task_type` of `peft`.
    pub fn peft_task_type(self) -> &'static str {
        match self {
            HeadKind::Sequence => "SEQ_CLS",
            HeadKind::Token => "TOKEN_CLS",
            HeadKind::Question => "QUESTION_ANS",
            HeadKind::Language => "CAUSAL_LM",
        }
    }

    /// What a model with it is for.
    pub fn words(self) -> &'static str {
        match self {
            HeadKind::Sequence => "of classes or numbers of texts",
            HeadKind::Token => "of labels of tokens",
            HeadKind::Question => "of questions over texts",
            HeadKind::Language => "of text that goes on",
        }
    }

    /// Whether its last layer reads each token, and not what pools a row.
    pub fn reads_tokens(self) -> bool {
        self != HeadKind::Sequence
    }
}

/// What a family's head has in common with the family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadDefaults {
    /// What it is for.
    pub kind: HeadKind,
    /// The site of its last layer.
    pub name: &'static str,
    /// Dropout before that layer.
    pub dropout: f32,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// Whether that layer has a bias.
    pub bias: bool,
    /// That layer, where it is the vocabulary projection.
    pub vocabulary: Option<Vocabulary>,
}

/// The layer that gives each token of the vocabulary its logit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary {
    /// How many there are.
    pub size: usize,
    /// The table of the word embeddings, where that is its weight too.
    pub tied: Option<ParamId>,
}

impl HeadDefaults {
    /// The vocabulary projection of a decoder, where its head is of that kind.
    pub(super) fn vocabulary(
        kind: HeadKind,
        size: usize,
        tied: bool,
        words: &Embedding,
    ) -> Option<Vocabulary> {
        let vocabulary = Vocabulary { size, tied: tied.then(|| words.weight()) };
        (kind == HeadKind::Language).then_some(vocabulary)
    }
}
