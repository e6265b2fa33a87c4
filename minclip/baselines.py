"""The objectives that CLIP was chosen over (paper, section 2.3 and Figure 2). Notebook 08.

What can be asked of a picture that came with a caption?

    write_captions    write it, word for word            log p(w_1, w_2, ... | picture)
    predict_words     say which words are in it          log p(w | picture), in no order
    match_captions    tell it from the other captions    the contrastive loss

Each is a function (model, images, tokens) -> loss, and has one beside it that classifies without
training, by the names of the classes: `caption_scores`, `word_scores`, `similarities`. The models are
made of the same parts. A plain `CLIP` matches captions, or writes them with its two encoders wired in
another way; a `BagOfWordsCLIP` matches captions, or predicts their words, with the same parameters.
"""

from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from tqdm import tqdm

from .clip import CLIP, CLIPConfig
from .data.images import normalize, to_device
from .loss import contrastive_loss
from .tokenizer import CLIPTokenizer
from .train import Pairs, TrainConfig, learning_rate, make_optimizer, next_batch, set_learning_rate
from .zeroshot import CHUNK, encode_images, evaluating

Objective = Callable[[CLIP, torch.Tensor, torch.Tensor], torch.Tensor]


class BagOfWordsCLIP(CLIP):
    """A CLIP whose text encoder knows no order: a caption is the mean of one vector for each of its tokens."""

    def __init__(self, config: CLIPConfig):
        super().__init__(config)
        del self.positional_embedding, self.transformer, self.ln_final, self.text_projection
        self.token_embedding = nn.Embedding(config.vocab_size, config.embed_dim)  # straight into the shared space
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, L) ids -> (B, E)."""
        return (self.token_embedding(tokens) * word_shares(tokens).unsqueeze(-1)).sum(dim=1)


def word_shares(tokens: torch.Tensor) -> torch.Tensor:
    """(B, L) ids -> (B, L): 1 / n at each of a caption's n tokens; 0 at its start, its end and behind that."""
    place, end = torch.arange(tokens.shape[1], device=tokens.device), tokens.argmax(dim=1, keepdim=True)
    words = ((place > 0) & (place < end)).float()
    return words / words.sum(dim=1, keepdim=True).clamp(min=1)


# Contrastive: which of the batch's captions is it?


def match_captions(model: CLIP, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """CLIP's own loss (Figure 3), in nats; of either class of model."""
    return contrastive_loss(*model(images, tokens))


@torch.no_grad()
def similarities(model: CLIP, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 3, R, R), class names (K, L) -> (N, K): cosines."""
    with evaluating(model):
        return encode_images(model, images) @ model.encode_text(tokens).T


# Bag of words: which words are in it?


def word_log_probabilities(model: BagOfWordsCLIP, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, R, R) -> (B, V): log of the shares that the vocabulary's words have in the caption."""
    return (model.encode_image(images, normalize=False) @ model.token_embedding.weight.T).log_softmax(dim=1)


def predict_words(model: BagOfWordsCLIP, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the words predicted with those of the caption, in nats a word (Joulin et al. 2016)."""
    log_p = word_log_probabilities(model, images).gather(1, tokens)  # (B, L)
    return -(word_shares(tokens) * log_p).sum(dim=1).mean()


@torch.no_grad()
def word_scores(model: BagOfWordsCLIP, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 3, R, R), class names (K, L) -> (N, K): minus the divergence, in nats, of the words
    predicted from those of the name. 0 is perfect.

    The divergence is the loss less its least value, the entropy of the name's own words. Without that
    entropy a name would do as well as each name that has its words and more.
    """
    shares = word_shares(tokens)
    bags = torch.zeros(len(tokens), model.config.vocab_size, device=tokens.device)
    bags.scatter_add_(1, tokens, shares)  # (K, V)
    entropy = torch.special.entr(bags).sum(dim=1)
    with evaluating(model):
        log_p = torch.cat([word_log_probabilities(model, chunk) for chunk in images.split(CHUNK)])
    return log_p @ bags.T + entropy


# Captioning: what are its words, in order?


def caption_log_likelihood(model: CLIP, pictures: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of each token given the picture and the tokens before it, in nats.

    pictures: (B, E) image features, not normalised; tokens: (B, L)
    Returns (B, L - 1): of the tokens from the first word to end-of-text; 0 behind that.

    CLIP's text transformer is a language model that is never asked to write. Here it is: the picture
    takes the place of start-of-text (carried there by the text projection, the other way round), and
    what stands at each place is compared with the embeddings of all tokens.
    """
    first = pictures @ model.text_projection.T  # (B, W)
    x = torch.cat([first.unsqueeze(1), model.token_embedding(tokens[:, 1:-1])], dim=1)
    x = model.transformer(x + model.positional_embedding[: x.shape[1]])
    logits = model.ln_final(x) @ model.token_embedding.weight.T  # (B, L - 1, V)
    log_p = -F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    place, end = torch.arange(1, tokens.shape[1], device=tokens.device), tokens.argmax(dim=1, keepdim=True)
    return log_p.masked_fill(place > end, 0.0)


def write_captions(model: CLIP, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of a language model that sees the picture first, in nats a token."""
    log_p = caption_log_likelihood(model, model.encode_image(images, normalize=False), tokens)
    return -log_p.sum() / tokens.argmax(dim=1).sum()  # END stands where there are as many tokens to predict


@torch.no_grad()
def caption_scores(model: CLIP, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 3, R, R), class names (K, L) -> (N, K): log p(name, end-of-text | picture), in nats.

    Every name is read anew for every picture: N x K captions, where the others encode N + K.
    """
    with evaluating(model):
        pictures = torch.cat([model.encode_image(chunk, normalize=False) for chunk in images.split(CHUNK)])
        rows = [caption_log_likelihood(model, picture.expand(len(tokens), -1), tokens) for picture in pictures]
        return torch.stack(rows).sum(dim=2)


def train(
    model: CLIP, objective: Objective, tokenizer: CLIPTokenizer, pairs: Pairs, config: TrainConfig
) -> list[float]:
    """The steps of `minclip.fit`, on one device, for any of the objectives; returns the loss of each step
    and leaves the model in evaluation mode."""
    device = model.logit_scale.device
    optimizer, losses = make_optimizer(model, config), []
    stream = pairs.batches(config.batch_size, config.seed, 0)
    model.train()
    for step in tqdm(range(config.steps), desc=objective.__name__, unit="step", leave=False):
        images, captions = next_batch(stream, step, config)
        images, tokens = normalize(to_device(images, device)), to_device(tokenizer(captions), device)
        set_learning_rate(optimizer, learning_rate(step, config))
        optimizer.zero_grad()
        loss = objective(model, images, tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
        optimizer.step()
        model.clamp_logit_scale()
        losses.append(loss.detach())
    model.eval()
    return torch.stack(losses).tolist()
