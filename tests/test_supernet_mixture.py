"""The mixture: one member a batch and for teacher and students, a plain supernet for M=1."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from spaces import NETWORKS, POOLED
from supernets import images, randomised
from trainings import assert_same_run, train_all

from nas.run import Run
from nas.searching import search_run
from nas.training import load_trained, train
from search_spaces import catalog
from search_spaces.network import NetworkSpace, Stage
from supernet import checkpoint, datasets
from supernet.channels import sort_channels
from supernet.data import prepare
from supernet.distill import label_loss
from supernet.mixture import Mixture, Routing, make_supernet
from supernet.model import Supernet
from supernet.optim import learning_rate, make_optimizer, set_learning_rate
from supernet.recipe import TrainConfig
from supernet.samplers import SAMPLERS
from supernet.snapshot import optimizer_state
from supernet.steps import STEP_PLANS, StepSubnet, step_rng
from supernet.train import Trainer, load_supernet

TINY = NetworkSpace("tiny", (Stage((1, 2), (4, 8), (3, 5)), Stage((1, 2), (8, 12))), 1, in_channels=1, image_size=8)
CONFIG = TrainConfig(epochs=2, batch_size=128, seed=3, members=3, step_plan="sandwich", max_pooling="shared")


def with_plan(step_plan, **others):
    pooling = "shared" if STEP_PLANS[step_plan].teaches else "reference"
    return replace(CONFIG, step_plan=step_plan, max_pooling=pooling, **others)


SINGLE = with_plan("single_path", dropout=0.0)


@pytest.fixture(scope="module")
def data():
    return prepare(datasets.load("digits"), seed=0)


def new_trainer(data, config=CONFIG):
    torch.manual_seed(config.seed)
    return Trainer(make_supernet(TINY, config.members), data, config, device="cpu")


def batch(size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, 1, 8, 8, generator=generator), torch.arange(size) % 10


def randomised_mixture(space, members=3):
    mixture = Mixture(space, members)
    for seed, member in enumerate(mixture.members):
        member.load_state_dict(randomised(space, seed).state_dict())
    router = mixture.router
    router.accuracy.copy_(torch.rand(router.accuracy.shape, generator=torch.Generator().manual_seed(0)))
    router.seen.fill_(True)
    router.temperature.fill_(50.0)
    return mixture


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module, before):
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


# Training


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("step_plan", ["sandwich", "single_path"])
def test_exactly_one_members_weights_change_a_batch(data, step_plan, optimizer):
    """Neither weight decay nor a momentum of earlier steps moves the others, nor do their batch norms see the batch."""
    trainer = new_trainer(data, with_plan(step_plan, optimizer=optimizer, lr=0.01, weight_decay=0.1))
    seen = set()
    for _ in range(12):
        before, momenta = snapshot(trainer.supernet), optimizer_state(trainer)
        momenta = {name: value.clone() for name, value in momenta.items()}
        trainer.train_step(*batch())
        moved = {name.split(".")[1] for name in changed(trainer.supernet, before) if name.startswith("members.")}
        assert len(moved) == 1
        now = optimizer_state(trainer)
        stirred = {n.split(".")[3] for n in now if n not in momenta or not torch.equal(now[n], momenta[n])}
        assert stirred == moved
        seen |= moved
    assert seen == {"0", "1", "2"}


@pytest.mark.parametrize("step_plan", STEP_PLANS)
def test_a_step_changes_the_members_that_its_subnets_were_routed_to(data, step_plan):
    trainer = new_trainer(data, with_plan(step_plan, epochs=20))
    routed = []
    begin = trainer.routing.begin_step
    trainer.routing.begin_step = lambda *a: routed.append(begin(*a)) or routed[-1]
    for _ in range(4):
        before = snapshot(trainer.supernet)
        trainer.train_step(*batch(256))
        names = changed(trainer.supernet, before)
        assert {int(n.split(".")[1]) for n in names if n.startswith("members.")} == {s.member for s in routed[-1]}
        if STEP_PLANS[step_plan].teaches:
            assert len({s.member for s in routed[-1]}) == 1
    assert any(s.member != routed[0][0].member for step in routed for s in step)


def test_teacher_and_students_use_the_same_member_even_where_a_students_pools_moved():
    space = catalog.get("resnet_cifar")
    routing = Routing(make_supernet(space, 4), replace(CONFIG, members=4), total_steps=100)
    late = space.with_pools(space.largest(), (6, 11))
    moved = space.with_pools(space.smallest(), (6, 11))
    assert moved.pool != late.pool
    members = set()
    for step in range(30):
        routed = routing.begin_step(step, [StepSubnet(late, "max"), StepSubnet(moved, "min")])
        assert routed[0].member == routed[1].member
        members.add(routed[0].member)
        assert routed == routing.begin_step(step, [StepSubnet(late, "max"), StepSubnet(moved, "min")])
    assert len(members) == 4


def test_validation_changes_the_router_alone_and_only_where_it_was_trained(data):
    trainer = new_trainer(data)
    routed = trainer.routing.begin_step(0, trainer._subnets(*batch()))
    before = snapshot(trainer.supernet)
    trainer.routing.end_step(routed, lambda member, arch: trainer.probe.held_out_accuracy(member, arch, trainer.step))
    assert changed(trainer.supernet, before) == {"router.accuracy"}
    router = trainer.supernet.router
    moved = (router.accuracy != 1).nonzero().tolist()
    assert moved == [[router.row(routed[0].arch.pool), routed[0].member]]
    value = float(router.accuracy[tuple(moved[0])])
    largest = trainer.supernet.space.with_pools(trainer.supernet.space.largest(), routed[0].arch.pool)
    accuracy = trainer.probe.held_out_accuracy(trainer.supernet.members[routed[0].member], largest, trainer.step)
    assert value == pytest.approx(0.9 + 0.1 * accuracy)


@pytest.mark.parametrize("ema", [0.0, 0.9], ids=["weights", "averaged weights"])
def test_resumed_equals_uninterrupted_bit_for_bit(data, tmp_path, ema):
    config = replace(CONFIG, ema=ema)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train_all(new_trainer(data, config), whole)
    assert not train_all(new_trainer(data, config), parts, stop_at=11)
    second = new_trainer(data, config)
    torch.manual_seed(999)
    second.restore(parts / "checkpoint.safetensors")
    assert train_all(second, parts)
    assert_same_run(parts, whole)
    assert "model.router.accuracy" in checkpoint.load(parts / "checkpoint.safetensors")[0]
    loaded, _ = load_supernet(whole / "checkpoint.safetensors")
    assert isinstance(loaded, Mixture)
    assert (loaded.router.accuracy < 1).any()
    assert loaded.router.temperature == 100


def test_one_member_is_a_plain_supernet_bit_for_bit(data):
    """Against the step written out, so that no draw or measurement of the mixture's can have crept in."""
    config = replace(SINGLE, members=1)
    trainer = new_trainer(data, config)
    trainer.autocast = nullcontext
    torch.manual_seed(config.seed)
    plain, sampler = Supernet(TINY).train(), SAMPLERS[config.sampler](TINY, config.seed)
    optimizer = make_optimizer(plain.named_parameters(), config)
    x, y = batch()
    for step in range(4):
        trainer.train_step(x, y)
        set_learning_rate(optimizer, learning_rate(config, step, trainer.total_steps))
        optimizer.zero_grad()
        logits = plain(x.to(memory_format=torch.channels_last), sampler.draw(step_rng(config.seed, step, 0), None))
        label_loss(logits, y, config.label_smoothing).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), config.clip_norm)
        optimizer.step()
    assert type(trainer.supernet) is Supernet
    assert checkpoint.weights_hash(trainer.supernet.state_dict()) == checkpoint.weights_hash(plain.state_dict())


