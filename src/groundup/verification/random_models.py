"""Small random models of every architecture, no tensor of which is left as it was initialised."""

import torch

from groundup.models.config import GPTConfig, ModernConfig
from groundup.models.modern import Modern
from groundup.models.registry import Model, build


def model_of(architecture: str, config: GPTConfig) -> Model:
    """A model of that shape; the modern one with shared heads where they come in pairs, and an even
    head_dim.
    """
    if architecture != "modern":
        return build(architecture, config)
    vocab_size, n_layer, n_head = config.vocab_size, config.n_layer, config.n_head
    n_kv_head = config.n_head // 2 if config.n_head % 2 == 0 else config.n_head
    head_dim = max(2, config.n_embd // config.n_head // 2 * 2)
    shape = (
        config.block_size,
        vocab_size,
        n_layer,
        n_head,
        n_kv_head,
        config.n_embd,
        head_dim,
        3 * config.n_embd,
    )
    return Modern(ModernConfig(*shape, dropout=config.dropout))


def perturb(model: torch.nn.Module, seed: int = 0, scale: float = 0.1) -> None:
    """Move every tensor, biases and norms included: at initialisation a wrong bias or norm would
    change nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(scale * noise.to(parameter))


def perturbed(model: Model, seed: int = 0, scale: float = 0.3) -> Model:
    """The same model far from its initial values, in evaluation mode."""
    perturb(model, seed, scale)
    return model.eval()
