"""Strides and kernels by axis: those that nnU-Net plans, and what is refused."""

import pytest

from mijax.models import check_levels, plan_levels, total_stride

# By nnU-Net's own get_pool_and_conv_props(spacing, size, 4, 999999), but for the first of its
# strides, which is 1, and as far as depth.
PLANS = {
    "cubic": (
        ((1, 1, 1), (128, 128, 128), None),
        ((2, 2, 2),) * 5,
        ((3, 3, 3),) * 6,
    ),
    "slices eight times as thick as pixels": (
        ((10, 1.25, 1.25), (16, 256, 256), None),
        ((1, 2, 2),) * 3 + ((2, 2, 2),) * 2 + ((1, 2, 2),),
        ((1, 3, 3),) * 3 + ((3, 3, 3),) * 4,
    ),
    "the same, in another order of axes, three levels": (
        ((1.25, 1.25, 10), (256, 256, 16), 3),
        ((2, 2, 1),) * 2,
        ((3, 3, 1),) * 2 + ((3, 3, 3),),
    ),
    "ACDC, as in the plans of nnU-Net": (
        ((5, 1.5625, 1.5625), (20, 256, 224), None),
        ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2)),
        ((1, 3, 3),) + ((3, 3, 3),) * 5,
    ),
    "twice as thick: not pooled yet": (
        ((2, 1, 1), (8, 32, 32), None),
        ((1, 2, 2), (2, 2, 2), (1, 2, 2)),
        ((1, 3, 3),) + ((3, 3, 3),) * 3,
    ),
    "one axis alone needs 12 voxels": (((1, 1, 1), (7, 7, 11), None), (), ((3, 3, 3),)),
    "and has them": (((1, 1, 1), (7, 7, 13), None), ((1, 1, 2),), ((3, 3, 3),) * 2),
    "sizes are rounded up": (((1, 1), (15, 15), None), ((2, 2),) * 2, ((3, 3),) * 3),
    "in 2-D": (((0.5, 1.5), (64, 64), 4), ((2, 1),) * 1 + ((2, 2),) * 2, ((3, 1),) + ((3, 3),) * 3),
}


@pytest.mark.parametrize("name", PLANS)
def test_plans_are_those_of_nnunet(name):
    (spacing, size, depth), strides, kernels = PLANS[name]
    planned = plan_levels(spacing, size, depth=depth)
    assert planned == (strides, kernels)
    assert check_levels(*planned, depth=len(kernels), dims=len(size)) == planned


def test_by_default_all_are_pooled_and_have_three_taps():
    assert check_levels((), (), depth=3, dims=3) == (((2, 2, 2),) * 2, ((3, 3, 3),) * 3)
    assert check_levels((), (), depth=1, dims=2) == ((), ((3, 3),))


def test_the_stride_of_the_deepest_level():
    assert total_stride((), depth=5, dims=2) == (16, 16)
    assert total_stride((), depth=1, dims=3) == (1, 1, 1)
    strides = ((1, 2, 2), (2, 2, 2), (1, 1, 2))
    assert total_stride(strides, depth=4, dims=3) == (2, 4, 8)


@pytest.mark.parametrize("value", [(2, 2), ((2, 2), (2, 2)), ((2, 2, 2),), ((2, 2, 3),) * 2])
def test_other_strides_are_refused(value):
    with pytest.raises(ValueError, match="^strides .*empty or 2 times 3 numbers, each .* 1 or 2$"):
        check_levels(value, (), depth=3, dims=3)
    with pytest.raises(ValueError, match="^strides "):
        total_stride(value, depth=3, dims=3)


@pytest.mark.parametrize("value", [(3, 3), ((3, 3),), ((3, 3, 3),) * 2, ((3, 5),) * 2])
def test_other_kernels_are_refused(value):
    with pytest.raises(ValueError, match="^kernels .*empty or 2 times 2 numbers, each .* 1 or 3$"):
        check_levels((), value, depth=2, dims=2)
