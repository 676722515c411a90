"""The differentiable reward of right answers, and the discriminator, in distillation."""

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow.models import latents as coding
from janusflow.models.autoencoder_loading import load_vae
from janusflow.models.janusflow.modeling import JanusFlowModel
from janusflow.models.janusflow.processing import JanusFlowProcessor
from janusflow.scenes.patches import pixels
from janusflow.scenes.shapes import render_batch
from janusflow.scenes.world import scene
from janusflow.training import checkpoints, distillation
from janusflow.training.objectives.answer_loss import _normalized, answer_loss
from janusflow.training.objectives.discriminator import (
    Discriminator,
    PatchDiscriminator,
    discriminator_loss,
    generator_loss,
)
from janusflow.training.rewards.prompts import Prompts
from janusflow.training.timestep_sampling import generator
from janusflow.utils.hub import locate

TINY = {
    "training.batch": 3,
    "training.mixture": {"generation": 2, "understanding": 1},
    "training.steps": 3,
    "training.warmup": 1,
    "objective.name": "dmd",
    "objective.steps": 2,
    "objective.evaluations": [2, 1],
    "objective.answers": 0.5,
    "objective.adversarial": 0.5,
    "run.save_every": 1,
    "run.keep": 9,
}


@pytest.fixture(scope="module")
def judge():
    folder = locate("janusflow/scenes")
    model = JanusFlowModel.from_pretrained(folder, dtype=torch.float32).requires_grad_(False)
    return model.eval(), load_vae(folder, None), JanusFlowProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def shown(judge):
    """Latents of eight scenes and samples with their prompts."""
    from janusflow.training import init_checkpoint

    scenes = [scene("test", i, "color_attr") for i in range(8)]
    source = Prompts(init_checkpoint.batches(locate("janusflow/scenes")), 1)
    images = pixels(render_batch([one.objects for one in scenes]))
    with torch.no_grad():
        latents = coding.encode(judge[1], images)
    return latents, [source.sample(one.prompt) for one in scenes]


def losses_of(judge, latents, samples):
    keys = [generator(0, i) for i in range(len(samples))]
    return answer_loss(*judge, latents, samples, keys, packed=False)


def test_images_of_other_prompts_lose_more(judge, shown):
    latents, samples = shown
    with torch.no_grad():
        right, wrong = losses_of(judge, *shown), losses_of(judge, latents.roll(1, 0), samples)
    assert right.mean() < 0.1 and wrong.mean() > 1


def test_the_gradient_moves_a_wrong_image_towards_right_answers(judge, shown):
    latents, samples = shown
    x = latents.roll(1, 0).requires_grad_(True)
    loss = losses_of(judge, x, samples)
    (slope,) = torch.autograd.grad(loss.sum(), x)
    with torch.no_grad():
        after = losses_of(judge, x - 0.05 * slope / slope.abs().mean(), samples)
    assert after.mean() < loss.mean()
    assert not any(p.grad is not None for p in judge[0].parameters())


def test_the_questions_and_the_noise_are_functions_of_the_key_alone(judge, shown):
    with torch.no_grad():
        assert torch.equal(losses_of(judge, *shown), losses_of(judge, *shown))


def test_pixels_are_normalised_as_the_image_processor_does(judge):
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    own = judge[2].image_processor
    due = own([Image.fromarray(image)])
    found = _normalized(own, torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1)
    assert torch.allclose(found, due, atol=1e-5)


def test_pixels_of_another_size_are_resized(judge):
    assert _normalized(judge[2].image_processor, torch.zeros(2, 3, 64, 64)).shape[-1] == 96


def test_the_discriminator_learns_data_and_the_generator_moves_to_them():
    torch.manual_seed(0)
    network, real = PatchDiscriminator(4), torch.randn(8, 4, 6, 6) + 1
    fake = torch.randn(8, 4, 6, 6).requires_grad_(True)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    before = float(discriminator_loss(network, real, fake).detach())
    for _ in range(100):
        optimizer.zero_grad()
        discriminator_loss(network, real, fake, r1=0.1).backward()
        optimizer.step()
    assert float(discriminator_loss(network, real, fake).detach()) < before - 0.3
    assert fake.grad is None
    generator_loss(network, fake).sum().backward()
    moved = (fake - 10 * fake.grad / fake.grad.abs().max()).detach()
    assert generator_loss(network, moved).mean() < generator_loss(network, fake).mean()


def test_the_generators_loss_gives_the_discriminator_no_gradient():
    network, x = PatchDiscriminator(4), torch.randn(2, 4, 6, 6, requires_grad=True)
    generator_loss(network, x).sum().backward()
    assert x.grad.any() and all(p.grad is None for p in network.parameters())


def run(folder, out, **changes):
    return distillation.plan(str(folder), out, TINY | changes).run()


def test_a_run_with_both_terms_resumes_bitwise(tiny_folder, tmp_path):
    run(tiny_folder, tmp_path / "whole")
    run(tiny_folder, tmp_path / "cut")
    (tmp_path / "cut" / "step-00000003.safetensors").unlink()
    distillation.plan(str(tiny_folder), tmp_path / "cut", TINY).run()
    whole, cut = (checkpoints.read(tmp_path / name, 3)[0] for name in ("whole", "cut"))
    assert any(name.startswith("objective.discriminator2.") for name in whole)
    assert whole.keys() == cut.keys() and all(torch.equal(whole[n], cut[n]) for n in whole)


def test_the_discriminator_is_not_the_teacher(tiny_folder, tmp_path):
    main = distillation.plan(str(tiny_folder), tmp_path, TINY).trainer().objective.main
    teacher = JanusFlowModel.from_pretrained(tiny_folder, dtype=torch.float32)
    main.teach(teacher)
    assert main.teacher.model is teacher
    assert isinstance(main.discriminators[1].model, PatchDiscriminator)


def test_a_discriminator_is_a_function_of_its_seed_and_on_the_models_device():
    beside = torch.nn.Linear(2, 2)
    torch.manual_seed(1)
    first = Discriminator(beside, 4, "d", 1e-3, seed=5).model.state_dict()
    torch.manual_seed(2)
    second = Discriminator(beside, 4, "d", 1e-3, seed=5).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    elsewhere = Discriminator(beside.to("meta"), 4, "d", 1e-3, seed=5).model
    assert {p.device.type for p in elsewhere.parameters()} == {"meta"}
