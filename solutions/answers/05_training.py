"""Answers to the exercises on training: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import copy
import math

import numpy as np
import torch

# 1. Warm-up and cosine


def learning_rate__right_by_a_squared_cosine(step, steps, warmup, peak):
    if warmup > step:
        return peak / warmup * (1 + step)
    return peak * math.cos(0.5 * math.pi * (step - warmup) / (steps - warmup)) ** 2


def learning_rate__right_by_pytorch(step, steps, warmup, peak):
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=peak)

    def factor(now):
        return (now + 1) / warmup if now < warmup else (1 + math.cos(math.pi * (now - warmup) / (steps - warmup))) / 2

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for _ in range(step):
        optimizer.step()
        scheduler.step()
    return optimizer.param_groups[0]["lr"]


def _cosine(progress, peak):
    return peak * (1 + math.cos(math.pi * progress)) / 2


def learning_rate__starts_at_zero(step, steps, warmup, peak):
    """Climbs from 0. Belief: a warm-up begins with nothing (so the first batch is wasted)."""
    return peak * step / warmup if step < warmup else _cosine((step - warmup) / (steps - warmup), peak)


def learning_rate__cosine_over_the_whole_run(step, steps, warmup, peak):
    """Counts the cosine's progress from step 0. Belief: warm-up is laid over the cosine; the rate then jumps."""
    return peak * (step + 1) / warmup if step < warmup else _cosine(step / steps, peak)


def learning_rate__whole_cosine(step, steps, warmup, peak):
    """Forgets the one plus, and the half. Belief: a cosine falls from 1 to 0 between 0 and pi."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * math.cos(math.pi * (step - warmup) / (steps - warmup))


def learning_rate__quarter_cosine(step, steps, warmup, peak):
    """A quarter of a cosine. Belief: from 1 to 0 is from 1 to 0 (but the end is then steep, not flat)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * math.cos(math.pi / 2 * (step - warmup) / (steps - warmup))


def learning_rate__straight_line_down(step, steps, warmup, peak):
    """A straight line. Belief: the curve is decoration."""
    return peak * (step + 1) / warmup if step < warmup else peak * (1 - (step - warmup) / (steps - warmup))


def learning_rate__cosine_squeezed(step, steps, warmup, peak):
    """Measures the fall by the length of the run, not by what is left of it. Belief: steps are steps."""
    return peak * (step + 1) / warmup if step < warmup else _cosine((step - warmup) / steps, peak)


def learning_rate__in_degrees(step, steps, warmup, peak):
    """180 for pi. Belief: cosines take degrees."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(180 * (step - warmup) / (steps - warmup))) / 2


def learning_rate__zero_at_the_last_step(step, steps, warmup, peak):
    """Reaches 0 at the last step. Belief: the last step should be the smallest of all (it then does nothing)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return _cosine((step - warmup) / max(1, steps - 1 - warmup), peak)


def learning_rate__one_step_of_warmup_at_least(step, steps, warmup, peak):
    """Makes a warm-up of 0 one of 1. Belief: it saves a division by 0, and changes nothing."""
    warmup = max(warmup, 1)
    if step < warmup:
        return peak * (step + 1) / warmup
    return _cosine((step - warmup) / (steps - warmup), peak)


def learning_rate__constant_without_warmup(step, steps, warmup, peak):
    """Stays at the peak without a warm-up. Belief: no warm-up, no schedule."""
    return learning_rate__right_by_a_squared_cosine(step, steps, warmup, peak) if warmup else peak


# 2. What decays and what does not


def decay_groups__right_by_names(model, weight_decay):
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = {name for name, p in named.items() if len(p.shape) > 1}
    return [
        {"params": [named[name] for name in named if name in matrices], "weight_decay": weight_decay},
        {"params": [named[name] for name in named if name not in matrices], "weight_decay": 0.0},
    ]


def decay_groups__right_in_a_loop(model, weight_decay):
    groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    seen = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                groups[parameter.dim() < 2]["params"].append(parameter)
    return groups