def test_a_member_trains_as_the_plain_supernet_it_is(data):
    """The batches that a member gets move it as they move a plain supernet of the same weights."""
    mixed = new_trainer(data, replace(SINGLE, members=2))
    twins = []
    for member in mixed.supernet.members:
        twin = Trainer(Supernet(mixed.supernet.space), data, replace(SINGLE, members=1), device="cpu")
        twin.supernet.load_state_dict(member.state_dict())
        twins.append(twin)
    for step in range(6):
        subnets = mixed._subnets(*batch())
        member = mixed.routing.begin_step(step, subnets)[0].member
        twins[member].step = step
        mixed.train_step(*batch())
        twins[member].train_step(*batch())
        for twin, weights in zip(twins, mixed.supernet.members):
            assert checkpoint.weights_hash(twin.supernet.state_dict()) == checkpoint.weights_hash(weights.state_dict())


def test_averaged_weights_are_routed_as_the_trained_ones(data):
    trainer = new_trainer(data, replace(CONFIG, ema=0.9))
    for _ in range(3):
        trainer.train_step(*batch())
        ready, router = trainer.ready.router.state_dict(), trainer.supernet.router.state_dict()
        assert all(torch.equal(ready[name], value) for name, value in router.items())


def test_the_members_of_recipe_and_supernet_must_agree(data):
    with pytest.raises(ValueError, match="members is 3, but the supernet has 1"):
        Trainer(Supernet(TINY), data, CONFIG, device="cpu")


