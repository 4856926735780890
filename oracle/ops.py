"""Golden values for the engine's ops, from torch.

    python oracle/ops.py [--output crates/tensor/tests/golden/ops.safetensors]

All tensors are f32 but `*.labels` and `*.cu_seqlens` (i64). `dNAME` is the gradient of sum(y * dy) by NAME; for a loss, of
the loss.

  activation.x, .dy                     [203], x from -12 to 12
  activation.{gelu,gelu_tanh,silu,relu,tanh}.{y,dx}
  layer_norm.{x,residual,dy}            [7, 13]; the input is x + residual; row 3 has a mean
                                        far from zero, row 5 a variance of about 1e-5
  layer_norm.{weight,bias}              [13]
  layer_norm.{eps1e-12,eps1e-5}.{y,dx,dweight,dbias}    dx is also the residual's gradient
  layer_norm.no_bias.{y,dx,dweight}     eps 1e-5
  cross_entropy.{logits,labels,class_weights}           [9, 6], [9], [6]; row 4's logits are near +-100
  cross_entropy.label_smoothing         []
  cross_entropy.{plain,weighted,smoothed,weighted_smoothed}.{loss,dlogits}
                                        torch's mean: over the labels' class weights
  binary_cross_entropy.{logits,targets} [7, 5]; row 4's logits are near +-100, row 2 has no label
  binary_cross_entropy.positive_weights [5]
  binary_cross_entropy.{plain,weighted}.{loss,dlogits}  torch's mean: over rows and columns
  squared_error.{predictions,targets}   [9, 1], [9]
  position_cross_entropy.{scores,labels,cu_seqlens}     [12, 1], [3], [0, 1, 4, 12]; row 2's scores are near +-100
  position_cross_entropy.plain.{loss,dscores}           torch's mean over rows, each with its own number of classes
  squared_error.plain.{loss,dpredictions}
  attention.{q,k,v,dy}                  [12, 15]: tokens, then 3 heads of size 5; scale 1/sqrt(5)
  attention.cu_seqlens                  [0, 1, 4, 12]
  attention.{full,causal,window,causal_window}.{y,dq,dk,dv}   a window of 2 to either side
  rotary.{x,dy}                         [12, 18]: tokens, then 3 heads of size 6
  rotary.{cu_seqlens,theta}             [0, 1, 4, 12], []
  rotary.{y,dx}
  gated.{x,dy}                          [7, 26], [7, 13]: what is activated, then its gate
  gated.{gelu,gelu_tanh,silu,relu,tanh}.{y,dx}
  mean_rows.{x,dy,y,dx}                 [12, 5], [3, 5]
  mean_rows.cu_seqlens                  [0, 1, 4, 12]
  adamw.{start,grads,learning_rates}    [17], [10, 17], [10]
  adamw.{beta1,beta2,eps,weight_decay}  []
  adamw.{decay,no_decay}.params         [10, 17], after each step; .m and .v [17], the moments at the end
  clip.{a,b}                            [3, 5], [7], clipped together by their global norm
  clip.norm                             []
  clip.{over,under}.{max_norm,a,b}      max_norm below the norm, and above it

The sums run in float64 over inputs that f32 holds exactly, so that a golden value owes nothing to one machine's rounding.
"""

import argparse
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers.models.modernbert.modeling_modernbert import (
    ModernBertConfig,
    ModernBertRotaryEmbedding,
    apply_rotary_pos_emb,
)

REPOSITORY = Path(__file__).resolve().parent.parent


def exact(values):
    """Float64 values that f32 holds exactly."""
    return torch.tensor(numpy.asarray(values, dtype=numpy.float32)).double()


def gradients(y, dy, *inputs):
    return torch.autograd.grad(y, inputs, dy, retain_graph=True)


FUNCTIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
    "tanh": torch.tanh,
}


def activations(rng):
    x = exact(numpy.concatenate([numpy.linspace(-12, 12, 193), rng.standard_normal(9), [0.0]])).requires_grad_()
    dy = exact(rng.standard_normal(x.shape))
    out = {"activation.x": x, "activation.dy": dy}
    for name, function in FUNCTIONS.items():
        y = function(x)
        out[f"activation.{name}.y"] = y
        (out[f"activation.{name}.dx"],) = gradients(y, dy, x)
    return out


def layer_norm(rng):
    x, residual, dy = (rng.standard_normal((7, 13)) for _ in range(3))
    x[3] += 20.0
    # A variance beside 1e-5, so that a wrong eps shows.
    x[5] *= 0.004
    residual[5] *= 0.004
    x, residual, dy = exact(x).requires_grad_(), exact(residual), exact(dy)
    weight = exact(1 + 0.4 * rng.standard_normal(13)).requires_grad_()
    bias = exact(rng.standard_normal(13)).requires_grad_()
    out = {"x": x, "residual": residual, "dy": dy, "weight": weight, "bias": bias}
    for case, eps in {"eps1e-12": 1e-12, "eps1e-5": 1e-5}.items():
        y = F.layer_norm(x + residual, (13,), weight, bias, eps)
        out |= {f"{case}.y": y}
        out |= dict(zip([f"{case}.dx", f"{case}.dweight", f"{case}.dbias"], gradients(y, dy, x, weight, bias)))
    y = F.layer_norm(x + residual, (13,), weight, None, 1e-5)
    out |= {"no_bias.y": y}
    out |= dict(zip(["no_bias.dx", "no_bias.dweight"], gradients(y, dy, x, weight)))
    return {f"layer_norm.{name}": tensor for name, tensor in out.items()}