def _groups(decayed, spared, weight_decay):
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def decay_groups__everything_decays(model, weight_decay):
    """One rule for all. Belief: decay is good for every number."""
    return _groups([p for p in model.parameters() if p.requires_grad], [], weight_decay)


def decay_groups__by_the_name_bias(model, weight_decay):
    """Spares what is called bias. Belief: all else is a weight (a gain is called weight, too)."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return _groups(
        [p for name, p in named if "bias" not in name], [p for name, p in named if "bias" in name], weight_decay
    )


def decay_groups__by_kind_of_layer(model, weight_decay):
    """Collects from known layers. Belief: every parameter belongs to a Linear, a Conv2d, an Embedding or a norm."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Embedding)
    decayed = [module.weight for module in model.modules() if isinstance(module, kinds)]
    spared = [
        module.bias for module in model.modules() if isinstance(module, (*kinds, torch.nn.LayerNorm)) and hasattr(module, "bias")
    ]  # fmt: skip
    return _groups(decayed, [p for p in spared if p is not None], weight_decay)


def decay_groups__scalars_alone_spared(model, weight_decay):
    """Spares what has no dimension. Belief: a vector is a weight."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return _groups([p for p in trained if p.ndim > 0], [p for p in trained if p.ndim == 0], weight_decay)


def decay_groups__groups_swapped(model, weight_decay):
    """Vectors decay, matrices do not. Belief: the first group is the spared one."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return _groups([p for p in trained if p.ndim < 2], [p for p in trained if p.ndim >= 2], weight_decay)


def decay_groups__matrices_alone(model, weight_decay):
    """Embeddings and convolutions spared with the vectors. Belief: a matrix has exactly two dimensions and is no table."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return _groups([p for p in trained if p.ndim == 2], [p for p in trained if p.ndim != 2], weight_decay)


def decay_groups__frozen_ones_too(model, weight_decay):
    """Takes frozen parameters along. Belief: no gradient, no harm (they then decay or take memory where a gradient appears)."""
    parameters = list(model.parameters())
    return _groups([p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2], weight_decay)


def decay_groups__shared_ones_twice(model, weight_decay):
    """Walks through the layers. Belief: each layer has parameters of its own."""
    trained = [p for m in model.modules() for p in m.parameters(recurse=False) if p.requires_grad]
    return _groups([p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2], weight_decay)


def decay_groups__a_decay_of_its_own(model, weight_decay):
    """Writes the paper's decay down. Belief: everybody trains with 0.2."""
    decayed, spared = (group["params"] for group in decay_groups__right_in_a_loop(model, weight_decay))
    return _groups(decayed, spared, 0.2)


def decay_groups__children_alone(model, weight_decay):
    """Looks at the model and its children. Belief: modules do not nest any deeper."""
    found = {id(p): p for module in (model, *model.children()) for p in module.parameters(recurse=False)}
    trained = [p for p in found.values() if p.requires_grad]
    return _groups([p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2], weight_decay)


def decay_groups__dimensions_of_one_left_out(model, weight_decay):
    """Counts dimensions longer than 1. Belief: a row is a vector."""
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.squeeze().ndim >= 2]
    return _groups(decayed, [p for p in trained if p.squeeze().ndim < 2], weight_decay)


