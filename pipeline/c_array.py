"""Writes the INT8 model and its labels as C sources that also compile as C++: pure functions from bytes to text.

The text depends only on the content and the given name: it contains no time, host name or path. Shapes, tensor names
and quantization parameters are read from the model.

The data is a string literal, because that compiles fastest. `benchmarks/c_array_compile.py` measured, for a model of
4 MB and gcc 12 as C99:

    form                         source   compile    memory
    string literal              14.2 MB     0.3 s    75 MiB   used here
    64-bit words, hexadecimal    8.9 MB     1.1 s   130 MiB   correct on little-endian machines only
    32-bit words, hexadecimal   10.4 MB     2.4 s   211 MiB   correct on little-endian machines only
    bytes, decimal              13.4 MB     4.8 s   395 MiB
    bytes, hexadecimal          20.3 MB     4.7 s   408 MiB

The generated source handles two problems of a literal this long. It exceeds the 4095 characters that C99 guarantees,
so the source disables that `-pedantic` warning around it. It also ends with a terminating zero byte. In C an array may
omit that byte, so the object holds exactly the file; in C++ it may not, so the object is one byte longer. Microsoft's
compiler does not accept a literal of this length.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import ModelView, Tensor, read_model

# The keywords of C23 and C++23, and names that standard headers or compilers define.
_RESERVED_WORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t char8_t class
    co_await co_return co_yield compl concept const const_cast consteval constexpr constinit continue decltype default
    delete do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long
    mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
    reinterpret_cast requires restrict return short signed sizeof static static_assert static_cast struct switch
    template this thread_local throw true try typedef typeid typename typeof typeof_unqual union unsigned using virtual
    void volatile wchar_t while xor xor_eq
    NULL EOF NAN INFINITY assert errno main stdin stdout stderr linux unix i386
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())
_BYTES_PER_LINE = 64  # of data, in the source
ALIGNMENT = 16  # bytes

# Byte -> its form in a string literal. An octal escape ends after three digits; a hexadecimal escape would also
# include the hexadecimal digits that follow it. An escaped question mark cannot begin a trigraph.
_ESCAPES = {byte: chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in range(256)}
_ESCAPES |= {ord(character): f"\\{character}" for character in '"\\?'}


@dataclass(frozen=True)
class ByteArray:
    """A constant C array with one byte for each element."""

    name: str
    data: bytes
    element: Literal["unsigned char", "signed char"] = "unsigned char"


def identifier(file_name: str) -> str:
    """`file_name` as an identifier of C and C++ that is not reserved: ASCII letters, digits and single underscores.

    The suffix `.tflite` is dropped. Different file names may give the same identifier.
    """
    stem = re.sub(r"\.tflite$", "", file_name, flags=re.IGNORECASE)
    name = re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_")
    if not name or name[0].isdigit():
        name = f"model_{name}".rstrip("_")
    # POSIX reserves every name that ends in _t.
    return f"{name}_model" if name in _RESERVED or name.endswith("_t") else name


def sources(model: bytes, name: str, labels: Sequence[str] | None = None) -> dict[str, str]:
    """File name -> text of the model as a constant array, and of its labels where there are some.

    Args:
        name: of the model's file.

    Raises:
        InputError: as `model_sources` and `label_sources`, or a model whose files would have the names of its labels'.
    """
    of_model = model_sources(model, name)
    of_labels = {} if labels is None else label_sources(labels)
    if not of_model.keys().isdisjoint(of_labels):
        raise InputError(
            expected="a model whose C sources have other names than those of its labels",
            found=", ".join(of_model),
            next_step="rename its file",
        )
    return of_model | of_labels


def model_sources(model: bytes, name: str) -> dict[str, str]:
    """The model as a constant array: file name -> text of `<id>.h` and `<id>.c`, where `id` is `identifier(name)`.

    The array is `<id>_data` and its length `<ID>_SIZE`. The header defines the digests and the shape, scale and zero
    point of each input and output as macros. When compiling the source, `MODEL_DATA_SECTION` places the array in a
    section, and `MODEL_DATA_ALIGN` sets the alignment attribute of a compiler that the source does not know.

    Args:
        model: bytes of the `.tflite` file.
        name: the model's file name.

    Raises:
        InputError: not a TensorFlow Lite model, or one whose inputs and outputs are not INT8 with one scale each.
    """
    view = read_model(model, name)
    if not view.inputs or not view.outputs:
        raise _unsupported(name, f"{len(view.inputs)} inputs and {len(view.outputs)} outputs")
    c_name, prefix = identifier(name), identifier(name).upper()
    inputs = _interface_macros(name, view, f"{prefix}_INPUT", view.inputs)
    outputs = _interface_macros(name, view, f"{prefix}_OUTPUT", view.outputs)
    macros = "\n".join([*inputs, "", *outputs])
    header = f"""\
