//! A tag for each word of a text: a linear layer over each token's hidden state, read at the first token of each word.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use retune_data::{
    DataError, LabelMap, ReadOptions, SentenceColumns, TagScheme, Wanted, read_head, read_tables,
};
use retune_model::families::HeadKind;

use super::entity_tags::{self, EntityTags};
use super::reading::{ColumnNames, Corpus, Reading};
use super::sentence_file::SentenceFile;
use super::{Form, FormSettings, FormSpec, Task};
use crate::AdaptError;

#[derive(Debug)]
pub(super) struct TokenClassification;

impl Task for TokenClassification {
    fn name(&self) -> &'static str {
        "token-classification"
    }

    fn summary(&self) -> &'static str {
        "entities in each text: people, places, products, parts of addresses"
    }

    fn head(&self) -> HeadKind {
        HeadKind::Token
    }

    fn own_flags(&self) -> &'static [&'static str] {
        &["tag-scheme"]
    }

    fn forms(&self) -> &'static [&'static FormSpec] {
        static FORMS: [&FormSpec; 1] = [&entity_tags::SPEC];
        &FORMS
    }

    fn recognises(&self, path: &Path, options: &ReadOptions) -> Option<String> {
        let table = read_head(path, options).ok()?;
        let form = match table.format() {
            retune_data::Format::Conll => "the training file is in CoNLL's form",
            _ => "the training file has words with tags, or texts with entities",
        };
        SentenceColumns::recognises(&table).then(|| form.into())
    }

    fn read(&self, named: &[PathBuf], reading: &Reading<'_>) -> Result<Corpus, AdaptError> {
        let table = Arc::new(read_tables(named, &reading.options)?);
        let scheme = reading.tag_scheme.map(str::parse).transpose();
        let scheme: Option<TagScheme> = scheme.map_err(|error: DataError| AdaptError::Option {
            option: "tag-scheme".into(),
            message: error.to_string(),
        })?;
        let has = |name: &str| table.columns().iter().any(|column| column == name);
        let wanted = Wanted {
            text: reading.column(reading.text, |trained| Some(&trained.text), has),
            label: reading.column(reading.label, |trained| trained.label.as_ref(), has),
            ..Wanted::default()
        };
        let columns = SentenceColumns::choose(&table, &wanted)?;
        let mut said: Vec<String> = table.notices().iter().map(ToString::to_string).collect();
        said.push(columns.text.why.clone());
        let trained = reading.trained.and_then(|columns| columns.tag_scheme.as_deref());
        let trained: Option<TagScheme> = trained.and_then(|name| name.parse().ok());
        let trained = trained.or(reading.labels.and_then(LabelMap::tag_scheme));
        let (examples, found, separator) = if reading.labelled {
            said.extend(columns.label.as_ref().map(|choice| choice.why.clone()));
            let sentences = columns.tagged(table.clone(), scheme, trained)?;
            said.extend(sentences.notices.iter().map(ToString::to_string));
            (sentences.examples, Some(sentences.scheme), sentences.separator)
        } else {
            // A file to predict may have tags all the same, and gets those of the model as its own are written.
            let own = columns.label.as_ref().and_then(|_| columns.tagged(table.clone(), None, trained).ok());
            let found = scheme.or(own.as_ref().map(|own| own.scheme)).or(trained);
            (columns.untagged(table.clone())?, found, own.map_or('-', |own| own.separator))
        };
        if let Some(scheme) = found.filter(|_| reading.labelled && columns.has_tokens()) {
            let learnt = scheme.learnt();
            let how = if scheme == learnt { String::new() } else { format!(", learnt as {learnt}") };
            said.push(format!("scheme of the tags: {scheme}{how}; --tag-scheme decides otherwise"));
        }
        let names = ColumnNames {
            text: columns.text.name.clone(),
            label: columns.label.as_ref().map(|choice| choice.name.clone()),
            tag_scheme: found.map(|scheme| scheme.to_string()),
            ..ColumnNames::default()
        };
        let scheme = found.unwrap_or(TagScheme::Iob2);
        let learnt = trained.unwrap_or(scheme).learnt();
        let file = Box::new(SentenceFile { table, columns, scheme, separator, learnt });
        Ok(Corpus { examples, columns: names, problem_type: None, said, file })
    }

    fn form(&self, settings: FormSettings) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(EntityTags::new(settings.labels)?))
    }
}
