"""Peak memory and disk of decoding, feature maps and an epoch, when the data grow ten times."""

import json
import subprocess
import sys
import threading
from pathlib import Path

from benchmarks.data_of import config, parts_of, synthetic
from benchmarks.measuring import Outcome, Setting

TIMES = 10


def measure(setting: Setting) -> Outcome:
    """Each size in a process of its own: what it holds for itself at its peak, and what it leaves in the cache."""
    n = 91 if setting.toy else 200
    peaks, disks = [], []
    for count in (n, n * (2 if setting.toy else TIMES)):
        root = synthetic(setting.folder, n=count, size=(100, 75))
        command = [sys.executable, "-m", "benchmarks.memory", str(setting.folder / str(count)), str(root)]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        peaks.append(answer["peak_mb"])
        disks.append(answer["cache_mb"])
    return Outcome(
        what=f"peak main memory with {n * TIMES:,} images (decoding, feature maps, an epoch)",
        against=f"with {n:,} images",
        goal=None,
        ratios=[peaks[1] / peaks[0]],
        ours=peaks[:1],
        theirs=peaks[1:],
        unit="MB",
        notes={
            "cache_on_disk_mb": disks,
            "disk_ratio": round(disks[1] / disks[0], 2),
            "memory": "anonymous (RssAnon): pages of the mapped cache belong to the system, which takes them back",
        },
    )


def work(folder: Path, root: Path) -> dict[str, float]:
    """Decode, compute maps, go through an epoch of images and one of maps; the peak over all of it."""
    import torch

    from skinlesion.training.feature_cache import FeatureStore

    torch.set_num_threads(1)
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    settings = config(folder, root, "model=tiny_resnet", "model.image_size=[224,224]", "loader.batch_size=32")
    module, datamodule = parts_of(settings)
    store = FeatureStore(module.network.backbone, datamodule, device=torch.device("cpu"))
    for loader in (store.train_dataloader(2), datamodule.train_dataloader(), datamodule.val_dataloader()):
        for _ in loader:
            pass
    done.set()
    watcher.join()
    return {"peak_mb": peak[0], "cache_mb": sum(path.stat().st_size for path in (folder / "cache").iterdir()) / 1e6}


def anonymous_mb() -> float:
    """Memory that this process alone holds, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(work(Path(sys.argv[1]), Path(sys.argv[2]))))