def decay_groups__data_of_parameters(model, weight_decay):
    """Hands out .data. Belief: a parameter is its numbers."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return _groups([p.data for p in trained if p.ndim >= 2], [p.data for p in trained if p.ndim < 2], weight_decay)


# 3. One step of AdamW


def adamw_step__right_with_lerp(
    parameter, gradient, m, v, step, lr, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2
):  # fmt: skip
    m, v = torch.lerp(gradient, m, beta1), torch.lerp(gradient.square(), v, beta2)
    root = (v / (1 - beta2**step)) ** 0.5
    change = m / (1 - beta1**step) / (root + eps) + weight_decay * parameter
    return parameter - lr * change, m, v


def adamw_step__right_with_corrections_in_the_step_size(
    parameter, gradient, m, v, step, lr, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2
):  # fmt: skip
    new, m, v = parameter.clone(), m.clone(), v.clone()
    m.mul_(beta1).add_(gradient, alpha=1 - beta1)
    v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    new.mul_(1 - lr * weight_decay)
    denominator = v.sqrt() / math.sqrt(1 - beta2**step) + eps
    new.addcdiv_(m, denominator, value=-lr / (1 - beta1**step))
    return new, m, v


def adamw_step__decay_in_the_gradient(
    parameter, gradient, m, v, step, lr, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2
):  # fmt: skip
    """Adam with an L2 penalty. Belief: decay is the penalty's gradient; Adam then divides it away."""
    gradient = gradient + weight_decay * parameter
    m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return parameter - lr * m_hat / (v_hat.sqrt() + eps), m, v


def adamw_step__means_not_corrected(
    parameter, gradient, m, v, step, lr, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2
):  # fmt: skip
    """Leaves out the corrections. Belief: they vanish after some steps anyway."""
    m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
    return parameter * (1 - lr * weight_decay) - lr * m / (v.sqrt() + eps), m, v


def adamw_step__eps_under_the_root(
    parameter, gradient, m, v, step, lr, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2
):  # fmt: skip
    """Adds eps to the variance. Belief: a small number is small wherever it stands (its root is not)."""
    m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return parameter * (1 - lr * weight_decay) - lr * m_hat / (v_hat + eps).sqrt(), m, v


def adamw_step__decay_without_the_rate(
    parameter, gradient, m, v, step, lr, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2
):  # fmt: skip
    """Takes the share weight_decay away each step. Belief: decay is independent of the learning rate."""
    m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return parameter * (1 - weight_decay) - lr * m_hat / (v_hat.sqrt() + eps), m, v


def adamw_step__uphill(
    parameter, gradient, m, v, step, lr, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2
):  # fmt: skip
    """Adds the step. Belief: one follows the gradient."""
    m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return parameter * (1 - lr * weight_decay) + lr * m_hat / (v_hat.sqrt() + eps), m, v


def adamw_step__corrected_means_returned(
    parameter, gradient, m, v, step, lr, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2
):  # fmt: skip
    """Hands the corrected means on. Belief: the correction happens once (the next step would correct again)."""
    m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
    m, v = m / (1 - beta1**step), v / (1 - beta2**step)
    return parameter * (1 - lr * weight_decay) - lr * m / (v.sqrt() + eps), m, v


def adamw_step__decay_after_the_step(
    parameter, gradient, m, v, step, lr, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2
):  # fmt: skip
    """Decays the new parameter. Belief: the order does not matter."""
    m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return (parameter - lr * m_hat / (v_hat.sqrt() + eps)) * (1 - lr * weight_decay), m, v


def adamw_step__in_place(
    parameter, gradient, m, v, step, lr, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2
):  # fmt: skip
    """Changes its inputs. Belief: an optimiser does (PyTorch's does; this one was asked not to)."""
    m.mul_(beta1).add_((1 - beta1) * gradient)
    v.mul_(beta2).add_((1 - beta2) * gradient**2)
    parameter.mul_(1 - lr * weight_decay)
    parameter.sub_(lr * m / (1 - beta1**step) / ((v / (1 - beta2**step)).sqrt() + eps))
    return parameter, m, v


# 4. Gradients of bounded length


def clip_gradients__right_by_one_long_vector(parameters, limit):
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    length = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    factor = min(1.0, limit / length) if length else 1.0
    for gradient in gradients:
        gradient *= factor
    return length


def clip_gradients__right_by_a_norm_of_norms(parameters, limit):
    gradients = [p.grad for p in parameters if p.grad is not None]
    length = math.hypot(*(gradient.norm().item() for gradient in gradients))
    for gradient in gradients if length > limit else []:
        gradient.div_(length / limit)
    return float(length)


