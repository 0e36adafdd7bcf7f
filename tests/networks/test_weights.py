"""Loading of weights, and what is said when they do not fit."""

import pytest
import torch

from scripts.networks import GraDIRN, load_weights
from scripts.support.errors import InputError


def test_loads_a_state_dictionary_and_a_training_checkpoint(tmp_path):
    source = GraDIRN(2)
    torch.save(source.state_dict(), tmp_path / "state.pt")
    torch.save({"network": source.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pt")
    for name in ("state.pt", "checkpoint.pt"):
        loaded = load_weights(GraDIRN(2), tmp_path / name)
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), source.parameters()))


def test_names_what_does_not_fit(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(GraDIRN(2).state_dict(), path)
    with pytest.raises(InputError, match=r"model.pt is of another network configuration: found 'levels.0.0.*expected"):
        load_weights(GraDIRN(3), path)
    with pytest.raises(InputError, match="found no 'levels.2.1.step_size'"):
        load_weights(GraDIRN(2, num_blocks=(1, 1, 2)), path)
    with pytest.raises(InputError, match="which this network does not have"):
        load_weights(GraDIRN(2, num_blocks=(1, 1, 0)), path)


def test_missing_unreadable_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match="none.pt does not exist"):
        load_weights(GraDIRN(2), tmp_path / "none.pt")
    broken = tmp_path / "broken.pt"
    torch.save(GraDIRN(2).state_dict(), broken)
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(InputError, match="broken.pt cannot be read as a checkpoint"):
        load_weights(GraDIRN(2), broken)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds no state dictionary"):
        load_weights(GraDIRN(2), tmp_path / "list.pt")
