"""
The vLLM plugin. Where vLLM can be imported the loader is built on its BaseModelLoader and registered with it, and the
engine's arguments are those of vLLM; where not, on a class of its shape. Which it was is said in the summary.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest
import small_llama
import torch
from daemon import Daemon
from transformers import LlamaForCausalLM

import shoal
import shoal.vllm
from shoal import errors

try:
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    REAL = True
except ImportError:
    REAL = False

    class BaseModelLoader:  # type: ignore[no-redef]
        """The shape of vLLM's (0.33)."""

        def __init__(self, load_config: Any) -> None:
            self.load_config = load_config


@dataclasses.dataclass
class LoadConfig:
    load_format: str = "shoal"
    model_loader_extra_config: Any = dataclasses.field(default_factory=dict)
    ignore_patterns: Any = dataclasses.field(default_factory=lambda: ["original/**/*"])
    use_tqdm_on_load: bool = False


@dataclasses.dataclass
class ModelConfig:
    model: str
    model_weights: str = ""
    quantization: str | None = None


class Served(LlamaForCausalLM):
    """A model as vLLM has them: it takes an iterator of weights and tells which of its parameters it has set."""

    def load_weights(self, weights: Any) -> set[str]:
        parameters = dict(self.named_parameters())
        loaded = set()
        for name, tensor in weights:
            parameters[name].data.copy_(tensor)
            loaded.add(name)
        return loaded


def loader(daemon: Daemon, **load_config: Any) -> Any:
    return shoal.vllm.loader_class(BaseModelLoader)(LoadConfig(model_loader_extra_config={"socket": daemon.socket}, **load_config))


@pytest.fixture(scope="module")
def llama(publisher: Daemon, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, LlamaForCausalLM]:
    directory = tmp_path_factory.mktemp("llama") / "m"
    model = small_llama.write(directory, seed=11, shard="5MB", dtype=torch.bfloat16)
    return shoal.save_model("acme/served@v1", directory, socket=publisher.socket), model


