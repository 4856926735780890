//! What the methods of virtual tokens have in common: rows before those of a text, in a table or made by a small network,
//! and the files of `peft`, which hold the rows alone.

use std::sync::Arc;

use retune_model::layers::VirtualTokenSizes;
use retune_model::{Init, VirtualTokens};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{DType, Device, ParamId, Parameters, Result, Tape, Tensor, Var, ops};
use serde_json::{Value, json};

use super::{Adapter, AdapterFiles, Applied, Model};
use crate::{AdaptError, Kind, OptionSpec};

/// What `peft` calls the rows, whatever made them.
pub(super) const ROWS: &str = "prompt_embeddings";

/// An option of each of them.
pub(super) const COUNT: OptionSpec = OptionSpec {
    name: "num-virtual-tokens",
    kind: Kind::Integer,
    default: "20",
    help: "how many rows stand before those of a text, whose longest shrinks by as many",
};
/// Its default.
pub(super) const COUNT_DEFAULT: usize = 20;

/// An option of those with a network.
pub(super) const HIDDEN: &str = "encoder-hidden-size";
/// The most that it may be: beyond it, it is a slip.
const MOST_HIDDEN: usize = 16 * 1024;

/// Why they cannot be merged.
pub(super) const NO_WEIGHT: &str = "it adds rows before those of a text, and no weight of the base";

/// Where the rows stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the keys and values of every block.
    Keys,
    /// Before the word embeddings.
    Words,
}

/// A model that virtual tokens are put on.
pub(super) struct Virtual {
    place: Place,
    sizes: VirtualTokenSizes,
    /// How many.
    pub count: usize,
    /// Columns of a key or of a word embedding.
    pub width: usize,
    /// Columns of a row.
    pub columns: usize,
}

impl Virtual {
    /// Errors if the model takes no virtual tokens, or `count` of them leave no room for a text.
    pub fn new(model: &Model<'_>, place: Place, count: usize) -> std::result::Result<Self, AdaptError> {
        let Some(sizes) = model.encoder.virtual_tokens() else {
            let message = "models of this family take no virtual tokens: choose lora, for example";
            return Err(AdaptError::Option { option: "method".into(), message: message.into() });
        };
        // A token between the two that are special.
        let most = model.encoder.max_length().saturating_sub(3);
        if count == 0 || count > most {
            let message = format!("expected 1 to {most}, so that a text has room too, got {count}");
            return Err(AdaptError::Option { option: COUNT.name.into(), message });
        }
        let (width, columns) = match place {
            Place::Keys => (sizes.width, sizes.blocks * 2 * sizes.width),
            Place::Words => [(); 2].map(|()| model.parameters.get(sizes.words).value.columns()).into(),
        };
        Ok(Virtual { place, sizes, count, width, columns })
    }

    /// The fields of `adapter_config.json` that all of them have, and `own`.
    fn fields(&self, peft_type: &str, own: &Value) -> Value {
        let mut fields = json!({
            "peft_type": peft_type,
            "num_virtual_tokens": self.count,
            "token_dim": self.width,
            "num_transformer_submodules": 1,
            "num_attention_heads": self.sizes.heads,
            "num_layers": self.sizes.blocks,
            "inference_mode": true,
        });
        if let (Some(fields), Some(own)) = (fields.as_object_mut(), own.as_object()) {
            fields.extend(own.clone());
        }
        fields
    }

    fn put(&self, model: &mut Model<'_>, tokens: Box<dyn VirtualTokens>) {
        match self.place {
            Place::Keys => model.hooks.before_keys(tokens),
            Place::Words => model.hooks.before_words(tokens),
        }
    }

    /// Puts `rows` on the model, each a parameter. `own` is what the file says beside the common fields.
    pub fn table(
        &self,
        model: &mut Model<'_>,
        rows: Tensor,
        peft_type: &str,
        own: &Value,
    ) -> std::result::Result<Applied, AdaptError> {
        let mut adapter = Adapter::new();
        let rows = adapter.add(model, ROWS.into(), rows)?;
        self.put(model, Box::new(Table { rows, count: self.count }));
        Ok(Applied::Adapter(adapter.with_head(model, &self.fields(peft_type, own))))
    }

    /// Puts rows on the model that a network of `layers` makes of a table: for each its name, its width and what is
    /// applied behind it. The file has what comes out.
    pub fn network(
        &self,
        model: &mut Model<'_>,
        layers: &[(&str, usize, Activation)],
        peft_type: &str,
        own: &Value,
    ) -> std::result::Result<Applied, AdaptError> {
        // First, since what makes the rows is trained and is not in the file.
        let mut adapter = Adapter::new().with_head(model, &self.fields(peft_type, own));
        adapter.virtual_tokens = Some(ROWS.into());
        let mut add = |part: &str, shape: &[usize], init: Init| {
            let name = format!("prompt_encoder.{part}");
            let value = init.draw(model.device(), shape, model.seed, &name)?;
            let id = model.parameters.add(name, value)?;
            model.train(id);
            Ok::<_, AdaptError>(id)
        };
        // As PyTorch draws them.
        let embedding = add("embedding.weight", &[self.count, self.width], Init::Normal(1.0))?;
        let (mut from, mut made) = (self.width, Vec::new());
        for (name, to, activation) in layers {
            let init = Init::Uniform(1.0 / (from as f64).sqrt());
            let weight = add(&format!("{name}.weight"), &[*to, from], init)?;
            let bias = add(&format!("{name}.bias"), &[*to], init)?;
            made.push(Layer { weight, bias, activation: *activation });
            from = *to;
        }
        let layout = Arc::new(Layout::new(&[self.count], &[0]));
        self.put(model, Box::new(Network { embedding, layers: made, layout }));
        Ok(Applied::Adapter(adapter))
    }
}

