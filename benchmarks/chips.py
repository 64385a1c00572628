"""The chips that ``benchmarks.ahead`` compiles for: what they can do, and JAX devices of them."""

import os
from typing import NamedTuple

from jax.experimental import topologies

from mijax.errors import UserError

LAUNCH_MS = 3e-3  # of a kernel of a GPU
_TOPOLOGIES = {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8"}  # of so many TPUs
_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 threads_per_core_limit: 2048
  shared_memory_per_block_optin: 232448 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  memory_bandwidth: {bandwidth:.0f} device_memory_size: {memory} pcie_bandwidth: 34359738368
  device_vendor: "NVIDIA Corporation" platform_version: "Compute Capability 9.0a" name: "{name}"
  device_address_bits: 64 ecc_enabled: true driver_version: "13.0.0" runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0" dnn_version: "9.10.0"
}}
platform_name: "CUDA" device_description_str: "{name}"
dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 13 }}
"""
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # the compiler is loaded, but no driver asked for
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",
    "TPU_SKIP_MDS_QUERY": "1",  # no Google metadata server is asked
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_GPU_FLAGS = " --xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"  # none to try on


class Chip(NamedTuple):
    """``peaks`` in FLOP/s are of bfloat16, of float32 as JAX takes it, and of exact float32."""

    kind: str
    bandwidth: float  # bytes/s
    peaks: dict
    clock: float = 0  # Hz, of a TPU
    name: str = ""  # of a GPU
    memory: int = 0  # bytes, of a GPU

    def environment(self):
        """The variables of a process that compiles for it."""
        flags = os.environ.get("XLA_FLAGS", "") + ("" if self.clock else _GPU_FLAGS)
        return os.environ | _ENVIRONMENT | {"XLA_FLAGS": flags}

    def devices(self, count):
        """So many of them, to compile for.

        Raises:
          UserError: more than there are together.
        """
        if self.clock:
            shape = next((shape for n, shape in _TOPOLOGIES.items() if n >= count), None)
            if not shape:
                raise UserError(f"at most {max(_TOPOLOGIES)} TPUs, not {count}")
            platform, name, options = "tpu", f"{self.kind}:{shape}", {}
        else:
            target = _GPU.format(**self._asdict())
            options = {"topology": f"1x1x{count}", "target_config": target}
            platform, name = "cuda", self.kind
        found = topologies.get_topology_desc(platform=platform, topology_name=name, **options)
        return found.devices[:count]


_HOPPER = {"bf16": 989e12, "f32": 495e12, "highest": 67e12}
CHIPS = {
    "h100": Chip("h100", 3.35232e12, _HOPPER, name="NVIDIA H100 80GB HBM3", memory=84942979072),
    "h200": Chip("h200", 4.8e12, _HOPPER, name="NVIDIA H200", memory=150754820096),
    "v5e": Chip("v5e", 819e9, {"bf16": 197e12, "f32": 197e12, "highest": 33e12}, clock=1.5e9),
    "v6e": Chip("v6e", 1640e9, {"bf16": 918e12, "f32": 918e12, "highest": 153e12}, clock=1.75e9),
}
