//! What the bottleneck adapters share: between what half of a block made and the residual stream, two layers
//! `up(f(down(x)))` of small width in between, with a residual around them (Houlsby et al. 2019, figure 2). Where exactly
//! they sit, and what else can be said of them, is called as in the `adapters` library, whose files these are.

mod hook;
mod method;
mod saved;

use retune_model::Init;
use retune_model::layers::{Part, SubLayer};
use retune_tensor::backend::Activation;
use retune_tensor::{ParamId, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

use super::files::AdapterFiles;
use super::form::Form;
use super::{Adapter, Applied, Model, sites};
use crate::{AdaptError, Kind, OptionSpec, nearest};
use hook::{Bottleneck, Projection};
pub(super) use method::Adapters;
pub(super) use saved::unknown_keys;

/// Where the residual around an adapter behind the norm is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Residual {
    /// What the half of the block made: `residual_before_ln` is true.
    Made,
    /// That with the residual stream: `post_add`.
    Added,
    /// What the adapter reads: false.
    Normed,
}

/// How the two layers are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Layers {
    /// Dense, and drawn as BERT's: normal with deviation 0.02.
    Bert,
    /// Dense, `down` drawn as PyTorch's linear layers, `up` 0: the model starts unchanged.
    MixAndMatch,
    /// Sums of Kronecker products, so that one small rule is shared by all layers.
    Hypercomplex {
        /// How many products, and the size of the rule's matrices.
        dim: usize,
        /// The rank of the products' right sides.
        rank: usize,
    },
}

/// A kind of adapter: what the library calls its configuration. One is behind each method, and any may be in a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Design {
    /// Behind attention: `mh_adapter`.
    pub attention: bool,
    /// Behind the feed-forward layers: `output_adapter`.
    pub feed_forward: bool,
    /// Whether it reads what went into the half of the block, beside it: `is_parallel`.
    pub parallel: bool,
    /// Whether it reads the normed sum: `original_ln_before`.
    pub behind_norm: bool,
    /// Around it.
    pub residual: Residual,
    /// A norm of its own behind it, `ln_after`; whether its residual comes before that, `adapter_residual_before_ln`.
    pub norm_after: Option<bool>,
    /// Factor on what it adds.
    pub scaling: f64,
    /// Dropout on what it adds.
    pub dropout: f64,
    /// Its layers.
    pub layers: Layers,
}

/// What can be set of an adapter.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Settings {
    pub reduction_factor: Option<f64>,
    pub bottleneck_size: Option<usize>,
    pub non_linearity: Option<String>,
    pub scaling: Option<f64>,
    pub phm_dim: Option<usize>,
    pub phm_rank: Option<usize>,
}

/// The options of all of them, by their defaults: reduction factor, function in between, scaling.
pub(super) const fn options(defaults: [&'static str; 3]) -> [OptionSpec; 4] {
    let [reduction, non_linearity, scaling] = defaults;
    [
        OptionSpec {
            name: "reduction-factor",
            kind: Kind::Number,
            default: reduction,
            help: "the adapter's width is that of the model divided by this",
        },
        OptionSpec {
            name: "bottleneck-size",
            kind: Kind::Integer,
            default: "by the reduction factor",
            help: "the adapter's width itself",
        },
        OptionSpec {
            name: "non-linearity",
            kind: Kind::Name,
            default: non_linearity,
            help: "function in between: relu, gelu, gelu_new, swish, tanh or linear",
        },
        OptionSpec { name: "scaling", kind: Kind::Number, default: scaling, help: "factor on what it adds" },
    ]
}

/// The functions by their names in the library.
const NON_LINEARITIES: [(&str, Activation); 7] = [
    ("relu", Activation::Relu),
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("swish", Activation::Silu),
    ("silu", Activation::Silu),
    ("tanh", Activation::Tanh),
    ("linear", Activation::Identity),
];

/// The name under which an adapter is saved, if it has none yet.
const NAME: &str = "retune";
/// The most that a width may be: beyond it, it is a slip.
const MOST_WIDTH: usize = 65_536;

/// What all hypercomplex layers share.
#[derive(Clone, Copy)]
struct Rule {
    id: ParamId,
    dim: usize,
    rank: usize,
}

/// An adapter with nothing left open.
struct Plan<'a> {
    design: Design,
    activation: Activation,
    name: &'a str,
    /// Where its values come from; they are drawn without it.
    files: Option<&'a AdapterFiles>,
    /// The blocks without any.
    leave_out: Vec<usize>,
}