/// Rows of their own for each place: `[count, columns]` as they are.
struct Table {
    rows: ParamId,
    count: usize,
}

impl VirtualTokens for Table {
    fn count(&self) -> usize {
        self.count
    }

    fn values(&self, tape: &Tape, parameters: &Parameters) -> Result<Var> {
        Ok(tape.parameter(parameters, self.rows))
    }
}

/// Rows out of a narrower table: easier to train, and not needed any more once trained.
struct Network {
    embedding: ParamId,
    layers: Vec<Layer>,
    layout: Arc<Layout>,
}

struct Layer {
    weight: ParamId,
    bias: ParamId,
    activation: Activation,
}

impl VirtualTokens for Network {
    fn count(&self) -> usize {
        self.layout.tokens()
    }

    fn values(&self, tape: &Tape, parameters: &Parameters) -> Result<Var> {
        let mut rows = tape.parameter(parameters, self.embedding);
        for layer in &self.layers {
            let [weight, bias] = [layer.weight, layer.bias].map(|id| tape.parameter(parameters, id));
            let activation = layer.activation;
            let linear = ops::Linear { activation, ..ops::Linear::plain(&weight, Some(&bias)) };
            rows = ops::linear(tape, &rows, &self.layout, linear)?;
        }
        Ok(rows)
    }
}

/// Puts the rows of a file on the model. They are trained as they are: what made them is not in it.
pub(super) fn load(
    model: &mut Model<'_>,
    files: &AdapterFiles,
    place: Place,
) -> std::result::Result<Applied, AdaptError> {
    if !matches!(files.config.get("num_transformer_submodules"), None | Some(Value::Null))
        && files.number("num_transformer_submodules")? != Some(1.0)
    {
        let got = files.describe("num_transformer_submodules");
        return Err(files.error(format!("`num_transformer_submodules`: expected 1, got {got}")));
    }
    let Some(count) = files.shape(ROWS).map(|shape| shape.first().copied().unwrap_or(0)) else {
        return Err(files.error(format!("`{ROWS}` is missing, which are its virtual tokens")));
    };
    let tokens = Virtual::new(model, place, count).map_err(|error| match error {
        AdaptError::Option { message, .. } => files.error(format!("virtual tokens: {message}")),
        other => other,
    })?;
    let rows = files.take(ROWS, &[count, tokens.columns], model.device())?;
    let mut adapter = Adapter::new();
    let rows = adapter.add(model, ROWS.into(), rows)?;
    tokens.put(model, Box::new(Table { rows, count }));
    Ok(Applied::Adapter(adapter.with_saved_head(model, files)?))
}

/// Why training cannot go on from `files` as `method`, and as what it can.
pub(super) fn without_network(files: &AdapterFiles, method: &str, other: &str) -> AdaptError {
    files.error(format!(
        "training cannot go on as `{method}`: the file has the virtual tokens and not what made them, as `peft` saves \
         them; --method {other} trains the tokens themselves from here on"
    ))
}

/// Errors if it is no width of a network's layer.
pub(super) fn check_hidden(hidden: usize) -> std::result::Result<(), AdaptError> {
    if (1..=MOST_HIDDEN).contains(&hidden) {
        return Ok(());
    }
    let message = format!("expected 1 to {MOST_HIDDEN}, got {hidden}");
    Err(AdaptError::Option { option: HIDDEN.into(), message })
}

/// Rows out of the word embeddings, one for each of `ids`.
pub(super) fn words(
    model: &Model<'_>,
    tokens: &Virtual,
    ids: impl Iterator<Item = usize>,
) -> std::result::Result<Tensor, AdaptError> {
    let mut rows = Tensor::zeros(model.device(), &[tokens.count, tokens.columns])?;
    if model.device() != Device::Meta {
        let table = model.parameters.get(tokens.sizes.words).value.to(DType::F32)?;
        let table = table.f32();
        for (row, id) in rows.f32_mut()?.chunks_exact_mut(tokens.columns).zip(ids) {
            if let Some(word) = table.get(id * tokens.columns..(id + 1) * tokens.columns) {
                row.copy_from_slice(word);
            }
        }
    }
    Ok(rows)
}

/// How many words the model knows.
pub(super) fn vocabulary(model: &Model<'_>, tokens: &Virtual) -> usize {
    model.parameters.get(tokens.sizes.words).value.rows()
}
