"""What is read of an .onnx file without parsing it, against the onnx package."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from visavis_server.errors import ModelFileError
from visavis_server.models.onnx_file import metadata_bytes, read_constants, read_onnx_file

from .. import graphs

METADATA = {"visavis": '{"name": "é"}', "empty": "", "long": "x" * 300}
LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.with_metadata(graphs.classifier(), METADATA))
    return path


def test_metadata_is_what_the_onnx_package_reads(file: Path) -> None:
    model = onnx.load(file)
    expected = {entry.key: entry.value for entry in model.metadata_props}
    assert read_onnx_file(file).metadata == expected == METADATA


def test_the_digest_is_the_sha256_of_the_model_without_its_metadata(file: Path) -> None:
    model = onnx.load(file)
    del model.metadata_props[:]
    expected = hashlib.sha256(model.SerializeToString()).hexdigest()
    assert read_onnx_file(file).digest == expected


def test_appended_metadata_is_what_the_onnx_package_reads(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.classifier() + metadata_bytes(METADATA))
    model = onnx.load(path)
    assert {entry.key: entry.value for entry in model.metadata_props} == METADATA
    assert model.graph == onnx.load_from_string(graphs.classifier()).graph


def test_metadata_leaves_the_digest_as_it_was(file: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.onnx"
    bare.write_bytes(graphs.classifier())
    assert read_onnx_file(file).digest == read_onnx_file(bare).digest


def test_any_flipped_bit_changes_the_digest_or_is_refused(tmp_path: Path) -> None:
    graph = graphs.classifier()
    path = tmp_path / "model.onnx"
    path.write_bytes(graph)
    digest = read_onnx_file(path).digest
    tail = metadata_bytes(METADATA)
    unnoticed = []
    for bit in range(len(graph) * 8):
        flipped = bytearray(graph)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(flipped) + tail)
        try:
            if read_onnx_file(path).digest == digest:
                unnoticed.append(bit)
        except ModelFileError:
            pass
    assert unnoticed == []


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"\n",
        b"<!DOCTYPE html><html><head><title>404</title></head></html>",
        b'{"message": "Not Found"}',
        LFS_POINTER,
        b"PK\x03\x04" + bytes(60),
        bytes(1000),
        b"\xff" * 1000,
        # Its graph's first field says that it goes on behind the end of the file.
        bytes.fromhex("3a0a010a01f2f20af278f20a78"),
    ],
    ids=["empty", "newline", "html", "json", "lfs", "zip", "zeros", "ones", "never-ending"],
)
def test_a_file_that_is_not_a_model_is_refused_with_its_path(
    tmp_path: Path, contents: bytes
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(contents)
    with pytest.raises(ModelFileError, match=r"model\.onnx: not an ONNX model"):
        read_onnx_file(path)


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        (LFS_POINTER, "only a Git LFS pointer; run `git lfs pull`"),
        (b"\n<!doctype html>", "but an HTML page; download"),
        (b"PK\x03\x04" + bytes(60), "but a zip archive"),
        (b'{"message": "Not Found"}', "or truncated"),
    ],
)
def test_what_lies_in_place_of_a_model_is_named(tmp_path: Path, contents: bytes, what: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(contents)
    with pytest.raises(ModelFileError, match=rf"model\.onnx: not an ONNX model, {what}"):
        read_onnx_file(path)


@given(share=st.floats(0, 0.999))
def test_a_model_cut_short_is_refused_or_has_another_digest(
    tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    whole = graphs.classifier()
    path = tmp_path_factory.getbasetemp() / "short.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    with suppress(ModelFileError):
        assert read_onnx_file(path).digest != hashlib.sha256(whole).hexdigest()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_onnx_file(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_onnx_file(tmp_path / "nothing.onnx")


@pytest.mark.timeout(5)
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_onnx_file(tmp_path / "model.onnx")


def test_metadata_too_large_to_be_any_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    # Field 14, 2 GB long, and nothing of it there.
    path.write_bytes(graphs.classifier() + b"\x72\xff\xff\xff\xff\x07")
    with pytest.raises(ModelFileError, match="metadata entry takes 2147483647 bytes"):
        read_onnx_file(path)


def anywhere(tensor: TensorProto) -> dict[str, onnx.ModelProto]:
    """Return models that hold a tensor in each of the places where ONNX allows one."""
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    nodes = helper.make_node("Scan", ["x"], ["y"])
    nodes.attribute.add(name="values", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    inner = helper.make_graph([node], "inner", [], [])
    sparse = onnx.SparseTensorProto(values=tensor)
    function = helper.make_function("d", "F", [], ["y"], [node], [])
    plain = helper.make_graph([], "plain", [], [])

    def model(graph: onnx.GraphProto = plain, **more: Any) -> onnx.ModelProto:
        return helper.make_model(graph, **more)

    trained = model()
    trained.training_info.add(algorithm=inner)
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner)
    sparse_node = helper.make_node("Constant", [], ["y"], sparse_value=sparse)
    return {
        "initializer": model(helper.make_graph([], "g", [], [], [tensor])),
        "sparse initializer": model(onnx.GraphProto(sparse_initializer=[sparse])),
        "attribute": model(inner),
        "list in an attribute": model(helper.make_graph([nodes], "g", [], [])),
        "sparse attribute": model(helper.make_graph([sparse_node], "g", [], [])),
        "branch": model(helper.make_graph([branch], "g", [], [])),
        "function": model(functions=[function]),
        "training": trained,
    }


PLACES = list(anywhere(TensorProto()))


@pytest.mark.parametrize("place", PLACES)
def test_values_in_other_files_are_refused_wherever_the_tensor_lies(
    tmp_path: Path, place: str
) -> None:
    tensor = numpy_helper.from_array(np.eye(3, dtype=np.float32), "weights")
    path = tmp_path / "model.onnx"
    path.write_bytes(anywhere(tensor)[place].SerializeToString())
    assert len(read_onnx_file(path).digest) == 64
    set_external_data(tensor, "weights.bin")
    path.write_bytes(anywhere(tensor)[place].SerializeToString())
    with pytest.raises(ModelFileError, match=r"model\.onnx: its weights are in other files"):
        read_onnx_file(path)


def test_a_model_saved_with_external_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = onnx.load_from_string(graphs.classifier())
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    assert (tmp_path / "weights").stat().st_size >= 36
    with pytest.raises(ModelFileError, match="are in other files; export it as a single file"):
        read_onnx_file(path)


# Fragments from which something that looks like a model can grow.
pieces = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([graphs.classifier(), metadata_bytes({"a": "b"}), b"\x72\x04", b"\x3a\x00"]),
)


@given(st.lists(pieces, max_size=6).map(b"".join))
def test_random_bytes_are_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, contents: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(contents)
    with suppress(ModelFileError):
        assert len(read_onnx_file(path).digest) == 64


def test_fields_of_every_kind_are_passed_over_and_count_for_the_digest(tmp_path: Path) -> None:
    # Field 100, which onnx.proto has not: a number, 8 bytes, 4 bytes, and text. 7 begins no field.
    fields = b"\xa0\x06\x01", b"\xa1\x06" + b"\7" * 8, b"\xa5\x06" + b"\7" * 4, b"\xa2\x06\2ab"
    model = graphs.classifier() + b"".join(fields)
    (tmp_path / "model.onnx").write_bytes(model + metadata_bytes({"key": "value"}))
    found = read_onnx_file(tmp_path / "model.onnx")
    assert found.metadata == {"key": "value"}
    assert found.digest == hashlib.sha256(model).hexdigest()


def test_the_largest_metadata_is_read_and_none_that_is_larger(tmp_path: Path) -> None:
    # An entry of 16 MiB: the key takes 3 bytes, the value's tag and length 5.
    value = "x" * ((16 << 20) - 3 - 5)
    path = tmp_path / "model.onnx"
    path.write_bytes(graphs.classifier() + metadata_bytes({"k": value}))
    assert read_onnx_file(path).metadata == {"k": value}
    path.write_bytes(graphs.classifier() + metadata_bytes({"k": value + "x"}))
    with pytest.raises(ModelFileError, match=f"a metadata entry takes {(16 << 20) + 1} bytes"):
        read_onnx_file(path)


def constants_of(path: Path, *names: str) -> list[np.ndarray[Any, Any]]:
    with path.open("rb") as file:
        return [*read_constants(file, names, path)]


def with_initializers(path: Path, *tensors: onnx.TensorProto) -> Path:
    model = onnx.load_from_string(graphs.with_metadata(graphs.classifier(), METADATA))
    model.graph.initializer.extend(tensors)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("raw", [True, False])
def test_initializers_are_what_the_onnx_package_reads(tmp_path: Path, raw: bool) -> None:
    random = np.random.default_rng(0)
    floats = random.normal(size=(3, 5)).astype(np.float32)
    half, whole = floats.astype(np.float16), random.integers(-128, 127, (2, 2)).astype(np.int8)
    values = floats.tobytes() if raw else floats.ravel()
    path = with_initializers(
        tmp_path / "model.onnx",
        helper.make_tensor("floats", TensorProto.FLOAT, floats.shape, values, raw=raw),
        numpy_helper.from_array(half, "half"),
        numpy_helper.from_array(whole, "whole"),
        numpy_helper.from_array(np.array(2.5, np.float32), "scalar"),
    )
    found = constants_of(path, "whole", "floats", "scalar", "half")
    expected = {
        each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer
    }
    for name, values in zip(("whole", "floats", "scalar", "half"), found, strict=True):
        assert values.dtype == expected[name].dtype
        np.testing.assert_array_equal(values, expected[name])


def test_a_missing_initializer_is_named(file: Path) -> None:
    with pytest.raises(ModelFileError, match=r"names the initializer 'nothing', which the graph"):
        constants_of(file, "weights", "nothing")


def test_an_initializer_in_another_form_is_refused(tmp_path: Path) -> None:
    odd = with_initializers(
        tmp_path / "odd.onnx", helper.make_tensor("odd", TensorProto.DOUBLE, [1], [1.0])
    )
    with pytest.raises(ModelFileError, match="'odd' has the type 11"):
        constants_of(odd, "odd")
    torn = with_initializers(
        tmp_path / "torn.onnx",
        onnx.TensorProto(name="torn", data_type=1, dims=[7], raw_data=b"\0" * 8),
    )
    with pytest.raises(ModelFileError, match="its initializers can't be read"):
        constants_of(torn, "torn")
