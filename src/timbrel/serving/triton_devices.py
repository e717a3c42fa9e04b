"""Triton's configurations for GPU hosts, worked out from those in ``model_repository/``, which stay the only ones.

    auto            as they are: instances on the GPU where there is one, else on the CPU
    gpu             on every GPU, and on nothing else; models whose inputs have one length are batched
    tensorrt        these by TensorRT, in single precision; all others as with gpu
    tensorrt-fp16   these in half precision where TensorRT finds it faster: no index was built with such vectors

Inputs of one length are what TensorRT makes one engine for; a generator's loop and notes of any length it would split
or build anew for each length, so these stay with CUDA. Its engines are not kept on disk: onnxruntime finds a kept one
by the names in the graph, not by the weights, and would answer for another bundle of the same shape. The timings that
make up most of the building are kept.
"""

from __future__ import annotations

from tritonclient.grpc.model_config_pb2 import (
    ModelConfig,
    ModelInstanceGroup,
    ModelOptimizationPolicy,
    ModelWarmup,
)

from timbrel.settings import TritonDevice

PREFERRED_BATCHES = (4, 8, 16)
QUEUE_DELAY_MICROSECONDS = 500
"""How long what could be batched waits for company."""
INSTANCES = 2
"""Of a batched model on each GPU: one copies while the other computes."""
TIMING_CACHE = "/var/cache/tensorrt"
"""Where deploy/ mounts a folder that Triton may write."""
WORKSPACE_BYTES = 2**30


def for_device(configuration: ModelConfig, device: TritonDevice) -> ModelConfig:
    """A copy of a configuration for Triton on another kind of host. Names, tensors and versions stay as they are."""
    changed = ModelConfig()
    changed.CopyFrom(configuration)
    if device is TritonDevice.AUTO:
        return changed
    batched = has_one_length(configuration)
    del changed.instance_group[:]
    changed.instance_group.add(kind=ModelInstanceGroup.KIND_GPU, count=INSTANCES if batched else 1)
    if not batched:
        return changed
    largest = configuration.max_batch_size
    batching = changed.dynamic_batching
    batching.preferred_batch_size[:] = [size for size in PREFERRED_BATCHES if size <= largest]
    batching.max_queue_delay_microseconds = QUEUE_DELAY_MICROSECONDS
    for size in (1, largest):
        changed.model_warmup.append(_warmup(configuration, size))
    if device in (TritonDevice.TENSORRT, TritonDevice.TENSORRT_FP16):
        precision = "FP16" if device is TritonDevice.TENSORRT_FP16 else "FP32"
        changed.optimization.execution_accelerators.gpu_execution_accelerator.append(_tensorrt(precision))
    return changed


def has_one_length(configuration: ModelConfig) -> bool:
    """Whether requests of different callers can be put together as they are."""
    return configuration.max_batch_size > 0 and all(
        size > 0 for tensor in configuration.input for size in tensor.dims
    )


def _warmup(configuration: ModelConfig, batch: int) -> ModelWarmup:
    """A batch of noise when the model is loaded, so that no caller waits for kernels and engines."""
    warmup = ModelWarmup(name=f"batch of {batch}", batch_size=batch)
    for tensor in configuration.input:
        noise = warmup.inputs[tensor.name]
        noise.data_type = tensor.data_type
        noise.dims[:] = tensor.dims
        noise.random_data = True
    return warmup


def _tensorrt(precision: str) -> ModelOptimizationPolicy.ExecutionAccelerators.Accelerator:
    """TensorRT, whose engine grows to the batches that it meets: the warm-up shows it the least and the largest."""
    return ModelOptimizationPolicy.ExecutionAccelerators.Accelerator(
        name="tensorrt",
        parameters={
            "precision_mode": precision,
            "max_workspace_size_bytes": str(WORKSPACE_BYTES),
            "trt_timing_cache_enable": "true",
            "trt_timing_cache_path": TIMING_CACHE,
        },
    )