def cross_entropy(rng):
    logits = 2.0 * rng.standard_normal((9, 6))
    logits[4] = [100.0, -100.0, 99.5, 0.0, -3.0, 98.0]
    logits = exact(logits).requires_grad_()
    labels = torch.tensor([0, 3, 5, 1, 2, 4, 3, 3, 0])
    class_weights, smoothing = exact(rng.uniform(0.2, 3.0, 6)), exact(0.13)
    out = {"logits": logits, "labels": labels, "class_weights": class_weights, "label_smoothing": smoothing}
    cases = {
        "plain": {},
        "weighted": {"weight": class_weights},
        "smoothed": {"label_smoothing": smoothing.item()},
        "weighted_smoothed": {"weight": class_weights, "label_smoothing": smoothing.item()},
    }
    for case, options in cases.items():
        loss = F.cross_entropy(logits, labels, **options)
        out[f"{case}.loss"] = loss
        (out[f"{case}.dlogits"],) = gradients(loss, None, logits)
    return {f"cross_entropy.{name}": tensor for name, tensor in out.items()}


def position_cross_entropy(rng):
    scores = 2.0 * rng.standard_normal((12, 1))
    scores[4:8, 0] = [100.0, -100.0, 99.5, 0.0]
    scores, labels, ends = exact(scores).requires_grad_(), torch.tensor([0, 2, 5]), [0, 1, 4, 12]
    rows = [scores[start:end].T for start, end in zip(ends, ends[1:])]
    loss = sum(F.cross_entropy(row, label[None]) for row, label in zip(rows, labels)) / 3
    (dscores,) = gradients(loss, None, scores)
    out = {"scores": scores, "labels": labels, "cu_seqlens": torch.tensor(ends), "plain.loss": loss, "plain.dscores": dscores}
    return {f"position_cross_entropy.{name}": tensor for name, tensor in out.items()}


def binary_cross_entropy(rng):
    logits = 3 * rng.standard_normal((7, 5))
    logits[4] = [100, -100, 99.5, -99.5, 0]
    targets = (rng.random((7, 5)) < 0.4).astype(float)
    targets[2] = 0
    targets[4] = [1, 1, 0, 0, 1]
    logits, targets, weights = exact(logits).requires_grad_(), exact(targets), exact(rng.uniform(0.5, 6, 5))
    out = {"logits": logits, "targets": targets, "positive_weights": weights}
    for case, pos_weight in {"plain": None, "weighted": weights}.items():
        loss = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight)
        out[f"{case}.loss"] = loss
        (out[f"{case}.dlogits"],) = gradients(loss, None, logits)
    return {f"binary_cross_entropy.{name}": tensor for name, tensor in out.items()}


def squared_error(rng):
    predictions = exact(2 * rng.standard_normal((9, 1))).requires_grad_()
    targets = exact(5 * rng.random(9))
    loss = F.mse_loss(predictions.squeeze(), targets)
    (gradient,) = gradients(loss, None, predictions)
    out = {"predictions": predictions, "targets": targets, "plain.loss": loss, "plain.dpredictions": gradient}
    return {f"squared_error.{name}": tensor for name, tensor in out.items()}


def attention(rng, heads=3, size=5, cu_seqlens=(0, 1, 4, 12)):
    q, k, v = (exact(1.5 * rng.standard_normal((12, heads * size))).requires_grad_() for _ in range(3))
    dy = exact(rng.standard_normal((12, heads * size)))
    out = {"q": q, "k": k, "v": v, "dy": dy, "cu_seqlens": torch.tensor(cu_seqlens)}
    cases = {"full": (False, 12), "causal": (True, 12), "window": (False, 2), "causal_window": (True, 2)}
    for case, (causal, window) in cases.items():
        rows = []
        for start, end in zip(cu_seqlens, cu_seqlens[1:]):
            split = [x[start:end].unflatten(1, (heads, size)).transpose(0, 1) for x in (q, k, v)]
            distance = torch.arange(end - start)[:, None] - torch.arange(end - start)
            seen = (distance.abs() <= window) & (distance >= (0 if causal else -window))
            y = F.scaled_dot_product_attention(*split, attn_mask=seen, scale=size**-0.5)
            rows.append(y.transpose(0, 1).flatten(1))
        y = torch.cat(rows)
        out |= {f"{case}.y": y}
        out |= dict(zip([f"{case}.dq", f"{case}.dk", f"{case}.dv"], gradients(y, dy, q, k, v)))
    return {f"attention.{name}": tensor for name, tensor in out.items()}


