//! What a task asks of a model, as transformers has its classes: which hidden states the last layer reads, and what
//! stands before it.

/// The kinds of head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// One answer for each row, read from its pooled hidden state: `...ForSequenceClassification`.
    Sequence,
    /// One for each token: `...ForTokenClassification`.
    Token,
    /// Where an answer begins and ends among the tokens: `...ForQuestionAnswering`.
    Question,
}

impl HeadKind {
    /// All of them.
    pub const ALL: [HeadKind; 3] = [HeadKind::Sequence, HeadKind::Token, HeadKind::Question];

    /// What its classes of transformers end with.
    pub fn class_suffix(self) -> &'static str {
        match self {
            HeadKind::Sequence => "ForSequenceClassification",
            HeadKind::Token => "ForTokenClassification",
            HeadKind::Question => "ForQuestionAnswering",
        }
    }

    /// The `task_type` of `peft`.
    pub fn peft_task_type(self) -> &'static str {
        match self {
            HeadKind::Sequence => "SEQ_CLS",
            HeadKind::Token => "TOKEN_CLS",
            HeadKind::Question => "QUESTION_ANS",
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
}