/*
 * {c_name}: a TensorFlow Lite model, byte for byte.
 *
 * size    {len(model)} bytes
 * SHA-1   {digest_bytes(model, "sha1")}
 * SHA-256 {digest_bytes(model)}
 *
 * Generated from the model: do not edit.
 */
#ifndef {prefix}_H
#define {prefix}_H

#define {prefix}_SIZE {len(model)}UL
#define {prefix}_ALIGNMENT {ALIGNMENT}
#define {prefix}_SHA1 "{digest_bytes(model, "sha1")}"
#define {prefix}_SHA256 "{digest_bytes(model)}"
#define {prefix}_CRC32 0x{zlib.crc32(model):08x}UL

/* real = scale * (quantized - zero point); shapes are array initializers; sizes are in bytes */
{macros}

#ifdef __cplusplus
extern "C" {{
#endif

/* The model. It is declared without its size, as it has one more byte, a zero, when compiled as C++. */
extern const unsigned char {c_name}_data[];

#ifdef __cplusplus
}}
#endif

#endif
"""
    return {f"{c_name}.h": header, f"{c_name}.c": array_source(f"{c_name}.h", [ByteArray(f"{c_name}_data", model)])}


def _interface_macros(name: str, view: ModelView, prefix: str, indices: Sequence[int]) -> list[str]:
    """The macros of all inputs or all outputs; if there are several, their names are numbered from 0."""
    prefixes = [prefix] if len(indices) == 1 else [f"{prefix}_{number}" for number in range(len(indices))]
    return [
        line
        for tensor_prefix, index in zip(prefixes, indices, strict=True)
        for line in _tensor_macros(name, tensor_prefix, view.tensors[index])
    ]


def array_source(header: str, arrays: Sequence[ByteArray], macros: str = "MODEL_DATA") -> str:
    """The text of a C source that defines the arrays, each aligned to ALIGNMENT bytes.

    When compiling it, `<macros>_SECTION` places the arrays in a section, and `<macros>_ALIGN` sets the alignment
    attribute of a compiler that the source does not know.

    Args:
        header: name of the header that declares the arrays.
        macros: prefix of the names of those macros.
    """
    definitions = "\n".join(_definition(array, macros) for array in arrays)
    return f"""\
/* Definitions for {header}. Generated: do not edit. */
#include "{header}"

/* Define this to place the data, such as -D'{macros}_SECTION=__attribute__((section(".model")))'. */
#ifndef {macros}_SECTION
#define {macros}_SECTION
#endif

#ifndef {macros}_ALIGN
#if defined(__cplusplus) && __cplusplus >= 201103L
#define {macros}_ALIGN alignas({ALIGNMENT})
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define {macros}_ALIGN _Alignas({ALIGNMENT})
#else
#define {macros}_ALIGN __attribute__((aligned({ALIGNMENT})))
#endif
#endif

/* C leaves the literal's own zero byte out of an array of this length; C++ wants room for it. */
#ifdef __cplusplus
#define {macros}_LENGTH(bytes) ((bytes) + 1)
#else
#define {macros}_LENGTH(bytes) (bytes)
#endif

/* Tells compilers that warn of the zero byte left out that it is meant. */
#if !defined(__cplusplus) && defined(__has_attribute)
#if __has_attribute(nonstring)
#define {macros}_NONSTRING __attribute__((nonstring))
#endif
#endif
#ifndef {macros}_NONSTRING
#define {macros}_NONSTRING
#endif

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverlength-strings"
#endif

