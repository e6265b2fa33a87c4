"""Answers to the exercises on seeing pictures: right ones written differently, and wrong ones.

A function's name is EXERCISE__WHAT; where WHAT begins with `right`, all checks must accept it, and
otherwise they must reject it. Each wrong one says what a student who wrote it believes.
"""

import torch
import torch.nn.functional as F
from einops import rearrange

# 1. Patches as words


def embed_patches__right_by_convolution(images, weight):
    return F.conv2d(images, weight, stride=weight.shape[-1]).flatten(2).transpose(1, 2)


def embed_patches__right_by_einops(images, weight):
    size = weight.shape[-1]
    patches = rearrange(images, "b c (i p) (j q) -> b (i j) (c p q)", p=size, q=size)
    return torch.einsum("blx,dx->bld", patches, rearrange(weight, "d c p q -> d (c p q)"))


def embed_patches__right_by_unfold(images, weight):
    size = weight.shape[-1]
    patches = F.unfold(images, size, stride=size)  # (B, C P P, L)
    return (weight.flatten(1) @ patches).mT


def embed_patches__by_columns(images, weight):
    """Reads the patches column by column. Belief: the order does not matter (each has a position embedding of its own)."""
    return F.conv2d(images, weight, stride=weight.shape[-1]).transpose(2, 3).flatten(2).transpose(1, 2)


def embed_patches__by_a_view_alone(images, weight):
    """Cuts the numbers as they lie in memory. Belief: reshape knows where squares are."""
    size = weight.shape[-1]
    tokens = images.shape[2] * images.shape[3] // size**2
    return images.reshape(len(images), tokens, -1) @ weight.flatten(1).T


def embed_patches__weight_transposed(images, weight):
    """Exchanges height and width within a patch. Belief: a square has no direction."""
    return F.conv2d(images, weight.transpose(2, 3), stride=weight.shape[-1]).flatten(2).transpose(1, 2)


def embed_patches__overlapping(images, weight):
    """Stride 1. Belief: a convolution is a convolution."""
    return F.conv2d(images, weight).flatten(2).transpose(1, 2)


def embed_patches__channels_last_in_the_patch(images, weight):
    """Flattens a patch with its channels last. Belief: only the number of entries must agree with the weight's."""
    size = weight.shape[-1]
    return rearrange(images, "b c (i p) (j q) -> b (i j) (p q c)", p=size, q=size) @ weight.flatten(1).T


def embed_patches__features_before_tokens(images, weight):
    """(B, D, L). Belief: channels come first, here as everywhere."""
    return F.conv2d(images, weight, stride=weight.shape[-1]).flatten(2)


def embed_patches__square_pictures_alone(images, weight):
    """Takes as many columns as rows. Belief: pictures are square."""
    batch, channels, height, _ = images.shape
    size = weight.shape[-1]
    n = height // size
    patches = images[..., : n * size].reshape(batch, channels, n, size, -1, size).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, -1, channels * size**2) @ weight.flatten(1).T


def embed_patches__by_strides_in_memory(images, weight):
    """Views without a copy. Belief: every tensor is contiguous (pictures often come channels last)."""
    batch, channels, height, width = images.shape
    size = weight.shape[-1]
    patches = images.view(batch, channels, height // size, size, width // size, size).permute(0, 2, 4, 1, 3, 5)
    return patches.flatten(3).flatten(1, 2) @ weight.view(len(weight), -1).T


def embed_patches__detached(images, weight):
    """Hands out numbers without their graph. Belief: pictures are data, and data have no gradient."""
    return embed_patches__right_by_convolution(images, weight).detach()


def embed_patches__pictures_detached(images, weight):
    """Cuts the pictures off. Belief: nobody wants a picture's gradient."""
    return embed_patches__right_by_convolution(images.detach(), weight)


# 2. Attention with several heads


def multi_head_attention__right_by_pytorch(x, in_proj, out_proj, heads):
    q, k, v = rearrange(x @ in_proj.T, "b l (three h d) -> three b h l d", three=3, h=heads)
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)") @ out_proj.T


