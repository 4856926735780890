"""The event file of a run, read back by TensorBoard itself and held to `events.jsonl`.

    python oracle/tensorboard_events.py RUN      every scalar by step, equal as 32-bit floats
    python oracle/tensorboard_events.py --bytes  the records that the unit test of tensorboard.rs expects

Needs the package `tensorboard`.
"""

import json
import struct
import sys
import tempfile
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def records():
    values = [("train/loss", 0.75), ("eval/précision", -1e-3)]
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values])
    start = SessionLog(status=SessionLog.START)
    events = [
        Event(wall_time=1.5, file_version="brain.Event:2"),
        Event(wall_time=1.5, step=301, session_log=start),
        Event(wall_time=1.5, step=300, summary=summary),
    ]
    for event in events:
        with tempfile.NamedTemporaryFile() as file:
            writer = RecordWriter(open(file.name, "wb"))
            writer.write(event.SerializeToString(deterministic=True))
            writer.close()
            print(Path(file.name).read_bytes().hex())


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def expected(run):
    """Scalars by tag: step to value. What was told twice is what was told last."""
    scalars = {}
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "step":
            for name in ["loss", "learning_rate", "gradient_norm"]:
                scalars.setdefault(f"train/{name}", {})[event["step"]] = f32(event[name])
        elif event["event"] == "evaluation":
            for name, value in {"loss": event["loss"], **event["metrics"]}.items():
                scalars.setdefault(f"eval/{name}", {})[event["step"]] = f32(value)
    return scalars


def check(run):
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    got = {
        tag: {event.step: event.value for event in accumulator.Scalars(tag)}
        for tag in accumulator.Tags()["scalars"]
    }
    speed = got.pop("train/tokens_per_second", {})
    want = expected(run)
    steps = want.get("train/loss", {}).keys()
    sound = got == want and speed.keys() == steps and all(value > 0 for value in speed.values())
    print(f"{len(want) + 1} scalars of {len(steps)} steps: {'equal' if sound else 'DIFFER'}")
    return sound and bool(steps)


if __name__ == "__main__":
    if sys.argv[1:] == ["--bytes"]:
        records()
    elif len(sys.argv) == 2:
        sys.exit(not check(Path(sys.argv[1])))
    else:
        sys.exit(__doc__)