/// Puts adapters of a design on the model, with `settings` over the `defaults` of reduction factor and function.
fn apply(
    model: &mut Model<'_>,
    mut design: Design,
    settings: &Settings,
    defaults: (f64, &str),
) -> Result<Applied, AdaptError> {
    let width = model.encoder.hidden_size();
    let reduction = reduction_factor(settings, defaults.0, width)?;
    let non_linearity = settings.non_linearity.as_deref().unwrap_or(defaults.1);
    let activation = activation(non_linearity)
        .map_err(|message| AdaptError::Option { option: "non-linearity".into(), message })?;
    if let Some(scaling) = settings.scaling {
        if !(scaling as f32).is_finite() || scaling as f32 == 0.0 {
            let message = format!("expected a number other than 0, got {scaling}");
            return Err(AdaptError::Option { option: "scaling".into(), message });
        }
        design.scaling = scaling;
    }
    if let Layers::Hypercomplex { dim, rank } = &mut design.layers {
        *dim = settings.phm_dim.unwrap_or(*dim);
        *rank = settings.phm_rank.unwrap_or(*rank);
        check_hypercomplex([*dim, *rank], width, size(width, reduction))
            .map_err(|(option, message)| AdaptError::Option { option: option.into(), message })?;
    }
    let config = saved::config(&design, reduction, non_linearity);
    let document = json!({"config": config, "name": NAME, "version": saved::VERSION});
    let plan = Plan { design, activation, name: NAME, files: None, leave_out: Vec::new() };
    let adapter = plan.put(model, |_| size(width, reduction))?;
    Ok(Applied::Adapter(adapter.with_head(model, &document)))
}

/// The parameters of an adapter, of which `down` has no gradient as long as `up` is 0.
fn group(name: &str) -> &str {
    sites::group(name, ".adapter_")
}

/// The method that an adapter of the library is nearest to; none if it is of another architecture.
fn kind(files: &AdapterFiles) -> Option<&'static str> {
    let config = files.config.get("config")?.as_object()?;
    let set = |key: &str| config.get(key).and_then(Value::as_bool) == Some(true);
    if files.form != Form::Adapters || !config.contains_key("output_adapter") {
        return None;
    }
    Some(match (set("phm_layer"), set("is_parallel"), set("mh_adapter")) {
        (true, ..) => "compacter",
        (_, true, _) => "parallel-adapter",
        (.., true) => "houlsby",
        _ => "pfeiffer",
    })
}

/// Puts the adapters in `files` on the model.
fn load(model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
    let saved = saved::Saved::read(files)?;
    let name = saved.name.as_str();
    let plan = Plan {
        design: saved.design,
        activation: saved.activation,
        name,
        files: Some(files),
        leave_out: saved.leave_out.clone(),
    };
    let width = model.encoder.hidden_size();
    // The file has the last word: the library may reduce each block by another factor.
    let sized = |site: &SubLayer| {
        let bias = match saved.design.layers {
            Layers::Hypercomplex { .. } => "b",
            _ => "bias",
        };
        let shape = files.shape(&format!("{}.adapters.{name}.adapter_down.0.{bias}", site.name));
        shape.and_then(|shape| shape.first().copied()).unwrap_or(size(width, saved.reduction)).max(1)
    };
    if let Layers::Hypercomplex { dim, rank } = saved.design.layers {
        for site in plan.sites(model) {
            check_hypercomplex([dim, rank], width, sized(&site)).map_err(|(key, message)| {
                files.error(format!("`config.{}`: {message}", key.replace('-', "_")))
            })?;
        }
    }
    let adapter = plan.put(model, sized)?.with_saved_head(model, files)?;
    Ok(Applied::Adapter(adapter))
}

