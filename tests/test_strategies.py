"""Checkpoints that are folders: what a kill between two renames leaves is put back."""

from gopd_lightning.strategies import restore_replaced


def folder(place, content):
    place.mkdir(parents=True)
    (place / "weights").write_text(content)


def test_a_checkpoint_that_was_moved_away_and_not_replaced_is_put_back(tmp_path):
    folder(tmp_path / "last.ckpt.old", "before")
    folder(tmp_path / "last.ckpt.new", "perhaps not whole")
    restore_replaced(tmp_path)
    assert (tmp_path / "last.ckpt/weights").read_text() == "before"
    assert not (tmp_path / "last.ckpt.old").exists()


def test_one_that_was_replaced_stays(tmp_path):
    folder(tmp_path / "last.ckpt.old", "before")
    folder(tmp_path / "last.ckpt", "after")
    restore_replaced(tmp_path)
    assert (tmp_path / "last.ckpt/weights").read_text() == "after"


def test_a_run_without_checkpoints_is_left_alone(tmp_path):
    restore_replaced(tmp_path / "checkpoints")
    assert not list(tmp_path.iterdir())