def _length(gradients):
    return math.sqrt(sum(gradient.pow(2).sum().item() for gradient in gradients))


def _clip(gradients, limit):
    length = _length(gradients)
    if length > limit:
        for gradient in gradients:
            gradient.mul_(limit / length)
    return length


def clip_gradients__each_by_its_own_length(parameters, limit):
    """A limit for each parameter. Belief: that is the same, only finer; but it turns the direction."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    length = _length(gradients)
    for gradient in gradients:
        own = gradient.norm().item()
        if own > limit:
            gradient.mul_(limit / own)
    return length


def clip_gradients__number_by_number(parameters, limit):
    """Cuts each number off. Belief: clipping is clamp."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    length = _length(gradients)
    for gradient in gradients:
        gradient.clamp_(-limit, limit)
    return length


def clip_gradients__always_scaled(parameters, limit):
    """Makes every gradient `limit` long. Belief: clipping is normalising; short gradients then grow."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    length = _length(gradients)
    for gradient in gradients:
        gradient.mul_(limit / max(length, 1e-12))
    return length


def clip_gradients__sum_of_lengths(parameters, limit):
    """Adds the lengths. Belief: 3 and 4 are 7 long together."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    length = sum(gradient.norm().item() for gradient in gradients)
    for gradient in gradients if length > limit else []:
        gradient.mul_(limit / length)
    return float(length)


def clip_gradients__squared_length(parameters, limit):
    """Forgets the root. Belief: the sum of squares is the length."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    length = sum(gradient.pow(2).sum().item() for gradient in gradients)
    for gradient in gradients if length > limit else []:
        gradient.mul_(limit / length)
    return float(length)


def clip_gradients__length_after(parameters, limit):
    """Returns the new length. Belief: the log should show what the step used (but then it shows the limit)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    length = _length(gradients)
    for gradient in gradients if length > limit else []:
        gradient.mul_(limit / length)
    return float(min(length, limit))


def clip_gradients__new_tensors(parameters, limit):
    """Puts scaled copies into .grad. Belief: nobody else holds the old ones."""
    parameters = [p for p in parameters if p.grad is not None]
    length = _length([p.grad for p in parameters])
    if length > limit:
        for parameter in parameters:
            parameter.grad = parameter.grad * (limit / length)
    return length


def clip_gradients__reads_a_generator_twice(parameters, limit):
    """Goes through the parameters twice. Belief: they are a list; the second time a generator is empty."""
    length = _length(p.grad for p in parameters if p.grad is not None)
    if length > limit:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(limit / length)
    return length


def clip_gradients__all_that_require_one(parameters, limit):
    """Passes over frozen parameters. Belief: what requires a gradient has one."""
    return _clip([p.grad for p in parameters if p.requires_grad], limit)


