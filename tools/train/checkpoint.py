"""Checkpoint folders in the layout that Toto 1.0 was published in: config.json and model.safetensors."""
import json
import os
import struct

import torch

DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32}


def write_tensors(path, tensors, dtype="F32"):
    """tensors: name -> tensor. A file cut short by a crash never stands at `path`: it is renamed when it is whole."""
    header, offset, blobs = {}, 0, []
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu", DTYPES[dtype]).contiguous()
        blob = tensor.flatten().view(torch.int16 if dtype == "BF16" else torch.int32).numpy().tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".part", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(blobs)
    os.replace(path + ".part", path)


def read_tensors(path):
    """name -> float32 tensor."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(length)), bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        flat = torch.frombuffer(data, dtype=DTYPES[entry["dtype"]], count=(end - begin) // (2 if entry["dtype"] == "BF16" else 4), offset=begin)
        tensors[name] = flat.reshape(entry["shape"]).float()
    return tensors


def write_config(directory, shape):
    """shape: model.Shape. Every key is one that the published code takes, with its spelling of the classes."""
    config = {
        "dropout": 0.0,
        "embed_dim": shape.width,
        "mlp_hidden_dim": shape.hidden,
        "num_heads": shape.heads,
        "num_layers": shape.layers,
        "output_distribution_classes": ["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
        "output_distribution_kwargs": {"k_components": shape.components},
        "patch_size": shape.patch,
        "scale_factor_exponent": 10.0,
        "scaler_cls": "<class 'model.scaler.CausalPatchStdMeanScaler'>",
        "spacewise_every_n_layers": shape.space_every,
        "spacewise_first": False,
        "stabilize_with_global": True,
        "stride": shape.patch,
        "use_memory_efficient_attention": True,
    }
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump(config, file, indent=2, sort_keys=True)
        file.write("\n")


def save(directory, shape, tensors):
    """A folder that Barcast and the official code load."""
    os.makedirs(directory, exist_ok=True)
    write_config(directory, shape)
    write_tensors(os.path.join(directory, "model.safetensors"), tensors, "BF16")


def load(directory):
    """(fields of model.Shape, name -> tensor)"""
    with open(os.path.join(directory, "config.json")) as file:
        config = json.load(file)
    fields = {
        "patch": config["patch_size"],
        "width": config["embed_dim"],
        "layers": config["num_layers"],
        "heads": config["num_heads"],
        "hidden": config["mlp_hidden_dim"],
        "components": config["output_distribution_kwargs"]["k_components"],
        "space_every": config["spacewise_every_n_layers"],
    }
    return fields, read_tensors(os.path.join(directory, "model.safetensors"))
