"""Golden arrays, the images they were made from, and the models of released files written by the recipe and converted."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import recipe
import torch
from rebuild import released_state
from released_files import ReleasedFiles, full_depth, write

from dagan.cli.convert import ConvertOptions, convert_file
from dagan.models.dagan import DaGAN
from dagan.weights import read_model


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(Path(__file__).parent / "golden.npz"))


@pytest.fixture(scope="session")
def images() -> dict[str, torch.Tensor]:
    return {
        name: torch.nn.functional.interpolate(
            torch.from_numpy(recipe.low_resolution_image(name))[None], size=(256, 256), mode="bilinear", align_corners=True
        )
        for name in ("source", "driving", "initial")
    }


@pytest.fixture(scope="session")
def largest() -> Iterator[dict[str, float]]:
    """Array -> largest difference, which tests enter and the end of the session prints (`pytest -s`)."""
    differences: dict[str, float] = {}
    yield differences
    print()
    for name, difference in sorted(differences.items()):
        print(f"{difference:.1e}  {name}")


@pytest.fixture(scope="session")
def paper_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReleasedFiles]:
    """Decoder A at full size: keypoints and generator as they come out of parallel training, with the discriminator."""
    states = {part: released_state(part) for part in ("kp_detector", "generator", "discriminator")}
    folder = tmp_path_factory.mktemp("paper")
    yield write(folder, states | full_depth(18), wrapped=("kp_detector", "generator"))
    shutil.rmtree(folder)  # hundreds of megabytes, which would be kept for three runs


@pytest.fixture(scope="session")
def paper_file(paper_files: ReleasedFiles) -> Path:
    """Its model file."""
    output = paper_files.checkpoint.with_name("paper.safetensors")
    convert_file(paper_files.checkpoint, ConvertOptions(output=output, depth_dir=paper_files.depth_dir, with_discriminator=True))
    return output


@pytest.fixture(scope="session")
def paper(paper_file: Path) -> DaGAN:
    return read_model(paper_file)


@pytest.fixture(scope="session")
def spade(paper_files: ReleasedFiles, tmp_path_factory: pytest.TempPathFactory) -> DaGAN:
    """Decoder B at full size, converted from a file of the older kind that `torch.save` wrote."""
    states = {"kp_detector": released_state("kp_detector"), "generator": released_state("spade_generator")}
    folder = tmp_path_factory.mktemp("spade")
    files = write(folder, states, legacy=True)
    output = folder / "spade.safetensors"
    convert_file(files.checkpoint, ConvertOptions(output=output, depth_dir=paper_files.depth_dir))
    model = read_model(output)
    shutil.rmtree(folder)
    return model