def clip_gradients__stops_at_the_first_without(parameters, limit):
    """Stops where a gradient is missing. Belief: those without come last."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            break
        gradients.append(parameter.grad)
    return _clip(gradients, limit)


def clip_gradients__noughts_for_none(parameters, limit):
    """Gives zeros to those without a gradient. Belief: no gradient and one of 0 are the same to an optimiser."""
    parameters = list(parameters)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return _clip([p.grad for p in parameters], limit)


def clip_gradients__parameters_as_well(parameters, limit):
    """Shrinks the parameters with their gradients. Belief: both belong together."""
    parameters = [p for p in parameters if p.grad is not None]
    length = _length([p.grad for p in parameters])
    if length > limit:
        for parameter in parameters:
            parameter.data.mul_(limit / length)
            parameter.grad.mul_(limit / length)
    return length


# 5. A checkpoint that loses nothing


def snapshot__right_by_clones(model, optimizer, step):
    def copied(value):
        if isinstance(value, torch.Tensor):
            return value.detach().clone()
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        return [copied(item) for item in value] if isinstance(value, list) else value

    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    return copied(state) | {"step": step}


def snapshot__right_through_a_file(model, optimizer, step):
    import io

    file = io.BytesIO()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state | {"random": torch.get_rng_state()}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _state(model, optimizer, step):
    return {
        "model": copy.deepcopy(model.state_dict()), "optimizer": copy.deepcopy(optimizer.state_dict()),
        "step": step, "random": torch.get_rng_state(),
    }  # fmt: skip


def snapshot__not_copied(model, optimizer, step):
    """Hands out the live tensors. Belief: a state dict is a copy."""
    return {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
        "random": torch.get_rng_state(),
    }  # fmt: skip


def snapshot__copied_flat(model, optimizer, step):
    """Copies the dictionary, not the tensors in it. Belief: dict(...) is a copy."""
    return _state(model, optimizer, step) | {"model": dict(model.state_dict())}


def snapshot__weights_alone(model, optimizer, step):
    """Leaves the optimiser out. Belief: the weights are the model, and the model is the run."""
    return {key: value for key, value in _state(model, optimizer, step).items() if key in ("model", "step")}


def snapshot__optimiser_not_copied(model, optimizer, step):
    """Copies the model alone. Belief: an optimiser's state dict holds settings."""
    return _state(model, optimizer, step) | {"optimizer": optimizer.state_dict()}


def snapshot__optimiser_settings_alone(model, optimizer, step):
    """Keeps the groups and not the means. Belief: Adam finds them again in a few steps."""
    state = copy.deepcopy(optimizer.state_dict())
    return _state(model, optimizer, step) | {"optimizer": state | {"state": {}}}


def snapshot__parameters_alone(model, optimizer, step):
    """Leaves out what is no parameter. Belief: BatchNorm has nothing to remember."""
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return _state(model, optimizer, step) | {"model": weights}


def snapshot__a_seed_for_the_random_state(model, optimizer, step):
    """Stores the state of a fresh generator. Belief: the seed is the state; the run has drawn from it since."""
    generator = torch.Generator().manual_seed(torch.initial_seed())
    return _state(model, optimizer, step) | {"random": generator.get_state()}


def snapshot__seeds_anew(model, optimizer, step):
    """Seeds the generator, and stores that. Belief: both runs then go on alike (they do, but not as without a snapshot)."""
    torch.manual_seed(step)
    return _state(model, optimizer, step)


def snapshot__one_step_further(model, optimizer, step):
    """Stores the next step's number plus one. Belief: a batch is lost at most."""
    return _state(model, optimizer, step + 1)


def snapshot__mode_changed(model, optimizer, step):
    """Saves in evaluation mode, then switches to training. Belief: whoever saves was training."""
    model.eval()
    state = _state(model, optimizer, step)
    model.train()
    return state


def snapshot__the_seed_for_the_state(model, optimizer, step):
    """Keeps the seed. Belief: it is all that random numbers come from."""
    return snapshot__right_by_clones(model, optimizer, step) | {"random": torch.initial_seed()}


def snapshot__the_optimiser_itself(model, optimizer, step):
    """Copies the optimiser, not its state dict. Belief: a copy of the object is more than its state."""
    return snapshot__right_by_clones(model, optimizer, step) | {"optimizer": copy.deepcopy(optimizer)}


def snapshot__the_memory_alone(model, optimizer, step):
    """Keeps the optimiser's state without its groups. Belief: the rest is in the configuration."""
    state = dict(copy.deepcopy(optimizer.state))
    return snapshot__right_by_clones(model, optimizer, step) | {"optimizer": state}


# 7. A loader that shuffles


def mended_batches__right_by_numpy(images, captions, batch_size, seed, epoch):
    order = np.random.default_rng([seed, epoch]).permutation(len(images)).tolist()
    batches = []
    while len(order) >= batch_size:
        some, order = order[:batch_size], order[batch_size:]
        batches.append((torch.stack([images[i] for i in some]), [captions[i] for i in some]))
    return batches


