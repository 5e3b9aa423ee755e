"""A trunk starts from a published file of weights, whose name says its content."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import torch

from search_spaces.reading.config import DatasetFacts
from trainers.errors import DataError, SettingsError
from trainers.networks import resnet
from trainers.networks.pretrained import start_from
from trainers.spml.settings import Spml


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, torch.nn.Module]:
    """A file as torchvision publishes them, with a head, and the network that it is of."""
    from torchvision.models import resnet18

    net, content = resnet18(), io.BytesIO()
    torch.save(net.state_dict(), content)
    path = tmp_path / "hub" / "checkpoints" / "resnet18-"
    path = path.with_name(f"resnet18-{hashlib.sha256(content.getvalue()).hexdigest()[:8]}.pth")
    path.parent.mkdir(parents=True)
    path.write_bytes(content.getvalue())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return path, net


def test_a_trunk_gets_all_weights_but_the_heads(published: tuple[Path, torch.nn.Module]) -> None:
    path, net = published
    trunk, _ = resnet.resnet18(3, 96)
    start_from(trunk, path.name)
    held = net.state_dict()
    assert {name for name in held if not name.startswith("fc.")} == set(trunk.state_dict())
    assert all(torch.equal(held[name], value) for name, value in trunk.state_dict().items())


def test_what_is_not_such_a_file_is_refused(published: tuple[Path, torch.nn.Module]) -> None:
    path, _ = published
    with pytest.raises(DataError, match=r"no weights of this network for images of this size"):
        start_from(resnet.resnet18(3, 32)[0], path.name)
    trunk, _ = resnet.resnet18(3, 96)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    with pytest.raises(DataError, match=r"resnet18-00000000\.pth: cannot be read"):
        start_from(trunk, "resnet18-00000000.pth")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="its SHA-256 begins with"):
        start_from(trunk, path.name)
    rubbish = path.with_name(f"resnet18-{hashlib.sha256(b'x').hexdigest()[:8]}.pth")
    rubbish.write_bytes(b"x")
    with pytest.raises(DataError, match="holds no weights of this network"):
        start_from(trunk, rubbish.name)
    assert all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weights": "best.pth"}, "is no name that ends with eight digits"),
        ({"weights": "resnet18-0676ba61.pth"}, "of resnet18, and the backbone is resnet50"),
        ({"weights": "../resnet50-0676ba61.pth"}, "is no name"),
        ({"loss": "role"}, "needs the number of categories"),
        ({"loss": "em_apl", "epochs": 5}, "of which 5 are warm-up"),
        ({"batch_size": 7}, "cannot be shared equally"),
        ({"backbone": "mlp"}, "does not take images"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], said: str) -> None:
    facts = DatasetFacts(name="x", num_classes=4, train_items=9, test_items=9, kind="images")
    with pytest.raises(SettingsError, match=said):
        Spml(**{"backbone": "resnet50", **settings}).check(facts, 2)  # type: ignore[arg-type]
    Spml(backbone="resnet50", weights="resnet50-0676ba61.pth").check(facts, 2)
