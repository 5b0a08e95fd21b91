"""The same model in another format: matrices decoded by the gguf package and written as F32, F16 or BF16."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.quants import dequantize, quantize

FORMATS = {
    "F32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "F16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "BF16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
}
#: written by GGUFWriter itself, or about the old format
NOT_COPIED = {"general.architecture", "general.file_type", "general.quantization_version"}


def decoded(tensor) -> np.ndarray:
    """One tensor of a GGUFReader as float32, rows last."""
    if tensor.tensor_type in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        return tensor.data.astype(np.float32)
    return dequantize(tensor.data, tensor.tensor_type)


def convert_gguf(source: Path, target: Path, kind: str) -> None:
    """Write the model of source to target with matrices in kind and vectors (norms, biases) in F32."""
    matrix_type, file_type = FORMATS[kind]
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in NOT_COPIED:
            continue
        value_type = field.types[0]
        element_type = field.types[-1] if value_type == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), value_type, sub_type=element_type)
    writer.add_file_type(file_type)

    def stored_type(tensor):
        return matrix_type if len(tensor.shape) > 1 else GGMLQuantizationType.F32

    for tensor in reader.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        raw_type = stored_type(tensor)
        n_bytes = tensor.n_elements * (4 if raw_type == GGMLQuantizationType.F32 else 2)
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), n_bytes, raw_dtype=raw_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        writer.write_tensor_data(np.ascontiguousarray(quantize(decoded(tensor), stored_type(tensor))))
    writer.close()