{definitions}
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
"""


def _definition(array: ByteArray, macros: str) -> str:
    text = array.data.decode("latin-1")
    literals = "\n".join(
        f'    "{text[at : at + _BYTES_PER_LINE].translate(_ESCAPES)}"' for at in range(0, len(text), _BYTES_PER_LINE)
    )
    return f"""\
{macros}_ALIGN {macros}_SECTION {macros}_NONSTRING
const {array.element} {array.name}[{macros}_LENGTH({len(array.data)})] =
{literals};
"""


def label_sources(labels: Sequence[str], name: str = "labels") -> dict[str, str]:
    """The labels as an array of UTF-8 strings: file name -> text of `<id>.h` and `<id>.c`; `id` is `identifier(name)`.

    The array is `<id>` and its length `<ID>_COUNT`.

    Raises:
        InputError: there are no labels, or one contains a NUL or cannot be encoded as UTF-8.
    """
    c_name, prefix = identifier(name), identifier(name).upper()
    if not labels:
        raise _bad_labels("none")
    rows = ",\n".join(f"    {_literal(_label_bytes(label))}" for label in labels)
    header = f"""\
/* {c_name}: {len(labels)} class labels, in the order of the model's output. Generated: do not edit. */
#ifndef {prefix}_H
#define {prefix}_H

#define {prefix}_COUNT {len(labels)}

#ifdef __cplusplus
extern "C" {{
#endif

/* Strings in UTF-8. */
extern const char *const {c_name}[{prefix}_COUNT];

#ifdef __cplusplus
}}
#endif

#endif
"""
    source = f"""\
/* {c_name}: {len(labels)} class labels, in the order of the model's output. Generated: do not edit. */
#include "{c_name}.h"

const char *const {c_name}[{prefix}_COUNT] = {{
{rows}
}};
"""
    return {f"{c_name}.h": header, f"{c_name}.c": source}


def _label_bytes(label: str) -> bytes:
    if "\0" in label:
        raise _bad_labels(f"a NUL in {label!r}")
    try:
        return label.encode()
    except UnicodeEncodeError:
        raise _bad_labels(f"{label!a}, which UTF-8 cannot encode") from None


def _bad_labels(found: str) -> InputError:
    return InputError(
        expected="at least one label, each a C string in UTF-8", found=found, next_step="give other labels"
    )


def _literal(data: bytes) -> str:
    """The bytes as a C string literal."""
    return f'"{data.decode("latin-1").translate(_ESCAPES)}"'


def _tensor_macros(source: str, prefix: str, tensor: Tensor) -> list[str]:
    """Macros that a program needs to write or read a tensor: name, shape, size, scale and zero point."""
    scales = tensor.quantization.scales if tensor.quantization else ()
    zero_points = tensor.quantization.zero_points if tensor.quantization else ()
    one_scale = len(scales) == len(zero_points) == 1 and math.isfinite(scales[0])
    if tensor.dtype != "int8" or not one_scale or min(tensor.shape, default=0) <= 0:
        raise _unsupported(source, f"{tensor.dtype} {tensor.shape} with {len(scales)} scales in {tensor.name!r}")
    return [
        f"#define {prefix}_NAME {_literal(tensor.name.encode())}",
        f"#define {prefix}_SHAPE {{{', '.join(map(str, tensor.shape))}}}",
        f"#define {prefix}_RANK {len(tensor.shape)}",
        f"#define {prefix}_BYTES {math.prod(tensor.shape)}UL",
        f"#define {prefix}_SCALE {float_literal(scales[0])}",
        f"#define {prefix}_ZERO_POINT ({zero_points[0]})",
    ]


def float_literal(value: float) -> str:
    """A C literal for exactly this float32; nine significant digits identify any float32."""
    text = f"{value:.9g}"
    return f"{text}F" if "." in text or "e" in text else f"{text}.0F"


def _unsupported(source: str, found: str) -> InputError:
    return InputError(
        expected=f"{source} to have INT8 inputs and outputs, each with one scale and a fixed shape",
        found=found,
        next_step="give an INT8 model, or build one with `python -m pipeline quantize`",
    )