def test_what_was_run(record_property: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        what = "vLLM's own BaseModelLoader" if REAL else "a class of the shape of vLLM's BaseModelLoader: vLLM is not installed here"
        print(f"\nvLLM plugin: tested on {what}")
    assert issubclass(shoal.vllm.loader_class(BaseModelLoader), BaseModelLoader)


@pytest.mark.parametrize("name", ["cid", "link"])
def test_weights_come_into_a_model(name: str, llama: tuple[str, LlamaForCausalLM], publisher: Daemon) -> None:
    cid, source = llama
    target = Served(source.config).to(torch.bfloat16).eval()
    assert not torch.equal(small_llama.logits(source), small_llama.logits(target))
    weights = loader(publisher)
    weights.download_model(ModelConfig(cid))
    weights.load_weights(target, ModelConfig(cid if name == "cid" else "/tmp", "" if name == "cid" else "acme/served@v1"))
    assert torch.equal(small_llama.logits(source), small_llama.logits(target))


def test_weights_come_while_the_rest_loads(publisher: Daemon, reader: Daemon) -> None:
    torch.manual_seed(12)
    state = {f"layer.{index:02}": torch.randn(512, 1024) for index in range(24)}  # 48 MiB at 16 MiB a second
    cid = shoal.save_model(None, state, socket=publisher.socket)
    started, times, names = time.monotonic(), [], []
    for name, tensor in loader(reader).weights(ModelConfig(cid)):
        times.append(time.monotonic() - started)
        names.append(name)
        assert torch.equal(tensor, state[name])
    assert names == sorted(state), "not in the order of the file"
    assert times[0] < times[-1] / 2, f"the first tensor came only with the last: {times}"


def test_a_model_that_lacks_weights_is_refused(llama: tuple[str, LlamaForCausalLM], publisher: Daemon) -> None:
    cid = shoal.save_model(None, {"lm_head.weight": torch.zeros(2048, 256)}, socket=publisher.socket)
    with pytest.raises(ValueError, match="not in"):
        loader(publisher).load_weights(Served(llama[1].config), ModelConfig(cid))


def test_which_files_are_weights(publisher: Daemon, tmp_path: Path) -> None:
    from shoal._save import write_safetensors

    for name in ("model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"):
        tmp_path.joinpath("m").mkdir(exist_ok=True)
        write_safetensors({name: torch.ones(1)}, tmp_path / "m" / name)
    (tmp_path / "m" / "original").mkdir()
    write_safetensors({"x": torch.ones(1)}, tmp_path / "m" / "original" / "x.safetensors")

    def names(index: str | None, **load_config: Any) -> list[str]:
        if index is not None:
            (tmp_path / "m" / shoal.vllm.INDEX_FILE).write_text(index)
        cid = shoal.save_model(None, tmp_path / "m", socket=publisher.socket)
        return [name for name, _ in loader(publisher, **load_config).weights(ModelConfig(cid))]

    assert names(None) == ["consolidated.safetensors", "model-1.safetensors", "model-2.safetensors"]
    assert names(None, ignore_patterns=["consolidated*"]) == ["model-1.safetensors", "model-2.safetensors"]
    assert names('{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}') == ["model-1.safetensors", "model-2.safetensors"]
    with pytest.raises(errors.FileNotFoundError, match="model-3"):
        names('{"weight_map": {"a": "model-3.safetensors"}}')
    for broken in ("", "[]", "{}", '{"weight_map": 7}', "[" * 100_000):
        with pytest.raises(errors.UsageError):
            names(broken)
    with pytest.raises(errors.UsageError, match="no safetensors"):
        list(loader(publisher).weights(ModelConfig(shoal.save_model(None, {"w": torch.ones(1)}, format="torch", socket=publisher.socket))))


@pytest.mark.parametrize("extra", [{"socket": 7}, {"sockets": "x"}, ["socket"], "[]"])
def test_extra_configuration_is_checked(extra: Any) -> None:
    with pytest.raises(errors.UsageError):
        shoal.vllm.loader_class(BaseModelLoader)(LoadConfig(model_loader_extra_config=extra))


@dataclasses.dataclass
class Arguments:
    """Of vLLM's EngineArgs what the plugin reads and writes."""

    model: str
    load_format: str = "shoal"
    revision: str | None = None
    tokenizer: str | None = None
    tokenizer_revision: str | None = None
    served_model_name: str | None = None
    model_weights: str = ""
    model_loader_extra_config: Any = dataclasses.field(default_factory=dict)


def test_the_engine_gets_the_small_files_first(llama: tuple[str, LlamaForCausalLM], publisher: Daemon, reader: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig, AutoTokenizer

    cid, source = llama
    monkeypatch.setenv("SHOAL_API", reader.socket)
    shoal.link("acme/served@v1", cid)
    for arguments in (Arguments(cid), Arguments("acme/served", revision="v1")):
        asked = arguments.model
        shoal.vllm.localize(arguments)
        shoal.vllm.localize(arguments)  # both of vLLM's methods do
        assert (arguments.model_weights, arguments.served_model_name, arguments.revision) == (cid, asked, None)
        assert arguments.tokenizer == arguments.model
        assert AutoConfig.from_pretrained(arguments.model).hidden_size == 256
        assert AutoTokenizer.from_pretrained(arguments.tokenizer)("shoal of fish")["input_ids"] == [5, 6, 7]
        assert not list(Path(arguments.model).glob("*.safetensors")), "weights came with the small files"
    other = Arguments("org/name", load_format="auto")
    shoal.vllm.localize(other)
    assert other == Arguments("org/name", load_format="auto")
    with pytest.raises(errors.LinkNotFoundError):
        shoal.vllm.localize(Arguments("org/unknown"))
    with pytest.raises(errors.UsageError):
        shoal.vllm.localize(Arguments("/tmp"))


def test_register(monkeypatch: pytest.MonkeyPatch, llama: tuple[str, LlamaForCausalLM], publisher: Daemon) -> None:
    if REAL:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.model_executor import model_loader
    else:
        model_loader, arg_utils, base_loader = (types.ModuleType(name) for name in ("model_loader", "arg_utils", "base_loader"))
        model_loader._LOAD_FORMAT_TO_MODEL_LOADER = {}  # type: ignore[attr-defined]
        model_loader.register_model_loader = lambda name: lambda of: model_loader._LOAD_FORMAT_TO_MODEL_LOADER.setdefault(name, of)  # type: ignore[attr-defined]
        base_loader.BaseModelLoader = BaseModelLoader  # type: ignore[attr-defined]

        class EngineArgs(Arguments):  # type: ignore[no-redef]
            def create_model_config(self) -> ModelConfig:
                return ModelConfig(self.model, self.model_weights)

            def create_engine_config(self) -> ModelConfig:
                return self.create_model_config()

        arg_utils.EngineArgs = EngineArgs  # type: ignore[attr-defined]
        for name, module in {"vllm.model_executor.model_loader": model_loader, "vllm.model_executor.model_loader.base_loader": base_loader, "vllm.engine.arg_utils": arg_utils}.items():
            monkeypatch.setitem(sys.modules, name, module)
    shoal.vllm.register()
    shoal.vllm.register()
    registered = model_loader._LOAD_FORMAT_TO_MODEL_LOADER["shoal"]
    assert issubclass(registered, BaseModelLoader) and registered.__name__ == "ShoalModelLoader"
    if REAL:
        from vllm.config.load import LoadConfig as RealLoadConfig

        real = model_loader.get_model_loader(RealLoadConfig(load_format="shoal", model_loader_extra_config={"socket": publisher.socket}))
        target = Served(llama[1].config).to(torch.bfloat16).eval()
        real.load_weights(target, ModelConfig(llama[0]))
        assert torch.equal(small_llama.logits(llama[1]), small_llama.logits(target))
    monkeypatch.setenv("SHOAL_API", publisher.socket)
    arguments = EngineArgs(model=llama[0], load_format="shoal")
    config = arguments.create_model_config()
    assert config.model_weights == llama[0] and (Path(config.model) / "config.json").is_file()


def test_several_ranks_at_once(llama: tuple[str, LlamaForCausalLM], reader: Daemon, publisher: Daemon) -> None:
    """Each rank of a host opens the model by itself; the node fetches once."""
    torch.manual_seed(13)
    state = {f"w{index}": torch.randn(1024, 1024) for index in range(6)}
    cid = shoal.save_model(None, state, socket=publisher.socket)
    failures: list[BaseException] = []

    def rank() -> None:
        try:
            assert {name: float(tensor[0, 0]) for name, tensor in loader(reader).weights(ModelConfig(cid))} == {name: float(value[0, 0]) for name, value in state.items()}
        except BaseException as error:
            failures.append(error)

    ranks = [threading.Thread(target=rank) for _ in range(8)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join(60)
    assert not failures, failures
