"""What compiled programs cost, of HLO texts written by hand."""

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks.ahead import Job, budget, figures, listing, overruns
from benchmarks.chips import CHIPS, Chip
from benchmarks.hlo import Program, nbytes

BUDGET = Path(__file__).parents[2] / "benchmarks" / "ahead_budget.json"
TEXT = """HloModule jit_step, is_scheduled=true

FileNames
1 "step.py"

%fused_add (param_0: f32[8,16], param_1: f32[100,16], param_2: s32[]) -> f32[8,16] {
  %param_0 = f32[8,16]{1,0} parameter(0)
  %param_1 = f32[100,16]{1,0} parameter(1)
  %param_2 = s32[] parameter(2)
  %constant.1 = s32[] constant(0)
  %slice.1 = f32[8,16]{1,0} dynamic-slice(%param_1, %param_2, %constant.1), dynamic_slice_sizes={8,16}
  ROOT %add.1 = f32[8,16]{1,0} add(%param_0, %slice.1)
}

%fused_update (param_0: f32[50,16], param_1: f32[1,16], param_2: s32[]) -> f32[50,16] {
  %param_0 = f32[50,16]{1,0} parameter(0)
  %param_1 = f32[1,16]{1,0} parameter(1)
  %param_2 = s32[] parameter(2)
  %constant.2 = s32[] constant(0)
  ROOT %update.1 = f32[50,16]{1,0} dynamic-update-slice(%param_0, %param_1, %param_2, %constant.2)
}

%body (state: (f32[8,16], f32[4,16])) -> (f32[8,16], f32[4,16]) {
  %state = (f32[8,16]{1,0}, f32[4,16]{1,0}) parameter(0)
  %get.1 = f32[8,16]{1,0} get-tuple-element(%state), index=0
  %get.2 = f32[4,16]{1,0} get-tuple-element(%state), index=1
  %matmul.1 = (f32[8,4]{1,0}, s8[33554432]{0}) custom-call(%get.1, %get.2), custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(step)/while/body/jvp(UNet)/Conv3a_norm/dot_general"}, backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["1"]},"precision_config":{"operand_precision":["HIGHEST","HIGHEST"]}}}
  ROOT %tuple.1 = (f32[8,16]{1,0}, f32[4,16]{1,0}) tuple(%get.1, %get.2)
}

%condition (state.1: (f32[8,16], f32[4,16])) -> pred[] {
  %state.1 = (f32[8,16]{1,0}, f32[4,16]{1,0}) parameter(0)
  ROOT %constant.3 = pred[] constant(true)
}

ENTRY %main (a: f32[8,16], b: f32[100,16], c: s32[], d: f32[2,16], e: f32[50,16]) -> f32[50,16] {
  %a = f32[8,16]{1,0} parameter(0)
  %b = f32[100,16]{1,0} parameter(1), sharding={replicated}
  %c = s32[] parameter(2)
  %d = f32[2,16]{1,0} parameter(3)
  %e = f32[50,16]{1,0} parameter(4)
  %fusion.1 = f32[8,16]{1,0} fusion(%a, %b, %c), kind=kLoop, calls=%fused_add, metadata={op_name="jit(step)/jvp(UNet)/Conv1b/add"}
  %reduce-start = f32[8,16]{1,0} all-reduce-start(%fusion.1), replica_groups={{0,1}}, to_apply=%sum
  %reduce-done = f32[8,16]{1,0} all-reduce-done(%reduce-start)
  %gather.1 = (f32[2,16]{1,0}, f32[4,16]{1,0}) all-gather-start(%d), dimensions={0}
  %gather.2 = f32[4,16]{1,0} all-gather-done(%gather.1)
  %tuple.2 = (f32[8,16]{1,0}, f32[4,16]{1,0}) tuple(%reduce-done, %gather.2)
  %while.1 = (f32[8,16]{1,0}, f32[4,16]{1,0}) while(%tuple.2), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %row = f32[1,16]{1,0} slice(%d), slice={[0:1], [0:16]}
  ROOT %fusion.2 = f32[50,16]{1,0} fusion(%e, %row, %c), kind=kLoop, calls=%fused_update
}
"""  # noqa: E501