impl Plan<'_> {
    /// The sites that the design names.
    fn sites(&self, model: &Model<'_>) -> Vec<SubLayer> {
        let wanted = |site: &&SubLayer| {
            let part = match site.part {
                Part::Attention => self.design.attention,
                Part::FeedForward => self.design.feed_forward,
            };
            part && !self.leave_out.contains(&site.block)
        };
        model.encoder.sub_layers().into_iter().filter(wanted).cloned().collect()
    }

    /// Puts an adapter at each of them, of the width that `sized` says there.
    fn put(&self, model: &mut Model<'_>, sized: impl Fn(&SubLayer) -> usize) -> Result<Adapter, AdaptError> {
        let sites = self.sites(model);
        let mut adapter = Adapter::in_form(Form::Adapters);
        let mut rule = None;
        if let (Layers::Hypercomplex { dim, rank }, Some(first)) = (self.design.layers, sites.first()) {
            let root = first.name.split('.').next().unwrap_or_default();
            let name = format!("{root}.shared_parameters.{}.phm_rule", self.name);
            let id = self.add(model, &mut adapter, name, &[dim, dim, dim], Init::Normal(1e-4))?;
            rule = Some(Rule { id, dim, rank });
        }
        for site in &sites {
            let (width, size) = (site.width, sized(site));
            let [down, up] = [("adapter_down.0", width, size), ("adapter_up", size, width)];
            let down = self.projection(model, &mut adapter, site, down, rule)?;
            let up = self.projection(model, &mut adapter, site, up, rule)?;
            let mut norm = None;
            if self.design.norm_after.is_some() {
                let mut take = |part, init| {
                    let name = self.named(site, &format!("adapter_norm_after.{part}"));
                    self.add(model, &mut adapter, name, &[width], init)
                };
                norm = Some([take("weight", Init::Ones)?, take("bias", Init::Zeros)?]);
            }
            let (design, activation) = (self.design, self.activation);
            let hook = Bottleneck { design, activation, down, up, norm };
            model.hooks.at_sub_layer(&site.name, Box::new(hook));
        }
        Ok(adapter)
    }

    /// One of the two layers: its name, and the widths of what it reads and makes.
    fn projection(
        &self,
        model: &mut Model<'_>,
        adapter: &mut Adapter,
        site: &SubLayer,
        (layer, from, to): (&str, usize, usize),
        rule: Option<Rule>,
    ) -> Result<Projection, AdaptError> {
        let mut take = |part: &str, shape: &[usize], init| {
            self.add(model, adapter, self.named(site, &format!("{layer}.{part}")), shape, init)
        };
        if let Some(Rule { id: rule, dim, rank }) = rule {
            let (down, across) = (from / dim, to / dim);
            // As the library draws them, whatever its `hypercomplex_nonlinearity` says.
            let xavier = |sides: usize| Init::Normal((2.0 / sides as f64).sqrt());
            let left = take("W_left", &[dim, down, rank], xavier(down + rank))?;
            let right = take("W_right", &[dim, rank, across], xavier(rank + across))?;
            return Ok(Projection::Hypercomplex { rule, left, right, bias: take("b", &[to], Init::Zeros)? });
        }
        let weight = match self.design.layers {
            Layers::MixAndMatch if layer == "adapter_up" => Init::Zeros,
            Layers::MixAndMatch => Init::Uniform(1.0 / (from as f64).sqrt()),
            _ => Init::Normal(0.02),
        };
        let weight = take("weight", &[to, from], weight)?;
        Ok(Projection::Dense { weight, bias: take("bias", &[to], Init::Zeros)? })
    }

    fn named(&self, site: &SubLayer, part: &str) -> String {
        format!("{}.adapters.{}.{part}", site.name, self.name)
    }

    /// Adds a parameter that is trained and saved: out of the files, or drawn.
    fn add(
        &self,
        model: &mut Model<'_>,
        adapter: &mut Adapter,
        name: String,
        shape: &[usize],
        init: Init,
    ) -> Result<ParamId, AdaptError> {
        let value: Tensor = match self.files {
            Some(files) => files.take(&name, shape, model.device())?,
            None => init.draw(model.device(), shape, model.seed, &name)?,
        };
        adapter.add(model, name, value)
    }
}

/// The width that the library gives an adapter.
fn size(width: usize, reduction: f64) -> usize {
    ((width as f64 / reduction) as usize).max(1)
}

fn reduction_factor(settings: &Settings, default: f64, width: usize) -> Result<f64, AdaptError> {
    let error = |option: &str, message: String| Err(AdaptError::Option { option: option.into(), message });
    match (settings.reduction_factor, settings.bottleneck_size) {
        (Some(_), Some(_)) => {
            error("bottleneck-size", "--reduction-factor says the width as well; give one of them".into())
        }
        (Some(factor), _) if !(factor as f32).is_finite() || factor as f32 <= 0.0 => {
            error("reduction-factor", format!("expected a number above 0, got {factor}"))
        }
        (Some(factor), _) if width as f64 / factor > MOST_WIDTH as f64 => {
            error("reduction-factor", format!("an adapter wider than {MOST_WIDTH} comes of {factor}"))
        }
        (_, Some(size)) if size == 0 || size > MOST_WIDTH => {
            error("bottleneck-size", format!("expected 1 to {MOST_WIDTH}, got {size}"))
        }
        (_, Some(size)) if width.is_multiple_of(size) => Ok((width / size) as f64),
        // The library knows widths by factors only, and rounds down: half a unit more is safe from rounding.
        (_, Some(size)) => Ok(width as f64 / (size as f64 + 0.5)),
        (factor, None) => Ok(factor.unwrap_or(default)),
    }
}

/// Errors with the option that is wrong if the factors do not fit the layers.
fn check_hypercomplex(
    [dim, rank]: [usize; 2],
    width: usize,
    size: usize,
) -> Result<(), (&'static str, String)> {
    if dim == 0 || !width.is_multiple_of(dim) {
        return Err(("phm-dim", format!("expected a divisor of the model's width {width}, got {dim}")));
    }
    if !size.is_multiple_of(dim) {
        let message = format!(
            "the adapter's width must be a multiple of {dim}, got {size}; --bottleneck-size or --phm-dim changes that"
        );
        return Err(("phm-dim", message));
    }
    if rank == 0 || rank > width {
        return Err(("phm-rank", format!("expected 1 to {width}, got {rank}")));
    }
    Ok(())
}

fn activation(name: &str) -> Result<Activation, String> {
    let found = NON_LINEARITIES.iter().find(|(known, _)| *known == name.to_lowercase());
    found.map(|(_, activation)| *activation).ok_or_else(|| {
        let names = || NON_LINEARITIES.iter().map(|(known, _)| *known);
        let near = nearest(name, names()).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        format!("expected one of {}, got `{name}`{near}", names().collect::<Vec<_>>().join(", "))
    })
}
