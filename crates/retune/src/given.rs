//! Which flags were given, by their names: those of other tasks say nothing here, and are refused.

use retune_adapt::tasks::{self, Task};

use crate::{FileSettings, ModelSettings, Result};

impl ModelSettings {
    /// Errors if a flag was given that is for other tasks than `task`.
    pub(crate) fn check_task(&self, task: &dyn Task) -> Result<()> {
        let given = [
            ("problem-type", self.problem_type.is_some()),
            ("doc-stride", self.doc_stride.is_some()),
            ("max-answer-length", self.max_answer_length.is_some()),
            ("n-best", self.n_best.is_some()),
            ("loss-on", self.loss_on.is_some()),
            ("chat-template", self.chat_template.is_some()),
        ];
        Ok(tasks::check_flags(task, names(given))?)
    }
}

impl FileSettings {
    /// The flags that were given.
    pub fn given(&self) -> impl Iterator<Item = &'static str> {
        names([
            ("text-column", self.text_column.is_some()),
            ("label-column", self.label_column.is_some()),
            ("pair-column", self.pair_column.is_some()),
            ("label-separator", self.label_separator.is_some()),
            ("rename", self.rename.is_some()),
            ("tag-scheme", self.tag_scheme.is_some()),
            ("format", self.format.is_some()),
            ("encoding", self.encoding.is_some()),
        ])
    }
}

fn names<const COUNT: usize>(flags: [(&'static str, bool); COUNT]) -> impl Iterator<Item = &'static str> {
    flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag)
}
