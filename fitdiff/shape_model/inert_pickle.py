"""Reads arrays out of a pickle without running any of it: no class is imported, no function of the file is called.

A pickle is a program; Python's own loader runs it, so a file of unknown origin can do anything. This reader knows the
handful of names that old NumPy, SciPy and chumpy files use, builds plain arrays and inert records for them, and
refuses every other name.
"""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import sparse

from fitdiff.shape_model.face_basis import ModelFileError


class Inert:
    """Stands for an object of a class that is not imported: keeps its attributes and does nothing."""

    state: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Columns(Inert):
    make = staticmethod(sparse.csc_matrix)


class _Rows(Inert):
    make = staticmethod(sparse.csr_matrix)


class _Array:
    """An ndarray that is being unpickled: `_reconstruct` makes it, its state fills it."""

    def __init__(self, *arguments: Any) -> None:
        self.value: np.ndarray | list[Any] = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        kind = dtype.value if isinstance(dtype, _Type) else None
        if isinstance(raw, str):
            raw = raw.encode("latin1")
        if kind is not None and kind.hasobject and isinstance(raw, list):
            self.value = raw
            return
        if kind is None or kind.hasobject or not isinstance(raw, bytes):
            raise ModelFileError(f"the pickle holds an array of {kind}, expected numbers")
        self.value = np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")


class _Type:
    """A dtype that is being unpickled; only plain numbers and texts."""

    def __init__(self, code: Any, *arguments: Any) -> None:
        self.value = np.dtype(code if isinstance(code, str) and code[:1] in "biufSUO" else "O")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">", "="):
            self.value = self.value.newbyteorder(state[1])


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(dtype, _Type) or dtype.value.hasobject:
        raise ModelFileError("the pickle holds an array of objects in a buffer, expected numbers")
    return np.frombuffer(raw, dtype.value).reshape(shape, order=order)


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(raw, dtype.value)[0] if isinstance(dtype, _Type) and not dtype.value.hasobject else None


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "utf-8", "ascii"):
        raise ModelFileError(f"the pickle encodes a text as {encoding!r}; expected latin1")
    return codecs.encode(text, encoding)


def _record(kind: Any = Inert, *arguments: Any) -> Inert:
    return kind() if isinstance(kind, type) and issubclass(kind, Inert) else Inert()


_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_KNOWN: dict[tuple[str, str], Any] = {
    **{(module, "_reconstruct"): _Array for module in _ARRAY_MODULES},
    **{(module, "scalar"): _scalar for module in _ARRAY_MODULES},
    **{(module, "_frombuffer"): _from_buffer for module in ("numpy.core.numeric", "numpy._core.numeric")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("copy_reg", "_reconstructor"): _record,
    ("copyreg", "_reconstructor"): _record,
    **{(module, "object"): Inert for module in ("__builtin__", "builtins")},
    ("chumpy.ch", "Ch"): Inert,
    **{(f"scipy.sparse.{prefix}csc", "csc_matrix"): _Columns for prefix in ("", "_")},
    **{(f"scipy.sparse.{prefix}csr", "csr_matrix"): _Rows for prefix in ("", "_")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise ModelFileError(
                f"the pickle asks for {module}.{name}, which no known face model needs. It is not run: pickles can "
                "hold programs. Get the file from its publisher again"
            )
        known = _KNOWN[module, name]
        # A pickle may set attributes of what it gets: a function is handed out in a wrapper that is thrown away.
        return known if isinstance(known, type) else lambda *arguments: known(*arguments)

    def persistent_load(self, identifier: Any) -> Any:
        raise ModelFileError("the pickle refers to data outside of it, which no known face model does")


def read_pickle(path: Path, skip: int = 0) -> dict[str, Any]:
    """The dict of a pickle: arrays as ndarrays, chumpy arrays as theirs, sparse matrices as SciPy's, others as inert.

    Args:
        path: of a pickle, or of an `.npy` file that holds one. skip: bytes before the pickle.

    Raises:
        ModelFileError: it names anything but arrays of numbers and records, is damaged, or is not a dict.
    """
    try:
        with open(path, "rb") as file:
            file.seek(skip)
            content = _plain(_Unpickler(file, encoding="latin1").load())
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can make its reader raise anything
        raise ModelFileError(f"{path}: damaged, or not a pickle of arrays: {type(error).__name__}: {error}") from None
    if isinstance(content, list) and len(content) == 1:
        # An `.npy` file of one object pickles an array around it.
        content = content[0]
    if not isinstance(content, dict):
        raise ModelFileError(f"{path}: holds a {type(content).__name__}, expected a dict of arrays")
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return _plain(value.value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Inert):
        state = _plain(value.state)
        if "indptr" in state and "data" in state:
            shape = tuple(int(side) for side in state.get("_shape", state.get("shape")))
            make = getattr(value, "make", sparse.csc_matrix)
            matrix = make((state["data"], state["indices"], state["indptr"]), shape)
            matrix.check_format(full_check=True)  # SciPy's products trust the ids: others would write anywhere
            return matrix
        return state.get("x", value)
    return value