TPU = """HloModule jit_step, is_scheduled=true

%fused_convolution (param_0: bf16[8,4,4,16], param_1: bf16[2,2,16,32]) -> f32[8,8,8,32] {
  %param_0 = bf16[8,4,4,16]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %param_1 = bf16[2,2,16,32]{3,2,1,0:T(8,128)(2,1)S(1)} parameter(1)
  ROOT %convolution.1 = f32[8,8,8,32]{0,3,2,1:T(8,128)} convolution(%param_0, %param_1), window={size=2x2 pad=1_1x1_1 lhs_dilate=2x2}, dim_labels=b01f_01io->b01f
}

%body (state: (s32[], f32[1])) -> (s32[], f32[1]) {
  %state = (s32[]{:T(128)}, f32[1]{0:T(128)}) parameter(0)
  %get.1 = s32[]{:T(128)S(6)} get-tuple-element(%state), index=0
  %get.2 = f32[1]{0:T(128)} get-tuple-element(%state), index=1
  %negate.1 = f32[1]{0:T(128)} negate(%get.2), backend_config={"window_config":{"estimated_cycles":"30"}}
  ROOT %tuple.1 = (s32[]{:T(128)}, f32[1]{0:T(128)}) tuple(%get.1, %negate.1)
}

%condition (state.1: (s32[], f32[1])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(50)
  %state.1 = (s32[]{:T(128)}, f32[1]{0:T(128)}) parameter(0)
  %get.3 = s32[]{:T(128)S(6)} get-tuple-element(%state.1), index=0
  ROOT %less.1 = pred[]{:T(512)} compare(%get.3, %constant.1), direction=LT
}

ENTRY %main (a: bf16[8,4,4,16], b: bf16[2,2,16,32], c: (s32[], f32[1])) -> f32[8,8,8,32] {
  %a = bf16[8,4,4,16]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[2,2,16,32]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  %c = (s32[]{:T(128)}, f32[1]{0:T(128)}) parameter(2)
  %copy.1 = (bf16[2,2,16,32]{3,2,1,0:T(8,128)(2,1)S(1)}, bf16[2,2,16,32]{3,2,1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%b)
  %copy.2 = bf16[2,2,16,32]{3,2,1,0:T(8,128)(2,1)S(1)} copy-done(%copy.1)
  %room = f32[50]{0:T(128)} custom-call(), custom_call_target="AllocateBuffer"
  %while.1 = (s32[]{:T(128)}, f32[1]{0:T(128)}) while(%c), condition=%condition, body=%body
  ROOT %fusion.1 = f32[8,8,8,32]{0,3,2,1:T(8,128)} fusion(%a, %copy.2), kind=kOutput, calls=%fused_convolution, backend_config={"estimated_cycles":"1000"}
}
"""  # noqa: E501


def test_a_gpu_program():
    program = Program(TEXT)
    found = [(k.name, k.times, k.read, k.written) for k in program.kernels]
    assert found == [
        ("fusion.1", 1, 512 + 512 + 4, 512),  # of the array that it slices, the slice
        ("reduce-done", 1, 512, 512),
        ("gather.2", 1, 128, 256),
        ("matmul.1", 5, 512 + 256, 128),  # without the library's room
        ("row", 1, 64, 64),
        ("fusion.2", 1, 64 + 4, 64),  # of the array that it updates, the row
    ]
    assert program.unknown_loops == 0
    assert Program(TEXT.replace("known_trip_count", "")).unknown_loops == 1
    assert [k.collectives for k in program.kernels[:3]] == [
        [],
        [("all-reduce", 512)],
        [("all-gather", 256)],
    ]
    assert [k.flops for k in program.kernels if k.flops] == [Counter(highest=2 * 8 * 4 * 16)]
    assert [k.part for k in program.kernels if k.source] == [
        "jvp(UNet)/ConvN",
        "jvp(UNet)/ConvN_norm",
    ]


def test_a_tpu_program():
    """Tiles are whole, what is on the chip costs nothing, and a loop has the bound it is given."""
    kernels = Program(TPU).kernels
    found = [(k.name, k.times, k.read, k.written, k.cycles) for k in kernels]
    assert found == [
        ("copy.2", 1, 2 * 2 * 2 * 16 * 128, 0, 0),
        ("less.1", 50, 4, 1, 0),
        ("negate.1", 50, 4 * 128, 4 * 128, 30),
        ("fusion.1", 1, 2 * 8 * 4 * 8 * 128, 4 * 8 * 8 * 32 * 128, 1000),
    ]
    assert kernels[-1].flops == {"bf16": 2 * 8 * 8 * 8 * 32 * 2 * 2 * 16 / 4}