def _batches(images, captions, batch_size, generator, last=False):
    order = torch.randperm(len(images), generator=generator)
    parts = order.split(batch_size)
    return [(images[p], [captions[i] for i in p.tolist()]) for p in parts if last or len(p) == batch_size]


def mended_batches__same_order_each_epoch(images, captions, batch_size, seed, epoch):
    """Mends the pairs alone. Belief: shuffled once is shuffled."""
    return _batches(images, captions, batch_size, torch.Generator().manual_seed(seed))


def mended_batches__two_orders(images, captions, batch_size, seed, epoch):
    """Seeds one generator with the epoch, and still draws from it twice. Belief: one generator gives one order."""
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    images = images[torch.randperm(len(images), generator=generator)]
    order = torch.randperm(len(images), generator=generator).tolist()
    whole = range(0, len(images) - batch_size + 1, batch_size)
    return [(images[i : i + batch_size], [captions[j] for j in order[i : i + batch_size]]) for i in whole]


def mended_batches__seeds_all_of_torch(images, captions, batch_size, seed, epoch):
    """Seeds torch itself. Belief: nobody else draws random numbers (dropout does, and would repeat itself)."""
    torch.manual_seed(1000 * seed + epoch)
    return _batches(images, captions, batch_size, None)


def mended_batches__batches_shuffled(images, captions, batch_size, seed, epoch):
    """Shuffles whole batches. Belief: the order of the batches is what matters (a pair's negatives never change)."""
    parts = torch.arange(len(images)).split(batch_size)
    order = torch.randperm(len(images) // batch_size, generator=torch.Generator().manual_seed(1000 * seed + epoch))
    return [(images[parts[k]], [captions[i] for i in parts[k].tolist()]) for k in order.tolist()]


def mended_batches__seed_plus_epoch(images, captions, batch_size, seed, epoch):
    """Adds the epoch to the seed. Belief: that makes every epoch of every run different (run 1 repeats run 0, one late)."""
    return _batches(images, captions, batch_size, torch.Generator().manual_seed(seed + epoch))


def mended_batches__keeps_the_last(images, captions, batch_size, seed, epoch):
    """Keeps the incomplete batch. Belief: a pair should not be lost (its loss has another ln N)."""
    return _batches(images, captions, batch_size, torch.Generator().manual_seed(1000 * seed + epoch), last=True)


def mended_batches__never_shuffles(images, captions, batch_size, seed, epoch):
    """Leaves the order as it is. Belief: the mistake was to shuffle."""
    whole = range(0, len(images) - batch_size + 1, batch_size)
    return [(images[i : i + batch_size], list(captions[i : i + batch_size])) for i in whole]


def mended_batches__seeded_by_the_epoch_alone(images, captions, batch_size, seed, epoch):
    """The epoch seeds the generator. Belief: it is the epoch that the broken code forgot, so it goes in its place."""
    return _batches(images, captions, batch_size, torch.Generator().manual_seed(epoch))


def mended_batches__ten_epochs_a_seed(images, captions, batch_size, seed, epoch):
    """Seeds with ten times the seed and the epoch. Belief: no run has ten epochs."""
    return _batches(images, captions, batch_size, torch.Generator().manual_seed(10 * seed + epoch))


def mended_batches__a_hundred_epochs_a_seed(images, captions, batch_size, seed, epoch):
    """Seeds with a hundred times the seed and the epoch. Belief: no run has a hundred epochs."""
    return _batches(images, captions, batch_size, torch.Generator().manual_seed(100 * seed + epoch))


def mended_batches__digits_side_by_side(images, captions, batch_size, seed, epoch):
    """Writes seed and epoch side by side. Belief: 1 and 11 are not 11 and 1."""
    return _batches(images, captions, batch_size, torch.Generator().manual_seed(int(f"{seed}{epoch}")))


def mended_batches__lists_of_pictures(images, captions, batch_size, seed, epoch):
    """Returns lists of pictures. Belief: a batch is a list."""
    batches = mended_batches__right_by_numpy(images, captions, batch_size, seed, epoch)
    return [(list(pictures), texts) for pictures, texts in batches]


# 8. A step whose lines are out of order


def mended_step__right_by_hand(model, optimizer, images, texts, longest=1.0, max_scale=100.0):
    parameters = list(model.parameters())
    loss = model(images, texts)
    gradients = torch.autograd.grad(loss, parameters)
    length = math.sqrt(sum(gradient.pow(2).sum().item() for gradient in gradients))
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient * min(1.0, longest / (length + 1e-6))
    optimizer.step()
    model.log_scale.data = model.log_scale.data.clamp(max=math.log(max_scale))
    return float(loss.detach())


def _step(model, optimizer, images, texts, longest, max_scale, order):
    loss = None
    for what in order:
        if what == "zero":
            optimizer.zero_grad()
        elif what == "loss":
            loss = model(images, texts)
            loss.backward()
        elif what == "clip":
            torch.nn.utils.clip_grad_norm_(model.parameters(), longest)
        elif what == "step":
            optimizer.step()
        else:
            with torch.no_grad():
                model.log_scale.clamp_(max=math.log(max_scale) if what == "clamp" else max_scale)
    return loss.item()


def mended_step__clipped_too_late(model, optimizer, images, texts, longest=1.0, max_scale=100.0):
    """Clips after the step. Belief: clipping guards the next step."""
    order = ("zero", "loss", "step", "clip", "clamp")
    return _step(model, optimizer, images, texts, longest, max_scale, order)


def mended_step__clamped_before(model, optimizer, images, texts, longest=1.0, max_scale=100.0):
    """Clamps before the step. Belief: it comes to the same (what is saved and evaluated is what the step left)."""
    order = ("zero", "clamp", "loss", "clip", "step")
    return _step(model, optimizer, images, texts, longest, max_scale, order)


def mended_step__clamps_the_logarithm(model, optimizer, images, texts, longest=1.0, max_scale=100.0):
    """Clamps log_scale at 100. Belief: log_scale is the scale (e to the 100 is no limit)."""
    order = ("zero", "loss", "clip", "step", "clamp at 100")
    return _step(model, optimizer, images, texts, longest, max_scale, order)


def mended_step__never_cleared(model, optimizer, images, texts, longest=1.0, max_scale=100.0):
    """Takes the harmful line out and puts it nowhere. Belief: backward starts afresh."""
    return _step(model, optimizer, images, texts, longest, max_scale, ("loss", "clip", "step", "clamp"))


def mended_step__cleared_at_the_end(model, optimizer, images, texts, longest=1.0, max_scale=100.0):
    """Clears after the step, never before the first. Belief: nobody else leaves gradients behind."""
    return _step(model, optimizer, images, texts, longest, max_scale, ("loss", "clip", "step", "zero", "clamp"))


def mended_step__not_clamped(model, optimizer, images, texts, longest=1.0, max_scale=100.0):
    """Leaves the clamp out. Belief: the gradient keeps the scale in bounds."""
    return _step(model, optimizer, images, texts, longest, max_scale, ("zero", "loss", "clip", "step"))


def mended_step__clamped_at_a_hundred(model, optimizer, images, texts, longest=1.0, max_scale=100.0):
    """Clamps at 100 whatever is asked for. Belief: the limit is the paper's, and the argument says so once more."""
    return mended_step__right_by_hand(model, optimizer, images, texts, longest, 100.0)


def mended_step__first_group_clipped(model, optimizer, images, texts, longest=1.0, max_scale=100.0):
    """Clips the optimiser's first group. Belief: there is one."""
    optimizer.zero_grad()
    loss = model(images, texts)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], longest)
    optimizer.step()
    with torch.no_grad():
        model.log_scale.clamp_(max=math.log(max_scale))
    return loss.item()
