"""One seed, one image: in any batch and order, in another process, after a restart."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PROMPTS = ["a red circle", "two blue squares and a star", "a green heart", "three pink rings", "x"]


def latents(pipe, order, batch):
    """Ends of the prompts made in this order and batch, in the prompts' order."""
    ends = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        seeds = [torch.Generator().manual_seed(100 + row) for row in rows]
        texts = [PROMPTS[row] for row in rows]
        out = pipe(texts, generator=seeds, num_inference_steps=3, output_type="latent")
        ends |= dict(zip(rows, out.images, strict=True))
    return torch.stack([ends[row] for row in range(len(PROMPTS))])


@pytest.fixture(scope="module")
def alone(tiny_pipe):
    return latents(tiny_pipe, range(5), 1)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 4, 1, 3)])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_picture_is_its_prompts_and_its_seeds_in_any_order_and_batch(
    order, batch, tiny_pipe, alone
):
    found = latents(tiny_pipe, order, batch)
    if batch == 1:
        assert torch.equal(found, alone)
    torch.testing.assert_close(found, alone, rtol=0, atol=2e-4 * float(alone.abs().max()))


CHILD = """
import sys, torch
sys.path.insert(0, sys.argv[3])
from safetensors.torch import save_file
from janusflow import JanusFlowPipeline
from test_repeat import latents
torch.set_num_threads(int(sys.argv[4]))
pipe = JanusFlowPipeline.from_pretrained(sys.argv[1])
save_file({"x": latents(pipe, range(5), 1)}, sys.argv[2])
"""


@pytest.mark.slow
def test_another_process_makes_the_same_bits(tiny_folder, tmp_path, alone):
    words = [sys.executable, "-c", CHILD, tiny_folder, tmp_path / "x", Path(__file__).parent]
    words += [torch.get_num_threads()]
    root = Path(__file__).parent.parent.parent
    subprocess.run([*map(str, words)], cwd=root, check=True, capture_output=True)
    assert torch.equal(load_file(tmp_path / "x")["x"], alone)


def test_threads_that_share_a_pipeline_get_each_their_own_picture(tiny_pipe):
    """Sampling and answering at once: a cache or a hook that they share would mix them."""
    from concurrent.futures import ThreadPoolExecutor

    def made(i):
        out = tiny_pipe(
            ["a red circle", "two blue squares left of a star"][i % 2],
            num_inference_steps=3 + i % 3,
            guidance_scale=1.0 + i % 2,
            generator=torch.Generator().manual_seed(i),
            output_type="latent",
        )
        return out.images, tiny_pipe.chat(f"what is {i}?", max_new_tokens=4)

    alone = [made(i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(made, range(8)))
    for (one, said), (other, told) in zip(alone, together, strict=True):
        assert torch.equal(one, other) and said == told
