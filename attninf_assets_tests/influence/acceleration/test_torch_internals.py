"""What torch must keep doing behind its public interface."""

import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version

from attninf_assets.influence.acceleration import torch_internals as internals
from attninf_assets.influence.acceleration.onednn import has_fast_bfloat16, has_onednn

CHECKED = Version(internals.CHECKED_AGAINST)
PAGE = "read torch_internals.py against this version, then raise CHECKED_AGAINST and the bound in pyproject.toml"
CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not internals.has_onednn_operators(), reason="this build of torch has no oneDNN")


def test_the_installed_torch_is_of_a_minor_version_that_the_dependency_admits_and_none_is_later_than_checked() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (allowed,) = [found.specifier for found in map(Requirement, project["dependencies"]) if found.name == "torch"]
    assert allowed.contains(CHECKED)
    assert not allowed.contains(f"{CHECKED.major}.{CHECKED.minor + 1}.0"), PAGE
    assert allowed.contains(Version(version("torch")).public), PAGE


@needs_onednn
@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
def test_a_onednn_product_is_the_product(bias: bool) -> None:
    torch.manual_seed(0)
    weight_NK, x, bias_N = torch.randn(48, 32), torch.randn(2, 7, 32), torch.randn(48) if bias else None
    found = internals.onednn_linear(x, internals.onednn_layout(weight_NK, rows=1024), bias_N)
    torch.testing.assert_close(found, torch.nn.functional.linear(x, weight_NK, bias_N), atol=1e-5, rtol=1e-5)
    assert isinstance(internals.cpu_multiplies_bfloat16(), bool)


def test_where_a_build_lacks_onednn_or_its_operators_it_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert not has_onednn(CPU)
        assert not has_fast_bfloat16(CPU)
    with monkeypatch.context() as without:
        without.setattr(torch.ops, "mkldnn", object())
        assert not has_onednn(CPU)
        assert not has_fast_bfloat16(CPU)


@torch.inference_mode()
def test_a_scaled_product_is_the_product_of_the_scaled_matrices() -> None:
    torch.manual_seed(0)
    a_MK, b_NK = (torch.randn(n, 32).to(torch.float8_e4m3fn) for n in (16, 48))
    scale_M1, scale_1N = torch.rand(16, 1) + 0.5, torch.rand(1, 48) + 0.5
    found = internals.scaled_product(a_MK, b_NK.T, scale_M1=scale_M1, scale_1N=scale_1N, out_type=torch.bfloat16)
    expected = (scale_M1 * a_MK.float()) @ (scale_1N * b_NK.T.float())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=1e-2)


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_a_module_whose_compiled_form_is_forgotten_runs_as_it_was_written() -> None:
    compiled: list[str] = []

    def backend(graph: Any, _: Any) -> Any:
        compiled.append("once")
        return graph.forward

    module, x = Doubled(), torch.randn(4, 3)
    module.compile(backend=backend)
    torch.testing.assert_close(module(x), 2 * x)
    assert compiled == ["once"]
    internals.forget_compiled(module)
    torch.compiler.reset()  # were it still compiled, it would have to be compiled again
    torch.testing.assert_close(module(x), 2 * x)
    assert compiled == ["once"]