def test_each_members_channels_are_sorted_by_its_own_importance(data):
    trainer = new_trainer(data, replace(CONFIG, schedule="delayed_epsilon", epochs=20))
    twins = [randomised(trainer.supernet.space, seed) for seed in range(3)]
    for twin, member in zip(twins, trainer.supernet.members):
        member.load_state_dict(twin.state_dict())
        sort_channels(twin)
    trainer.step = trainer.schedule.sort_steps()[0]
    trainer._subnets(*batch())
    for twin, member in zip(twins, trainer.supernet.members):
        assert checkpoint.weights_hash(twin.state_dict()) == checkpoint.weights_hash(member.state_dict())


@pytest.mark.parametrize("schedule", ["delayed_epsilon", "progressive"])
def test_the_largest_alone_stands_at_drawn_poolings_where_all_members_train(data, schedule):
    """At the reference pooling alone one member would train for half of the run."""
    trainer = new_trainer(data, replace(CONFIG, schedule=schedule, epochs=20))
    seen = []
    for trainer.step in range(40):
        (subnet,) = trainer._subnets(*batch())
        assert subnet.role == "max"
        assert replace(subnet.arch, pool=()) == replace(TINY.largest(), pool=())
        seen.append(subnet.arch.pool)
    assert len(set(seen)) > 1


# What leaves a mixture


@pytest.mark.parametrize("name", POOLED)
@torch.no_grad()
def test_export_computes_what_the_routed_forward_does(name):
    space = NETWORKS[name]
    mixture = randomised_mixture(space, members=2).eval()
    rng = np.random.default_rng(0)
    for arch in [space.largest(), space.smallest(), space.sample(rng)]:
        x = torch.nn.functional.interpolate(images(space), size=arch.resolution)
        torch.testing.assert_close(mixture.export(arch)(x), mixture(x, arch, dropout=0.0), atol=1e-5, rtol=1e-5)
        best = int(mixture.router.probabilities([arch.pool])[0].argmax())
        torch.testing.assert_close(mixture(x, arch), mixture.members[best](x, arch))
        assert not torch.allclose(mixture(x, arch), mixture.members[1 - best](x, arch))


def test_an_architecture_of_another_space_is_refused_naming_the_gene():
    mixture = Mixture(TINY, 2)
    arch = replace(mixture.space.largest(), pool=(9,))
    for use in (mixture.export, lambda a: mixture(images(mixture.space), a)):
        with pytest.raises(ValueError, match="gene pool"):
            use(arch)


@pytest.mark.parametrize("name", ["mobilenet_v3", "resnet50"])
def test_a_space_without_pools_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"a mixture on a space without pooling positions, {name!r}"):
        make_supernet(NETWORKS[name], 2)


def test_a_run_on_a_space_without_pools_is_refused_before_its_folder_is_made(tmp_path):
    with pytest.raises(ValueError, match="a mixture on a space without pooling positions, 'mobilenet_v3'"):
        train("mobilenet_v3", "digits", tmp_path / "run", members=2, image_size=40)
    assert not (tmp_path / "run").exists()


def test_a_search_gives_the_same_history_in_process_and_on_workers(tmp_path, ray_address):
    run = train(TINY, "digits", tmp_path / "run", epochs=2, members=2, step_plan="sandwich", max_pooling="shared")
    copy = Run.open(shutil.copytree(run.path, tmp_path / "copy"))  # evaluations are cached in the run
    options = {"n_trials": 10, "strategy": "random"}
    here = search_run(run, num_workers=0, **options)
    there = search_run(copy, num_workers=2, address=ray_address, **options)
    assert [(t.arch, t.metrics) for t in here.trials] == [(t.arch, t.metrics) for t in there.trials]
    assert all(trial.state == "complete" for trial in here.trials)
    mixture, _, _ = load_trained(run)
    assert len({mixture.router.best(trial.arch.pool) for trial in here.trials}) == 2


def test_more_members_than_pooling_configurations_are_refused():
    with pytest.raises(ValueError, match="members is 5; space 'digits' has 4 pooling configurations"):
        make_supernet(NETWORKS["digits"], 5)
    with pytest.raises(ValueError, match="space 'resnet20_pooling' has 36 pooling configurations"):
        make_supernet(catalog.get("resnet20_pooling"), 37)
