"""Checksums of a run and of a converted model: written by two packages that do not know each other, in one form."""

from igrpo_jax.records import checksums
from models.formats import storage


def test_each_package_reads_what_the_other_writes(tmp_path):
    (tmp_path / "one").write_bytes(b"123456789")
    (tmp_path / "two").write_bytes(b"")
    # The check value of CRC-32, as every description of it gives.
    right = {"one": (9, 0xCBF43926), "two": (0, 0)}
    storage.write_checksums(tmp_path)
    assert checksums.read_checksums(tmp_path) == right
    (tmp_path / checksums.NAME).unlink()
    checksums.write_checksums(tmp_path)
    assert checksums.read_checksums(tmp_path) == right and storage.damage(tmp_path) is None
    (tmp_path / "one").write_bytes(b"123456780")
    assert storage.damage(tmp_path) == checksums.damage(tmp_path, "one", *right["one"]) == "one has another checksum"
    assert storage.SUMS == checksums.NAME
