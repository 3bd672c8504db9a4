"""The moving average of given weights equals its closed form, and an exchange with the weights loses no bit."""

import pytest
import torch
from torch import nn

from bimodal_cl.training.weight_average import WeightAverage

DECAY = 0.7


def small_model() -> nn.Module:
    """A layer, a batch norm, a frozen layer, and a layer whose weight is tied to the first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[3].weight = model[0].weight
    model[2].requires_grad_(False)
    return model


def move(model: nn.Module) -> None:
    """Change every tensor of the model, also the frozen ones."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn(tensor.shape) if tensor.is_floating_point() else 1)


def closed_form(values: list[torch.Tensor], decays: list[float]) -> torch.Tensor:
    """Sum the weights ``w_0 .. w_T``, each with its share in the average after ``T`` steps, in float64."""
    total = torch.zeros_like(values[0], dtype=torch.float64)
    for step, value in enumerate(values):
        share = 1.0 if step == 0 else 1 - decays[step - 1]
        for later in decays[step:]:
            share *= later
        total += share * value.double()
    return total


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_is_its_closed_form(warmup):
    model = small_model()
    average = WeightAverage(model, DECAY, warmup)
    seen = [{name: tensor.clone() for name, tensor in model.state_dict().items()}]
    for step in range(1, 31):
        move(model)
        average.update(step)
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    decays = [min(DECAY, (1 + step) / (10 + step)) if warmup else DECAY for step in range(1, 31)]
    assert [average.decay_at(step) for step in range(1, 31)] == decays
    assert (decays[0], decays[-1]) == ((2 / 11, 0.7) if warmup else (0.7, 0.7))
    averaged = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "3.bias"]
    assert average.names == averaged  # neither the frozen layer, nor the tied weight twice, nor the count of batches
    with average.swapped():
        found = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in seen[0]:
        if name in averaged or name == "3.weight":
            expected = closed_form([each[name] for each in seen], decays)
            torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6)
            assert not torch.equal(found[name], seen[-1][name])
        else:
            assert torch.equal(found[name], seen[-1][name]), name
    assert found["1.num_batches_tracked"] == 30


def test_an_exchange_gives_the_weights_back_bit_for_bit_also_after_an_error():
    model = small_model()
    average = WeightAverage(model, DECAY)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    move(model)
    average.update(1)
    after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with average.swapped():
        first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(OSError, match="full"), average.swapped():
        raise OSError("full")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, after[name]) and not torch.equal(tensor, before[name])
    with average.swapped():
        assert all(torch.equal(tensor, first[name]) for name, tensor in model.state_dict().items())


def test_a_saved_average_is_taken_over():
    model, other = small_model(), small_model()
    averages = [WeightAverage(each, DECAY) for each in (model, other)]
    move(model)
    averages[0].update(1)
    with averages[0].swapped():
        saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    averages[1].load(saved)
    move(other)  # what the model weighs meanwhile is of no importance
    with averages[1].swapped():
        for name in averages[0].names:
            assert torch.equal(other.state_dict()[name], saved[name])


def average_shards(rank: int, world_size: int, folder: str) -> None:
    """Average a model whose parameters two ranks share, and compare with a whole model."""
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    torch.manual_seed(1)
    whole = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))
    shards = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))
    shards.load_state_dict(whole.state_dict())
    fully_shard(shards, mesh=init_device_mesh("cpu", (world_size,)))
    models = (whole, shards)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.5) for model in models]
    averages = [WeightAverage(model, DECAY) for model in models]

    def full() -> dict[str, torch.Tensor]:
        return {name: tensor.full_tensor() for name, tensor in shards.state_dict().items()}

    for step in (1, 2, 3):
        pixels = torch.randn(4, 3)
        for model, optimizer, average in zip(models, optimizers, averages, strict=True):
            model(pixels).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            average.update(step)
    with averages[0].swapped(), averages[1].swapped():
        expected = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
        torch.testing.assert_close(full(), expected)
        torch.testing.assert_close(shards(pixels), whole(pixels))
    torch.testing.assert_close(full(), dict(whole.state_dict()))
    averages[1].load({name: 2 * tensor for name, tensor in expected.items()})
    with averages[1].swapped():
        torch.testing.assert_close(full(), {name: 2 * tensor for name, tensor in expected.items()})
    destroy_process_group()


def test_ranks_average_their_rows_of_sharded_parameters(tmp_path):
    torch.multiprocessing.spawn(average_shards, (2, str(tmp_path)), nprocs=2)