@pytest.mark.parametrize("call", ["Forward", "BackwardInput", "BackwardFilter"])
def test_a_convolution_and_its_gradients_have_the_same_flops(call):
    shapes = {"x": "f32[4,9,9,16]{3,2,1,0}", "w": "f32[32,2,2,16]{3,2,1,0}"}
    shapes["y"] = "f32[4,8,8,32]{3,2,1,0}"
    a, b, result = {"Forward": "xwy", "BackwardInput": "ywx", "BackwardFilter": "xyw"}[call]
    program = Program(
        f"""ENTRY %main (a: f32[], b: f32[]) -> f32[] {{
  %a = {shapes[a]} parameter(0)
  %b = {shapes[b]} parameter(1)
  ROOT %c = ({shapes[result]}, u8[0]{{0}}) custom-call(%a, %b), window={{size=2x2}}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$conv{call}"
}}"""  # noqa: E501
    )
    (kernel,) = program.kernels
    assert kernel.flops == {"f32": 2 * 4 * 8 * 8 * 32 * 2 * 2 * 16}
    assert kernel.moved == sum(map(nbytes, shapes.values()))


def test_a_program_of_a_cpu():
    def step(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=7)[0]

    x, w = jax.ShapeDtypeStruct((8, 16), jnp.float32), jax.ShapeDtypeStruct((16, 16), jnp.float32)
    program = Program(jax.jit(step).lower(x, w).compile().as_text())
    products = [k for k in program.kernels if k.flops]
    assert program.unknown_loops == 0
    assert [(k.times, k.flops.total()) for k in products] == [(7, 2 * 8 * 16 * 16)]
    assert products[0].read >= 4 * (8 * 16 + 16 * 16) and products[0].written >= 4 * 8 * 16


def test_figures_of_one_step():
    chip = Chip("slow", bandwidth=1e6, peaks={"highest": 1e6})
    found = figures(Program(TEXT), chip, 5)
    read, written = 1028 + 512 + 128 + 5 * 768 + 64 + 68, 512 + 512 + 256 + 5 * 128 + 64 + 64
    assert found["kernels"] == 10 / 5 and found["launch_ms"] == pytest.approx(3e-3 * 2)
    assert found["GB_read"] == pytest.approx(read / 5e9)
    assert found["memory_ms"] == pytest.approx(1e3 * (read + written) / 5e6)
    assert found["FLOP_ms"] == pytest.approx(1e3 * 1024 / 1e6)
    # the product takes longer than its bytes, all others have bytes alone
    assert found["roof_ms"] == pytest.approx(
        found["FLOP_ms"] + found["memory_ms"] - 1e3 * (768 + 128) / 1e6
    )
    assert found["collectives"] == {
        "all-reduce": {"count": 0.2, "MB": pytest.approx(512 / 5e6)},
        "all-gather": {"count": 0.2, "MB": pytest.approx(256 / 5e6)},
    }
    found = figures(Program(TPU), CHIPS["v5e"], 1)
    assert found["Mcycles"] == pytest.approx(2500e-6)
    assert found["cycles_ms"] == pytest.approx(2500 / 1.5e6)


def test_the_largest_come_first():
    lines = listing(Program(TEXT).kernels, 1)
    assert [line.split()[:3] for line in lines[1::2]] == [
        ["5", "0.00", "custom-call"],
        ["5", "0.00", "jvp(UNet)/ConvN_norm"],
    ]
    assert "Mcycles" in listing(Program(TPU).kernels, 1)[0]


def test_budget():
    row = Job("h100", 4, "local_mi", "bfloat16", 1)._asdict()
    row |= {"kernels": 100.0, "GB_read": 1.5, "GB_written": 0.5}
    row |= {"collectives": {"all-reduce": {"count": 2.0, "MB": 1.0}}}
    allowed = json.loads(budget([row]))
    assert allowed["jax"] == jax.__version__

    def grown(**changes):
        return overruns([row | changes], allowed["programs"])

    assert grown() == grown(kernels=103.0, GB_read=1.55) == grown(kernels=1.0) == []
    name = "h100 4 local_mi bfloat16 1 acdc"
    assert grown(kernels=104.0) == [f"{name}: 104 kernels, where 100 are allowed"]
    assert grown(GB_read=1.6) == [f"{name}: 2.1 GB, where 2 are allowed"]
    more = {"all-reduce": {"count": 2.0, "MB": 1.0}, "all-to-all": {"count": 1.0, "MB": 1.0}}
    assert grown(collectives=more) == [f"{name}: 3 collectives, where 2 are allowed"]


@pytest.mark.slow
@pytest.mark.skipif(not BUDGET.exists(), reason="no budget is written yet")
@pytest.mark.skipif(not importlib.util.find_spec("jax_cuda13_plugin"), reason="needs mijax[ahead]")
def test_the_budget_is_kept():
    command = [sys.executable, "-m", "benchmarks.ahead", "--check", str(BUDGET)]
    done = subprocess.run(command, cwd=BUDGET.parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
