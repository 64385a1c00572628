"""What a compiled program does, read from its HLO text: kernels, bytes, FLOPs, collectives.

A kernel is what the device is given at once: on a GPU a launch or a call of a library, on a TPU an
instruction. Bytes are those it reads and writes in the main memory: of an array that is sliced,
gathered from or updated in place, those parts; with the padding of a TPU's tiles. FLOPs are those
of products and convolutions, zeroes around the pixels included.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

_FREE = (
    "after-all", "bitcast", "constant", "get-tuple-element", "opt-barrier", "parameter", "tuple",
)  # fmt: skip
_INNER = ("to_apply", "calls", "condition", "body", "branch_computations")
_SLICES = ("slice", "dynamic-slice", "gather")
_COLLECTIVE = re.compile("all-(gather|reduce|to-all)|collective-(broadcast|permute)|reduce-scatter")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*-> .*\{$")
_INSTRUCTION = re.compile(
    r"\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>.*?) (?P<op>[a-z][\w\-]*)"
    r"\((?P<inside>.*?)\)(, (?P<rest>.*))?$"
)
_NAME = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")  # f32[2,3]{1,0:T(8,128)S(1)}


class Instruction(NamedTuple):
    """A line of the text; ``inside`` is what stands in its brackets, ``rest`` what follows."""

    root: bool
    name: str
    shape: str
    op: str
    inside: str
    rest: str

    @property
    def args(self):
        return _NAME.findall(self.inside)

    def names(self, attribute):
        """Of the computations that an attribute such as "calls" holds."""
        return _NAME.findall(self.value(rf"\b{attribute}=(\{{[^}}]*\}}|%[\w.\-]+)"))

    def value(self, pattern):
        """The first group of a pattern in the attributes, or an empty string."""
        found = re.search(pattern, self.rest)
        return found[1] if found else ""


class Kernel(NamedTuple):
    """What is launched ``times`` times a call of the program; the rest is of one time.

    Attributes:
      kind: its operation, with the kind of a fusion or the function of a library.
      source: ``op_name``, the path of Python functions that it comes from.
      shape: of its result.
      read, written: bytes.
      flops: {"bf16", "f32" or "highest": number}.
      collectives: [(kind, bytes of the larger side)].
      cycles: what the TPU's compiler estimates.
    """

    name: str
    kind: str
    source: str
    shape: str
    times: int
    read: float
    written: float
    flops: Counter
    collectives: list
    cycles: int

    @property
    def moved(self):
        """Bytes read and written."""
        return self.read + self.written

    @property
    def part(self):
        """``source`` without its last step, and with N for the numbers of layers."""
        path = re.sub(r"^jit\(\w+\)/(while/body/)?(closed_call/|eval_jaxpr/)?", "", self.source)
        path = re.sub(r"\b([A-Za-z_]+)\d+[a-z]?(?=_|\b)", r"\1N", path)
        return path.rpartition("/")[0] or path or f"({self.kind})"


class Program:
    """A compiled program: ``kernels``, and ``unknown_loops``, the loops that are taken as once."""

    def __init__(self, text):
        self._computations, entry = _parse(text)
        self.unknown_loops = 0
        self.kernels = list(self._walk(entry, 1))

    def _walk(self, computation, times):
        """The kernels of a computation, those of its loops and of all branches among them."""
        scope = self._computations[computation]
        for x in scope.values():
            start = x
            if x.op.endswith("-done"):  # counted here, where the shape is that of the result
                while start.op.endswith(("-done", "-update")) and start.args[0] in scope:
                    start = scope[start.args[0]]
            elif x.op in _FREE or x.op.endswith(("-start", "-update")):
                continue
            work = start._replace(op=start.op.removesuffix("-start"), shape=x.shape)
            target = _target(work)
            if work.op in ("while", "conditional", "call", "async"):
                trips = self._trips(work) if work.op == "while" else 1
                for name in (name for kind in _INNER for name in work.names(kind)):
                    yield from self._walk(name, times * trips)
            elif target != "AllocateBuffer":
                parts = list(self._parts(work, scope))
                kind = work.op, work.value(r"\bkind=k(\w+)"), target.strip("_")
                cycles = (y.value(r'"estimated_cycles":"(\d+)"') for y in {start, x})
                yield Kernel(
                    name=x.name,
                    kind=" ".join(filter(None, kind)),
                    source=work.value('op_name="([^"]*)"'),
                    shape=x.shape,
                    times=times,
                    read=self._read(work, scope),
                    written=self._written(work, scope),
                    flops=sum((_flops(*part) for part in parts), Counter()),
                    collectives=[found for part in parts for found in _collective(*part)],
                    cycles=sum(int(c or 0) for c in cycles),
                )

    def _trips(self, loop):
        known = loop.value(r'"known_trip_count":\{"n":"(\d+)"')
        if not known:  # on a TPU: from 0 while less than the only number there is
            lines = self._computations[loop.names("condition")[0]].values()
            limits = [y.inside for y in lines if y.op == "constant" and y.shape.startswith("s32[]")]
            if len(limits) == 1 and any("direction=LT" in y.rest for y in lines):
                known = limits[0]
        self.unknown_loops += not known
        return int(known or 1)

    def _fused(self, fusion):
        return self._computations[fusion.names("calls")[0]]

    def _parts(self, x, scope):
        """A kernel and all that is fused into it, each with the instructions beside it."""
        yield x, scope
        if x.op == "fusion":
            inner = self._fused(x)
            for y in inner.values():
                yield from self._parts(y, inner)

    def _read(self, x, scope):
        if x.op == "fusion":
            inner = self._fused(x)
            return sum(_used(y, inner) for y in inner.values() if y.op == "parameter")
        if x.op in _SLICES:
            return nbytes(x.shape)
        args = x.args[1:] if x.op == "dynamic-update-slice" else x.args
        return sum(nbytes(scope[a].shape) for a in args)

    def _written(self, x, scope):
        """Bytes of the result; of one that is made in place those of the update."""
        if x.op == "fusion":
            inner = self._fused(x)
            root = next(y for y in inner.values() if y.root)
            results = [inner[a] for a in root.args] if root.op == "tuple" else [root]
            return sum(self._written(y, inner) for y in results)
        if x.op == "bitcast" and scope[x.args[0]].op == "dynamic-update-slice":
            x = scope[x.args[0]]
        if x.op == "dynamic-update-slice":
            return nbytes(scope[x.args[1]].shape)
        if x.op == "custom-call" and x.shape.startswith("("):  # a library's room to work in
            return nbytes(re.sub(r"\b[su]8\[\d*\]", "", x.shape))
        return nbytes(x.shape)


def nbytes(shape, *, moved=True):
    """Bytes of the arrays of a shape, such as ``(f32[2,3]{1,0}, s32[])``.

    ``moved``: as they lie in the main memory, with the padding of tiles; 0 of an array in another
    memory of a TPU, S(1) and up.
    """
    total = 0
    for dtype, dims, layout in _ARRAY.findall(shape):
        sizes = [int(x) for x in dims.split(",") if x]
        if moved and "S(" in layout:
            continue
        if moved and (tile := re.search(r"T\(([\d,]+)\)", layout)):
            order = [int(x) for x in layout.partition(":")[0].split(",") if x]
            for axis, edge in zip(order, reversed(tile[1].split(",")), strict=False):
                sizes[axis] = -(-sizes[axis] // int(edge)) * int(edge)
        bits = re.search(r"\d+", dtype)
        total += math.prod(sizes) * (int(bits[0]) / 8 if bits else dtype == "pred")
    return total


def _parse(text):
    """({computation: {name: Instruction}}, name of the one that runs)."""
    computations, entry, scope = {}, None, None
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            scope = computations[found[2]] = {}
            entry = found[2] if found[1] else entry
        elif scope is not None and (found := _INSTRUCTION.match(line)):
            scope[found["name"]] = Instruction(**found.groupdict(default=""))
    return computations, entry


def _used(x, scope):
    """Bytes that a fusion reads of a parameter, or of a view of it."""
    total, whole = 0, nbytes(x.shape)
    if x.root:
        return whole
    for y in scope.values():
        args = y.args
        if x.name in args:
            first = args.index(x.name) == 0 and args.count(x.name) == 1
            if y.op in _SLICES and first:
                total += nbytes(y.shape)
            elif y.op == "bitcast":
                total += _used(y, scope)
            elif y.op != "dynamic-update-slice" or not first:
                return whole
    return min(total, whole)


def _target(x):
    return x.value('custom_call_target="([^"]*)"')


def _collective(x, scope):
    kind = x.op.removesuffix("-start")
    if _COLLECTIVE.fullmatch(kind):
        given = sum(nbytes(scope[a].shape, moved=False) for a in x.args)
        yield kind, max(given, nbytes(x.shape, moved=False))


def _flops(x, scope):
    """FLOPs of a product or a convolution, by the type of what it multiplies."""

    def sizes(y):
        return [int(n) for n in _ARRAY.search(y.shape)[2].split(",") if n]

    target = _target(x)
    if x.op == "dot" or re.search("gemm|matmul", target):
        left = sizes(scope[x.args[0]])
        axes = x.value(r'lhs_contracting_dim(?:ension)?s"?[=:][\[{]([^\]}]*)')
        products = math.prod(sizes(x)) * math.prod(left[int(a)] for a in re.findall(r"\d+", axes))
    elif x.op == "convolution" or "$conv" in target:
        # A gradient has the labels of its convolution, whose result and kernel are among these.
        kernel, result = scope[x.args[1]], x
        if "BackwardInput" in target:
            result = scope[x.args[0]]
        elif "BackwardFilter" in target:
            kernel, result = x, scope[x.args[1]]
        channels = x.value(r"dim_labels=\w+_(\w+)->").index("o")
        spread = re.findall(r"\d+", x.value(r"lhs_dilate=([\dx]+)"))  # zeroes between the pixels
        products = math.prod(sizes(result)) * math.prod(sizes(kernel))
        products /= sizes(kernel)[channels] * math.prod(map(int, spread))
    else:
        return Counter()
    single = scope[x.args[0]].shape.startswith("f32")
    exact = single and "highest" in x.rest.lower()
    return Counter({"highest" if exact else "f32" if single else "bf16": int(2 * products)})
