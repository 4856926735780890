use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::ops::owned;
use crate::{Device, ParamId, Parameters, Result, Tensor};

/// The place of a recorded value on its [`Tape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeId(usize);

/// A value on its way through the model. It has a node only where a gradient must come back to it: values that
/// depend on frozen weights alone are never recorded, so nothing is saved for them.
#[derive(Debug, Clone)]
pub struct Var {
    value: Tensor,
    node: Option<NodeId>,
}

impl Var {
    /// A value that no gradient comes back to.
    pub fn constant(value: Tensor) -> Self {
        Var { value, node: None }
    }

    /// The values.
    pub fn value(&self) -> &Tensor {
        &self.value
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

type Backward = Box<dyn FnOnce(Tensor, &mut Sink<'_>) -> Result<()>>;

enum Node {
    Parameter(ParamId),
    Op(Backward),
}

/// What happened in a forward pass, so that it can be gone through backwards.
pub struct Tape {
    /// None where nothing is recorded: evaluation and prediction keep no tensor longer than its last use.
    nodes: Option<RefCell<Vec<Node>>>,
    leaves: RefCell<BTreeMap<ParamId, NodeId>>,
}

impl Tape {
    /// A tape that records.
    pub fn recording() -> Self {
        Tape { nodes: Some(RefCell::default()), leaves: RefCell::default() }
    }

    /// A tape for a forward pass alone.
    pub fn inference() -> Self {
        Tape { nodes: None, leaves: RefCell::default() }
    }

    /// Whether a backward pass may follow.
    pub fn is_recording(&self) -> bool {
        self.nodes.is_some()
    }

    /// The value of a parameter; a leaf of the tape where it is trained.
    pub fn parameter(&self, parameters: &Parameters, id: ParamId) -> Var {
        let parameter = parameters.get(id);
        let node = match &self.nodes {
            Some(nodes) if parameter.trainable => {
                Some(*self.leaves.borrow_mut().entry(id).or_insert_with(|| push(nodes, Node::Parameter(id))))
            }
            _ => None,
        };
        Var { value: parameter.value.clone(), node }
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
        Var { value, node }
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
        mut complete: impl FnMut(ParamId, Tensor) -> Result<()>,
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
        let (Some(nodes), Some(last)) = (self.nodes, loss.node) else { return Ok(()) };
        let mut nodes = nodes.into_inner();
        nodes.truncate(last.0 + 1);
        let parameters = nodes
            .iter()
            .map(|node| match node {
                Node::Parameter(id) => Some(*id),
                Node::Op(_) => None,
            })
            .collect();
        let device = loss.value.device();
        let mut pending: Vec<Option<Tensor>> = vec![None; nodes.len()];
        let mut one = Tensor::empty(device, &[])?;
        one.f32_mut()?.fill(1.0);
        pending[last.0] = Some(one);
        let mut sink = Sink { pending, parameters, gradients };
        while let Some(node) = nodes.pop() {
            let gradient = sink.pending.pop().flatten();
            match (node, gradient) {
                (Node::Op(backward), Some(gradient)) => backward(gradient, &mut sink)?,
                (Node::Op(_), None) => {}
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
        let slot = self.slot(node);
        match slot.take() {
            None => *slot = Some(gradient),
            Some(mut sum) => {
                sum = owned(sum)?;
                sum.expect("add", gradient.shape(), "a gradient of shape")?;
                sum.device().backend().add_assign(sum.f32_mut()?, gradient.f32());
                *slot = Some(sum);
            }
        }
        Ok(())
    }

    /// Lets `write` put a gradient of `shape` where it belongs: straight into the sum if there is one (its flag is
    /// true: add to what is there) or into new memory (false: overwrite), so that a product adds without a copy.
    pub fn accumulate(
        &mut self,
        node: Option<NodeId>,
        device: Device,
        shape: &[usize],
        write: impl FnOnce(&mut [f32], bool) -> Result<()>,
    ) -> Result<()> {
        let Some(node) = node else { return Ok(()) };
        let slot = self.slot(node);
        match slot {
            Some(sum) if sum.is_unique() => {
                sum.expect("accumulate", shape, "a gradient of shape")?;
                write(sum.f32_mut()?, true)
            }
            _ => {
                let mut own = Tensor::empty(device, shape)?;
                write(own.f32_mut()?, false)?;
                self.add(Some(node), own)
            }
        }
    }

    fn slot(&mut self, node: NodeId) -> &mut Option<Tensor> {
        match self.parameters[node.0] {
            Some(id) => self.gradients.by_parameter.entry(id).or_default(),
            None => &mut self.pending[node.0],
        }
    }
}

/// The gradient of the loss by each trained parameter, summed over the backward passes since it was made.
#[derive(Debug, Default)]
pub struct Gradients {
    by_parameter: BTreeMap<ParamId, Option<Tensor>>,
}

impl Gradients {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The gradient of one parameter, if any reached it.
    pub fn get(&self, id: ParamId) -> Option<&Tensor> {
        self.by_parameter.get(&id)?.as_ref()
    }

    /// All of them, in the order of the parameters.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Tensor)> {
        self.by_parameter.iter().filter_map(|(id, gradient)| Some((*id, gradient.as_ref()?)))
    }

    /// The Euclidean norm over all of them: f64 sums over blocks of fixed size, so that threads do not matter.
    pub fn norm(&self) -> f64 {
        self.iter()
            .map(|(_, gradient)| gradient.device().backend().sum_of_squares(gradient.f32()))
            .sum::<f64>()
            .sqrt()
    }

    /// Multiplies all of them.
    pub fn scale(&mut self, factor: f32) -> Result<()> {
        for slot in self.by_parameter.values_mut() {
            // Two parameters that were added hold one gradient between them.
            let Some(mut gradient) = slot.take().map(owned).transpose()? else { continue };
            gradient.device().backend().scale(gradient.f32_mut()?, factor);
            *slot = Some(gradient);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes = self.nodes.as_ref().map_or(0, |nodes| nodes.borrow().len());
        write!(f, "Tape of {nodes} nodes")
    }
}