def multi_head_attention__right_head_by_head(x, in_proj, out_proj, heads):
    width = x.shape[-1]
    size, total = width // heads, 0
    for h in range(heads):
        rows = [slice(i * width + h * size, i * width + (h + 1) * size) for i in range(3)]
        q, k, v = (torch.einsum("bld,ed->ble", x, in_proj[part]) for part in rows)
        weights = torch.einsum("bie,bje->bij", q * size**-0.5, k).softmax(-1)
        total = total + torch.einsum("bij,bje,oe->bio", weights, v, out_proj[:, h * size : (h + 1) * size])
    return total


def _heads(t, heads):
    return t.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(q, k, v, out_proj, width=None):
    scores = q @ k.transpose(-2, -1) / (width or q.shape[-1]) ** 0.5
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2) @ out_proj.T


def multi_head_attention__one_head_for_all(x, in_proj, out_proj, heads):
    """Ignores the heads. Belief: they are a matter of speed."""
    return _attend(*(_heads(t, 1) for t in (x @ in_proj.T).chunk(3, -1)), out_proj)


def multi_head_attention__scaled_by_the_whole_width(x, in_proj, out_proj, heads):
    """Divides by the root of D. Belief: the width is the width (a head's is D / heads)."""
    return _attend(*(_heads(t, heads) for t in (x @ in_proj.T).chunk(3, -1)), out_proj, x.shape[-1])


def multi_head_attention__heads_interleaved(x, in_proj, out_proj, heads):
    """Gives head h every heads-th entry. Belief: any cut into heads is as good (until a checkpoint is loaded)."""
    q, k, v = ((t.unflatten(-1, (-1, heads)).transpose(-1, -2)).transpose(1, 2) for t in (x @ in_proj.T).chunk(3, -1))
    return _attend(q, k, v, out_proj)


def multi_head_attention__thirds_within_heads(x, in_proj, out_proj, heads):
    """Cuts into heads first, then into thirds. Belief: the stack is a head's query, key, value, then the next head's."""
    q, k, v = _heads(x @ in_proj.T, heads).chunk(3, -1)
    return _attend(q, k, v, out_proj)


def multi_head_attention__keys_for_queries(x, in_proj, out_proj, heads):
    """Takes keys from the first third. Belief: the order of the stack is k, q, v."""
    k, q, v = (_heads(t, heads) for t in (x @ in_proj.T).chunk(3, -1))
    return _attend(q, k, v, out_proj)


def multi_head_attention__softmax_over_queries(x, in_proj, out_proj, heads):
    """Normalises over the wrong axis. Belief: the weights that a token gives away sum to 1."""
    q, k, v = (_heads(t, heads) for t in (x @ in_proj.T).chunk(3, -1))
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    return (scores.softmax(-2) @ v).transpose(1, 2).flatten(-2) @ out_proj.T


def multi_head_attention__heads_not_brought_back(x, in_proj, out_proj, heads):
    """Reshapes without transposing. Belief: (B, heads, L, d) and (B, L, heads, d) are one and the same in memory."""
    q, k, v = (_heads(t, heads) for t in (x @ in_proj.T).chunk(3, -1))
    mixed = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v
    return mixed.reshape(x.shape) @ out_proj.T


def multi_head_attention__output_not_projected(x, in_proj, out_proj, heads):
    """Leaves out_proj away. Belief: the heads side by side are the result."""
    return _attend(*(_heads(t, heads) for t in (x @ in_proj.T).chunk(3, -1)), torch.eye(x.shape[-1], dtype=x.dtype))


def multi_head_attention__overflows(x, in_proj, out_proj, heads):
    """Exponentials as they stand. Belief: scores are small."""
    q, k, v = (_heads(t, heads) for t in (x @ in_proj.T).chunk(3, -1))
    weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).exp()
    return (weights / weights.sum(-1, keepdim=True) @ v).transpose(1, 2).flatten(-2) @ out_proj.T


def multi_head_attention__detached(x, in_proj, out_proj, heads):
    """Hands out numbers without their graph. Belief: a copy is safer."""
    return multi_head_attention__right_by_pytorch(x, in_proj, out_proj, heads).detach()


def multi_head_attention__weights_copied_into_a_module(x, in_proj, out_proj, heads):
    """Copies the matrices into PyTorch's own module. Belief: a copy learns for what it was copied from."""
    module = torch.nn.MultiheadAttention(x.shape[-1], heads, bias=False, batch_first=True, dtype=x.dtype)
    with torch.no_grad():
        module.in_proj_weight.copy_(in_proj)
        module.out_proj.weight.copy_(out_proj)
    return module(x, x, x, need_weights=False)[0]


