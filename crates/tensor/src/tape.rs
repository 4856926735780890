use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::gradients::{Gradient, Gradients, RowGradient};
use crate::ops::{Lookup, owned};
use crate::{DType, Device, Error, ParamId, Parameters, Result, Tensor, ValuesMut};

/// The place of a recorded value on its [`Tape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeId(usize);

/// A value on its way through the model. It has a node only where a gradient must come back to it: values that
/// depend on frozen weights alone are never recorded, so nothing is saved for them.
#[derive(Debug, Clone)]
pub struct Var {
    value: Tensor,
    node: Option<NodeId>,
    remade: Option<Remade>,
}

impl Var {
    /// A value that no gradient comes back to.
    pub fn constant(value: Tensor) -> Self {
        Var { value, node: None, remade: None }
    }

    /// The values.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// What the backward of an op that reads this value keeps of it.
    pub fn keep(&self) -> Kept {
        match &self.remade {
            Some(remade) => Kept::Remade(remade.clone()),
            None => Kept::Value(self.value.clone()),
        }
    }

    /// The same, whose value is made again on the way back, bit for bit, by what `make` gives: whoever reads it need not keep it.
    /// What `make` holds should be what the backward of its own op holds anyway, and nothing of it may be written before
    /// that has run, as no weight is that an op reads. Where no gradient comes back, nothing is kept and `make` is not asked.
    pub fn remade_by<F>(self, make: impl FnOnce() -> F) -> Self
    where
        F: Fn() -> Result<Tensor> + Send + Sync + 'static,
    {
        let remade =
            self.node.map(|_| Remade(Arc::new(Remaking { make: Box::new(make()), made: OnceLock::new() })));
        Var { remade, ..self }
    }

    /// Where a gradient is to be sent, if anywhere.
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Whether a gradient must come back to it.
    pub fn needs_gradient(&self) -> bool {
        self.node.is_some()
    }
}

/// What an op keeps of a value that its backward needs.
#[derive(Debug)]
pub enum Kept {
    /// The value.
    Value(Tensor),
    /// How it is made again.
    Remade(Remade),
}

impl Kept {
    /// The value. Made once for all that need it, and gone with the last of them. Errors as what makes it does.
    pub fn value(self) -> Result<Tensor> {
        match self {
            Kept::Value(value) => Ok(value),
            Kept::Remade(Remade(remaking)) => match remaking.made.get() {
                Some(made) => Ok(made.clone()),
                None => {
                    let made = (remaking.make)()?;
                    Ok(remaking.made.get_or_init(|| made).clone())
                }
            },
        }
    }
}

/// A value that is made again when it is needed, for all that keep it.
#[derive(Clone)]
pub struct Remade(Arc<Remaking>);

struct Remaking {
    make: Box<dyn Fn() -> Result<Tensor> + Send + Sync>,
    made: OnceLock<Tensor>,
}

impl std::fmt::Debug for Remade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remade").field(&self.0.made).finish()
    }
}

/// A trained table, and rows of it.
pub type TableRows = (ParamId, Arc<[u32]>);

