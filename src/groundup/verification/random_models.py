"""Small random models of every architecture, no tensor of which is left as it was initialised."""

import torch

from groundup.models.config import GPTConfig, ModernConfig
from groundup.models.modern import Modern
from groundup.models.registry import Model, build


def model_of(architecture: str, config: GPTConfig) -> Model:
    """Build a random model of an architecture, with the shape that a GPT-2's config states.

    In the modern model, two heads of queries share a head of keys if the number of heads is even,
    and head_dim is even.
    """
    if architecture != "modern":
        return build(architecture, config)
    n_head, n_embd = config.n_head, config.n_embd
    n_kv_head = n_head // 2 if n_head % 2 == 0 else n_head
    head_dim = max(2, n_embd // n_head // 2 * 2)
    shape = (config.block_size, config.vocab_size, config.n_layer, n_head, n_kv_head)
    return Modern(ModernConfig(*shape, n_embd, head_dim, 3 * n_embd, dropout=config.dropout))


def perturb(model: torch.nn.Module, seed: int = 0, scale: float = 0.1) -> None:
    """Add normal noise to every tensor of a model, biases and norms included.

    At initialisation biases are 0 and norms 1, so that a model that omits them gives equal results.

    Args:
        model: The model to change.
        seed: The same seed gives the same noise.
        scale: The standard deviation of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(scale * noise.to(parameter))


def perturbed(model: Model, seed: int = 0, scale: float = 0.3) -> Model:
    """Add normal noise to every tensor of a model, and return the model in eval mode."""
    perturb(model, seed, scale)
    return model.eval()