# 3. Pooling by attention


def attention_pool__right_by_pytorch(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    tokens = rearrange(x, "b d h w -> b (h w) d")
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + positional_embedding
    query, keys, values = F.linear(tokens[:, 0:1], q_proj), F.linear(tokens, k_proj), F.linear(tokens, v_proj)
    return F.linear(F.scaled_dot_product_attention(query, keys, values)[:, 0], c_proj)


def attention_pool__right_one_row_of_full_attention(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    places = x.flatten(2)  # (B, D, H W)
    tokens = torch.cat([places.mean(-1, keepdim=True), places], -1) + positional_embedding.T
    q, k, v = (torch.einsum("od,bdl->bol", matrix, tokens) for matrix in (q_proj, k_proj, v_proj))
    weights = torch.einsum("bdi,bdj->bij", q, k).mul(x.shape[1] ** -0.5).softmax(-1)
    return torch.einsum("bij,bdj,ed->bie", weights, v, c_proj)[:, 0]


def _tokens(x, positional_embedding):
    places = x.flatten(2).transpose(1, 2)
    return torch.cat([places.mean(1, keepdim=True), places], 1) + positional_embedding


def _pool(query, keys, values, c_proj, scale=True):
    scores = query @ keys.transpose(1, 2) / (keys.shape[-1] ** 0.5 if scale else 1)
    return (scores.softmax(-1) @ values).mean(1) @ c_proj.T


def attention_pool__plain_average(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """Averages. Belief: attention comes to the same."""
    return x.mean((2, 3)) @ v_proj.T @ c_proj.T


def attention_pool__mean_not_among_the_keys(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """Leaves the mean out of keys and values. Belief: who asks does not answer."""
    tokens = _tokens(x, positional_embedding)
    return _pool(tokens[:, :1] @ q_proj.T, tokens[:, 1:] @ k_proj.T, tokens[:, 1:] @ v_proj.T, c_proj)


def attention_pool__mean_after_positions(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """Adds positions first, then averages. Belief: adding and averaging may change places (row 0 is then never used)."""
    places = x.flatten(2).transpose(1, 2) + positional_embedding[1:]
    tokens = torch.cat([places.mean(1, keepdim=True), places], 1)
    return _pool(tokens[:, :1] @ q_proj.T, tokens @ k_proj.T, tokens @ v_proj.T, c_proj)


def attention_pool__mean_behind(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """Puts the mean last. Belief: a token is found by what it is, not by where it stands."""
    places = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([places, places.mean(1, keepdim=True)], 1) + positional_embedding
    return _pool(tokens[:, -1:] @ q_proj.T, tokens @ k_proj.T, tokens @ v_proj.T, c_proj)


def attention_pool__everybody_asks(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """Full attention, then the mean of all results. Belief: pooling comes after attention."""
    tokens = _tokens(x, positional_embedding)
    return _pool(tokens @ q_proj.T, tokens @ k_proj.T, tokens @ v_proj.T, c_proj)


def attention_pool__values_without_positions(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """Adds positions to queries and keys alone. Belief: where something stands decides who looks, not what is seen."""
    tokens, plain = _tokens(x, positional_embedding), _tokens(x, torch.zeros_like(positional_embedding))
    return _pool(tokens[:, :1] @ q_proj.T, tokens @ k_proj.T, plain @ v_proj.T, c_proj)


def attention_pool__not_scaled(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """No root of D. Belief: the softmax does not mind a factor."""
    tokens = _tokens(x, positional_embedding)
    return _pool(tokens[:, :1] @ q_proj.T, tokens @ k_proj.T, tokens @ v_proj.T, c_proj, scale=False)


def attention_pool__by_columns(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """Reads places column by column. Belief: any order will do (positions are tied to it)."""
    tokens = _tokens(x.transpose(2, 3), positional_embedding)
    return _pool(tokens[:, :1] @ q_proj.T, tokens @ k_proj.T, tokens @ v_proj.T, c_proj)


def attention_pool__positions_added_in_place(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """Adds positions to the feature map itself. Belief: nobody needs it any more."""
    mean = x.mean((2, 3))[:, None] + positional_embedding[0]
    x += positional_embedding[1:].T.reshape(x.shape[1:])
    tokens = torch.cat([mean, x.flatten(2).transpose(1, 2)], 1)
    return _pool(tokens[:, :1] @ q_proj.T, tokens @ k_proj.T, tokens @ v_proj.T, c_proj)


def attention_pool__detached(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """Hands out numbers without their graph. Belief: pooling is the end, and nothing is learned behind it."""
    return attention_pool__right_by_pytorch(x, positional_embedding, q_proj, k_proj, v_proj, c_proj).detach()


def attention_pool__weights_detached(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """Cuts the weights of the sum off. Belief: what is looked at is a choice, and learns nothing."""
    tokens = _tokens(x, positional_embedding)
    scores = (tokens[:, :1] @ q_proj.T) @ (tokens @ k_proj.T).transpose(1, 2) / tokens.shape[-1] ** 0.5
    return (scores.softmax(dim=-1).detach() @ (tokens @ v_proj.T)).squeeze(1) @ c_proj.T


def attention_pool__exponentials_by_hand(x, positional_embedding, q_proj, k_proj, v_proj, c_proj):
    """Divides exponentials by their sum. Belief: features are small numbers."""
    tokens = _tokens(x, positional_embedding)
    scores = (tokens[:, :1] @ q_proj.T) @ (tokens @ k_proj.T).transpose(1, 2) / tokens.shape[-1] ** 0.5
    weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
    return (weights @ (tokens @ v_proj.T)).squeeze(1) @ c_proj.T


# 4. What it costs


def vit_parameters__right_by_shapes(image_resolution, patch_size, width, layers, embed_dim):
    side = image_resolution // patch_size
    vectors = [width] * (1 + side * side + 1 + 2 + 2)  # class token, positions, two LayerNorms outside the blocks
    block = [3 * width * width, 3 * width, width * width, width] + 4 * [width]
    block += [4 * width * width, 4 * width, 4 * width * width, width]
    return sum(vectors) + layers * sum(block) + 3 * width * patch_size * patch_size + embed_dim * width


def vit_parameters__right_by_building(image_resolution, patch_size, width, layers, embed_dim):
    from minclip.encoders import VisionTransformer

    with torch.device("meta"):
        model = VisionTransformer(image_resolution, patch_size, width, layers, 1, embed_dim, False)
    return sum(parameter.numel() for parameter in model.parameters())


def _count(image_resolution, patch_size, width, layers, embed_dim):
    return vit_parameters__right_by_shapes(image_resolution, patch_size, width, layers, embed_dim)


def vit_parameters__no_position_for_the_class(image_resolution, patch_size, width, layers, embed_dim):
    """Counts positions for patches alone. Belief: the class token stands nowhere."""
    return _count(image_resolution, patch_size, width, layers, embed_dim) - width


def vit_parameters__one_channel(image_resolution, patch_size, width, layers, embed_dim):
    """Patches of P x P numbers. Belief: a pixel is one number."""
    return _count(image_resolution, patch_size, width, layers, embed_dim) - 2 * width * patch_size**2


def vit_parameters__without_biases(image_resolution, patch_size, width, layers, embed_dim):
    """Weights alone within the blocks. Belief: biases are too few to count."""
    return _count(image_resolution, patch_size, width, layers, embed_dim) - layers * 9 * width


def vit_parameters__biases_everywhere(image_resolution, patch_size, width, layers, embed_dim):
    """A bias for patches and projection. Belief: every layer has one (CLIP's have none there)."""
    return _count(image_resolution, patch_size, width, layers, embed_dim) + width + embed_dim


def vit_parameters__norms_forgotten(image_resolution, patch_size, width, layers, embed_dim):
    """No LayerNorms. Belief: they only normalise."""
    return _count(image_resolution, patch_size, width, layers, embed_dim) - (layers + 1) * 4 * width


def vit_parameters__output_projection_forgotten(image_resolution, patch_size, width, layers, embed_dim):
    """Attention with three matrices. Belief: query, key, value, and that is all."""
    return _count(image_resolution, patch_size, width, layers, embed_dim) - layers * (width**2 + width)


def vit_parameters__a_matrix_for_each_token(image_resolution, patch_size, width, layers, embed_dim):
    """Counts patch weights once a patch. Belief: each place has weights of its own."""
    patches = (image_resolution // patch_size) ** 2
    return _count(image_resolution, patch_size, width, layers, embed_dim) + (patches - 1) * 3 * width * patch_size**2


def vit_parameters__of_a_true_quotient(image_resolution, patch_size, width, layers, embed_dim):
    """Divides with a slash. Belief: 7.0 is 7."""
    return _count(image_resolution, patch_size, width, layers, embed_dim) / 1


# 6. A block into which weights were loaded


def mended_block__right_in_two_branches(x, ln_1, attn, ln_2, c_fc, c_proj):
    def quick_gelu(t):
        return t / (1 + (-1.702 * t).exp())

    first = attn(ln_1(x)) + x
    second = c_proj(quick_gelu(c_fc(ln_2(first))))
    return torch.stack([first, second]).sum(dim=0)


def _block(x, ln_1, attn, ln_2, c_fc, c_proj, activation):
    x = x + attn(ln_1(x))
    return x + c_proj(activation(c_fc(ln_2(x))))


def _quick_gelu(t):
    return t * torch.sigmoid(1.702 * t)


def mended_block__still_gelu(x, *parts):
    """Mends the residuals alone. Belief: GELU and its approximation are the same for practical purposes."""
    return _block(x, *parts, torch.nn.functional.gelu)


def mended_block__silu(x, *parts):
    """Leaves the 1.702 out. Belief: x sigmoid(x) is what is called quick."""
    return _block(x, *parts, torch.nn.functional.silu)


def mended_block__sigmoid_alone(x, *parts):
    """Forgets to multiply by x. Belief: a gate is the activation."""
    return _block(x, *parts, lambda t: torch.sigmoid(1.702 * t))


def mended_block__adds_to_the_normalised(x, ln_1, attn, ln_2, c_fc, c_proj):
    """Mends the activation alone. Belief: x is x, before the LayerNorm and after."""
    x = ln_1(x)
    x = x + attn(x)
    return x + c_proj(_quick_gelu(c_fc(ln_2(x))))


def mended_block__normalises_afterwards(x, ln_1, attn, ln_2, c_fc, c_proj):
    """LayerNorm after each addition, as in the first Transformer. Belief: all transformers normalise there."""
    x = ln_1(x + attn(x))
    return ln_2(x + c_proj(_quick_gelu(c_fc(x))))


def mended_block__both_branches_from_x(x, ln_1, attn, ln_2, c_fc, c_proj):
    """Attention and MLP side by side. Belief: the order of additions does not matter."""
    return x + attn(ln_1(x)) + c_proj(_quick_gelu(c_fc(ln_2(x))))


def mended_block__in_place(x, ln_1, attn, ln_2, c_fc, c_proj):
    """Adds in place. Belief: the caller does not need x any more."""
    x += attn(ln_1(x))
    x += c_proj(_quick_gelu(c_fc(ln_2(x))))
    return x


def mended_block__right_activated_in_place(x, ln_1, attn, ln_2, c_fc, c_proj):
    x = x + attn(ln_1(x))
    hidden = c_fc(ln_2(x))
    hidden *= torch.sigmoid(1.702 * hidden)
    return x + c_proj(hidden)


def mended_block__detached(x, ln_1, attn, ln_2, c_fc, c_proj):
    """Hands out numbers without their graph. Belief: the weights were loaded, so nothing is to be trained."""
    return mended_block__right_in_two_branches(x, ln_1, attn, ln_2, c_fc, c_proj).detach()


def mended_block__attention_detached(x, ln_1, attn, ln_2, c_fc, c_proj):
    """Cuts the attention's branch off. Belief: the residual stream carries the gradient."""
    x = x + attn(ln_1(x)).detach()
    return x + c_proj(_quick_gelu(c_fc(ln_2(x))))


def mended_block__mlp_without_gradient(x, ln_1, attn, ln_2, c_fc, c_proj):
    """Runs the MLP under no_grad. Belief: loaded weights are done with learning."""
    x = x + attn(ln_1(x))
    with torch.no_grad():
        added = c_proj(_quick_gelu(c_fc(ln_2(x))))
    return x + added
