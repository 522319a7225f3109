"""Loading: no code beside the weights runs, unfit architectures are named, what is read is what the model computes."""

import json
import subprocess
import sys

import pytest
import torch
from tiny_models import FAMILIES, base_of, plain_model
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from trimtab.base.errors import InputError, MissingError
from trimtab.model.attention import PackedSequences
from trimtab.model.load import linear_layers, load_base, read_config

LOADED = """
import sys
from pathlib import Path
from trimtab.base.machine import MemoryPeak
from trimtab.model.load import load_base
with MemoryPeak(every=0.002) as memory:
    base = load_base(Path(sys.argv[1]), "bf16")
print(memory.above_present())
"""


def saved(family, folder):
    model = plain_model(family)
    model.save_pretrained(folder)
    tokenizer(folder)
    return model


def tokenizer(folder):
    core = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 2}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_frozen_and_computes_what_transformers_does(family, tmp_path):
    model = saved(family, tmp_path)
    base = load_base(tmp_path, "fp32")
    ids, layout = torch.arange(3, 12), PackedSequences([9])
    with torch.no_grad():
        ours = base.logits(base.hidden(ids, layout.positions_N, layout))
        assert torch.allclose(ours, model(input_ids=ids[None]).logits[0], atol=1e-4)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not base.model.training
    assert load_base(tmp_path, "bf16").model.dtype == torch.bfloat16


def test_how_a_model_generates_is_read_beside_its_weights(tmp_path):
    saved("llama", tmp_path)
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": [2, 5]}))
    assert load_base(tmp_path, "fp32").model.generation_config.eos_token_id == [2, 5]
    file.unlink()
    assert load_base(tmp_path, "fp32").model.generation_config.eos_token_id == 2
    file.write_text("{")
    with pytest.raises(InputError, match=r"generation_config.json.*cannot be used"):
        load_base(tmp_path, "fp32")


def test_the_file_of_the_weights_does_not_stand_in_memory_beside_them(tmp_path):
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 8}
    config = AutoConfig.for_model("llama", vocab_size=64, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer(tmp_path)
    weights = (tmp_path / "model.safetensors").stat().st_size / 1e6  # in float32: half as much in bfloat16
    # a process of its own: what other tests left is given back meanwhile
    told = subprocess.run([sys.executable, "-c", LOADED, str(tmp_path)], check=True, capture_output=True, text=True)
    assert float(told.stdout) < weights / 2


def test_code_beside_the_weights_does_not_run(tmp_path):
    saved("llama", tmp_path)
    marker = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(
        f"open({str(marker)!r}, 'w')\nfrom transformers import LlamaForCausalLM as Evil\n"
    )
    file = tmp_path / "config.json"
    raw = json.loads(file.read_text())
    file.write_text(json.dumps({**raw, "auto_map": {"AutoModelForCausalLM": "evil.Evil"}, "trust_remote_code": True}))
    config = read_config(tmp_path)
    assert not hasattr(config, "auto_map")
    load_base(tmp_path, "fp32")
    assert not marker.exists()


def test_a_folder_without_a_model_and_unfit_architectures_are_told(tmp_path):
    with pytest.raises(MissingError, match=r"no config\.json"):
        load_base(tmp_path, "fp32")
    for raw, told in (
        ({"model_type": "of-tomorrow"}, r"'of-tomorrow' is not supported \(unknown to transformers\)"),
        ({"model_type": "mamba"}, r"'mamba' is not supported \(not plain text attention"),
        ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}, "conv"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(raw))
        with pytest.raises(InputError, match=told):
            read_config(tmp_path)


def test_logits_that_are_scaled_in_a_way_we_do_not_know_are_refused(tmp_path):
    saved("llama", tmp_path)
    settings = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = AutoConfig.for_model("granite", vocab_size=96, logits_scaling=4.0, initializer_range=0.2, **settings)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"'granite' is not supported \(its logits differ from those of eager attention\)"
    ):
        load_base(tmp_path, "fp32")


def test_linear_layers_are_those_of_the_blocks():
    names = linear_layers(base_of("tied llama").model)
    assert len(names) == 2 * 7
    assert all(".layers." in name for name in names)


def test_loading_a_model_does_not_recommend_other_kernels():
    """bitsandbytes does, where it is installed and transformers imports it."""
    pytest.importorskip("bitsandbytes")
    code = "import trimtab.model.load, bitsandbytes"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
