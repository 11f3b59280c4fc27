"""The test predictions as the archive that the evaluation server of PASCAL VOC takes.

Run as `python -m tools.voc_archive results.tgz`, after a run with `data.voc2012.test: true`. The archive holds
`results/VOC2012/Segmentation/comp6_test_cls/<id>.png` for every test photograph, as the server's page asks. It is
loaded back and checked before it gets its name. Same predictions, same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import tarfile
from pathlib import Path

from pipeline.data.manifest import Manifest, load_test
from pipeline.data.masks import read_mask
from pipeline.data.sources.voc2012 import CLASSES
from pipeline.predict import TEST_OUTPUT
from pipeline.run.errors import UserError
from pipeline.run.files import write_atomic
from pipeline.run.stage import run_stage

INSIDE = "results/VOC2012/Segmentation/comp6_test_cls"


def main() -> None:
    """Write the archive that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, metavar="results.tgz", help="where the archive goes")
    archive: Path = parser.parse_args().archive
    test = load_test()
    write_archive(archive, test, TEST_OUTPUT)
    print(f"{archive}: {len(test.records)} predictions, loaded back and checked")


def write_archive(archive: Path, test: Manifest, predictions: Path) -> None:
    """Pack the predictions of the test photographs; nothing is left behind where they cannot be submitted.

    Raises:
        UserError: there are no test photographs, the classes are not VOC's, or a prediction is missing or damaged.
    """
    if not test.records:
        raise UserError("the data set gives no test photographs; set data.voc2012.test to true and run `dvc repro`")
    if test.classes != CLASSES:
        raise UserError(f"the server scores all {len(CLASSES)} classes of VOC; set data.classes to all")

    def write(temporary: Path) -> None:
        with (
            temporary.open("wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            for record in test.records:
                add(tar, f"{INSIDE}/{record.id}.png", predictions / f"{record.id}.png")
        check_archive(temporary, test)

    write_atomic(archive, write)


def add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    """Add a file under a name, without its date and owner.

    Raises:
        UserError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: prediction cannot be read ({error.strerror}); run `dvc repro predict`") from error
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def check_archive(archive: Path, test: Manifest) -> None:
    """Load an archive and compare it with what the server expects.

    Raises:
        UserError: a photograph is missing or one too many, a mask has another size than its photograph, or a label that
            VOC does not have (255 among them).
    """
    expected = {f"{INSIDE}/{record.id}.png": record for record in test.records}
    with tarfile.open(archive, "r:gz") as tar:
        if sorted(tar.getnames()) != sorted(expected):
            raise UserError(f"{archive}: holds other files than the {len(expected)} test photographs")
        for name, record in expected.items():
            file = tar.extractfile(name)
            assert file is not None, "all entries are files"
            labels = read_mask(Path(name), record.size, file.read())
            if labels.max() > len(CLASSES):
                raise UserError(f"{name}: label {labels.max()}, but VOC's labels are 0 to {len(CLASSES)}")


if __name__ == "__main__":
    run_stage(main)