type Backward = Box<dyn FnOnce(Tensor, &mut Sink<'_>) -> Result<()>>;

enum Node {
    Parameter(ParamId),
    /// A value from outside, by its place among them.
    Input(usize),
    Op(Backward),
}

/// A parameter as a pass found it.
type Read = BTreeMap<ParamId, (Tensor, bool)>;

/// What happened in a forward pass, so that it can be gone through backwards.
pub struct Tape {
    /// None where nothing is recorded: evaluation and prediction keep no tensor longer than its last use.
    nodes: Option<RefCell<Vec<Node>>>,
    leaves: RefCell<BTreeMap<ParamId, NodeId>>,
    /// What the first lookup reads, where the tape ends there.
    lookups: Option<RefCell<Vec<TableRows>>>,
    /// Parameters that were read, where somebody wants to know.
    read: Option<RefCell<Read>>,
    /// Parameters as another pass found them.
    found: Read,
}

impl Tape {
    /// A tape that records.
    pub fn recording() -> Self {
        Tape { nodes: Some(RefCell::default()), ..Tape::inference() }
    }

    /// A tape that goes no further than to the first lookup in a table, and tells what that would read.
    pub fn until_lookup() -> Self {
        Tape { lookups: Some(RefCell::default()), ..Tape::recording() }
    }

    /// A tape for a forward pass alone.
    pub fn inference() -> Self {
        Tape { nodes: None, leaves: RefCell::default(), lookups: None, read: None, found: Read::new() }
    }

    /// Whether a backward pass may follow.
    pub fn is_recording(&self) -> bool {
        self.nodes.is_some()
    }

    /// The value of a parameter; a leaf of the tape where it is trained.
    pub fn parameter(&self, parameters: &Parameters, id: ParamId) -> Var {
        let (value, trainable) = self.found.get(&id).cloned().unwrap_or_else(|| {
            let parameter = parameters.get(id);
            (parameter.value.clone(), parameter.trainable)
        });
        if let Some(read) = &self.read {
            read.borrow_mut().insert(id, (value.clone(), trainable));
        }
        let node = match &self.nodes {
            Some(nodes) if trainable => {
                Some(*self.leaves.borrow_mut().entry(id).or_insert_with(|| push(nodes, Node::Parameter(id))))
            }
            _ => None,
        };
        Var { value, node, remade: None }
    }

    /// `block` of `inputs`, of which nothing is kept but these: on the way back it is gone through once more (Chen et al.
    /// 2016, "Training deep nets with sublinear memory cost"). It must read its parameters by [`Tape::parameter`] of the tape
    /// that it is given, and do the same each time. Errors as it does.
    pub fn recompute(
        &self,
        parameters: &Parameters,
        inputs: &[&Var],
        block: impl Fn(&Tape, &Parameters, &[Var]) -> Result<Var> + 'static,
    ) -> Result<Var> {
        if !self.is_recording() {
            return block(self, parameters, &inputs.iter().map(|input| (*input).clone()).collect::<Vec<_>>());
        }
        let constants: Vec<Var> = inputs.iter().map(|input| Var::constant(input.value.clone())).collect();
        let first = Tape { read: Some(RefCell::default()), found: self.found.clone(), ..Tape::inference() };
        let value = block(&first, parameters, &constants)?.value;
        let found = first.read.unwrap_or_default().into_inner();
        // Their leaves stand before the block, so that each is complete only when it has been gone through.
        let trained = found.iter().filter(|(_, (_, trainable))| *trainable);
        let leaves: Vec<Var> = trained.map(|(id, _)| self.parameter(parameters, *id)).collect();
        let all: Vec<&Var> = inputs.iter().copied().chain(&leaves).collect();
        let nodes: Vec<Option<NodeId>> = inputs.iter().map(|input| input.node).collect();
        Ok(self.record(value, &all, || {
            move |gradient, sink| {
                let tape = Tape { found, ..Tape::recording() };
                let inputs: Vec<Var> = constants
                    .into_iter()
                    .zip(&nodes)
                    .enumerate()
                    .map(|(place, (input, node))| Var {
                        node: node.and(tape.nodes.as_ref()).map(|nodes| push(nodes, Node::Input(place))),
                        ..input
                    })
                    .collect();
                let out = block(&tape, &Parameters::new(), &inputs)?;
                drop(inputs);
                let mut sent = vec![None; nodes.len()];
                tape.go_back(out, gradient, sink.gradients, &mut sent, &mut |_, _| Ok(()))?;
                for (node, gradient) in nodes.into_iter().zip(sent) {
                    if let Some(gradient) = gradient {
                        sink.add(node, gradient)?;
                    }
                }
                Ok(())
            }
        }))
    }

    /// The rows of trained tables that a pass with [`Tape::until_lookup`] would have read. Errors if `pass`, its result, is
    /// another error than that the tape has ended.
    pub fn lookups<T>(self, pass: Result<T>) -> Result<Vec<TableRows>> {
        match pass {
            Ok(_) | Err(Error::Lookup) => Ok(self.lookups.unwrap_or_default().into_inner()),
            Err(error) => Err(error),
        }
    }

    /// Errors where the tape ends at the first lookup.
    pub(crate) fn look_up(&self, lookups: &[Lookup<'_>]) -> Result<()> {
        let Some(seen) = &self.lookups else { return Ok(()) };
        let leaves = self.leaves.borrow();
        for Lookup { table, ids, .. } in lookups {
            let leaf = leaves.iter().find(|(_, node)| Some(**node) == table.node());
            seen.borrow_mut().extend(leaf.map(|(id, _)| (*id, ids.clone())));
        }
        Err(Error::Lookup)
    }

    /// Records `value` as made from `inputs`. `backward` takes the gradient of `value` and sends what follows from
    /// it to the inputs' nodes; it is made only if one of them needs it, and dropped, with all that it saved, once
    /// it has run.
    pub fn record<F>(&self, value: Tensor, inputs: &[&Var], backward: impl FnOnce() -> F) -> Var
    where
        F: FnOnce(Tensor, &mut Sink<'_>) -> Result<()> + 'static,
    {
        let node = match &self.nodes {
            Some(nodes) if inputs.iter().any(|input| input.needs_gradient()) => {
                Some(push(nodes, Node::Op(Box::new(backward()))))
            }
            _ => None,
        };
        Var { value, node, remade: None }
    }

    /// Goes backwards from `loss`, a scalar, and adds its gradient by each trained parameter to `gradients`.
    pub fn backward(self, loss: &Var, gradients: &mut Gradients) -> Result<()> {
        self.walk(loss, gradients, &mut |_, _| Ok(()))
    }

    /// Goes backwards from `loss`, a scalar, and gives its gradient by each trained parameter to `complete`, as soon as
    /// nothing more will be added to it: never are all of them there at once. The parameter's value may then be
    /// written, as no op will read it any more. Errors as the ops and `complete` do.
    pub fn backward_each(
        self,
        loss: &Var,
        mut complete: impl FnMut(ParamId, Gradient) -> Result<()>,
    ) -> Result<()> {
        self.walk(loss, &mut Gradients::new(), &mut |id, gradients| match gradients
            .by_parameter
            .remove(&id)
            .flatten()
        {
            Some(gradient) => complete(id, gradient),
            None => Ok(()),
        })
    }

    /// Backwards; `complete` is told of each trained parameter when its gradient has come to its end.
    fn walk(
        self,
        loss: &Var,
        gradients: &mut Gradients,
        complete: &mut dyn FnMut(ParamId, &mut Gradients) -> Result<()>,
    ) -> Result<()> {
        loss.value.expect("backward", &[], "a scalar loss of shape")?;
        let mut one = Tensor::empty(loss.value.device(), &[])?;
        one.f32_mut()?.fill(1.0);
        self.go_back(loss.clone(), one, gradients, &mut [], complete)
    }

    /// Backwards from `last`, whose gradient is `gradient`; what comes to inputs is put in `sent`.
    fn go_back(
        self,
        last: Var,
        gradient: Tensor,
        gradients: &mut Gradients,
        sent: &mut [Option<Tensor>],
        complete: &mut dyn FnMut(ParamId, &mut Gradients) -> Result<()>,
    ) -> Result<()> {
        let (Some(nodes), Some(node)) = (self.nodes, last.node) else { return Ok(()) };
        drop(last);
        let mut nodes = nodes.into_inner();
        nodes.truncate(node.0 + 1);
        let parameters = nodes
            .iter()
            .map(|node| match node {
                Node::Parameter(id) => Some(*id),
                Node::Input(_) | Node::Op(_) => None,
            })
            .collect();
        let mut pending: Vec<Option<Tensor>> = vec![None; nodes.len()];
        pending[node.0] = Some(gradient);
        let mut sink = Sink { pending, parameters, gradients };
        while let Some(node) = nodes.pop() {
            let gradient = sink.pending.pop().flatten();
            match (node, gradient) {
                (Node::Op(backward), Some(gradient)) => backward(gradient, &mut sink)?,
                (Node::Op(_), None) => {}
                (Node::Input(place), gradient) => sent[place] = gradient,
                // A leaf stands before all ops that read it, so all of them have run.
                (Node::Parameter(id), _) => complete(id, sink.gradients)?,
            }
        }
        Ok(())
    }
}

fn push(nodes: &RefCell<Vec<Node>>, node: Node) -> NodeId {
    let mut nodes = nodes.borrow_mut();
    nodes.push(node);
    NodeId(nodes.len() - 1)
}

/// Where a backward sends gradients: to the ops before it, and to the parameters.
pub struct Sink<'a> {
    pending: Vec<Option<Tensor>>,
    parameters: Vec<Option<ParamId>>,
    gradients: &'a mut Gradients,
}

impl Sink<'_> {
    /// Adds `gradient` to what `node` has received.
    pub fn add(&mut self, node: Option<NodeId>, gradient: Tensor) -> Result<()> {
        let Some(node) = node else { return Ok(()) };
        let sum = match self.take(node)? {
            None => gradient,
            Some(sum) => {
                let mut sum = owned(sum)?;
                sum.expect("add", gradient.shape(), "a gradient of shape")?;
                sum.device().backend().add_assign(sum.values_mut()?, gradient.values());
                sum
            }
        };
        self.put(node, sum);
        Ok(())
    }

    /// Lets `write` put an f32 gradient of `shape` where it belongs: straight into the sum if there is one (its flag is
    /// true: add to what is there) or into new memory (false: overwrite), so that a product adds without a copy.
    pub fn accumulate(
        &mut self,
        node: Option<NodeId>,
        device: Device,
        shape: &[usize],
        write: impl FnOnce(&mut [f32], bool) -> Result<()>,
    ) -> Result<()> {
        self.accumulate_as(node, device, DType::F32, shape, |sums, adds| match sums {
            ValuesMut::F32(sums) => write(sums, adds),
            ValuesMut::Bf16(_) => Err(Error::shape("accumulate", "a gradient of type f32", DType::Bf16)),
        })
    }

    /// The same of a gradient of another type: that of the value which it belongs to.
    pub fn accumulate_as(
        &mut self,
        node: Option<NodeId>,
        device: Device,
        dtype: DType,
        shape: &[usize],
        write: impl FnOnce(ValuesMut<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        let Some(node) = node else { return Ok(()) };
        match self.take(node)? {
            Some(mut sum) if sum.is_unique() && sum.dtype() == dtype => {
                sum.expect("accumulate", shape, "a gradient of shape")?;
                write(sum.values_mut()?, true)?;
                self.put(node, sum);
                Ok(())
            }
            sum => {
                if let Some(sum) = sum {
                    self.put(node, sum);
                }
                let mut own = Tensor::empty_as(device, dtype, shape)?;
                write(own.values_mut()?, false)?;
                self.add(Some(node), own)
            }
        }
    }

    /// Adds `gradient[t]` to the row `ids[t]` of the gradient of a table `[entries, columns]`, for each token but those of
    /// `padding_idx`. A parameter that is only looked up in gets the rows that were seen and no others.
    pub fn add_rows(
        &mut self,
        node: Option<NodeId>,
        entries: usize,
        ids: &[u32],
        padding_idx: Option<u32>,
        gradient: &Tensor,
    ) -> Result<()> {
        let Some(node) = node else { return Ok(()) };
        let (device, shape) = (gradient.device(), [entries, gradient.columns()]);
        let slot = self.parameters[node.0].map(|id| self.gradients.by_parameter.entry(id).or_default());
        let mut sum = match slot.map(Option::take) {
            Some(None) => RowGradient::zeros(device, ids, shape)?,
            Some(Some(Gradient::Rows(sum))) => sum.with(ids)?,
            dense => {
                if let Some(Some(Gradient::Dense(sum))) = dense {
                    self.put(node, sum);
                }
                return self.accumulate(Some(node), device, &shape, |sums, adds| {
                    let backend = device.backend();
                    if !adds {
                        backend.zero(ValuesMut::F32(sums));
                    }
                    backend.embedding_backward(gradient.values(), ids, shape[1], padding_idx, sums);
                    Ok(())
                });
            }
        };
        sum.add(gradient, ids, padding_idx)?;
        self.put_gradient(node, Gradient::Rows(sum));
        Ok(())
    }

    /// What `node` has received so far, all of it.
    fn take(&mut self, node: NodeId) -> Result<Option<Tensor>> {
        let Some(id) = self.parameters[node.0] else { return Ok(self.pending[node.0].take()) };
        match self.gradients.by_parameter.entry(id).or_default().take() {
            Some(Gradient::Rows(rows)) => rows.to_dense().map(Some),
            Some(Gradient::Dense(sum)) => Ok(Some(sum)),
            None => Ok(None),
        }
    }

    fn put(&mut self, node: NodeId, sum: Tensor) {
        match self.parameters[node.0] {
            Some(_) => self.put_gradient(node, Gradient::Dense(sum)),
            None => self.pending[node.0] = Some(sum),
        }
    }

    fn put_gradient(&mut self, node: NodeId, gradient: Gradient) {
        if let Some(id) = self.parameters[node.0] {
            self.gradients.by_parameter.insert(id, Some(gradient));
        }
    }
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes = self.nodes.as_ref().map_or(0, |nodes| nodes.borrow().len());
        write!(f, "Tape of {nodes} nodes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
    use crate::random::Key;

    fn parameter(parameters: &mut Parameters, name: &str, shape: &[usize]) -> ParamId {
        let mut stream = Key::new(3).with_name(name).stream();
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal()).collect();
        let id = parameters.add(name, Tensor::from_slice(Device::Cpu, shape, &values).unwrap()).unwrap();
        parameters.get_mut(id).trainable = true;
        id
    }

    /// Gradients by x, inner and outer of a loss of block(block(x)) outer, where both blocks read `inner`.
    fn gradients(pass: impl Fn(&Tape, &Parameters, &Var, ParamId) -> Result<Var>) -> Vec<Vec<u32>> {
        let mut parameters = Parameters::new();
        let [x, inner, outer] = ["x", "inner", "outer"].map(|name| parameter(&mut parameters, name, &[3, 3]));
        let tape = Tape::recording();
        let loss = {
            let mut hidden = tape.parameter(&parameters, x);
            for _ in 0..2 {
                hidden = pass(&tape, &parameters, &hidden, inner).unwrap();
            }
            let out = ops::product(&tape, &hidden, &tape.parameter(&parameters, outer)).unwrap();
            ops::squared_error(&tape, &out, &[0.5; 9], 9.0).unwrap()
        };
        let mut found = Vec::new();
        tape.backward_each(&loss, |id, gradient| {
            // As an update does: nothing may read the old values any more.
            parameters.get_mut(id).value.f32_mut()?[0] += 1.0;
            found.push((id, gradient));
            Ok(())
        })
        .unwrap();
        assert_eq!(found.len(), 3);
        found.sort_by_key(|(id, _)| *id);
        let bits = |gradient: Gradient| match gradient {
            Gradient::Dense(sum) => sum.f32().iter().map(|x| x.to_bits()).collect(),
            Gradient::Rows(_) => Vec::new(),
        };
        found.into_iter().map(|(_, gradient)| bits(gradient)).collect()
    }

    fn block(tape: &Tape, parameters: &Parameters, x: &Var, id: ParamId) -> Result<Var> {
        let once = ops::product(tape, x, &tape.parameter(parameters, id))?;
        ops::product(tape, &once, x)
    }

    #[test]
    fn a_block_computed_once_more_has_the_same_gradients() {
        let kept = gradients(block);
        let again = gradients(|tape, parameters, x, id| {
            tape.recompute(parameters, &[x], move |tape, parameters, inputs| {
                block(tape, parameters, &inputs[0], id)
            })
        });
        assert_eq!(kept, again);
        let nested = gradients(|tape, parameters, x, id| {
            tape.recompute(parameters, &[x], move |tape, parameters, inputs| {
                tape.recompute(parameters, &[&inputs[0]], move |tape, parameters, inputs| {
                    block(tape, parameters, &inputs[0], id)
                })
            })
        });
        assert_eq!(kept, nested);
        let inference = Tape::inference();
        let mut parameters = Parameters::new();
        let id = parameter(&mut parameters, "x", &[3, 3]);
        let x = inference.parameter(&parameters, id);
        let plain = block(&inference, &parameters, &x, id).unwrap();
        let same = inference
            .recompute(&parameters, &[&x], move |tape, parameters, inputs| {
                block(tape, parameters, &inputs[0], id)
            })
            .unwrap();
        assert_eq!(plain.value().f32(), same.value().f32());
    }

    #[test]
    fn errors_of_a_block_come_out() {
        let mut parameters = Parameters::new();
        let id = parameter(&mut parameters, "x", &[3, 3]);
        let tape = Tape::recording();
        let x = tape.parameter(&parameters, id);
        let other = Var::constant(Tensor::from_slice(Device::Cpu, &[2], &[1.0; 2]).unwrap());
        let found =
            tape.recompute(&parameters, &[&x], move |tape, _, inputs| ops::product(tape, &inputs[0], &other));
        assert!(found.is_err());
    }
}