def rotary(rng, heads=3, size=6, theta=70.0, cu_seqlens=(0, 1, 4, 12)):
    x, dy = exact(rng.standard_normal((12, heads * size))).requires_grad_(), exact(rng.standard_normal((12, heads * size)))
    config = ModernBertConfig(
        hidden_size=heads * size, num_attention_heads=heads,
        rope_parameters={kind: {"rope_type": "default", "rope_theta": theta} for kind in ("full_attention", "sliding_attention")},
    )  # fmt: skip
    rows = []
    for start, end in zip(cu_seqlens, cu_seqlens[1:]):
        heads_first = x[None, start:end].unflatten(2, (heads, size)).transpose(1, 2)
        angles = ModernBertRotaryEmbedding(config)(x, torch.arange(end - start)[None], "full_attention")
        y, _ = apply_rotary_pos_emb(heads_first, heads_first, *angles)
        rows.append(y[0].transpose(0, 1).flatten(1))
    y = torch.cat(rows)
    out = {"x": x, "dy": dy, "cu_seqlens": torch.tensor(cu_seqlens), "theta": exact(theta), "y": y}
    (out["dx"],) = gradients(y, dy, x)
    return {f"rotary.{name}": tensor for name, tensor in out.items()}


def gated(rng):
    x, dy = exact(2.0 * rng.standard_normal((7, 26))).requires_grad_(), exact(rng.standard_normal((7, 13)))
    out = {"gated.x": x, "gated.dy": dy}
    for name, function in FUNCTIONS.items():
        input, gate = x.chunk(2, dim=-1)
        y = function(input) * gate
        out[f"gated.{name}.y"] = y
        (out[f"gated.{name}.dx"],) = gradients(y, dy, x)
    return out


def mean_rows(rng, cu_seqlens=(0, 1, 4, 12)):
    x, dy = exact(rng.standard_normal((12, 5))).requires_grad_(), exact(rng.standard_normal((3, 5)))
    y = torch.stack([x[start:end].mean(0) for start, end in zip(cu_seqlens, cu_seqlens[1:])])
    out = {"x": x, "dy": dy, "cu_seqlens": torch.tensor(cu_seqlens), "y": y}
    (out["dx"],) = gradients(y, dy, x)
    return {f"mean_rows.{name}": tensor for name, tensor in out.items()}


def adamw(rng, steps=10):
    start, grads = exact(rng.standard_normal(17)), rng.standard_normal((steps, 17))
    grads[:, 2] = 0.0
    # Beside eps, not above it: an eps put inside the square root, or scaled by the bias correction, shows here.
    grads[:, 5] *= 1e-8
    grads = exact(grads)
    rates = exact([1e-3 * (t + 1) if t < 3 else 3e-3 * (steps - t) / 7 for t in range(steps)])
    setting = {"beta1": 0.85, "beta2": 0.97, "eps": 1e-8, "weight_decay": 0.01}
    out = {"start": start, "grads": grads, "learning_rates": rates} | {k: exact(v) for k, v in setting.items()}
    beta1, beta2, eps, weight_decay = (exact(value).item() for value in setting.values())
    for case, decay in {"decay": weight_decay, "no_decay": 0.0}.items():
        parameter = start.clone().requires_grad_()
        optimizer = torch.optim.AdamW([parameter], betas=(beta1, beta2), eps=eps, weight_decay=decay, foreach=False)
        trace = []
        for grad, rate in zip(grads, rates):
            optimizer.param_groups[0]["lr"] = rate.item()
            parameter.grad = grad.clone()
            optimizer.step()
            trace.append(parameter.detach().clone())
        state = optimizer.state[parameter]
        out |= {f"{case}.params": torch.stack(trace), f"{case}.m": state["exp_avg"], f"{case}.v": state["exp_avg_sq"]}
    return {f"adamw.{name}": tensor for name, tensor in out.items()}


def clip(rng):
    start = {"a": exact(rng.standard_normal((3, 5))), "b": exact(rng.standard_normal(7))}
    out = dict(start)
    for case, max_norm in {"over": 1.25, "under": 50.0}.items():
        parameters = [torch.nn.Parameter(torch.zeros_like(grad)) for grad in start.values()]
        for parameter, grad in zip(parameters, start.values()):
            parameter.grad = grad.clone()
        out["norm"] = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        out[f"{case}.max_norm"] = exact(max_norm)
        out |= {f"{case}.{name}": parameter.grad for name, parameter in zip(start, parameters)}
    return {f"clip.{name}": tensor for name, tensor in out.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/tensor/tests/golden/ops.safetensors")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    tensors = {}
    makers = [
        activations, layer_norm, cross_entropy, attention, adamw, clip, rotary, gated, mean_rows, binary_cross_entropy,
        squared_error, position_cross_entropy,
    ]  # fmt: skip
    for seed, make in enumerate(makers):
        tensors |= make(numpy.random.default_rng(seed))
    output.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            name: tensor.detach().contiguous() if tensor.dtype == torch.int64 else tensor.detach().float().contiguous()
            for name, tensor in tensors.items()
        },
        output,
    )


if __name__ == "__main__":
    main()
