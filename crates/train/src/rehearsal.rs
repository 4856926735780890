use retune_tensor::random::Key;
use retune_tensor::{Gradients, Parameters, Result, Tape};

use crate::{Optimiser, Settings, Step, Workshop};

/// Goes through steps of a training, forward, backward and update, but decides nothing and changes no weight: the
/// learning rate is 0.
///
/// On [`retune_tensor::Device::Meta`] it takes neither time nor memory, and the ledger then tells what the training would
/// hold at its peak; on the processor it tells how long a step takes. `done` is told how many tokens each step had. The
/// optimiser comes back, since a training holds its moments while it evaluates. Errors as the ops do.
pub fn rehearse(
    parameters: &mut Parameters,
    steps: impl IntoIterator<Item = Step>,
    workshop: &dyn Workshop,
    settings: &Settings,
    done: &mut dyn FnMut(usize),
) -> Result<Optimiser> {
    let mut optimiser = Optimiser::new(parameters, settings.adamw)?.lazy();
    for batches in steps {
        let rows = batches.concat();
        let denominator = workshop.denominator(&rows);
        let forward = |optimiser: &mut Optimiser, parameters: &mut Parameters, batch: &[usize]| {
            let pass = |tape: &Tape, parameters: &Parameters| {
                workshop.loss(tape, parameters, batch, denominator, Key::new(0))
            };
            optimiser.refresh(parameters, pass)?;
            let tape = Tape::recording();
            let loss = pass(&tape, parameters)?;
            Ok((tape, loss))
        };
        if settings.updates_in_backward(batches.len(), workshop) {
            let (tape, loss) = forward(&mut optimiser, parameters, &rows)?;
            let mut update = optimiser.begin(0.0, 1.0);
            tape.backward_each(&loss, |id, gradient| update.apply(parameters, id, &gradient))?;
        } else {
            let mut gradients = Gradients::new();
            for batch in &batches {
                let (tape, loss) = forward(&mut optimiser, parameters, batch)?;
                tape.backward(&loss, &mut gradients)?;
            }
            gradients.norm();
            optimiser.step(parameters, &gradients, 0.0, 1.0)?;
        }
        done(workshop.tokens(&rows));
    }
    optimiser.flush(parameters)?;
    Ok(optimiser)
}
