"""The reader of W&B's files against a writer of the format made for the test, whose parts land anywhere."""

import struct
import zlib

import pytest

from fitdiff.tracker.wandb_file import history, records

BLOCK = 32768


def framed(payloads):
    """LevelDB's log format after W&B's seven bytes."""
    data = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for payload in payloads:
        left, first = payload, True
        while first or left:
            room = BLOCK - len(data) % BLOCK
            if room < 7:
                data += bytes(room)
                room = BLOCK
            part, left = left[: room - 7], left[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not left]
            data += struct.pack("<IHB", zlib.crc32(part), len(part), kind) + part
            first = False
    return bytes(data)


def entry(step, filler=""):
    from wandb.proto.wandb_internal_pb2 import Record

    record = Record()
    for key, value in ((["toy/loss"], step / 4), (["_step"], step), (["toy/picture", "path"], f'"{filler}"')):
        item = record.history.item.add()
        item.value_json = str(value)
        item.nested_key.extend(key) if len(key) > 1 else setattr(item, "key", key[0])
    return record.SerializeToString()


@pytest.mark.parametrize("length", [0, 10, 5000, BLOCK - 60, BLOCK, 3 * BLOCK])
def test_records_of_any_length_are_read(tmp_path, length):
    path = tmp_path / "run.wandb"
    path.write_bytes(framed([entry(step, "x" * (length + step)) for step in range(20)]))
    found = list(history(path))
    assert [e["_step"] for e in found] == list(range(20))
    assert [e["toy/loss"] for e in found] == [step / 4 for step in range(20)]
    assert [e["toy/picture"]["path"] for e in found] == ["x" * (length + step) for step in range(20)]


def test_every_end_that_a_kill_may_leave(tmp_path):
    path, whole = tmp_path / "run.wandb", framed([entry(step) for step in range(3)])
    for end in range(7, len(whole)):
        path.write_bytes(whole[:end])
        steps = [e["_step"] for e in history(path)]
        assert steps == list(range(len(steps)))
        assert len(steps) < 3
    path.write_bytes(whole + bytes(100))  # room that was reserved and never written
    assert len(list(records(path))) == 3


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "run.wandb"
    path.write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match=r"begins with b'PK.*not an offline run of W&B"):
        list(records(path))
