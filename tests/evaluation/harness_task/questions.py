"""HellaSwag's items as lm-evaluation-harness itself asks them, and without `ctx_a` and `ctx_b` the
context as it is.
"""

from datasets import Dataset, concatenate_datasets
from lm_eval.tasks.hellaswag import utils


def process_docs(dataset: Dataset) -> Dataset:
    """What hellaswag_file.yaml asks: `query` and `choices`, by the harness's own functions."""
    if "ctx_a" not in dataset.column_names:
        return dataset.map(with_one_context)
    whole = dataset.filter(lambda item: item["ctx_a"] is None)
    return concatenate_datasets(
        [
            utils.process_docs(dataset.filter(lambda item: item["ctx_a"] is not None)),
            whole.map(with_one_context),
        ]
    )


def with_one_context(item):
    """As the harness's process_docs, with `ctx` where that joins ctx_a and ctx_b."""
    return {
        "query": utils.preprocess(item["activity_label"] + ": " + item["ctx"]),
        "choices": [utils.preprocess(ending) for ending in item["endings"]],
        "gold": int(item["label"]),
    }
